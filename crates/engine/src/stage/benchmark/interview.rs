//! One configuration is asked all queries and reads all texts, as far as this is not known already.
//! Knows nothing of how answers are scored.

use std::time::Instant;

use super::folders::Folders;
use super::host::Host;
use super::memory::{Entry, Measured, Turn, question_key, text_key};
use super::progress::{Doing, Measuring, Pace, Speed};
use crate::Error;
use crate::error::{OrBug, Result, fail, require};
use crate::machine::load_average;
use crate::stage::worker::OpenSession;
use crate::stage::{Device, WorkerProgram};
use artifact::{Digest, Tick};
use protocol::{Answered, LogProbabilities, Question, Reading, Run, Sampling, Session, Spoken, Step, Text};
use report::suite::{Query, Suite, SuiteText};
use report::{Load, TextEval, Timings};

/// What all interviews of a benchmark have in common.
pub(super) struct Setting<'a> {
    pub(super) suite: &'a Suite,
    pub(super) worker: &'a WorkerProgram,
    pub(super) device: Device,
    pub(super) host: &'a dyn Host,
    pub(super) tick: Tick<'a>,
    /// The name of the reference, if there is one.
    pub(super) reference: Option<&'a str>,
    /// How many configurations there are.
    pub(super) configs: usize,
}

/// The interview of one configuration.
pub(super) struct Interview<'a> {
    setting: &'a Setting<'a>,
    name: &'a str,
    number: usize,
    pub(super) folders: Folders<'a>,
    measured: Measured,
    session: Option<OpenSession>,
    /// Whether anything was measured for the query or text that is at hand.
    is_new: bool,
    /// How many tokens a second the last answer had.
    last_speed: Option<f64>,
}

/// How many queries and texts were measured, and how many were known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counted {
    /// The queries that were asked.
    pub measured_queries: usize,
    /// The queries whose answers were known.
    pub remembered_queries: usize,
    /// The texts that were read.
    pub measured_texts: usize,
    /// The texts that were read earlier.
    pub remembered_texts: usize,
}

impl std::ops::AddAssign for Counted {
    fn add_assign(&mut self, other: Self) {
        self.measured_queries += other.measured_queries;
        self.remembered_queries += other.remembered_queries;
        self.measured_texts += other.measured_texts;
        self.remembered_texts += other.remembered_texts;
    }
}

/// How far the whole benchmark is.
pub(super) struct Course {
    /// How many answers and texts are done, known ones included.
    pub(super) done: u64,
    /// How many there are.
    pub(super) total: u64,
    pub(super) pace: Pace,
    pub(super) counted: Counted,
}

impl Course {
    /// Begins with these interviews.
    pub(super) fn new(setting: &Setting<'_>, interviews: &[Interview<'_>]) -> Result<Self> {
        let Suite { queries, texts, repeats, .. } = setting.suite;
        let pending: Vec<_> = interviews.iter().map(Interview::pending).collect::<Result<_>>()?;
        Ok(Self {
            done: 0,
            total: (interviews.len() * (queries.len() * repeats + texts.len())) as u64,
            pace: Pace::new(pending.iter().sum()),
            counted: Counted::default(),
        })
    }
}

impl<'a> Interview<'a> {
    /// Begins with what is known of the configuration, which is the one with this number, from 1.
    pub(super) fn new(setting: &'a Setting<'a>, name: &'a str, number: usize, folders: Folders<'a>) -> Self {
        let measured = setting.host.recall(name);
        Self { setting, name, number, folders, measured, session: None, is_new: false, last_speed: None }
    }

    /// Returns how many answers and texts are not known.
    pub(super) fn pending(&self) -> Result<usize> {
        let Suite { queries, texts, repeats, .. } = self.setting.suite;
        let mut pending = 0;
        for query in queries {
            let first =
                query.samplings().into_iter().filter_map(|sampling| self.question(query, sampling, &[]));
            let missing =
                first.map(|question| repeats.saturating_sub(self.known_runs(&question_key(&question))));
            pending += missing.max().unwrap_or(0);
        }
        for text in 0..texts.len() {
            pending += usize::from(self.lacks(text)?);
        }
        Ok(pending)
    }

    /// Asks everything that is not known. `needs` says whether the log probabilities of a text are needed, if this is
    /// the reference.
    pub(super) fn run(&mut self, course: &mut Course, needs: &dyn Fn(usize) -> bool) -> Result<()> {
        let Suite { queries, texts, repeats, .. } = self.setting.suite;
        // Another configuration may have been the same, and may have measured something meanwhile.
        self.measured = self.setting.host.recall(self.name);
        let mut measured = vec![false; queries.len()];
        for repeat in 0..*repeats {
            for (index, (query, measured)) in queries.iter().zip(&mut measured).enumerate() {
                let doing = Doing::Question { number: index + 1, count: queries.len() };
                let start = self.begin(doing, course)?;
                for sampling in query.samplings() {
                    self.converse((query, sampling), repeat, (index, doing), course)?;
                }
                *measured |= self.end(start, course)?;
            }
        }
        let new = measured.iter().filter(|is_new| **is_new).count();
        course.counted.measured_queries += new;
        course.counted.remembered_queries += queries.len() - new;
        for (index, text) in texts.iter().enumerate() {
            let doing = Doing::Text { number: index + 1, count: texts.len() };
            let start = self.begin(doing, course)?;
            self.read(&self.text(text), needs(index), doing, course)?;
            let is_new = self.end(start, course)?;
            course.counted.measured_texts += usize::from(is_new);
            course.counted.remembered_texts += usize::from(!is_new);
        }
        self.session = None;
        Ok(())
    }

