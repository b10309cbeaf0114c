//! What a command runs with and what is not part of its key: a request names it, because a recipe does not.
//! Knows nothing of how a command runs. The values of environment variables are not here: they stay on each machine.

use serde::{Deserialize, Serialize};

use crate::error::{Result, require};
use crate::stage::{Run, is_name};

/// The fields of a `run` node that are not in its recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Details {
    deterministic: bool,
    files: Vec<String>,
    /// The names of the variables that are passed through. The worker has values of its own.
    env: Vec<String>,
    timeout: Option<u64>,
    tool: Vec<String>,
}

impl Details {
    /// Returns the fields of a command.
    pub fn of(run: &Run) -> Self {
        Self {
            deterministic: run.deterministic,
            files: run.files.clone(),
            env: run.env.clone(),
            timeout: run.timeout,
            tool: run.tool.clone(),
        }
    }

    /// Checks the names of variables, as in a pipeline file.
    ///
    /// # Errors
    /// Fails if one is no name, or that of the signing key.
    pub(super) fn check(&self) -> Result<()> {
        let is_fine = |name: &String| is_name(name) && !name.starts_with("PIPELINE_SIGNING");
        require!(self.env.iter().all(is_fine), Source, "it passes a variable that no command may have");
        Ok(())
    }

    /// Returns the command with these fields.
    pub(super) fn complete(self, run: Run) -> Run {
        let Self { deterministic, files, env, timeout, tool } = self;
        Run { deterministic, files, env, timeout, tool, ..run }
    }
}
