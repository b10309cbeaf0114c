//! Names as a disk that does not tell case apart sees them: macOS by default, exFAT, SMB.
//! Knows nothing of what is named.

use unicode_normalization::UnicodeNormalization;

/// Returns the same text for two names that such a disk takes for one: upper and lower case are the same, and
/// so are a letter with an accent and the letter followed by the accent.
pub fn fold(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    // Upper case first: both `ß` and `SS` become `ss`.
    let upper = name.nfd().flat_map(char::to_uppercase);
    upper.flat_map(char::to_lowercase).nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_disk_takes_for_one_is_one() {
        for (a, b) in
            [("q8", "Q8"), ("stra\u{df}e", "STRASSE"), ("\u{e9}", "E\u{301}"), ("\u{3c2}", "\u{3a3}")]
        {
            assert_eq!(fold(a), fold(b), "{a} {b}");
        }
        assert_ne!(fold("q8"), fold("q4"));
    }
}
