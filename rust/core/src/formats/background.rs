//! Decoding on a thread of its own, a few batches ahead of whoever takes them.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::formats::order::Ordered;
use crate::trace::{DecodeReport, TraceBatch, TraceSource};

/// Batches decoded ahead: enough to even out, few enough to bound the memory.
const AHEAD: usize = 2;

/// A batch with the disk names known after it.
pub struct Decoded {
    pub batch: TraceBatch,
    pub disks: Vec<String>,
}

/// What is known at the end.
pub struct Outcome {
    pub report: DecodeReport,
    /// The rows went out of order late: the trace must be read again, with sorting.
    pub needs_sort: bool,
}

enum Message {
    Batch(Box<Decoded>),
    End(Box<Outcome>),
    Failed(Error),
}

pub struct Background {
    messages: Receiver<Message>,
    thread: Option<JoinHandle<()>>,
    outcome: Option<Outcome>,
}

impl Background {
    /// Starts decoding `source` in batches of `max_rows`.
    ///
    /// # Errors
    /// `Failed` where no thread can be started.
    pub fn start(mut source: Ordered, max_rows: usize) -> Result<Self> {
        let (sender, messages) = sync_channel(AHEAD);
        let work = move || {
            loop {
                let message = match source.next_batch(max_rows) {
                    Ok(Some(batch)) => {
                        let disks = source.disks().to_vec();
                        Message::Batch(Box::new(Decoded { batch, disks }))
                    }
                    Ok(None) => Message::End(Box::new(Outcome {
                        report: source.report(),
                        needs_sort: source.needs_sort(),
                    })),
                    Err(error) => Message::Failed(error),
                };
                let is_last = !matches!(message, Message::Batch(_));
                // A receiver that has gone has lost interest: an interrupted import.
                if sender.send(message).is_err() || is_last {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("decode".to_owned())
            .spawn(work)
            .map_err(|e| Error::failed("no thread for decoding").caused_by(e))?;
        Ok(Self { messages, thread: Some(thread), outcome: None })
    }

    /// The next batch, or `None` at the end.
    ///
    /// # Errors
    /// What the decoder reported.
    pub fn next_batch(&mut self) -> Result<Option<Decoded>> {
        if self.outcome.is_some() {
            return Ok(None);
        }
        match self.messages.recv() {
            Ok(Message::Batch(batch)) => Ok(Some(*batch)),
            Ok(Message::End(outcome)) => {
                self.outcome = Some(*outcome);
                Ok(None)
            }
            Ok(Message::Failed(error)) => Err(error),
            Err(_) => Err(Error::failed("the decoder has ended early")),
        }
    }

    /// Known after the last batch.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Closing the channel ends the thread at its next batch.
        let (_, nothing) = sync_channel(0);
        drop(std::mem::replace(&mut self.messages, nothing));
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by `next_batch`.
            let _ = thread.join();
        }
    }
}
