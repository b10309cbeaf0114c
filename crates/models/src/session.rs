//! A session: one model is loaded, answers questions and reads texts, and every answer is timed.
//! Does not know which answers are right, nor what is asked next.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::LanguageModel;
use super::chat::{ChatTemplate, OutOfBudget};
use super::generate::{Decoding, Generation, generate};
use super::reading::read;
use super::runtime::Runtime;
use super::tokenizer::Tokenizer;
use protocol::{
    Answered, Conversation, Loaded, ModelFolders, Question, Reply, Run, Session, Spoken, Step, Task,
    end_of_thought, opens_thought,
};

/// The most tokens of a warm-up answer. They are enough to read every weight and to build every kernel once.
const WARM_UP_TOKENS: usize = 4;

/// How often a task tells how far it is.
const STEP_INTERVAL: Duration = Duration::from_millis(200);

/// Loads the model of a session and does its tasks, until there are no more. `send` gets every reply.
///
/// # Errors
/// Fails if a prompt cannot be made, if the model cannot be loaded, or if a task fails.
pub fn serve<R: Runtime>(
    runtime: &R,
    session: &Session,
    tasks: &mut dyn Iterator<Item = Result<Task>>,
    send: &mut dyn FnMut(&Reply),
) -> Result<()> {
    let prompts = Prompts::load(&session.model)?;
    for conversation in &session.check {
        drop(prompts.make(conversation)?);
    }
    let start = Instant::now();
    let model = LanguageModel::load(runtime, &session.model.model, session.model.adapter.as_deref())?;
    send(&Reply::Loaded(Loaded {
        seconds: start.elapsed().as_secs_f64(),
        activation_dtype: model.activation_dtype(),
        device: runtime.device()?.to_owned(),
        peak_memory_bytes: runtime.peak_memory_bytes()?,
    }));
    let mut warmup = session.warmup;
    for task in tasks {
        let mut last = None::<Instant>;
        let mut step = |step: Step| {
            if last.is_none_or(|last| last.elapsed() > STEP_INTERVAL) {
                last = Some(Instant::now());
                send(&Reply::Step(step));
            }
        };
        let reply = match task? {
            Task::Answer(question) => {
                answer(&model, &prompts, &question, std::mem::take(&mut warmup), &mut step)?
            }
            Task::Read(text) => Reply::Read(read(&model, &prompts.tokenizer, &text, &mut step)?),
        };
        send(&reply);
    }
    Ok(())
}

/// Returns the prompt of each conversation, or why there is none.
///
/// # Errors
/// Fails if the tokenizer or the chat template cannot be read.
pub fn render(model: &ModelFolders, conversations: &[Conversation]) -> Result<Vec<Result<String, String>>> {
    let template = ChatTemplate::load(model)?;
    let render = |one: &Conversation| template.render(one).map_err(|error| format!("{error:#}"));
    Ok(conversations.iter().map(render).collect())
}

/// Answers a question. Some short answers come first and are not timed, so that no answer pays for a cold start.
fn answer<R: Runtime>(
    model: &LanguageModel<'_, R>,
    prompts: &Prompts,
    question: &Question,
    warmup: usize,
    step: &mut dyn FnMut(Step),
) -> Result<Reply> {
    let prompt = match prompts.make(&question.conversation)? {
        Ok(prompt) => prompt,
        Err(OutOfBudget) => return Ok(Reply::Answered(Answered::NotAsked(OutOfBudget.to_string()), None)),
    };
    let decoding = Decoding {
        max_tokens: question.max_tokens,
        eos_token_ids: prompts.tokenizer.eos_token_ids(),
        sampling: question.sampling,
    };
    for _ in 0..warmup {
        let max_tokens = question.max_tokens.min(WARM_UP_TOKENS);
        generate(model, &prompt.tokens, Decoding { max_tokens, ..decoding }, &mut |_| {})?;
    }
    // An answer that is remembered must not have the memory of another one.
    #[cfg(target_os = "linux")]
    super::peak_memory::reset_peak_memory();
    let Generation { tokens, prompt_tokens, prefill_seconds, decode_seconds } =
        generate(model, &prompt.tokens, decoding, step)?;
    let spoken = Spoken {
        tool_format: prompts.tool_format(question.conversation.tools.is_some()),
        ..spoken(&prompts.tokenizer, &tokens, prompt.opens_thought, question.max_tokens)?
    };
    let peak_memory_bytes = model.runtime.peak_memory_bytes()?;
    let new_tokens = tokens.len();
    let run = Run { prompt_tokens, prefill_seconds, new_tokens, decode_seconds, peak_memory_bytes };
    Ok(Reply::Answered(Answered::Text(spoken), Some(run)))
}

/// Returns what the model said with these tokens.
fn spoken(tokenizer: &Tokenizer, tokens: &[u32], opens_thought: bool, max_tokens: usize) -> Result<Spoken> {
    let text = tokenizer.decode(tokens)?;
    let is_ended = tokens.last().is_some_and(|token| tokenizer.eos_token_ids().contains(token));
    let is_cut = tokens.len() >= max_tokens && !is_ended;
    let thinks =
        opens_thought || protocol::THOUGHT_TAGS.iter().any(|[open, _]| text.trim_start().starts_with(open));
    let thought_tokens = match end_of_thought(&text, opens_thought) {
        None if thinks => tokens.len(),
        None => 0,
        Some(_) => {
            // The fewest tokens whose text has the end. More tokens keep it, so the number can be halved for.
            let (mut fewer, mut enough) = (0, tokens.len());
            while fewer + 1 < enough {
                let middle = fewer + (enough - fewer) / 2;
                let part = tokenizer.decode(tokens.get(..middle).unwrap_or(tokens))?;
                if end_of_thought(&part, opens_thought).is_some() { enough = middle } else { fewer = middle }
            }
            enough
        }
    };
    Ok(Spoken { text, opens_thought, is_cut, thought_tokens, tool_format: None })
}

/// What makes prompts.
struct Prompts {
    tokenizer: Tokenizer,
    /// A model without one can read texts.
    template: Result<ChatTemplate>,
}

/// A prompt.
struct Prompt {
    tokens: Vec<u32>,
    /// Whether it ends in a block of thought.
    opens_thought: bool,
}

impl Prompts {
    fn load(model: &ModelFolders) -> Result<Self> {
        Ok(Self { tokenizer: Tokenizer::load(model)?, template: ChatTemplate::load(model) })
    }

    /// Returns the form in which the chat template shows tool calls.
    fn tool_format(&self, with_tools: bool) -> Option<String> {
        self.template.as_ref().ok()?.tool_format(with_tools).map(str::to_owned)
    }

    /// Returns the prompt of a conversation, unless its template takes more than it may.
    fn make(&self, conversation: &Conversation) -> Result<Result<Prompt, OutOfBudget>> {
        let template = self.template.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let text = match template.render(conversation) {
            Err(error) if error.is::<OutOfBudget>() => return Ok(Err(OutOfBudget)),
            rendered => rendered?,
        };
        let tokens = self.tokenizer.encode(&text)?;
        ensure!(!tokens.is_empty(), "the prompt has no tokens");
        Ok(Ok(Prompt { tokens, opens_thought: opens_thought(&text) }))
    }
}
