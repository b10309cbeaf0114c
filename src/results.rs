//! Reads the results of benchmarks that were built, from `artifacts/`.
//! Knows nothing of how they are shown.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use serde::de::DeserializeOwned;

use artifact::AtPath;
use engine::project::Project;
use engine::stage::Kind;
use report::{AllTimings, Judgement, Results};

/// All results that a benchmark wrote for programs.
pub(crate) struct Outcomes {
    pub(crate) results: Results,
    pub(crate) timings: AllTimings,
    pub(crate) judgement: Judgement,
}

/// Returns the names of the benchmarks among `targets`. No target means all nodes.
///
/// # Errors
/// Fails if a target is unknown, or if there is no benchmark among them.
pub(crate) fn benchmarks(project: &Project, targets: &[String]) -> anyhow::Result<Vec<String>> {
    let targets = project.targets(targets)?;
    let nodes = targets.iter().map(|id| project.graph().node(*id));
    let benchmarks = nodes.filter(|node| node.stage.makes() == Kind::Report);
    let names: Vec<_> = benchmarks.map(|node| node.name.clone()).collect();
    anyhow::ensure!(!names.is_empty(), "there is no benchmark to report");
    Ok(names)
}

/// Reads what the benchmark `node` wrote when it was last built.
///
/// # Errors
/// Fails if it was never built, or if a file cannot be read.
pub(crate) fn outcomes(project: &Project, node: &str) -> anyhow::Result<Outcomes> {
    let folder = project.root().join("artifacts").join(node);
    let read = || -> anyhow::Result<Outcomes> {
        Ok(Outcomes {
            results: read_json::<Results>(folder.join("results.json"))?
                .with_text_evals(&read_json(folder.join("readings.json"))?),
            timings: read_json(folder.join("timings.json"))?,
            judgement: read_json(folder.join("verdicts.json"))?,
        })
    };
    read().with_context(|| format!("there is no result of `{node}` yet; `pipeline build {node}` makes it"))
}

fn read_json<T: DeserializeOwned>(path: PathBuf) -> anyhow::Result<T> {
    let text = fs::read_to_string(&path).at("read", &path)?;
    serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display()))
}
