//! Where artifacts are kept: the cache folder, `artifacts/`, the storage of a remote, and the local state.
//! Knows nothing of what an artifact means, nor of nodes, recipes or stages.

mod artifacts_dir;
mod built_nodes;
mod cache_folder;
mod checksum;
mod chunk;
mod counters;
mod file_system;
mod files;
mod gc;
mod gc_lock;
mod git_index;
mod hash;
mod job_notes;
mod local;
mod local_state;
mod lock;
mod machine_secret;
pub(crate) mod owned_file;
mod records;
mod release;
mod remote;
mod repair;
mod slot;
mod snapshot;
mod source;
mod stat_cache;
mod totals;
mod transfer_state;
mod unfinished;
mod up_to_date;

pub use artifacts_dir::{ArtifactState, ArtifactsDir};
pub use built_nodes::{BuiltNode, BuiltNodes};
pub use cache_folder::{ALLOWED_VARIABLE, allow, ignore_in_git};
pub use chunk::{Chunk, ChunkList, LONGEST as LONGEST_CHUNK, read as read_range};
pub use counters::Counters;
pub use file_system::{free_bytes, has_no_locks};
pub(crate) use files::{is_content, read_checked};
pub use gc::{Collector, GcPlan, Left, Limits, Unused};
pub use gc_lock::GcLock;
pub use local::{Damage, LocalStore};
pub use local_state::LocalState;
pub use lock::KeyLock;
pub use machine_secret::MachineSecret;
pub use records::{Record, RecordOrigin};
pub use remote::{Remote, RemoteError, RemoteObject};
pub use repair::Repair;
pub use slot::Slot;
pub use snapshot::Snapshot;
pub use source::{hash_files, hash_source, restrict_to};
pub use stat_cache::{Stat, StatCache};
pub use totals::Totals;
pub use up_to_date::UpToDateStamp;

use serde::{Deserialize, Serialize};

use artifact::Artifact;

/// The record of one finished action, kept under its recipe's key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// The output.
    pub artifact: Artifact,
    /// Why the node fails although the artifact was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The recipe as JSON. The store does not interpret it.
    pub recipe: serde_json::Value,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What is said of the program that made it, if the user asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
}
