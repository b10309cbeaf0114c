//! Addresses in messages, without the passwords that they may have.
//! Knows nothing of what the addresses are for.

/// Returns a text in which no address shows a user or a password: `https://ana:secret@host` becomes
/// `https://***@host`.
pub fn without_password(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out += before;
        out += "://";
        let end =
            after.find(|c: char| matches!(c, '/' | '?' | '#') || c.is_whitespace()).unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => out += &format!("***@{host}"),
            None => out += authority,
        }
        rest = tail;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(without_password("https://ana:p@ss@host:1/x"), "https://***@host:1/x");
        assert_eq!(
            without_password("cannot reach http://t@h: refused, see https://h/a@b"),
            "cannot reach http://***@h: refused, see https://h/a@b"
        );
        assert_eq!(without_password("s3://bucket/prefix"), "s3://bucket/prefix");
    }
}
