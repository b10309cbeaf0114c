//! Which remote a command uses: what the command line says, else the environment, else the pipeline file.
//! Knows nothing of what is asked of it.

use std::io::{self, Write};

use clap::Args;

use engine::project::RemoteChoice;

/// The variable that names a remote.
const VARIABLE: &str = "PIPELINE_REMOTE";

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RemoteArgs {
    /// Use this remote, such as s3://BUCKET/PREFIX or file:///DIR; else $PIPELINE_REMOTE, else `cache: {remote: …}`
    #[arg(long, value_name = "URL", conflicts_with = "no_remote")]
    remote: Option<String>,
    /// Ask no remote
    #[arg(long)]
    no_remote: bool,
}

impl RemoteArgs {
    /// Returns the choice that these arguments and the environment make. An empty address means no remote.
    pub(crate) fn choice(&self) -> RemoteChoice {
        if self.no_remote {
            return RemoteChoice::None;
        }
        let url = self.remote.clone().or_else(|| std::env::var(VARIABLE).ok());
        url.map_or(RemoteChoice::FromFile, RemoteChoice::Url)
    }
}

/// Prints what the user should be told of the remote, for commands that show no build.
pub(crate) fn warn(notices: &[String]) {
    for notice in notices {
        let _ = writeln!(io::stderr(), "warning: {notice}");
    }
}
