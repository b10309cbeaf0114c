//! The options that several commands have: what computes, and the remote.
//! Knows nothing of the commands.

use clap::{Args, ValueEnum};

use engine::project::{Placing, RemoteChoice};
use engine::stage::{BackendKind, DeviceChoice};

/// The environment variable that names a remote.
const VARIABLE: &str = "PIPELINE_REMOTE";

/// The backend that computes weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendArg {
    /// Plain Rust: the same bytes on every machine
    #[default]
    Cpu,
    /// MLX on its device
    Mlx,
}

impl From<BackendArg> for BackendKind {
    fn from(arg: BackendArg) -> Self {
        match arg {
            BackendArg::Cpu => Self::Cpu,
            BackendArg::Mlx => Self::Mlx,
        }
    }
}

/// What runs models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceArg {
    /// MLX where it has a GPU, otherwise cpu
    #[default]
    Auto,
    /// MLX on its device
    Mlx,
    /// The CPU runtime: the same results on every machine
    Cpu,
}

impl From<DeviceArg> for DeviceChoice {
    fn from(arg: DeviceArg) -> Self {
        match arg {
            DeviceArg::Auto => Self::Auto,
            DeviceArg::Mlx => Self::Mlx,
            DeviceArg::Cpu => Self::Cpu,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct ComputeArgs {
    /// What weights are computed with
    #[arg(long, value_enum, default_value_t)]
    backend: BackendArg,
    /// What models run on, where a benchmark does not say it
    #[arg(long, value_enum, default_value_t)]
    device: DeviceArg,
    /// Make everything on this machine, whatever workers there are
    #[arg(long)]
    local: bool,
}

impl ComputeArgs {
    pub(crate) fn backend(self) -> BackendKind {
        self.backend.into()
    }

    pub(crate) fn placing(self) -> Placing {
        if self.local { Placing::Here } else { Placing::All }
    }

    pub(crate) fn device(self) -> DeviceChoice {
        self.device.into()
    }
}

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
