//! The fields of a `run` node.
//! Knows nothing of whether the program is there, nor of what it does.

use std::collections::{BTreeMap, BTreeSet};

use glob::Pattern;

use super::{Input, read_part};
use crate::sign;
use crate::stage::{Kind, OUT, Run, Template, is_name};
use text::nearest;
use text::units::parse_age;
use text::yaml::{At, Fields, Problem, Tree, Value};

/// Words in the names of environment variables that hold secrets.
const SECRETS: [&str; 10] =
    ["AUTH", "COOKIE", "CREDENTIAL", "CREDENTIALS", "KEYS", "PASS", "PASSPHRASE", "PASSWD", "PAT", "SECRETS"];

/// How such words may end.
const SECRET_ENDINGS: [&str; 4] = ["KEY", "PASSWORD", "SECRET", "TOKEN"];

/// Reads the fields, and adds the inputs to `inputs`.
pub(super) fn read(fields: &mut Fields, inputs: &mut Vec<Input>) -> Result<Run, Problem> {
    let Some(makes) = fields.word("makes", &Kind::OF_A_COMMAND)? else { return Err(fields.missing("makes")) };
    if let Some(tree) = fields.take("inputs") {
        for (name, tree) in Fields::open(tree, "`inputs`")?.rest() {
            check_name(&name.text, name.at)?;
            inputs.push(read_part(&name.text, tree)?);
        }
    }
    let command = read_command(fields, inputs)?;
    let files = fields.list("files")?.into_iter().map(read_file).collect::<Result<_, _>>()?;
    let tool = words("tool", fields.list("tool")?)?;
    let env = read_variables(fields, "env")?;
    let key_env = read_variables(fields, "key_env")?;
    let outputs = fields.list("outputs")?.into_iter().map(read_pattern);
    // Their order makes no difference, so it is not part of the key.
    let outputs: BTreeSet<String> = outputs.collect::<Result<_, _>>()?;
    let deterministic = !fields.has("deterministic") || fields.flag("deterministic")?;
    let timeout = fields.optional_text("timeout")?;
    let read_timeout = |(text, at): (String, At)| {
        let span = parse_age(&text).map_err(|message| Problem::new(at, message))?;
        match span.as_secs() {
            0 => Err(Problem::new(at, "`timeout` must be longer than nothing")),
            seconds => Ok(seconds),
        }
    };
    Ok(Run {
        command,
        deterministic,
        files,
        env: env.into_iter().map(|(name, _)| name).collect(),
        key_env: read_key_env(key_env)?,
        makes,
        outputs: outputs.into_iter().collect(),
        timeout: timeout.map(read_timeout).transpose()?,
        tool: tool.into_iter().map(|(word, _)| word).collect(),
        version: fields.optional_text("version")?.map(|(text, _)| text),
    })
}

/// Reads the named pool that the node runs in.
pub(super) fn read_pool(
    fields: &mut Fields,
    pools: &BTreeMap<String, usize>,
) -> Result<Option<String>, Problem> {
    let Some((name, at)) = fields.optional_text("pool")? else { return Ok(None) };
    if pools.contains_key(&name) {
        return Ok(Some(name));
    }
    let near = nearest(&name, pools.keys().map(String::as_str));
    let hint = near.map_or_else(
        || format!("write `pools: {{{name}: 1}}` at the top of the file"),
        |near| format!("did you mean `{near}`?"),
    );
    Err(Problem::new(at, format!("there is no pool `{name}`; {hint}")))
}

