//! The keys that an action is recorded under. A benchmark is recorded twice: under its own key, and as the
//! measurement alone, which benchmarks with other gates and verdicts reuse.
//! Knows nothing of where records are kept.

use crate::recipe::Recipe;
use crate::store::Action;
use artifact::Digest;

/// Returns each key of an action, and what is recorded under it.
pub(super) fn records(recipe: &Recipe, action: Action) -> Vec<(Digest, Action)> {
    let key = recipe.key();
    let measurement = recipe.measurement().filter(|measurement| measurement.key() != key);
    let measured = measurement.map(|measurement| {
        // A benchmark that only measures has this recipe as its own.
        let recipe = serde_json::to_value(&measurement).expect("BUG: a recipe has a JSON form");
        (measurement.key(), Action { failure: None, recipe, ..action.clone() })
    });
    [(key, action)].into_iter().chain(measured).collect()
}
