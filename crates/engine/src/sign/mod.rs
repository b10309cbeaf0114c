//! Signatures: Ed25519 keys, the envelope that carries a signed text, and the user's secret key.
//! Knows nothing of what is signed, nor of whom the user trusts.

mod base64_text;
mod envelope;
mod key;
mod key_file;
mod sha256;
mod signer;

pub use envelope::{Envelope, NotBelieved, Signature};
pub use key::{InvalidKey, PublicKey, SecretKey};
pub use key_file::{KeyFile, VARIABLE, create, load};
pub use sha256::Sha256;
pub(crate) use sha256::hash_file;
pub use signer::{ARGUMENTS, SIGNER_VARIABLE, Signer, serve, signer};