/// Checks that the matrix of a `run` node has no name that is a place in its command already, and no value that could
/// be taken for a place.
pub(super) fn check_matrix(tree: &Tree) -> Result<(), Problem> {
    let Value::Map(entries) = &tree.value else { return Ok(()) };
    let field = |name: &str| entries.iter().find(|(key, _)| key.text == name).map(|(_, tree)| &tree.value);
    if field("stage") != Some(&Value::Text("run".to_owned())) {
        return Ok(());
    }
    let Some(Value::Map(matrix)) = field("matrix") else { return Ok(()) };
    let inputs: BTreeSet<_> = match field("inputs") {
        Some(Value::Map(inputs)) => inputs.iter().map(|(key, _)| key.text.as_str()).collect(),
        _ => BTreeSet::new(),
    };
    for (key, tree) in matrix {
        if key.text == OUT || inputs.contains(key.text.as_str()) {
            let what = if key.text == OUT { "the folder for what is made" } else { "an input" };
            let message =
                format!("`{{{}}}` is {what} in the command, so the matrix needs another name", key.text);
            return Err(Problem::new(key.at, message));
        }
        let values = if let Value::List(values) = &tree.value { values.as_slice() } else { &[] };
        let braces = |tree: &&Tree| matches!(&tree.value, Value::Text(text) if text.contains(['{', '}']));
        if let Some(value) = values.iter().find(braces) {
            return Err(Problem::new(value.at, "a value in the matrix of a `run` node has no braces"));
        }
    }
    Ok(())
}

fn check_name(name: &str, at: At) -> Result<(), Problem> {
    if name == OUT {
        return Err(Problem::new(at, "`out` is the folder for what is made, so an input needs another name"));
    }
    match is_name(name) {
        true => Ok(()),
        false => {
            let rule = "use letters, digits, `-` and `_`, and begin with a letter";
            Err(Problem::new(at, format!("`{name}` cannot name an input: {rule}")))
        }
    }
}

