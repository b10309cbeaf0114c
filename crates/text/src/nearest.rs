//! The word that somebody probably meant: the known word most similar to it.
//! Knows nothing of what the words name.

/// How similar a word must be to be suggested, from 0 to 1.
const SIMILAR: f64 = 0.8;

/// Returns the word among `known` that `word` was probably meant to be, by Jaro-Winkler similarity.
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
