//! Under which keys an action is recorded. A benchmark is recorded twice: as what it answers to the gates and verdicts
//! that were asked, and as the measurement alone, which answers other gates and verdicts too.
//! Knows nothing of where records are kept.

use crate::recipe::Recipe;
use crate::store::Action;
use artifact::Digest;

/// Returns each key of an action, and what is recorded under it.
pub(super) fn records(recipe: &Recipe, action: Action) -> Vec<(Digest, Action)> {
    let key = recipe.key();
    let measurement = recipe.measurement().map(|measurement| measurement.key()).filter(|own| *own != key);
    let measured = measurement.map(|key| (key, Action { failure: None, ..action.clone() }));
    [(key, action)].into_iter().chain(measured).collect()
}
