//! Which remote a command uses: what the user says on the command line, in the environment, in pipeline.yaml.
//! Knows nothing of what is asked of it.

use std::io::{self, Write};

use clap::Args;

use crate::project::{Place, Project, UsageError};
use engine::share::Share;

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
    /// Returns the address of the remote; `written` is what the pipeline file says. An empty one is none.
    pub(crate) fn url(&self, written: Option<&str>) -> Option<String> {
        if self.no_remote {
            return None;
        }
        let said = self.remote.clone().or_else(|| std::env::var(VARIABLE).ok());
        said.or_else(|| written.map(str::to_owned)).filter(|url| !url.is_empty())
    }
}

/// Says what is to be said of the remote, for commands that show no build.
pub(crate) fn warn(project: &Project) {
    for notice in project.share.as_ref().map(Share::notices).unwrap_or_default() {
        let _ = writeln!(io::stderr(), "warning: {notice}");
    }
}

/// Opens a project that has a remote.
pub(crate) fn connected(place: &Place, remote: &RemoteArgs) -> anyhow::Result<Project> {
    let mut project = Project::open(place)?;
    let lock = project.lockfile();
    project.connect(remote, &lock)?;
    if project.share.is_none() {
        let how = "write `cache: {remote: URL}` into pipeline.yaml, set PIPELINE_REMOTE, or use --remote URL";
        return Err(UsageError(format!("there is no remote; {how}")).into());
    }
    Ok(project)
}
