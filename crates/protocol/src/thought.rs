//! How models mark what they think before they answer.
//! Knows nothing of answers.

/// The tags that open and close a block of thought. Source: `_infer_thinking` of mlx-lm's `tokenizer_utils.py`, and the
/// templates of gpt-oss, Magistral and Seed-OSS.
pub const THOUGHT_TAGS: [[&str; 2]; 8] = [
    ["<think>", "</think>"],
    ["<longcat_think>", "</longcat_think>"],
    ["<|think:start|>", "<|think:end|>"],
    ["<|channel>thought", "<channel|>"],
    ["<|open|>think<|sep|>", "<|close|>think<|sep|>"],
    ["<|channel|>analysis<|message|>", "<|end|>"],
    ["[THINK]", "[/THINK]"],
    ["<seed:think>", "</seed:think>"],
];

/// Whether a prompt ends in a block of thought: its template opened one, so the answer begins within it.
pub fn opens_thought(prompt: &str) -> bool {
    let end = prompt.trim_end();
    THOUGHT_TAGS.iter().any(|[open, _]| end.ends_with(open))
}

/// Returns where the thought at the beginning of an answer ends: behind the closing tag. `is_open` says that the prompt
/// opened the block. Returns `None` if the answer begins with none, or if the block is not closed.
pub fn end_of_thought(text: &str, is_open: bool) -> Option<usize> {
    let start = text.trim_start();
    let begins = |[open, close]: &&[&str; 2]| {
        start.starts_with(open) || is_open || text.contains(close) && !text.contains(open)
    };
    let ends =
        THOUGHT_TAGS.iter().filter(begins).filter_map(|[_, close]| Some(text.find(close)? + close.len()));
    ends.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_thought_ends_with_its_tag() {
        assert_eq!(end_of_thought("<think>a</think>b", false), Some(16));
        assert_eq!(end_of_thought("a</think>b", true), Some(9));
        assert_eq!(end_of_thought("a</think>b", false), Some(9));
        assert_eq!(end_of_thought("[THINK]a[/THINK]b", false), Some(16));
        assert_eq!(end_of_thought("<think>a", false), None);
        assert_eq!(end_of_thought("In HTML, <think> and </think> are no tags.", false), None);
        assert!(opens_thought("<|assistant|>\n<think>\n") && !opens_thought("<think></think>"));
    }
}
