//! Translates `rope_parameters` of `config.json`, as transformers 5 writes it, into the older keys that all
//! architectures read.
//! Knows nothing of what the numbers mean.
//!
//! | newer | older |
//! |---|---|
//! | `rope_parameters: {rope_theta, rope_type, factor, …}` | `rope_theta`, `rope_scaling: {rope_type, factor, …}` |
//! | `rope_parameters: {full_attention: {…}, sliding_attention: {rope_theta}}` | the same of `full_attention`, and `rope_local_base_freq` |

use serde_json::{Map, Value};

use crate::error::{Result, fail};

/// The keys of `rope_parameters` that are keys of the configuration itself in the older spelling.
const OUTER: [&str; 2] = ["rope_theta", "partial_rotary_factor"];

/// Adds the older keys to a configuration. Those that are there already stay.
///
/// # Errors
/// Fails if `rope_parameters` has layers of other kinds, which would get a wrong rope.
pub fn add_older_rope_keys(config: &mut Map<String, Value>) -> Result<()> {
    let Some(Value::Object(newer)) = config.get("rope_parameters").cloned() else { return Ok(()) };
    let is_by_layer = newer.values().any(Value::is_object);
    if !is_by_layer {
        add(config, newer);
        return Ok(());
    }
    for (kind, parameters) in newer {
        match (kind.as_str(), parameters) {
            ("full_attention", Value::Object(parameters)) => add(config, parameters),
            ("sliding_attention", Value::Object(parameters)) => {
                if let Some(base) = parameters.get("rope_theta") {
                    set(config, "rope_local_base_freq", base.clone());
                }
            }
            (_, Value::Null) => {}
            (other, _) => {
                fail!(Unsupported, "`rope_parameters` of `{other}` in config.json has no older spelling")
            }
        }
    }
    Ok(())
}

fn add(config: &mut Map<String, Value>, mut parameters: Map<String, Value>) {
    for key in OUTER {
        if let Some(value) = parameters.remove(key) {
            set(config, key, value);
        }
    }
    let kind = parameters.get("rope_type").or_else(|| parameters.get("type")).cloned();
    // No scaling is no section: some of mlx-lm's models know the type `default` only by its absence.
    if let Some(kind) = kind.filter(|kind| kind != "default") {
        // Some of mlx-lm's models ask for the older name of the type.
        parameters.insert("rope_type".to_owned(), kind.clone());
        parameters.insert("type".to_owned(), kind);
        set(config, "rope_scaling", Value::Object(parameters));
    }
}

/// Sets a key that the configuration lacks.
fn set(config: &mut Map<String, Value>, key: &str, value: Value) {
    if config.get(key).is_none_or(Value::is_null) {
        config.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn keys(config: Value) -> [Value; 3] {
        let mut found = config.as_object().unwrap().clone();
        add_older_rope_keys(&mut found).unwrap();
        ["rope_theta", "rope_scaling", "rope_local_base_freq"]
            .map(|key| found.get(key).cloned().unwrap_or_default())
    }

    #[test]
    fn the_newer_spelling_is_the_older() {
        let scaling = json!({"rope_type": "llama3", "type": "llama3", "factor": 8.0});
        let newer = json!({"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5});
        assert_eq!(keys(json!({"rope_parameters": newer})), [json!(5e5), scaling.clone(), Value::Null]);
        // The usual repair by hand: only the base is repeated.
        let both = json!({"rope_theta": 5e5, "rope_scaling": null, "rope_parameters": newer});
        assert_eq!(keys(both), [json!(5e5), scaling.clone(), Value::Null]);
        // What is said in the older spelling counts.
        let older = json!({"rope_theta": 1e4, "rope_scaling": scaling, "rope_parameters": {"rope_type": "default", "rope_theta": 2.0}});
        assert_eq!(keys(older), [json!(1e4), scaling.clone(), Value::Null]);
        let plain = json!({"rope_parameters": {"rope_type": "default", "rope_theta": 2.0}});
        assert_eq!(keys(plain), [json!(2.0), Value::Null, Value::Null]);
        let by_layer = json!({"rope_parameters": {
            "full_attention": newer, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}
        }});
        assert_eq!(keys(by_layer), [json!(5e5), scaling, json!(1e4)]);
        let other = json!({"rope_parameters": {"linear_attention": {"rope_theta": 1.0}}});
        assert!(add_older_rope_keys(&mut other.as_object().unwrap().clone()).is_err());
    }
}