    /// Returns the name of the configuration.
    pub(super) fn name(&self) -> &str {
        self.name
    }

    /// Returns the suite.
    pub(super) fn suite(&self) -> &'a Suite {
        self.setting.suite
    }

    /// Whether the text with this place was not read.
    pub(super) fn lacks(&self, text: usize) -> Result<bool> {
        let text = self.setting.suite.texts.get(text).or_bug("the suite has the text")?;
        Ok(self.measured.reading(&self.text_key(&self.text(text))?).is_none())
    }

    /// Returns what was said to each query, sample by sample and turn by turn.
    pub(super) fn said(&self) -> Result<Vec<Vec<Vec<Answered>>>> {
        let queries = self.setting.suite.queries.iter();
        let turns = |turns: Vec<&Turn>| turns.into_iter().map(|turn| turn.answered.clone()).collect();
        let samples = |query: &'a Query| {
            query.samplings().into_iter().map(|sampling| Ok(turns(self.turns(query, sampling)?))).collect()
        };
        queries.map(samples).collect()
    }

    /// Returns the times of all answers, and of loading.
    pub(super) fn timings(&self) -> Result<Option<Timings>> {
        let mut runs: Vec<&[Run]> = Vec::new();
        for query in &self.setting.suite.queries {
            for sampling in query.samplings() {
                let turns = self.turns(query, sampling)?;
                runs.extend(
                    turns.iter().filter(|turn| !turn.runs.is_empty()).map(|turn| turn.runs.as_slice()),
                );
            }
        }
        let timings = Timings::of(self.measured.loads(), &runs, self.setting.suite.repeats);
        timings.map_err(|problem| Error::Worker(problem.to_string()))
    }

    /// Returns the answers in one sample of a query, turn by turn.
    fn turns(&self, query: &Query, sampling: Option<Sampling>) -> Result<Vec<&Turn>> {
        let (mut turns, mut said) = (Vec::new(), Vec::new());
        while let Some(question) = self.question(query, sampling, &said) {
            let turn = self.measured.turn(&question_key(&question)).or_bug("a query was asked")?;
            turns.push(turn);
            match &turn.answered {
                Answered::Text(spoken) => said.push(spoken.clone()),
                Answered::NotAsked(_) => break,
            }
        }
        Ok(turns)
    }

    /// Returns the figures of all texts.
    pub(super) fn text_eval(&self) -> Result<Option<TextEval>> {
        let texts = &self.setting.suite.texts;
        if texts.is_empty() {
            return Ok(None);
        }
        let reading = |text: &SuiteText| {
            let key = self.text_key(&self.text(text))?;
            self.measured.reading(&key).or_bug("a text was read")
        };
        let readings = texts.iter().map(reading).collect::<Result<Vec<_>>>()?;
        let eval = TextEval::of(&readings).map_err(|problem| Error::Worker(problem.to_string()))?;
        require!(eval.is_some(), Source, "the texts have no token to predict: each needs two");
        Ok(eval)
    }

    fn question(&self, query: &Query, sampling: Option<Sampling>, said: &[Spoken]) -> Option<Question> {
        let mut conversation = query.next(said)?;
        conversation.template_args.extend(self.folders.template_args().clone());
        Some(Question { conversation, max_tokens: self.setting.suite.max_tokens, sampling })
    }

    /// Returns how many runs of a question are known; more than any suite asks for if it cannot be asked.
    fn known_runs(&self, question: &Digest) -> usize {
        match self.measured.turn(question) {
            None => 0,
            Some(turn) if matches!(turn.answered, Answered::NotAsked(_)) => usize::MAX,
            Some(turn) => turn.runs.len(),
        }
    }

    /// Asks a query for the `repeat`th time, from 0, until the conversation ends.
    fn converse(
        &mut self,
        (query, sampling): (&Query, Option<Sampling>),
        repeat: usize,
        (index, doing): (usize, Doing),
        course: &Course,
    ) -> Result<()> {
        let mut said = Vec::new();
        while let Some(question) = self.question(query, sampling, &said) {
            let key = question_key(&question);
            if self.known_runs(&key) <= repeat {
                self.ask(&question, key, (index, doing), course)?;
            }
            match self.measured.turn(&key).map(|turn| &turn.answered) {
                Some(Answered::Text(spoken)) => said.push(spoken.clone()),
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn ask(
        &mut self,
        question: &Question,
        key: Digest,
        (index, doing): (usize, Doing),
        course: &Course,
    ) -> Result<()> {
        let tick = self.setting.tick;
        let mut speed = Speed::default();
        let mut session = self.open(course)?;
        let mut step =
            |step| self.setting.host.measuring(&self.measuring(doing, Some(step), speed.after(step), course));
        let answered = session.answer(question, &mut step, &|| tick(0, 0));
        self.session = Some(session);
        let (answered, run) = answered?;
        let known = self.measured.turn(&key);
        if let Some(known) = known.filter(|known| known.answered != answered) {
            let times = known.runs.len();
            fail!(
                Source,
                "query {} was answered otherwise than the {times} times before; a model whose answers vary cannot be \
                 compared, and `--force` measures all of it again",
                index + 1
            );
        }
        let speed = |run: Run| run.new_tokens.saturating_sub(1) as f64 / run.decode_seconds;
        self.last_speed = run.map(speed).filter(|speed| speed.is_finite() && *speed > 0.0);
        self.remember(Entry::Answer { question: key, answered, run })
    }

    fn read(&mut self, text: &Text, needs: bool, doing: Doing, course: &Course) -> Result<()> {
        let key = self.text_key(text)?;
        let setting = self.setting;
        let is_reference = setting.reference == Some(self.name);
        let plain = text_key(text, None);
        let kept = setting.reference.and_then(|name| setting.host.log_probabilities(name, &plain));
        if self.measured.reading(&key).is_some() && !(is_reference && needs && kept.is_none()) {
            return Ok(());
        }
        let reference = match (setting.reference, kept) {
            (None, _) => None,
            (Some(_), Some(path)) => Some(LogProbabilities::Read(path)),
            (Some(name), None) if is_reference => {
                Some(LogProbabilities::Write(setting.host.new_log_probabilities(name, &plain)?))
            }
            (Some(_), None) => fail!(Bug, "the reference is read first"),
        };
        let writes = matches!(reference, Some(LogProbabilities::Write(_)));
        let reading = self.read_in_session(&Text { reference, ..text.clone() }, doing, course)?;
        if writes {
            setting.host.keep_log_probabilities(self.name, &plain)?;
        }
        self.remember(Entry::Reading { text: key, reading })
    }

    fn read_in_session(&mut self, text: &Text, doing: Doing, course: &Course) -> Result<Reading> {
        let tick = self.setting.tick;
        let mut speed = Speed::default();
        let mut session = self.open(course)?;
        let mut step =
            |step| self.setting.host.measuring(&self.measuring(doing, Some(step), speed.after(step), course));
        let reading = session.read(text, &mut step, &|| tick(0, 0));
        self.session = Some(session);
        reading
    }

    fn text(&self, text: &SuiteText) -> Text {
        let context = self.setting.suite.context;
        Text { text: text.text.clone(), context, tokens: text.tokens, reference: None }
    }

    /// Returns what a reading is known by: the text, and the reference that it is compared with.
    fn text_key(&self, text: &Text) -> Result<Digest> {
        let identity = |name: &str| self.setting.host.identity(name);
        let reference = self.setting.reference.map(identity).transpose()?;
        Ok(text_key(text, reference.as_ref()))
    }

    /// Takes the session, and begins one if there is none.
    fn open(&mut self, course: &Course) -> Result<OpenSession> {
        if let Some(session) = self.session.take() {
            return Ok(session);
        }
        let Setting { suite, worker, device, host, tick, .. } = *self.setting;
        host.measuring(&self.measuring(Doing::Loading, None, None, course))?;
        let first = suite.queries.iter().filter_map(|query| self.question(query, None, &[]));
        let check = first.map(|question| question.conversation).collect();
        let request = Session { model: self.folders.owned(), check, warmup: suite.warmup };
        let load_average = load_average();
        let session = worker.open(device, request, &|| tick(0, 0))?;
        let loaded = session.loaded.clone();
        self.remember(Entry::Load(Load { loaded, load_average }))?;
        Ok(session)
    }

    fn remember(&mut self, entry: Entry) -> Result<()> {
        self.is_new |= !matches!(entry, Entry::Load(_));
        self.setting.host.remember(self.name, &entry)?;
        self.measured.add(entry);
        Ok(())
    }

    fn begin(&mut self, doing: Doing, course: &Course) -> Result<Instant> {
        self.is_new = false;
        if self.session.is_some() {
            self.setting.host.measuring(&self.measuring(doing, None, None, course))?;
        }
        Ok(Instant::now())
    }

    /// Ends a query or a text; returns whether anything was measured.
    fn end(&self, start: Instant, course: &mut Course) -> Result<bool> {
        course.done += 1;
        if self.is_new {
            course.pace.measured(start.elapsed().as_secs_f64());
        }
        (self.setting.tick)(course.done, course.total)?;
        Ok(self.is_new)
    }

    fn measuring(
        &self,
        doing: Doing,
        step: Option<Step>,
        tokens_per_second: Option<f64>,
        course: &Course,
    ) -> Measuring {
        Measuring {
            config: self.name.to_owned(),
            config_number: self.number,
            configs: self.setting.configs,
            doing,
            step,
            tokens_per_second: tokens_per_second.or(self.last_speed).map(rounded),
            seconds_left: course.pace.seconds_left().map(rounded),
        }
    }
}

/// Rounds to one decimal place: more would only look exact.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
