//! Chat templates in Jinja, as `transformers` sets it up.
//! Knows nothing of models: variables in, text out.
//!
//! | what | where it is from |
//! |---|---|
//! | tags, tests, most filters | minijinja, with `break` and `continue` |
//! | `generation` | a block that changes nothing: `transformers` marks with it what it trains on |
//! | methods of strings, lists and dictionaries | minijinja's `pycompat`, and [`methods`] |
//! | `tojson`, and filters that minijinja lacks | [`filters`] |
//! | `strftime_now` | the suite, whose date does not pass |
//!
//! `random` and `lipsum` are left out: a prompt would be another one each time. `urlize` and the operator `%` between
//! texts are not there either.

mod cycler;
mod date;
mod filters;
mod generation;
mod methods;
mod text_filters;

use anyhow::Result;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value as Jinja};
use minijinja::{Environment, Error, ErrorKind};
use protocol::Date;
use serde_json::{Map, Value};

/// How many instructions a template may run. The longest known template runs a few thousand for each message.
const FUEL: u64 = 20_000_000;

/// How deep macros and inclusions of a template may be nested.
const DEPTH: usize = 100;

/// A chat template took more than its budget: it runs without end, or nests without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its chat template ran out of its budget of {FUEL} steps, nested {DEPTH} deep")]
pub struct OutOfBudget;

/// Renders a template. `date` is the day on which it is rendered.
///
/// # Errors
/// Fails if the template cannot be rendered, or with [`OutOfBudget`].
pub(crate) fn render(source: &str, variables: &Map<String, Value>, date: Date) -> Result<String> {
    let source = generation::without_tags(source);
    let rendered = environment(date)?.render_str(&source, Jinja::from(Serde(variables)));
    if rendered.as_ref().is_err_and(is_out_of_budget) {
        return Err(OutOfBudget.into());
    }
    Ok(rendered?)
}

fn environment(date: Date) -> Result<Environment<'static>> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(DEPTH);
    minijinja_contrib::add_to_environment(&mut environment);
    environment.set_unknown_method_callback(methods::call);
    environment.add_function("cycler", cycler::cycler);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", move |format: &str| date::strftime(date, format));
    filters::add_to(&mut environment);
    Ok(environment)
}

/// Whether a template took more than its budget. The crate has no kind of its own for nesting.
fn is_out_of_budget(error: &Error) -> bool {
    let is_nested = error.detail().is_some_and(|detail| detail.contains("recursion limit"));
    error.kind() == ErrorKind::OutOfFuel || is_nested
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rendered(source: &str) -> Result<String> {
        let variables = json!({"messages": [{"role": "user", "content": "hello"}]});
        render(source, variables.as_object().unwrap(), Date::parse("2026-01-01").unwrap())
    }

    #[test]
    fn a_template_that_runs_or_nests_without_end_is_stopped() {
        assert_eq!(rendered("{{ messages[0].content }}").unwrap(), "hello");
        let long =
            "{% for a in range(10000) %}{% for b in range(10000) %}{% set c = b %}{% endfor %}{% endfor %}";
        let deep = "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}";
        for source in [long, deep] {
            let error = rendered(source).unwrap_err();
            assert_eq!(error.downcast_ref::<OutOfBudget>(), Some(&OutOfBudget), "{error:#}");
        }
        // A mistake in a template is no budget that ran out.
        let error = rendered("{{ messages[0].content.nothing() }}").unwrap_err();
        assert!(error.downcast_ref::<OutOfBudget>().is_none(), "{error:#}");
    }

    #[test]
    fn the_date_is_given() {
        let source = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}";
        assert_eq!(rendered(source).unwrap(), "01 Jan 2026");
    }
}
