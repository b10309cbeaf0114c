//! How long earlier runs on this machine took, by their records.
//! Knows nothing of what will run.

use std::collections::{BTreeMap, HashMap};

use super::Size;
use crate::error::Result;
use crate::graph::NodeId;
use crate::plan::Planner;
use crate::recipe::Recipe;
use crate::stage::Stage;
use crate::store::LocalStore;
use artifact::Digest;

/// The times of the records that were made here.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// By key, in seconds.
    seconds: HashMap<Digest, f64>,
    /// For `fuse` and `quantize`, the seconds for each byte that is written, in ascending order.
    rates: BTreeMap<&'static str, Vec<f64>>,
}

impl Times {
    /// Reads all records.
    pub(super) fn read(store: &LocalStore) -> Result<Self> {
        let mut times = Self::default();
        for record in store.records_made_here()? {
            let (key, action) = record;
            times.seconds.insert(key, action.seconds);
            let Some(recipe) = Recipe::read(&action.recipe) else { continue };
            let bytes = action.artifact.size();
            if bytes > 0 && matches!(recipe.stage(), Stage::Fuse(_) | Stage::Quantize(_)) {
                times.rates.entry(recipe.stage().word()).or_default().push(action.seconds / bytes as f64);
            }
        }
        times.rates.values_mut().for_each(|rates| rates.sort_by(f64::total_cmp));
        Ok(times)
    }

    /// Returns how long a node takes: for models, as long as those of the same stage took for each byte, else as long as its
    /// own last run.
    pub(super) fn of(&self, planner: &Planner<'_>, id: NodeId, size: Size) -> Option<f64> {
        let node = planner.graph.node(id);
        if node.stage.is_reference() {
            return None;
        }
        let rate = self.rates.get(node.stage.word()).and_then(|rates| rates.get(rates.len() / 2));
        match (rate, size) {
            (Some(rate), Size::Exact(bytes) | Size::About(bytes)) => Some(rate * bytes as f64),
            _ => self.seconds.get(&planner.state.nodes.get(&node.name)?.key).copied(),
        }
    }
}
