//! The queue from the threads that compute to the one that hashes and writes, and the empty buffers that come back.
//! Knows nothing of what is on it.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Scope, ScopedJoinHandle};

use crate::Error;
use crate::error::Result;
use crate::tensor::TensorWriter;

/// How many bytes may be on their way. The codes of a large tensor come all at once, after its scales; the makers should
/// be at the next tensor while they are written.
const CAPACITY_BYTES: usize = 128 << 20;

enum Message {
    /// The next bytes of the tensor of this name.
    Piece(String, Vec<u8>),
    /// That was all.
    Done,
}

/// The makers' end.
pub(super) struct WriteQueue {
    pieces: Sender<Message>,
    /// What was written, on its way back.
    empties: Receiver<Vec<u8>>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// The bytes that were sent and did not come back.
    load: usize,
    /// Buffers to be used again: fresh memory costs a page fault for every four kilobytes.
    pool: Vec<Vec<u8>>,
}

impl State {
    fn take_back(&mut self, buffer: Vec<u8>) {
        self.load -= buffer.len();
        self.pool.push(buffer);
    }
}

impl WriteQueue {
    /// Starts the writing thread.
    pub(super) fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        writer: TensorWriter<'env>,
        parameters: u64,
    ) -> (Self, ScopedJoinHandle<'scope, Result<()>>) {
        let (pieces, receiver) = channel();
        let (sender, empties) = channel();
        let end = scope.spawn(move || write(writer, &receiver, &sender, parameters));
        (Self { pieces, empties, state: RefCell::default() }, end)
    }

    /// Returns a buffer of this length; what is in it is undefined.
    pub(super) fn empty(&self, length: usize) -> Vec<u8> {
        let mut state = self.state.borrow_mut();
        self.empties.try_iter().for_each(|buffer| state.take_back(buffer));
        let fitting = state.pool.iter().enumerate().filter(|(_, buffer)| buffer.capacity() >= length);
        let smallest = fitting.min_by_key(|(_, buffer)| buffer.capacity()).map(|(index, _)| index);
        let mut buffer = smallest.map(|index| state.pool.swap_remove(index)).unwrap_or_default();
        buffer.resize(length, 0);
        buffer
    }

    /// Hands over the next bytes of `tensor`; waits if the writer is behind.
    pub(super) fn send(&self, tensor: &str, bytes: Vec<u8>) -> Result<()> {
        let mut state = self.state.borrow_mut();
        while state.load > CAPACITY_BYTES {
            state.take_back(self.empties.recv().map_err(|_| Error::Bug(GONE.to_owned()))?);
        }
        state.load += bytes.len();
        self.put(Message::Piece(tensor.to_owned(), bytes))
    }

    /// Says that all was handed over. Without it the output stays without its end.
    pub(super) fn finish(&self) -> Result<()> {
        self.put(Message::Done)
    }

    fn put(&self, message: Message) -> Result<()> {
        self.pieces.send(message).map_err(|_| Error::Bug(GONE.to_owned()))
    }
}

/// The writer's own error comes first; nobody sees this one.
const GONE: &str = "the writer went without saying why";

fn write(
    mut writer: TensorWriter<'_>,
    pieces: &Receiver<Message>,
    empties: &Sender<Vec<u8>>,
    parameters: u64,
) -> Result<()> {
    for message in pieces {
        match message {
            Message::Piece(tensor, bytes) => {
                writer.push(&tensor, &bytes)?;
                // The makers may be gone already; then nobody wants it.
                let _ = empties.send(bytes);
            }
            Message::Done => return writer.finish(parameters),
        }
    }
    // The makers failed, and say why.
    Ok(())
}
