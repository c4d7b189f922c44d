//! How a worker lets time pass: asleep, then with its eyes on the clock, until an I/O is due.
//!
//! What can wait is left alone shortly before a due time, and a completion is stamped when it
//! arrives: it ends a sleep, and while the worker spins it shows in memory that the kernel shares.

use std::sync::atomic::Ordering::Relaxed;

use super::run::Output;
use super::worker::{Phase, Worker};
use crate::clock::Ns;
use crate::error::Result;

/// How long the worker sleeps at most before it looks whether it should stop.
const LOOK_UP_NS: u64 = 50_000_000;
/// Rows of a slow trace reach the drain thread at least this often.
const CHUNK_AGE_NS: u64 = 1_000_000_000;
const SAMPLE_EVERY_NS: u64 = 100_000_000;
/// A sample takes less than this: with less to the next due time, it waits (not for ever).
const SAMPLE_NS: u64 = 200_000;

impl Worker {
    /// Lets time pass until something can happen.
    #[inline]
    pub(super) fn pass_time(&mut self) -> Result<()> {
        if let Some((disk, layer)) = self.pipeline.storm() {
            return Err(self.stormed(disk, layer));
        }
        let now = self.pipeline.core.clock.now();
        let may_stage = !self.exhausted && !self.starved && self.in_flight < self.depth;
        if may_stage && self.staged.is_empty() {
            self.sample_if_due(now, Ns::MAX)?;
            // More may be due already than is staged at a time.
            return self.pipeline.kick();
        }
        let mut until = if self.in_flight < self.depth {
            self.head_due_ns().unwrap_or(Ns::MAX)
        } else {
            Ns::MAX
        };
        if let Some(event) = self.pipeline.next_event_ns() {
            until = until.min(event);
        }
        self.sample_if_due(now, until)?;
        if !self.pipeline.may_sleep() {
            return self.pipeline.kick();
        }
        if self.pipeline.core.clock.is_virtual() {
            if until == Ns::MAX {
                return Err(self.stuck());
            }
            self.pipeline.core.clock.advance_to(until);
            return Ok(());
        }
        if until <= now {
            return self.pipeline.kick();
        }
        let waiting_for_trace = !self.exhausted && self.staged.is_empty();
        let gap = if waiting_for_trace { 1_000_000.min(until - now) } else { until - now };
        if until == Ns::MAX {
            self.pipeline.kick_and_wait(gap.min(LOOK_UP_NS))?;
        } else if gap > self.options.spin_ns {
            self.pipeline.wait((gap - self.options.spin_ns).min(LOOK_UP_NS))?;
        } else {
            return self.spin(now + gap);
        }
        self.pipeline.core.clock.discipline();
        Ok(())
    }

    /// Looks at the clock until `until`, then issues what is due at once; or until there is
    /// something to take in.
    fn spin(&mut self, until: Ns) -> Result<()> {
        self.pipeline.kick()?;
        while self.pipeline.core.clock.now() < until {
            if self.pipeline.has_completions() {
                return self.pipeline.fetch();
            }
            if self.shared.stop.load(Relaxed) {
                return Ok(());
            }
        }
        self.issue_due()?;
        self.pipeline.kick()
    }

    fn sample_if_due(&mut self, now: Ns, until: Ns) -> Result<()> {
        let soon = until < now.saturating_add(SAMPLE_NS) && !self.pipeline.core.clock.is_virtual();
        let patience_ns = if soon { SAMPLE_EVERY_NS } else { 0 };
        if now >= self.next_sample_ns + patience_ns {
            self.sample(now)?;
        }
        Ok(())
    }

    /// Figures of the moment, and rows that have waited long enough.
    fn sample(&mut self, now: Ns) -> Result<()> {
        self.next_sample_ns = now + SAMPLE_EVERY_NS;
        self.shared.progress.publish(&self.totals, &self.disks);
        self.look_for_hung()?;
        if self.phase != Phase::Trace {
            return Ok(());
        }
        self.read_gauges(now);
        let age_ns = if self.pipeline.core.clock.is_virtual() { u64::MAX } else { CHUNK_AGE_NS };
        self.send_gauges(now, age_ns);
        self.send_events();
        self.send_base(false);
        // In virtual time, chunks must not depend on anything but their rows.
        if !self.pipeline.core.clock.is_virtual()
            && let Some(chunk) = self.recorder.take_if_due(now, CHUNK_AGE_NS)
        {
            self.send(Output::Rows(chunk));
        }
        Ok(())
    }
}
