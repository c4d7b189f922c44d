//! What the worker asks of the backend: to take over what was submitted, to let it sleep, to say
//! when something will happen.

use std::cmp::Reverse;

use super::Pipeline;
use crate::backends::Counts;
use crate::clock::Ns;
use crate::error::{Error, Result};

impl Pipeline {
    /// Hands what was submitted to the device.
    ///
    /// # Errors
    /// As `poll`.
    #[inline]
    pub fn kick(&mut self) -> Result<()> {
        if self.unkicked.is_empty() {
            return Ok(());
        }
        let before = self.core.clock.now();
        self.backend.kick()?;
        self.book_kick(self.core.clock.now() - before);
        Ok(())
    }

    /// Sleeps until a completion may be there, at most `timeout_ns`.
    ///
    /// # Errors
    /// As `poll`.
    pub fn wait(&mut self, timeout_ns: u64) -> Result<()> {
        self.kick()?;
        self.backend.wait(timeout_ns)
    }

    /// Whether `poll` may find something, as far as can be told without a call to the kernel.
    #[inline]
    pub fn has_completions(&mut self) -> bool {
        !self.polled.is_empty() || self.backend.has_completions()
    }

    /// Has the kernel do its part of what `has_completions` saw, where no other call comes soon.
    ///
    /// # Errors
    /// As `poll`.
    pub fn fetch(&mut self) -> Result<()> {
        self.backend.fetch()
    }

    /// Kick and wait in one call to the kernel, where nothing is due before a completion. The time
    /// is not booked to the I/Os: it is mostly sleep.
    ///
    /// # Errors
    /// As `poll`.
    pub fn kick_and_wait(&mut self, timeout_ns: u64) -> Result<()> {
        self.unkicked.clear();
        self.backend.wait(timeout_ns)
    }

    /// The earliest time at which something will happen by itself: a timer, or a modelled device.
    #[inline]
    #[must_use]
    pub fn next_event_ns(&self) -> Option<Ns> {
        let timer = self.core.timers.peek().map(|Reverse(timer)| timer.0);
        match (timer, self.backend.next_event_ns()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        self.backend.counts()
    }

    /// Why the backend is of no use any more, told once.
    #[inline]
    pub fn broken(&mut self) -> Option<Error> {
        if self.backend_is_model { None } else { self.backend.broken() }
    }

    fn book_kick(&mut self, ns: u64) {
        let share = ns / self.unkicked.len() as u64;
        for id in self.unkicked.drain(..) {
            let root = self.core.slab.io(id).root;
            self.core.book_cpu(root, self.filters, share);
        }
    }
}
