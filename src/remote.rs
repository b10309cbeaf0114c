//! Which remote a command uses: the one on the command line, else the one in the environment, else the one in
//! the pipeline file.
//! Knows nothing of what the remote is used for.

use std::io::{self, Write};

use clap::Args;

use engine::project::RemoteChoice;

/// The environment variable that names a remote.
const VARIABLE: &str = "PIPELINE_REMOTE";

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RemoteArgs {
    /// Use this remote, such as s3://BUCKET/PREFIX or file:///DIR; else $PIPELINE_REMOTE,
    /// else `cache: {remote: …}`
    #[arg(long, value_name = "URL", conflicts_with = "no_remote")]
    remote: Option<String>,
    /// Ask no remote
    #[arg(long)]
    no_remote: bool,
}

impl RemoteArgs {
    /// Returns the choice that the command line and the environment make. An empty URL means no remote.
    pub(crate) fn choice(&self) -> RemoteChoice {
        if self.no_remote {
            return RemoteChoice::None;
        }
        let url = self.remote.clone().or_else(|| std::env::var(VARIABLE).ok());
        url.map_or(RemoteChoice::FromFile, RemoteChoice::Url)
    }
}

/// Prints notices about the remote as warnings, for commands that show no build.
pub(crate) fn warn(notices: &[String]) {
    for notice in notices {
        let _ = writeln!(io::stderr(), "warning: {notice}");
    }
}
