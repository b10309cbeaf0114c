//! What a command writes: kept in a file, passed on line by line, and its end for the message if the command fails.
//! Knows nothing of what the lines say.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;

use crate::stage::Console;
use artifact::IoError;

/// The most bytes that the file gets.
const MOST_BYTES: u64 = 64 << 20;

/// What the file ends with if there was more.
const CUT: &[u8] = b"\n[the rest is not kept]\n";

/// The longest line that is passed on, in bytes.
const LONGEST_LINE: usize = 4096;

/// How many of the last lines a message shows.
const LAST_LINES: usize = 20;

/// How many bytes are kept for them.
const LAST_BYTES: usize = 4096;

/// The output of one command.
pub(super) struct Log<'a> {
    console: Console<'a>,
    /// The file; `None` if there is none, or if it could not be written.
    file: Option<File>,
    written: u64,
    /// The line that is not complete.
    line: Vec<u8>,
    /// Whether a carriage return was the last byte.
    returned: bool,
    /// The end of the output.
    last: VecDeque<u8>,
}

impl<'a> Log<'a> {
    /// Opens the file of `console`, if it names one.
    pub(super) fn open(console: Console<'a>) -> Result<Self, IoError> {
        // A log that cannot be written must not keep a command from running.
        let file = console.log.and_then(|path| File::create(path).ok());
        Ok(Self { console, file, written: 0, line: Vec::new(), returned: false, last: VecDeque::new() })
    }

    /// Adds a piece of output.
    pub(super) fn add(&mut self, piece: &[u8]) {
        self.keep(piece);
        self.last.extend(piece);
        self.last.drain(..self.last.len().saturating_sub(LAST_BYTES));
        for &byte in piece {
            // The line begins again: of a bar that moves, only the last state is passed on.
            if std::mem::replace(&mut self.returned, byte == b'\r') && byte != b'\n' {
                self.line.clear();
            }
            match byte {
                b'\n' => self.pass_on(),
                b'\r' => {}
                _ if self.line.len() < LONGEST_LINE => self.line.push(byte),
                _ => {}
            }
        }
    }

    /// Passes on the last line, if it is not complete.
    pub(super) fn finish(&mut self) {
        if !self.line.is_empty() {
            self.pass_on();
        }
    }

    /// Returns the last lines for a message, and where all of them are.
    pub(super) fn last_words(&self) -> String {
        let bytes: Vec<u8> = self.last.iter().copied().collect();
        let text = without_colors(&String::from_utf8_lossy(&bytes));
        let whole =
            |line: &str| line.rsplit('\r').find(|part| !part.is_empty()).unwrap_or_default().to_owned();
        let lines: Vec<_> = text.lines().map(whole).filter(|line| !line.trim().is_empty()).collect();
        let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default();
        let place = match self.console.log {
            Some(path) if !last.is_empty() => format!("\n  all of its output: {}", path.display()),
            _ => String::new(),
        };
        match last.is_empty() {
            true => "; it wrote nothing".to_owned(),
            false => last.iter().map(|line| format!("\n  | {line}")).collect::<String>() + &place,
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        let (bytes, is_last) = match self.written + length > MOST_BYTES {
            true => (CUT, true),
            false => (piece, false),
        };
        self.written += length;
        // A full disk ends the log and not the command.
        if file.write_all(bytes).is_err() || is_last {
            self.file = None;
        }
    }

    fn pass_on(&mut self) {
        (self.console.line)(&without_colors(&String::from_utf8_lossy(&self.line)));
        self.line.clear();
    }
}

/// Returns a text without what it says to a terminal about colors and the like: `ESC [`, parameters, and a letter.
fn without_colors(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    let after = |part: &str| {
        let end = part.find(|c: char| matches!(c, '@'..='~'));
        end.and_then(|end| part.get(end + 1..)).unwrap_or_default().to_owned()
    };
    parts.fold(first, |text, part| text + &after(part))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn colors_are_left_out() {
        assert_eq!(without_colors("\u{1b}[1;34mtrain\u{1b}[0m 3\u{1b}[K"), "train 3");
        assert_eq!(without_colors("plain [0m"), "plain [0m");
        assert_eq!(without_colors("cut \u{1b}[3"), "cut ");
    }

    #[test]
    fn lines_are_passed_on_and_the_end_is_kept() {
        let lines = Mutex::new(Vec::new());
        let line = |line: &str| lines.lock().unwrap().push(line.to_owned());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::open(Console { log: Some(&path), line: &line }).unwrap();
        assert_eq!(log.last_words(), "; it wrote nothing");
        for piece in [&b"one\r\ntw"[..], b"o\n10 %\r50 %", b"\r100 %\n\xff\xfe\nend"] {
            log.add(piece);
        }
        log.finish();
        assert_eq!(*lines.lock().unwrap(), ["one", "two", "100 %", "\u{fffd}\u{fffd}", "end"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"one\r\ntwo\n10 %\r50 %\r100 %\n\xff\xfe\nend");
        let words = log.last_words();
        assert!(
            words.starts_with("\n  | one\n  | two\n  | 100 %\n  | \u{fffd}\u{fffd}\n  | end\n  all of its"),
            "{words}"
        );
        (0..1000).for_each(|number| log.add(format!("{number}\n").as_bytes()));
        assert_eq!(log.last_words().matches('|').count(), LAST_LINES);
        log.add(&[b'x'; 3 * LONGEST_LINE]);
        log.finish();
        assert_eq!(lines.lock().unwrap().last().unwrap().len(), LONGEST_LINE);
    }
}
