//! Addresses on the web: their origin, and where a redirect leads.
//! Knows nothing of what is requested.

/// An address with `http://` or `https://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    text: String,
    /// Where the path begins in the text; its length if there is no path.
    path: usize,
}

impl Address {
    /// Returns the address, or `None` if the text is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let is_known = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        let is_plain = !text.chars().any(|c| c.is_control() || c.is_whitespace());
        let path = scheme.len() + 3 + authority.len();
        (is_known && is_plain && !authority.is_empty()).then(|| Self { text: text.to_owned(), path })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Returns the address of `path` below this one.
    pub(super) fn join(&self, path: &str) -> Self {
        Self { text: format!("{}{path}", self.text), path: self.path }
    }

    /// Returns where a redirect leads, or `None` if that is no address.
    pub(super) fn follow(&self, location: &str) -> Option<Self> {
        let scheme = self.text.split_once("://")?.0;
        let base = self.text.get(..self.path)?;
        if location.contains("://") {
            return Self::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{scheme}://{rest}"));
        }
        if location.starts_with('/') {
            return Self::parse(&format!("{base}{location}"));
        }
        let path = self.text.get(self.path..)?.split(['?', '#']).next()?;
        let folder = path.rfind('/').and_then(|slash| path.get(..=slash)).unwrap_or("/");
        Self::parse(&format!("{base}{folder}{location}"))
    }

    /// Whether both have the same scheme, host and port.
    pub(super) fn has_origin_of(&self, other: &Self) -> bool {
        self.origin() == other.origin()
    }

    fn origin(&self) -> Option<(String, String, String)> {
        let (scheme, authority) = self.text.get(..self.path)?.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let host = authority.rsplit('@').next()?.to_ascii_lowercase();
        let default = if scheme == "https" { "443" } else { "80" };
        // The address of a host in version 6 of the protocol has colons in brackets.
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host.to_owned(), port.to_owned()),
            _ => (host, default.to_owned()),
        };
        let port = if port.is_empty() { default.to_owned() } else { port };
        Some((scheme, host, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| Address::parse(a).unwrap().has_origin_of(&Address::parse(b).unwrap());
        assert!(same("https://huggingface.co", "HTTPS://HuggingFace.co:443/a?b"));
        assert!(same("http://ana:x@127.0.0.1:80/", "http://127.0.0.1/"));
        assert!(!same("https://huggingface.co", "http://huggingface.co"));
        assert!(!same("http://127.0.0.1:81", "http://127.0.0.1:82"));
        assert!(!same("https://huggingface.co", "https://huggingface.co.evil.com"));
        assert!(!same("https://huggingface.co", "https://huggingface.co@evil.com"));
        assert!(same("http://[::1]:80", "http://[::1]"));
        for text in ["", "huggingface.co", "file:///etc/passwd", "https://", "https:///x", "http://a b"] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_redirect_leads_where_a_browser_goes() {
        let at = Address::parse("https://host/a/b?c").unwrap();
        let to = |location: &str| at.follow(location).map(|address| address.text().to_owned());
        assert_eq!(to("/x").as_deref(), Some("https://host/x"));
        assert_eq!(to("x").as_deref(), Some("https://host/a/x"));
        assert_eq!(to("//cdn/x").as_deref(), Some("https://cdn/x"));
        assert_eq!(to("http://cdn:1/x").as_deref(), Some("http://cdn:1/x"));
        assert_eq!(to("file:///etc/passwd"), None);
    }
}
