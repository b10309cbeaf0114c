//! What the queries of a benchmark become: the text that each model reads.
//! Knows nothing of chat templates: a worker renders them.

use std::collections::BTreeMap;

use super::Project;
use super::workers::Placing;
use crate::error::{OrBug, Result, fail};
use crate::inputs;
use crate::plan::Request;
use crate::stage::{self, BackendKind, DeviceChoice, Prompt, Stage};
use artifact::Artifact;

impl Project {
    /// Renders the queries of a benchmark with the chat template of each of its configurations.
    ///
    /// # Errors
    /// Fails if there is no such benchmark, if an input of it is not built, or if its suite, a tokenizer or a chat
    /// template cannot be read. A query that cannot be rendered is not an error.
    pub fn prompts(&mut self, node: &str, device: DeviceChoice) -> Result<Vec<Prompt>> {
        self.place_nodes(Placing::Here, device);
        let id = *self.targets(&[node.to_owned()])?.first().or_bug("one target was asked for")?;
        let Stage::Benchmark(parameters) = self.graph.node(id).stage.clone() else {
            fail!(Usage, "`{node}` is no benchmark, so it has no queries");
        };
        self.store.prepare()?;
        let ids = self.graph.closure(&[id]);
        let worker = self.worker.clone();
        let mut planner = self.planner(BackendKind::default(), Request::default());
        let decisions = planner.plan(&ids)?;
        let made: BTreeMap<_, &Artifact> = decisions
            .iter()
            .filter(|decision| !decision.is_stale())
            .filter_map(|decision| Some((decision.id, decision.artifact.as_ref()?)))
            .collect();
        let missing = planner.graph.inputs(id).find(|(_, input)| !made.contains_key(input));
        if let Some((_, input)) = missing {
            let input = &planner.graph.node(input).name;
            fail!(NotBuilt, "its input `{input}` is not built; `pipeline build {input}` makes it");
        }
        let inputs = inputs::find(&mut planner, id, &|input| made.get(&input).copied())?;
        let prompts = stage::prompts(&parameters, &inputs, &worker);
        self.store.finish()?;
        prompts
    }
}
