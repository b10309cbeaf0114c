//! The text that each configuration of a benchmark reads for each query.
//! Knows nothing of answers.

use super::folders::Folders;
use crate::error::Result;
use crate::stage::{Benchmark, Inputs, WorkerProgram};
use report::suite::Suite;

/// What a query becomes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Prompt {
    /// The number of the query, from 1.
    pub query: usize,
    /// The configurations whose template makes the same of it.
    pub configs: Vec<String>,
    /// The text; `None` if it cannot be made.
    pub text: Option<String>,
    /// Why it cannot be made.
    pub problem: Option<String>,
}

/// Renders every query of the suite with the chat template of every configuration. Equal prompts are listed once.
pub(crate) fn prompts(
    parameters: &Benchmark,
    inputs: &Inputs,
    worker: &WorkerProgram,
) -> Result<Vec<Prompt>> {
    let suite = Suite::read(inputs.source()?, inputs.quoting)?;
    let conversations: Vec<_> = suite.queries.iter().filter_map(|query| query.next(&[])).collect();
    let mut prompts: Vec<Prompt> = Vec::new();
    for config in &parameters.configs {
        let folders = Folders::of(parameters, &config.name, inputs)?;
        let mut own = conversations.clone();
        own.iter_mut().for_each(|one| one.template_args.extend(folders.template_args().clone()));
        let rendered = worker.render(parameters.runs_on, folders.owned(), own)?;
        for (index, rendered) in rendered.into_iter().enumerate() {
            let (text, problem) =
                rendered.map_or_else(|problem| (None, Some(problem)), |text| (Some(text), None));
            let same = |prompt: &&mut Prompt| {
                prompt.query == index + 1 && prompt.text == text && prompt.problem == problem
            };
            match prompts.iter_mut().find(same) {
                Some(prompt) => prompt.configs.push(config.name.clone()),
                None => prompts.push(Prompt {
                    query: index + 1,
                    configs: vec![config.name.clone()],
                    text,
                    problem,
                }),
            }
        }
    }
    prompts.sort_by_key(|prompt| prompt.query);
    Ok(prompts)
}
