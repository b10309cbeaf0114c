//! One argument of a command, with places that are filled in when it runs: `{base}` is an input, `{out}` the folder for
//! what is made, `{file:train.py}` a file of the project. `{{` and `}}` are braces.
//! Knows nothing of which inputs there are, nor of where they lie.

/// The name of the folder for what is made.
pub const OUT: &str = "out";

/// What comes before the path of a file of the project.
const FILE: &str = "file:";

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// An input by its name, `out`, or a file as `file:PATH`.
    Place(String),
}

impl Template {
    /// Parses an argument.
    ///
    /// # Errors
    /// Fails if a brace is left open or closes nothing, or if a place is not a name or `file:` with a plain path.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(index) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(index);
            plain += before;
            if let Some(after) = after.strip_prefix("{{") {
                plain.push('{');
                rest = after;
            } else if let Some(after) = after.strip_prefix("}}") {
                plain.push('}');
                rest = after;
            } else {
                let place = after.strip_prefix('{').and_then(|after| after.split_once('}'));
                let Some((name, after)) = place else {
                    return Err(format!(
                        "`{text}` has a single brace; write `{{{{` or `}}}}` for a brace itself"
                    ));
                };
                check(name)?;
                parts.push(Part::Text(std::mem::take(&mut plain)));
                parts.push(Part::Place(name.to_owned()));
                rest = after;
            }
        }
        plain += rest;
        parts.push(Part::Text(plain));
        Ok(Self(parts))
    }

    /// Returns the names of the inputs that it has places for. `out` is among them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places().filter(|name| !name.starts_with(FILE))
    }

    /// Returns the paths of the files of the project that it names.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.places().filter_map(|name| name.strip_prefix(FILE))
    }

    /// Returns the argument, if it has no places.
    pub fn constant(&self) -> Option<String> {
        self.places().next().is_none().then(|| self.fill(&|_| String::new()))
    }

    /// Returns the argument. `value` returns what stands in a place.
    pub fn fill(&self, value: &dyn Fn(&str) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Place(name) => value(name),
        };
        self.0.iter().map(part).collect()
    }

    fn places(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Place(name) => Some(name.as_str()),
        })
    }
}

fn check(name: &str) -> Result<(), String> {
    if let Some(path) = name.strip_prefix(FILE) {
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0']);
        return match path.split('/').all(plain) {
            true => Ok(()),
            false => Err(format!(
                "`{{{name}}}` must have the path of a file below the folder of the pipeline file"
            )),
        };
    }
    match is_name(name) {
        true => Ok(()),
        false => Err(format!("`{{{name}}}` is not the name of an input; write `{{{{` for a brace itself")),
    }
}

/// Whether an input may have this name.
pub(crate) fn is_name(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> String {
        Template::parse(text).unwrap().fill(&|name| format!("<{name}>"))
    }

    #[test]
    fn places_are_filled_and_braces_stay() {
        assert_eq!(filled("--model={base}/x"), "--model=<base>/x");
        assert_eq!(filled("{file:a/train.py}{out}"), "<file:a/train.py><out>");
        assert_eq!(filled("{{base}} {{{base}}}"), "{base} {<base>}");
        assert_eq!(filled(""), "");
        let template = Template::parse("{a}{file:f}{out}").unwrap();
        assert_eq!(template.names().collect::<Vec<_>>(), ["a", "out"]);
        assert_eq!(template.files().collect::<Vec<_>>(), ["f"]);
        assert_eq!(Template::parse("{{x}}").unwrap().constant().as_deref(), Some("{x}"));
        assert_eq!(template.constant(), None);
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in [
            "{",
            "}",
            "a}b",
            "{base",
            "{}",
            "{a b}",
            "{file:}",
            "{file:../x}",
            "{file:/etc/x}",
            "{1}",
            "{a}}",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
