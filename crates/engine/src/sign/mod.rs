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
pub use signer::{ARGUMENTS, Signer, serve, signer};

/// The most characters of an untrusted text that are shown.
const SHOWN_CHARS: usize = 80;

/// Returns an untrusted text in a form that is safe in a message: control characters are escaped, and a long
/// text is cut after 80 characters.
pub fn shown(text: &str) -> String {
    let mut chars = text.chars().flat_map(char::escape_debug);
    let mut out: String = chars.by_ref().take(SHOWN_CHARS).collect();
    if chars.next().is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn what_is_shown_is_short_and_harmless() {
        assert_eq!(shown("ana"), "ana");
        assert_eq!(shown("\u{1b}[2J\n\u{202e}"), "\\u{1b}[2J\\n\\u{202e}");
        assert_eq!(shown(&"a".repeat(1 << 20)), "a".repeat(80) + "…");
    }
}
