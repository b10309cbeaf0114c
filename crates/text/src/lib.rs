//! What people write: YAML with the place of each value, sizes and ages with units, and misspelt words.
//! Knows nothing of what the text is about.

mod nearest;
pub mod units;
pub mod yaml;

pub use nearest::nearest;
