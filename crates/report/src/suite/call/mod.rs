//! Tool calls in the text of an answer, as the families of models write them. There is a file for each kind of form.
//! Knows nothing of what is expected.

mod gemma;
mod harmony;
mod json;
mod kimi;
mod mistral;
mod pairs;
mod python;
mod pythonic;
mod schema;
mod tags;

use schema::Schemas;

use serde_json::{Map, Value as Json};

/// A call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    /// The name of the tool.
    pub name: String,
    /// The arguments; `None` if the call does not give any.
    pub arguments: Option<Json>,
}

impl Call {
    /// Whether `made` is a call of this tool. If this call gives arguments, `made` must have the same ones.
    pub(super) fn is_made_by(&self, made: &Self) -> bool {
        let nothing = Json::Object(Map::new());
        let same = |wanted| is_same(wanted, made.arguments.as_ref().unwrap_or(&nothing));
        self.name == made.name && self.arguments.as_ref().is_none_or(same)
    }

    /// Returns how much of this call `made` has, from 0 to 1: the name, and each argument that is the same. Arguments
    /// that are not wanted take from it.
    pub(super) fn credit(&self, made: &Self) -> f64 {
        if self.is_made_by(made) {
            return 1.0;
        }
        let (Some(Json::Object(wanted)), true) = (&self.arguments, self.name == made.name) else {
            return 0.0;
        };
        let nothing = Map::new();
        let given = made.arguments.as_ref().and_then(Json::as_object).unwrap_or(&nothing);
        let right =
            wanted.iter().filter(|(name, value)| given.get(*name).is_some_and(|given| is_same(value, given)));
        (1 + right.count()) as f64 / (1 + wanted.len().max(given.len())) as f64
    }
}

/// For people: `get_weather(city="Paris")`.
impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let arguments = match &self.arguments {
            None => "…".to_owned(),
            Some(Json::Object(map)) => {
                map.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
            }
            Some(other) => other.to_string(),
        };
        write!(f, "{}({arguments})", self.name)
    }
}

