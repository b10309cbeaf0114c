//! Reads the results of benchmarks that were built.
//! Knows nothing of how they are shown.

use anyhow::Context;
use serde::de::DeserializeOwned;

use engine::project::Project;
use engine::stage::Stage;
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
    let benchmarks = nodes.filter(|node| matches!(node.stage, Stage::Benchmark(_)));
    let names: Vec<_> = benchmarks.map(|node| node.name.clone()).collect();
    anyhow::ensure!(!names.is_empty(), "there is no benchmark to report");
    Ok(names)
}

/// Reads what the benchmark `node` wrote when it was last built.
///
/// # Errors
/// Fails if it was never built, or if a file cannot be read.
pub(crate) fn outcomes(project: &Project, node: &str) -> anyhow::Result<Outcomes> {
    Ok(Outcomes {
        results: read_json::<Results>(project, node, "results.json")?.with_text_evals(&read_json(
            project,
            node,
            "readings.json",
        )?),
        timings: read_json(project, node, "timings.json")?,
        judgement: read_json(project, node, "verdicts.json")?,
    })
}

fn read_json<T: DeserializeOwned>(project: &Project, node: &str, file: &str) -> anyhow::Result<T> {
    serde_json::from_slice(&project.read_built(node, file)?)
        .with_context(|| format!("cannot read {file} of `{node}`"))
}
