//! Translates `rope_parameters` of `config.json`, as transformers 5 writes it, into the older keys that all
//! architectures read.
//! Knows nothing of what the numbers mean.
//!
//! | newer | older |
//! |---|---|
//! | `rope_parameters: {rope_theta, rope_type, factor, …}` | `rope_theta`, `rope_scaling: {rope_type, factor, …}` |
//! | `rope_parameters: {full_attention: {…}, sliding_attention: {rope_theta}}` | the same of `full_attention`, and `rope_local_base_freq` |

use anyhow::{Result, bail};
use serde_json::{Map, Value};

/// The keys of `rope_parameters` that are keys of the configuration itself in the older spelling.
const OUTER: [&str; 2] = ["rope_theta", "partial_rotary_factor"];

/// Returns the configuration with the older keys added. Those that are there already stay.
///
/// # Errors
/// Fails if `rope_parameters` has layers of other kinds, which would get a wrong rope.
pub(crate) fn with_older_keys(config: &Value) -> Result<Value> {
    let mut config = config.clone();
    let Some(Value::Object(newer)) = config.get("rope_parameters").cloned() else { return Ok(config) };
    let is_by_layer = newer.values().any(Value::is_object);
    let Some(config_keys) = config.as_object_mut() else { return Ok(config) };
    if !is_by_layer {
        add(config_keys, newer);
        return Ok(config);
    }
    for (kind, parameters) in newer {
        match (kind.as_str(), parameters) {
            ("full_attention", Value::Object(parameters)) => add(config_keys, parameters),
            ("sliding_attention", Value::Object(parameters)) => {
                if let Some(base) = parameters.get("rope_theta") {
                    set(config_keys, "rope_local_base_freq", base.clone());
                }
            }
            (_, Value::Null) => {}
            (other, _) => bail!("rope_parameters of {other:?} is not supported"),
        }
    }
    Ok(config)
}

fn add(config: &mut Map<String, Value>, mut parameters: Map<String, Value>) {
    for key in OUTER {
        if let Some(value) = parameters.remove(key) {
            set(config, key, value);
        }
    }
    if parameters.contains_key("rope_type") || parameters.contains_key("type") {
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
        let found = with_older_keys(&config).unwrap();
        ["rope_theta", "rope_scaling", "rope_local_base_freq"].map(|key| found[key].clone())
    }

    #[test]
    fn the_newer_spelling_is_the_older() {
        let scaling = json!({"rope_type": "llama3", "factor": 8.0});
        let newer = json!({"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5});
        assert_eq!(keys(json!({"rope_parameters": newer})), [json!(5e5), scaling.clone(), Value::Null]);
        // The usual repair by hand: only the base is repeated.
        let both = json!({"rope_theta": 5e5, "rope_scaling": null, "rope_parameters": newer});
        assert_eq!(keys(both), [json!(5e5), scaling.clone(), Value::Null]);
        // What is said in the older spelling counts.
        let older = json!({"rope_theta": 1e4, "rope_scaling": scaling, "rope_parameters": {"rope_type": "default", "rope_theta": 2.0}});
        assert_eq!(keys(older), [json!(1e4), scaling.clone(), Value::Null]);
        let by_layer = json!({"rope_parameters": {
            "full_attention": newer, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}
        }});
        assert_eq!(keys(by_layer), [json!(5e5), scaling, json!(1e4)]);
        assert!(
            with_older_keys(&json!({"rope_parameters": {"linear_attention": {"rope_theta": 1.0}}})).is_err()
        );
    }
}
