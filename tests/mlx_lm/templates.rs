//! Chat templates, rendered as transformers renders them: every tag, filter, test and method that its Jinja has.

use std::fs;
use std::path::Path;
use std::process::Command;

use models::chat::ChatTemplate;
use protocol::{Conversation, Date};
use serde_json::{Value, json};

#[test]
fn templates_are_rendered_as_transformers_renders_them() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let done = Command::new(repository.join(".mlx-lm/bin/python"))
        .arg(repository.join("tests/mlx_lm/templates.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let theirs: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(theirs["untested"], json!([]), "filters that no snippet has");
    let found = theirs["found"].as_array().unwrap();
    assert!(found.len() > 250, "only {} snippets", found.len());
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for one in found {
        let source = one["source"].as_str().unwrap();
        fs::write(folder.path().join("chat_template.jinja"), source).unwrap();
        let conversation = Conversation {
            messages: Vec::new(),
            tools: None,
            date: Date::default(),
            template_args: theirs["variables"].as_object().unwrap().clone(),
        };
        let ours = ChatTemplate::load(folder.path()).unwrap().render(&conversation);
        let problem = ours.as_ref().err().map(|error| format!("{error:#}"));
        let ours = json!(ours.ok());
        if ours != one["text"] {
            wrong.push(format!("{source}\n   is {ours}\n   not {}\n   {problem:?}", one["text"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {} snippets:\n{}", wrong.len(), found.len(), wrong.join("\n"));
}
