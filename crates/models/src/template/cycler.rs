//! The global function `cycler` of Jinja: one item after the other, and then from the beginning.
//! Knows nothing of templates.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::value::{Object, Rest, Value, from_args};
use minijinja::{Error, ErrorKind, State};

/// What `cycler(…)` returns.
#[derive(Debug)]
pub(super) struct Cycler {
    items: Vec<Value>,
    place: AtomicUsize,
}

/// Makes a cycler of some items.
///
/// # Errors
/// Fails if there are none.
pub(super) fn cycler(items: Rest<Value>) -> Result<Value, Error> {
    if items.is_empty() {
        return Err(Error::new(ErrorKind::MissingArgument, "at least one item has to be provided"));
    }
    Ok(Value::from_object(Cycler { items: items.0, place: AtomicUsize::new(0) }))
}

impl Object for Cycler {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current")).then(|| self.item(self.place.load(Ordering::Relaxed)))
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        let () = from_args(args)?;
        match method {
            "next" => Ok(self.item(self.place.fetch_add(1, Ordering::Relaxed))),
            "reset" => {
                self.place.store(0, Ordering::Relaxed);
                Ok(().into())
            }
            _ => Err(ErrorKind::UnknownMethod.into()),
        }
    }
}

impl Cycler {
    fn item(&self, place: usize) -> Value {
        self.items.get(place % self.items.len()).cloned().unwrap_or_default()
    }
}
