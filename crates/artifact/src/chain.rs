//! The chain of an error and its causes: written in one line, or searched for a type.
//! Knows nothing of what went wrong.

use std::error::Error;

/// Returns the error and its causes in one line: `cannot read DIR/FILE: No such file or directory`.
pub fn in_one_line(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (**error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Returns the first error of type `T` in the chain: `error` itself, its cause, the cause of that, and so on.
pub fn find_cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    std::iter::successors(Some(error), |error| (**error).source()).find_map(|cause| cause.downcast_ref())
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind};
    use std::path::Path;

    use super::*;
    use crate::AtPath;

    #[test]
    fn causes_follow_each_other() {
        let refused: io::Result<()> = Err(ErrorKind::NotFound.into());
        let error = refused.at("read", Path::new("a/b")).unwrap_err();
        assert_eq!(in_one_line(&error), "cannot read a/b: entity not found");
        assert_eq!(find_cause::<io::Error>(&error).map(io::Error::kind), Some(ErrorKind::NotFound));
    }
}
