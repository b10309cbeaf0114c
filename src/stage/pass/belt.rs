//! The belt from the threads that compute to the one that hashes and writes, and the empty buffers that come back.
//! Knows nothing of what is on it.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use anyhow::anyhow;

use crate::tensor::TensorWriter;

/// How many pieces may be on their way.
const DEPTH: usize = 6;

enum Message {
    /// The next bytes of the tensor of this name.
    Piece(String, Vec<u8>),
    /// That was all.
    Done,
}

/// The makers' end.
pub(super) struct Belt {
    pieces: SyncSender<Message>,
    empties: Receiver<Vec<u8>>,
    /// Written buffers: used again, because fresh memory costs a page fault for every four kilobytes.
    pool: RefCell<Vec<Vec<u8>>>,
}

impl Belt {
    /// Starts the writing thread.
    pub(super) fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        writer: TensorWriter<'env>,
        parameters: u64,
    ) -> (Self, ScopedJoinHandle<'scope, anyhow::Result<()>>) {
        let (pieces, receiver) = sync_channel(DEPTH);
        let (sender, empties) = channel();
        let end = scope.spawn(move || write(writer, &receiver, &sender, parameters));
        (Self { pieces, empties, pool: RefCell::default() }, end)
    }

    /// Returns a buffer of this length; what is in it is undefined.
    pub(super) fn empty(&self, length: usize) -> Vec<u8> {
        let mut pool = self.pool.borrow_mut();
        pool.extend(self.empties.try_iter());
        let fitting = pool.iter().enumerate().filter(|(_, buffer)| buffer.capacity() >= length);
        let smallest = fitting.min_by_key(|(_, buffer)| buffer.capacity()).map(|(index, _)| index);
        let mut buffer = smallest.map(|index| pool.swap_remove(index)).unwrap_or_default();
        buffer.resize(length, 0);
        buffer
    }

    /// Hands over the next bytes of `tensor`; waits if the writer is behind.
    pub(super) fn send(&self, tensor: &str, bytes: Vec<u8>) -> anyhow::Result<()> {
        self.put(Message::Piece(tensor.to_owned(), bytes))
    }

    /// Says that all was handed over. Without it the output stays without its end.
    pub(super) fn finish(&self) -> anyhow::Result<()> {
        self.put(Message::Done)
    }

    fn put(&self, message: Message) -> anyhow::Result<()> {
        self.pieces.send(message).map_err(|_| anyhow!("BUG: the writer went without saying why"))
    }
}

fn write(
    mut writer: TensorWriter<'_>,
    pieces: &Receiver<Message>,
    empties: &Sender<Vec<u8>>,
    parameters: u64,
) -> anyhow::Result<()> {
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
