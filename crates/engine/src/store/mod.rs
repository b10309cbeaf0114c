//! Where artifacts lie: the cache, the folder of links, and what is remembered of both between two runs.
//! Knows nothing of what an artifact means, nor of nodes, recipes or stages.

mod arrivals;
mod chunk;
mod counters;
mod gc;
mod hash;
mod hold;
mod local;
mod lock;
mod memo;
mod remote;
mod shelf;
mod source;
mod totals;
mod witness;

pub use chunk::{Chunk, ChunkList, LONGEST as LONGEST_CHUNK, read as read_range};
pub use counters::Counters;
pub use gc::{Collector, Left, Limits, Plan, Unused};
pub use hold::Hold;
pub use local::{Damage, LocalStore};
pub use lock::KeyLock;
pub use memo::{Known, Memo, Stat};
pub use remote::{Held, Remote, RemoteError};
pub use shelf::{Shelf, ShelfState};
pub use source::{narrow, take_stock, take_stock_of};
pub use totals::Totals;
pub use witness::Witness;

use serde::{Deserialize, Serialize};

use artifact::Artifact;

/// The record of one finished action, kept under its recipe's key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// What came out.
    pub artifact: Artifact,
    /// Why the node fails although this was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What went in, as the recipe room wrote it.
    pub recipe: serde_json::Value,
    /// How long it took, in seconds.
    pub seconds: f64,
}
