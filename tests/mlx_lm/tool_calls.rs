//! Tool calls in the answers of many models, read as mlx-lm's own parsers read them.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

#[test]
fn calls_are_read_as_mlx_lm_reads_them() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let done = Command::new(repository.join(".mlx-lm/bin/python"))
        .arg(repository.join("tests/mlx_lm/tool_calls.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let theirs: Value = serde_json::from_slice(&done.stdout).unwrap();
    let found = theirs["found"].as_array().unwrap();
    assert!(found.len() > 25, "only {} answers", found.len());
    for one in found {
        let (format, answer) = (one["format"].as_str().unwrap(), one["answer"].as_str().unwrap());
        // By the name of the form, and by what the answer looks like.
        for named in [Some(format), None] {
            let calls = report::suite::tool_calls(answer, named, &theirs["tools"]);
            let calls: Vec<_> =
                calls.iter().map(|(name, arguments)| json!({"name": name, "arguments": arguments})).collect();
            assert_eq!(json!(calls), one["calls"], "{format}: {answer}");
        }
    }
}
