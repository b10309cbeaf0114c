//! Spelling suggestions: the known word that is most similar to a misspelt one.
//! Knows nothing of what the words name.

/// A word is suggested if its similarity is above this, from 0 (nothing alike) to 1 (equal).
const SIMILAR: f64 = 0.8;

/// Returns the word in `known` that is most similar to `word`, by Jaro-Winkler similarity; `None` if none is
/// similar enough.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.into_iter().map(|candidate| (strsim::jaro_winkler(word, candidate), candidate));
    let (similarity, best) = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (similarity > SIMILAR).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_a_similar_word_and_no_other() {
        assert_eq!(nearest("quantise", ["base", "quantize", "fuse"]), Some("quantize"));
        assert_eq!(nearest("benchmark", ["base", "fuse"]), None);
        assert_eq!(nearest("base", []), None);
    }
}
