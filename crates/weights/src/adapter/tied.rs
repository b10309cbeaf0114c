//! What an adapter does to the one matrix that is the embedding and the output head of a tied model.
//! Knows nothing of other adapters.

use super::{Adapter, read_whole};
use crate::error::Result;

/// What an adapter does to a tied matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TiedHead {
    /// Nothing.
    Untouched,
    /// It trains the embedding alone, which was the head too.
    EmbeddingAlone,
    /// It has two copies, which are equal.
    Equal,
    /// It trains the head apart from the embedding.
    Apart,
}

impl Adapter {
    /// Says what the adapter does to the matrix that is `embedding` and `head` of a tied model.
    pub(super) fn head_of_tied(&self, [embedding, head]: [&str; 2]) -> Result<TiedHead> {
        let (embedding, head) = (module(embedding), module(head));
        if self.low_rank_of(head) {
            return Ok(TiedHead::Apart);
        }
        Ok(match (self.whole_of(embedding), self.whole_of(head)) {
            (None, None) if self.low_rank_of(embedding) => TiedHead::EmbeddingAlone,
            (None, None) => TiedHead::Untouched,
            (Some(_), None) => TiedHead::EmbeddingAlone,
            (None, Some(_)) => TiedHead::Apart,
            (Some(one), Some(two)) => {
                let is_equal = read_whole(&self.files, one)? == read_whole(&self.files, two)?;
                if is_equal && !self.low_rank_of(embedding) { TiedHead::Equal } else { TiedHead::Apart }
            }
        })
    }

    /// Forgets the whole tensor for the output head.
    pub(super) fn forget_head(&mut self, head: &str) {
        let head = module(head);
        let name = self.contents.whole.keys().find(|name| is_of(name, head)).cloned();
        if name.is_some_and(|name| self.contents.whole.remove(&name).is_some()) {
            self.contents.named.forget(head);
        }
    }

    fn low_rank_of(&self, module: &str) -> bool {
        let end = |name: &String| name == module || name.ends_with(&format!(".{module}"));
        self.contents.low_rank.keys().any(end)
    }

    /// Returns the tensor that replaces the weight of a module.
    fn whole_of(&self, module: &str) -> Option<&str> {
        let found = self.contents.whole.iter().find(|(name, _)| is_of(name, module));
        found.map(|(_, tensor)| tensor.as_str())
    }
}

/// Returns the last word of the path of a weight's module.
fn module(name: &str) -> &str {
    name.rsplit('.').nth(1).unwrap_or(name)
}

/// Whether `name` is the weight of the module whose path ends with `module`.
fn is_of(name: &str, module: &str) -> bool {
    let path = name.strip_suffix(".weight").unwrap_or_default();
    path == module || path.ends_with(&format!(".{module}"))
}
