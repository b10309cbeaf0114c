//! The signer: a process of its own that holds the secret key, signs what it is sent, and does nothing else.
//! The process that reads models and other people's files never has the key.
//! Knows nothing of what is signed.
//!
//! Requests and answers are lines of JSON over pipes. The first line from the signer says whose key it has.
//! It ends when its input ends.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use super::key::PublicKey;
use super::{Envelope, VARIABLE, base64_text, key_file};
use crate::error::{OrBug, Result};
use crate::{Error, own_program};

/// The arguments with which the program `pipeline` is a signer.
pub const ARGUMENTS: [&str; 2] = ["keys", "sign"];

/// The environment variable that says to a process that it is the signer.
pub const SIGNER_VARIABLE: &str = "PIPELINE_IS_SIGNER";

/// The environment variables that the signer gets, besides those of the dynamic linker.
const ENVIRONMENT: [&str; 3] = [VARIABLE, "HOME", "XDG_CONFIG_HOME"];

/// A running signer.
pub struct Signer {
    public: PublicKey,
    process: Mutex<Process>,
}

struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

#[derive(Serialize, Deserialize)]
struct Request {
    payload_type: String,
    #[serde(with = "base64_text")]
    payload: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// The first answer: the public half of the key, or `null` if there is no key.
    Key(Option<PublicKey>),
    Sealed(Envelope),
    Failed(String),
}

/// Returns the signer of this process, if the user has a key. The first call starts it.
///
/// # Errors
/// Fails if the key cannot be read, or if the signer cannot be started. Later calls return the same error.
pub fn signer() -> Result<Option<&'static Signer>> {
    static SIGNER: OnceLock<Result<Option<Signer>, String>> = OnceLock::new();
    let started = SIGNER.get_or_init(|| {
        let has_key = key_file::is_configured();
        if has_key {
            Signer::start(&own_program::path()).map_err(|error| error.to_string())
        } else {
            Ok(None)
        }
    });
    started.as_ref().map(Option::as_ref).map_err(|error| Error::Key(error.clone()))
}

impl Signer {
    fn start(program: &Path) -> Result<Option<Self>> {
        let linker = |name: &str| name.starts_with("LD_") || name.starts_with("DYLD_");
        let passed = env::vars_os().filter(|(name, _)| {
            name.to_str().is_some_and(|name| ENVIRONMENT.contains(&name) || linker(name))
        });
        let child = Command::new(program)
            .args(ARGUMENTS)
            .env_clear()
            .envs(passed)
            .env(SIGNER_VARIABLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.map_err(|error| {
            Error::Key(format!("cannot start {} to sign with the key: {error}", program.display()))
        })?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().or_bug("the signer's output is a pipe")?);
        let mut process = Process { child, input, output };
        match process.answer()? {
            Answer::Key(None) => Ok(None),
            Answer::Key(Some(public)) => Ok(Some(Self { public, process: Mutex::new(process) })),
            Answer::Failed(problem) => Err(Error::Key(problem)),
            Answer::Sealed(_) => Err(Error::Bug("the signer answers before it is asked".to_owned())),
        }
    }

    /// Returns the public half of the key.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Returns `payload` in an envelope, signed as `payload_type`.
    ///
    /// # Errors
    /// Fails if the signer has ended.
    pub fn seal(&self, payload_type: &str, payload: Vec<u8>) -> Result<Envelope> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.ask(&Request { payload_type: payload_type.to_owned(), payload })?;
        match process.answer()? {
            Answer::Sealed(envelope) => Ok(envelope),
            Answer::Failed(problem) => Err(Error::Key(problem)),
            Answer::Key(_) => Err(Error::Bug("the signer says twice whose key it has".to_owned())),
        }
    }
}

impl Process {
    fn ask(&mut self, request: &Request) -> Result<()> {
        let input = self.input.as_mut().or_bug("the signer's input is a pipe")?;
        write_line(input, request).map_err(|error| Error::Key(format!("the signer has ended: {error}")))
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        read.map_err(|error| Error::Key(format!("the signer has ended: {error}")))?;
        serde_json::from_str(&line)
            .map_err(|_| Error::Key("the signer has ended without an answer".to_owned()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// Is the signer: reads the key, says whose it is, and signs each request on `input`.
///
/// # Errors
/// Fails if `input` cannot be read or `output` cannot be written.
pub fn serve(input: impl BufRead, mut output: impl Write) -> std::io::Result<()> {
    let key = match key_file::load() {
        Ok(key) => key,
        Err(error) => return write_line(&mut output, &Answer::Failed(artifact::in_one_line(&error))),
    };
    write_line(&mut output, &Answer::Key(key.as_ref().map(|key| key.public())))?;
    let Some(key) = key else { return Ok(()) };
    for line in input.lines() {
        let answer = match serde_json::from_str::<Request>(&line?) {
            Ok(Request { payload_type, payload }) => {
                Answer::Sealed(Envelope::seal(&payload_type, payload, &key))
            }
            Err(error) => Answer::Failed(format!("the request to the signer is not valid: {error}")),
        };
        write_line(&mut output, &answer)?;
    }
    Ok(())
}

fn write_line(output: &mut impl Write, value: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}