/// Reads the command, and checks that its places are inputs.
fn read_command(fields: &mut Fields, inputs: &[Input]) -> Result<Vec<String>, Problem> {
    let Some(tree) = fields.take("command") else { return Err(fields.missing("command")) };
    let Value::List(items) = tree.value else {
        let message = format!("`command` must be a list of a program and its arguments, not {}", tree.kind());
        return Err(Problem::new(tree.at, message));
    };
    let words = words("command", items)?;
    if words.first().is_none_or(|(program, _)| program.is_empty()) {
        return Err(Problem::new(tree.at, "`command` names no program"));
    }
    for (word, at) in &words {
        let template = Template::parse(word).map_err(|message| Problem::new(*at, message))?;
        let is_known = |name: &&str| *name == OUT || inputs.iter().any(|input| input.role == *name);
        if let Some(name) = template.names().find(|name| !is_known(name)) {
            // With `input` for `inputs`, no input is known.
            if let Some(problem) = fields.misspelt("inputs").filter(|_| inputs.is_empty()) {
                return Err(problem);
            }
            let known: Vec<_> = inputs.iter().map(|input| input.role.as_str()).chain([OUT]).collect();
            let hint = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{{{near}}}`?"),
                None => format!(
                    "there are {}",
                    known.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(", ")
                ),
            };
            return Err(Problem::new(
                *at,
                format!("`{{{name}}}` is not an input; {hint}; `{{{{` is a brace itself"),
            ));
        }
    }
    Ok(words.into_iter().map(|(word, _)| word).collect())
}

/// Reads a list of words. A number with a fraction must be quoted, because how it is written is lost otherwise.
fn words(field: &str, items: Vec<Tree>) -> Result<Vec<(String, At)>, Problem> {
    let word = |tree: Tree| match &tree.value {
        Value::Text(text) if text.contains('\0') => {
            Err(Problem::new(tree.at, "a word of a command has no NUL"))
        }
        Value::Text(text) => Ok((text.clone(), tree.at)),
        Value::Int(number) => Ok((number.to_string(), tree.at)),
        Value::Float(_) | Value::Bool(_) | Value::Null => Err(Problem::new(
            tree.at,
            format!("write this word of `{field}` in quotes: it would be {}", tree.kind()),
        )),
        Value::Map(_) => {
            let message = format!("write this word of `{field}` in quotes: without them, braces make a map");
            Err(Problem::new(tree.at, message))
        }
        _ => Err(Problem::new(tree.at, format!("`{field}` is a list of words, and this is {}", tree.kind()))),
    };
    items.into_iter().map(word).collect()
}

/// Reads a list of names of environment variables.
fn read_variables(fields: &mut Fields, field: &'static str) -> Result<Vec<(String, At)>, Problem> {
    let names = words(field, fields.list(field)?)?;
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for (name, at) in &names {
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(is_word) {
            let message =
                format!("`{name}` is not the name of an environment variable; `{field}` has names only");
            return Err(Problem::new(*at, message));
        }
        if name == sign::VARIABLE {
            return Err(Problem::new(
                *at,
                format!("`{name}` is the key that signs results; no command gets it"),
            ));
        }
    }
    Ok(names)
}

/// Returns the variables whose values are part of the key. They stand in the record, which is shared.
fn read_key_env(names: Vec<(String, At)>) -> Result<BTreeMap<String, Option<String>>, Problem> {
    let name = |(name, at): (String, At)| match name.to_ascii_uppercase().split('_').any(is_secret) {
        true => {
            let why = "its name is that of a secret, and values in `key_env` stand in the record";
            Err(Problem::new(at, format!("`{name}`: {why}; `env` passes it through")))
        }
        false => Ok((name, None)),
    };
    names.into_iter().map(name).collect()
}

fn is_secret(word: &str) -> bool {
    SECRETS.contains(&word) || SECRET_ENDINGS.iter().any(|ending| word.ends_with(ending))
}

fn read_file(tree: Tree) -> Result<String, Problem> {
    let Value::Text(text) = &tree.value else {
        let message = format!("`files` is a list of paths in the project, and this is {}", tree.kind());
        return Err(Problem::new(tree.at, message));
    };
    let checked = Template::parse(&format!("{{file:{text}}}"));
    checked.map(|_| text.clone()).map_err(|message| Problem::new(tree.at, message))
}

fn read_pattern(tree: Tree) -> Result<String, Problem> {
    let Value::Text(text) = &tree.value else {
        let message =
            format!("`outputs` is a list of patterns such as `*.safetensors`, and this is {}", tree.kind());
        return Err(Problem::new(tree.at, message));
    };
    let is_inside =
        text.split('/').all(|part| !matches!(part, "" | "." | "..")) && !text.starts_with("{out}");
    match Pattern::new(text) {
        Ok(_) if is_inside => Ok(text.clone()),
        Ok(_) => Err(Problem::new(tree.at, format!("`{text}` is not a pattern of paths below {{out}}"))),
        Err(error) => Err(Problem::new(tree.at, format!("`{text}` is not a pattern: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;
    use crate::stage::Stage;

    fn read(fields: &str) -> Result<Run, String> {
        let text = format!("version: 1\npools: {{gpu: 1}}\nnodes:\n  r: {{stage: run, {fields}}}");
        let manifest = Manifest::parse(&text).map_err(|problem| problem.message)?;
        match manifest.nodes.into_iter().next().map(|node| node.stage) {
            Some(Stage::Run(run)) => Ok(run),
            _ => Err("no run".to_owned()),
        }
    }

    #[test]
    fn all_of_it() {
        let run = read(
            "makes: adapter, inputs: {base: b, data: {node: d, path: train}}, version: mlx-lm 0.32.2, tool: [pip, freeze], \
             command: [train, --model, '{base}', '--data={data}', --iters, 600, '{file:lora.py}', '{{x}}'], timeout: 4h, \
             files: [lib/data.py], env: [HF_HOME], key_env: [SEED], outputs: ['*.safetensors', a/**], deterministic: false, pool: gpu",
        );
        let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let expected = Run {
            command: text(&[
                "train",
                "--model",
                "{base}",
                "--data={data}",
                "--iters",
                "600",
                "{file:lora.py}",
                "{{x}}",
            ]),
            deterministic: false,
            files: text(&["lib/data.py"]),
            env: text(&["HF_HOME"]),
            key_env: [("SEED".to_owned(), None)].into(),
            makes: Kind::Adapter,
            outputs: text(&["*.safetensors", "a/**"]),
            timeout: Some(4 * 3600),
            tool: text(&["pip", "freeze"]),
            version: Some("mlx-lm 0.32.2".to_owned()),
        };
        assert_eq!(run.as_ref(), Ok(&expected));
        assert_eq!(expected.project_files(), ["lib/data.py".to_owned(), "lora.py".to_owned()].into());
    }

    #[test]
    fn says_what_is_wrong() {
        let wrong = |fields: &str| read(fields).unwrap_err();
        let command = |words: &str| wrong(&format!("makes: files, inputs: {{base: b}}, command: {words}"));
        assert_eq!(wrong("command: [x]"), "node `r` needs `makes`");
        assert_eq!(wrong("makes: files"), "node `r` needs `command`");
        assert_eq!(command("train"), "`command` must be a list of a program and its arguments, not a text");
        assert_eq!(command("[]"), "`command` names no program");
        assert_eq!(
            command("[x, '{bsae}']"),
            "`{bsae}` is not an input; did you mean `{base}`?; `{{` is a brace itself"
        );
        assert_eq!(
            wrong("makes: files, input: {base: b}, command: [x, '{base}']"),
            "unknown key `input` in node `r`; did you mean `inputs`?"
        );
        assert!(command("[x, '{']").contains("has a single brace"));
        assert!(command("[x, 1e-5]").contains("in quotes: it would be a number"));
        assert!(command("[x, {out}]").contains("in quotes: without them, braces make a map"));
        assert!(command("[x, true]").contains("in quotes: it would be a boolean"));
        assert!(
            wrong("makes: weights, command: [x]")
                .contains("`makes` must be one of model, adapter, report, files")
        );
        assert!(wrong("makes: files, command: [x], inputs: {out: b}").contains("needs another name"));
        assert!(wrong("makes: files, command: [x], inputs: {a.b: b}").contains("cannot name an input"));
        assert!(wrong("makes: files, command: [x], env: [A=1]").contains("has names only"));
        assert!(
            wrong("makes: files, command: [x], key_env: [HF_TOKEN]").contains("name is that of a secret")
        );
        assert!(
            wrong("makes: files, command: [x], env: [PIPELINE_SIGNING_KEY]").contains("no command gets it")
        );
        assert!(wrong("makes: files, command: [x], outputs: [../x]").contains("not a pattern of paths"));
        assert!(wrong("makes: files, command: [x], timeout: 0s").contains("longer than nothing"));
        assert!(wrong("makes: files, command: [x], pool: gpus").contains("did you mean `gpu`?"));
    }

    #[test]
    fn a_matrix_fills_only_its_own_names() {
        let all = |node: &str| {
            Manifest::parse(&format!("version: 1\nnodes:\n  {node}")).map_err(|problem| problem.message)
        };
        let commands = |node: &str| {
            let command = |node: &crate::manifest::Node| match &node.stage {
                Stage::Run(run) => run.command.join(" "),
                _ => String::new(),
            };
            all(node).unwrap().nodes.iter().map(command).collect::<Vec<_>>()
        };
        let rest = "makes: files, inputs: {a: b}, matrix: {seed: [1, 2]}";
        assert_eq!(
            commands(&format!(
                "\"r-{{seed}}\": {{stage: run, command: [x, '{{seed}} {{{{seed}}}} {{a}}'], {rest}}}"
            )),
            ["x 1 {{seed}} {a}", "x 2 {{seed}} {a}"]
        );
        let refused = |matrix: &str| {
            all(&format!(
                "\"r\": {{stage: run, makes: files, inputs: {{a: b}}, command: [x], matrix: {matrix}}}"
            ))
            .unwrap_err()
        };
        assert!(refused("{out: [1]}").contains("`{out}` is the folder for what is made"));
        assert!(refused("{a: [1]}").contains("`{a}` is an input"));
        assert!(refused("{seed: ['{out}']}").contains("has no braces"));
    }
}
