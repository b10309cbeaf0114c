//! The queue from a rewrite to the thread that hashes and writes; written buffers come back for reuse.
//! Knows nothing of what the bytes mean.

use std::cell::RefCell;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Scope, ScopedJoinHandle};

use crate::Error;
use crate::error::Result;
use crate::tensor::TensorWriter;
use artifact::{AtPath, start};

/// How many bytes may be in the queue before [`WriteQueue::send`] waits. The codes of a large tensor come all
/// at once, after its scales. With this capacity the next tensor can be made while they are written.
const CAPACITY_BYTES: usize = 128 << 20;

enum Message {
    /// The next bytes of the tensor of this name.
    Piece(String, Vec<u8>),
    /// All pieces were sent.
    Done,
}

/// The sending end of the queue.
pub(super) struct WriteQueue {
    pieces: Sender<Message>,
    /// Buffers that were written and come back.
    empties: Receiver<Vec<u8>>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// How many bytes were sent and have not come back yet.
    load: usize,
    /// Buffers for reuse: fresh memory costs a page fault for every four kilobytes.
    pool: Vec<Vec<u8>>,
}

impl State {
    fn take_back(&mut self, buffer: Vec<u8>) {
        self.load -= buffer.len();
        self.pool.push(buffer);
    }
}

impl WriteQueue {
    /// Starts the writing thread. `parameters` is the number of weights before packing, for the index.
    ///
    /// # Errors
    /// Fails if the system gives no more threads.
    pub(super) fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        writer: TensorWriter<'env>,
        parameters: u64,
    ) -> Result<(Self, ScopedJoinHandle<'scope, Result<()>>)> {
        let (pieces, receiver) = channel();
        let (sender, empties) = channel();
        let end = start(scope, move || write(writer, &receiver, &sender, parameters));
        let end = end.at("start a thread to write in", Path::new("the output"))?;
        Ok((Self { pieces, empties, state: RefCell::default() }, end))
    }

    /// Returns a buffer of `length` bytes with unspecified contents.
    pub(super) fn empty(&self, length: usize) -> Vec<u8> {
        let mut state = self.state.borrow_mut();
        self.empties.try_iter().for_each(|buffer| state.take_back(buffer));
        let fitting = state.pool.iter().enumerate().filter(|(_, buffer)| buffer.capacity() >= length);
        let smallest = fitting.min_by_key(|(_, buffer)| buffer.capacity()).map(|(index, _)| index);
        let mut buffer = smallest.map(|index| state.pool.swap_remove(index)).unwrap_or_default();
        buffer.resize(length, 0);
        buffer
    }

    /// Sends the next bytes of `tensor`. Waits if the writer is behind.
    pub(super) fn send(&self, tensor: &str, bytes: Vec<u8>) -> Result<()> {
        let mut state = self.state.borrow_mut();
        while state.load > CAPACITY_BYTES {
            state.take_back(self.empties.recv().map_err(|_| Error::Bug(GONE.to_owned()))?);
        }
        state.load += bytes.len();
        self.put(Message::Piece(tensor.to_owned(), bytes))
    }

    /// Says that all bytes were sent. Without this call the writer does not complete the output.
    pub(super) fn finish(&self) -> Result<()> {
        self.put(Message::Done)
    }

    fn put(&self, message: Message) -> Result<()> {
        self.pieces.send(message).map_err(|_| Error::Bug(GONE.to_owned()))
    }
}

/// Users do not see this error, because the writer's own error comes first.
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
                // The sending end may be gone already. Then nobody needs the buffer.
                let _ = empties.send(bytes);
            }
            Message::Done => return writer.finish(parameters),
        }
    }
    // The rewrite failed, and reports its own error.
    Ok(())
}
