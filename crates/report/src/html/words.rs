//! The words in which two texts differ.
//! Knows nothing of HTML.

/// The most words of a text that are compared. Longer texts are not.
const MOST: usize = 500;

/// Returns the words of both texts, each with the white space after it, and whether the other text has it too; `None` if
/// a text is too long.
pub(super) fn compared<'a>(a: &'a str, b: &'a str) -> Option<[Vec<(&'a str, bool)>; 2]> {
    let (a, b) = (words(a), words(b));
    if a.len() > MOST || b.len() > MOST {
        return None;
    }
    // The length of the longest common subsequence of what follows each pair of places.
    let mut lengths = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            lengths[i][j] = match a[i].trim() == b[j].trim() {
                true => lengths[i + 1][j + 1] + 1,
                false => lengths[i + 1][j].max(lengths[i][j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i].trim() == b[j].trim() {
            ours.push((a[i], true));
            theirs.push((b[j], true));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || (i < a.len() && lengths[i + 1][j] >= lengths[i][j + 1]) {
            ours.push((a[i], false));
            i += 1;
        } else {
            theirs.push((b[j], false));
            j += 1;
        }
    }
    Some([ours, theirs])
}

/// Splits a text before each word. Signs are words of their own.
fn words(text: &str) -> Vec<&str> {
    let (mut words, mut start, mut before) = (Vec::new(), 0, ' ');
    for (at, letter) in text.char_indices() {
        let is_start = !letter.is_whitespace()
            && (before.is_whitespace() || !letter.is_alphanumeric() || !before.is_alphanumeric());
        if is_start && at > start {
            words.push(&text[start..at]);
            start = at;
        }
        before = letter;
    }
    if start < text.len() {
        words.push(&text[start..]);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_that_differ_are_found() {
        let [a, b] = compared("It is 21 degrees in Oslo.", "It is cold in  Oslo!").unwrap();
        let differing = |words: &[(&str, bool)]| -> Vec<String> {
            words.iter().filter(|(_, same)| !same).map(|(word, _)| word.trim().to_owned()).collect()
        };
        assert_eq!(
            (differing(&a), differing(&b)),
            (vec!["21".into(), "degrees".into(), ".".into()], vec!["cold".into(), "!".into()])
        );
        for (text, words) in [("It is 21 degrees in Oslo.", a), ("It is cold in  Oslo!", b)] {
            assert_eq!(words.iter().map(|(word, _)| *word).collect::<String>(), text);
        }
        assert!(compared(&"a ".repeat(600), "a").is_none());
        assert_eq!(compared("", "").unwrap(), [vec![], vec![]]);
    }
}