/// How a family of models writes tool calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON in `<tool_call>` tags, in a fence, or bare: Qwen, Hermes, Llama, OpenAI.
    Json,
    /// Tags that name the function and each parameter.
    Tags(&'static tags::Tags),
    /// `<arg_key>` and `<arg_value>` by turns.
    Pairs(&'static pairs::Pairs),
    /// `[TOOL_CALLS]name[ARGS]{…}`, or a list of JSON.
    Mistral,
    /// A list of calls as Python writes them.
    Pythonic,
    /// `call:name{…}` with marks around texts.
    Gemma(&'static gemma::Marks),
    /// `functions.name:0` and JSON between special tokens.
    Kimi,
    /// Elements with attributes between special tokens.
    KimiK3,
    /// A message to a function in a channel of its own.
    Harmony,
}

impl Format {
    /// The formats and their names, which are those of mlx-lm's parsers where it has one.
    pub(super) const WORDS: [(&'static str, Self); 14] = [
        ("json_tools", Self::Json),
        ("qwen3_coder", Self::Tags(&tags::QWEN3_CODER)),
        ("minimax_m2", Self::Tags(&tags::MINIMAX_M2)),
        ("minicpm5", Self::Tags(&tags::MINICPM5)),
        ("muse_spark", Self::Tags(&tags::MUSE_SPARK)),
        ("glm47", Self::Pairs(&pairs::GLM47)),
        ("longcat", Self::Pairs(&pairs::LONGCAT)),
        ("mistral", Self::Mistral),
        ("pythonic", Self::Pythonic),
        ("gemma4", Self::Gemma(&gemma::GEMMA4)),
        ("function_gemma", Self::Gemma(&gemma::FUNCTION_GEMMA)),
        ("kimi_k2", Self::Kimi),
        ("kimi_k3", Self::KimiK3),
        ("harmony", Self::Harmony),
    ];

    /// Returns the text that begins a call in this format. An answer that has it means to call a tool.
    fn mark(self) -> &'static str {
        match self {
            Self::Json => json::OPEN,
            Self::Tags(tags) => tags.mark,
            Self::Pairs(pairs) => pairs.key,
            Self::Mistral => mistral::MARK,
            Self::Pythonic => pythonic::MARK,
            Self::Gemma(marks) => marks.open,
            Self::Kimi => kimi::MARK,
            Self::KimiK3 => kimi::MARK_K3,
            Self::Harmony => harmony::MARK,
        }
    }

    fn read(self, text: &str, schemas: &Schemas<'_>) -> Vec<Call> {
        match self {
            Self::Json => json::calls(text),
            Self::Tags(tags) => tags.calls(text, schemas),
            Self::Pairs(pairs) => pairs.calls(text, schemas),
            Self::Mistral => mistral::calls(text),
            Self::Pythonic => pythonic::calls(text),
            Self::Gemma(marks) => marks.calls(text),
            Self::Kimi => kimi::calls(text),
            Self::KimiK3 => kimi::calls_k3(text),
            Self::Harmony => harmony::calls(text),
        }
    }
}

/// The calls in an answer.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Calls {
    /// Those that can be read.
    pub(super) read: Vec<Call>,
    /// Whether the answer means to call a tool, also if the call cannot be read.
    pub(super) is_meant: bool,
}

/// Reads the calls in an answer: in `format`, or in any if none is given. `tools` are those that the model was
/// given; they say which types the arguments have.
pub(super) fn calls(text: &str, format: Option<Format>, tools: Option<&Json>) -> Calls {
    let schemas = Schemas(tools);
    let formats: Vec<_> = match format {
        Some(format) => vec![format],
        None => Format::WORDS.iter().map(|(_, format)| *format).collect(),
    };
    let marked = formats.iter().filter(|format| text.contains(format.mark()));
    let read = marked.clone().map(|format| format.read(text, &schemas)).find(|calls| !calls.is_empty());
    let is_marked = marked.count() > 0;
    // Without a mark, a call must have arguments: many texts hold some JSON or a name in brackets.
    let bare = || formats.iter().map(|format| format.read(text, &schemas)).find(|calls| !calls.is_empty());
    match read {
        Some(read) => Calls { read, is_meant: true },
        None if is_marked => Calls { read: Vec::new(), is_meant: true },
        None => {
            let read = bare().unwrap_or_default();
            let is_meant = read.iter().any(|call| call.arguments.is_some());
            Calls { read, is_meant }
        }
    }
}

/// Whether two values are the same to a tool. The order of keys does not matter, and 2 is the same as 2.0.
fn is_same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_same(a, b)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What the model was given.
    fn tools() -> Json {
        let properties = json!({"place": {"type": "string"}, "days": {"type": "integer"}, "exact": {"type": "boolean"},
            "tags": {"type": "array"}});
        json!([{"type": "function", "function": {"name": "get_weather", "parameters": {"properties": properties}}}])
    }

    fn weather(arguments: Json) -> Call {
        Call { name: "get_weather".to_owned(), arguments: Some(arguments) }
    }

    /// Writes a call of `get_weather` in each form, with its name.
    fn written(place: &str, days: i64, exact: bool) -> Vec<(&'static str, String)> {
        let arguments = json!({"place": place, "days": days, "exact": exact});
        let quoted = Json::from(place).to_string();
        let call = json!({"name": "get_weather", "arguments": arguments});
        let flag = if exact { "True" } else { "False" };
        vec![
            ("json_tools", format!("<tool_call>\n{call}\n</tool_call>")),
            ("json_tools", format!("Let me look.\n```json\n{call}\n```")),
            ("json_tools", json!([{"type": "function", "function": {"name": "get_weather", "arguments": arguments.to_string()}}]).to_string()),
            ("json_tools", format!("<|python_tag|>{{\"name\": \"get_weather\", \"parameters\": {arguments}}}")),
            ("qwen3_coder", format!("<tool_call>\n<function=get_weather>\n<parameter=place>\n{place}\n</parameter>\n<parameter=days>\n{days}\n</parameter>\n<parameter=exact>\n{exact}\n</parameter>\n</function>\n</tool_call>")),
            ("qwen3_coder", format!("<function=get_weather>{arguments}</function>")),
            ("minimax_m2", format!("<minimax:tool_call>\n<invoke name=\"get_weather\">\n<parameter name=\"place\">{place}</parameter>\n<parameter name=\"days\">{days}</parameter>\n<parameter name=\"exact\">{exact}</parameter>\n</invoke>\n</minimax:tool_call>")),
            ("minicpm5", format!("<function name=\"get_weather\"><param name=\"place\"><![CDATA[{place}]]></param><param name=\"days\">{days}</param><param name=\"exact\">{exact}</param></function>")),
            ("muse_spark", format!("<atem:function_calls><atem:invoke name=\"get_weather\"><atem:parameter name=\"place\">{quoted}</atem:parameter><atem:parameter name=\"days\">{days}</atem:parameter><atem:parameter name=\"exact\">{exact}</atem:parameter></atem:invoke></atem:function_calls>")),
            ("glm47", format!("<tool_call>get_weather\n<arg_key>place</arg_key>\n<arg_value>{place}</arg_value>\n<arg_key>days</arg_key>\n<arg_value>{days}</arg_value>\n<arg_key>exact</arg_key>\n<arg_value>{exact}</arg_value>\n</tool_call>")),
            ("longcat", format!("<longcat_tool_call>get_weather\n<longcat_arg_key>place</longcat_arg_key>\n<longcat_arg_value>{place}</longcat_arg_value>\n<longcat_arg_key>days</longcat_arg_key>\n<longcat_arg_value>{days}</longcat_arg_value>\n<longcat_arg_key>exact</longcat_arg_key>\n<longcat_arg_value>{exact}</longcat_arg_value>\n</longcat_tool_call>")),
            ("mistral", format!("[TOOL_CALLS]get_weather[ARGS]{arguments}")),
            ("mistral", format!("[TOOL_CALLS] [{call}]")),
            ("pythonic", format!("<|tool_call_start|>[get_weather(place={quoted}, days={days}, exact={flag})]<|tool_call_end|>")),
            ("pythonic", format!("[get_weather(place={quoted}, days={days}, exact={exact})]")),
            ("pythonic", format!("<|python_tag|>get_weather.call(place={quoted}, days={days}, exact={flag})")),
            ("gemma4", format!("<|tool_call>call:get_weather{{place:<|\"|>{place}<|\"|>,days:{days},exact:{exact}}}<tool_call|>")),
            ("function_gemma", format!("<start_function_call>call:get_weather{{place:<escape>{place}<escape>,days:{days},exact:{exact}}}<end_function_call>")),
            ("kimi_k2", format!("<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{arguments}<|tool_call_end|><|tool_calls_section_end|>")),
            ("kimi_k3", format!("<|open|>tools<|sep|><|open|>call tool=\"get_weather\" index=\"1\"<|sep|><|open|>argument key=\"place\" type=\"string\"<|sep|>{place}<|close|>argument<|sep|><|open|>argument key=\"days\" type=\"integer\"<|sep|>{days}<|close|>argument<|sep|><|open|>argument key=\"exact\" type=\"boolean\"<|sep|>{exact}<|close|>argument<|sep|><|close|>call<|sep|><|close|>tools<|sep|>")),
            ("harmony", format!("<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{arguments}<|call|>")),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_in_a_form_is_read(place in "[A-Za-z][A-Za-z0-9 .,é-]{0,12}[a-z]", days in -1000i64..1000, exact in any::<bool>()) {
            prop_assume!(!["null", "none", "nil"].contains(&place.to_lowercase().as_str()));
            let expected = weather(json!({"place": place, "days": days, "exact": exact}));
            for (word, text) in written(&place, days, exact) {
                let (_, format) = Format::WORDS.into_iter().find(|(known, _)| *known == word).unwrap();
                for format in [Some(format), None] {
                    let found = calls(&text, format, Some(&tools()));
                    prop_assert!(found.is_meant, "{}: {}", word, text);
                    prop_assert_eq!(found.read.as_slice(), std::slice::from_ref(&expected), "{}: {}", word, text);
                }
            }
        }

        #[test]
        fn no_answer_makes_it_panic(parts in prop::collection::vec(prop::sample::select(vec![
            "<tool_call>", "</tool_call>", "<function=", "a", ">", "<parameter=", "</parameter>", "[TOOL_CALLS]", "[ARGS]", "{", "}",
            "\"a\":", "1", "<|tool_call_start|>", "[", "f(", "x=", ")", "]", ",", "'", "call:f{", "<escape>", "<|open|>tools<|sep|>",
            "<|open|>call", "<|sep|>", "<|close|>call<|sep|>", "to=functions.f", "<|message|>", "<arg_key>", "</arg_key>", "é", "\\",
            "<|tool_call>", "<start_function_call>", "<minimax:tool_call>", "<invoke name=", ":",
        ]), 0..24)) {
            let text = parts.concat();
            for (_, format) in Format::WORDS {
                let _ = calls(&text, Some(format), None);
            }
            let _ = calls(&text, None, Some(&tools()));
        }
    }

    #[test]
    fn a_list_that_ends_as_a_map_does_is_no_list() {
        // It was read for ever.
        for text in
            ["<|tool_call>call:f{a:[1}", "<start_function_call>call:f{a:[}", "<|tool_call>call:f{a:[[}]]}"]
        {
            assert_eq!(calls(text, None, Some(&tools())).read, []);
        }
    }

    #[test]
    fn an_answer_may_hold_several_calls() {
        let two = [weather(json!({"days": 1})), weather(json!({"days": 2}))];
        for text in [
            "<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"days\": 1}}</tool_call><tool_call>{\"name\": \"get_weather\", \"arguments\": {\"days\": 2}}</tool_call>",
            "[TOOL_CALLS]get_weather[ARGS]{\"days\": 1}[TOOL_CALLS]get_weather[ARGS]{\"days\": 2}",
            "<|tool_call_start|>[get_weather(days=1), get_weather(days=2)]<|tool_call_end|>",
            "<|tool_call>call:get_weather{days:1}<tool_call|><|tool_call>call:get_weather{days:2}<tool_call|>",
            "<function=get_weather><parameter=days>1</parameter></function><function=get_weather><parameter=days>2</parameter></function>",
        ] {
            assert_eq!(calls(text, None, Some(&tools())).read, two, "{text}");
        }
    }

    #[test]
    fn text_that_is_no_call() {
        for text in [
            "It rains.",
            "{{{{",
            r#"{"city": "Paris"}"#,
            r#"{"name": "Paris"}"#,
            "a {name} b",
            "[1, 2]",
            "[see below]",
            "f(x=1)",
        ] {
            assert!(!calls(text, None, None).is_meant, "{text}");
        }
        // A mark without a call that can be read: the model means to call a tool.
        for text in
            ["<tool_call>weather(Paris)</tool_call>", "[TOOL_CALLS]get_weather", "<start_function_call>call:"]
        {
            let found = calls(text, None, None);
            assert!(found.is_meant && found.read.is_empty(), "{text}");
        }
        // Another family's form is no call if the suite names one.
        assert!(!calls("[TOOL_CALLS]f[ARGS]{}", Some(Format::Pythonic), None).is_meant);
    }

    #[test]
    fn values_have_the_types_that_the_tools_declare() {
        let text = "<function=get_weather><parameter=place>7</parameter><parameter=days>7.0</parameter><parameter=tags>['a', 'b']</parameter></function>";
        let typed = weather(json!({"place": "7", "days": 7, "tags": ["a", "b"]}));
        assert_eq!(calls(text, None, Some(&tools())).read, [typed]);
        let untyped = weather(json!({"place": "7", "days": "7.0", "tags": "['a', 'b']"}));
        assert_eq!(calls(text, None, None).read, [untyped]);
    }

    #[test]
    fn arguments_that_are_not_said_may_be_any() {
        let any = Call { name: "get_weather".to_owned(), arguments: None };
        assert!(any.is_made_by(&weather(json!({"days": 1}))));
        assert!(!weather(json!({"days": 1})).is_made_by(&any));
        assert!(!any.is_made_by(&Call { name: "other".to_owned(), ..any.clone() }));
    }
}
