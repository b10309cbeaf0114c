//! What people write: YAML with the place of each value, sizes and ages with units, misspelt words, and texts
//! that may harm a terminal.
//! Knows nothing of what the text is about.
//!
//! ```
//! use text::yaml::{Fields, Tree};
//! use text::{nearest, units};
//!
//! let mut fields = Fields::open(Tree::parse("stage: base\nlimit: 200GB\nsorce: a")?, "the node")?;
//! let (limit, at) = fields.text("limit")?;
//! assert_eq!((units::parse_size(&limit), at.line), (Ok(200_000_000_000), 2));
//! assert_eq!(nearest("sorce", ["stage", "source"]), Some("source"));
//! # Ok::<(), text::yaml::Problem>(())
//! ```

mod harmless;
mod nearest;
mod password;
mod python_json;
pub mod units;
pub mod yaml;

pub use harmless::{harmless, harmless_json, shown};
pub use nearest::nearest;
pub use password::without_password;
pub use python_json::{from_python_json, to_python_json};
