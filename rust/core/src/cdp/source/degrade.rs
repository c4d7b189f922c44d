//! When the journal is full or the replica is out of reach: holding back, marking, sending again.

use super::{Change, Degrade, Entry, Kind, Mode, Ns, Output, Record, Source};

/// Reads of marked blocks under way at most.
pub const READS_MAX: u64 = 8;

/// What a resynchronisation took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Resync {
    /// Sent again.
    #[serde(rename = "resync_bytes")]
    pub sent_bytes: u64,
    /// Of marked blocks: compared with what the replica holds, and the same there.
    #[serde(rename = "resync_compared_bytes")]
    pub compared_bytes: u64,
    #[serde(rename = "resync_equal_bytes")]
    pub equal_bytes: u64,
}

/// A stretch without restore points.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hole {
    pub from_ns: Ns,
    pub reason: &'static str,
}

impl Source {
    /// Marks blocks from here on; what no link was given is marked as well, and forgotten.
    pub fn enter_bitmap(&mut self, now: Ns, reason: &'static str) {
        self.close_batch();
        self.mark_spilled();
        let dropped = self.journal.drop_unsent();
        for entry in &dropped {
            for record in entry.records(self.config.data).filter_map(Result::ok) {
                self.dirty.mark(record.disk, record.offset_bytes, record.length_bytes);
            }
        }
        let next_no = self.journal.next_no();
        while self.points.back().is_some_and(|point| point.no >= next_no) {
            self.points.pop_back();
            self.counts.points_lost += 1;
        }
        self.newest_cut_ns =
            self.points.back().map_or(self.last_recoverable_cut_ns, |point| point.cut_ns);
        self.since_point_bytes = 0;
        let from_ns = self.newest_cut_ns.min(now);
        if self.hole.is_none() {
            self.resync = Resync::default();
        }
        self.hole.get_or_insert(Hole { from_ns, reason });
        self.set_mode(Mode::Bitmap);
        self.outputs.push(Output::ReleaseAll);
    }

    /// The replica has all that was sent: what is marked follows, new writes are journaled.
    pub(super) fn begin_resync(&mut self, now: Ns) {
        let no = self.journal.next_no();
        self.append(Entry::mark(no, Kind::ResyncBegin, now));
        self.compare_marked(no);
        self.counts.resyncs += 1;
        self.reads_from_ns = now;
        self.set_mode(Mode::Resync);
    }

    /// The next marked block to read, as `(disk, offset, length)`. New writes go first: blocks
    /// are read while little else waits for the link.
    pub fn next_read(&mut self, now: Ns) -> Option<(u16, u64, u64)> {
        let waiting = self.journal.unsent_bytes() + self.open.real_bytes;
        if self.mode != Mode::Resync
            || self.reads >= READS_MAX
            || now < self.reads_from_ns
            || waiting > (self.config.batch_bytes * 2).min(self.config.journal_bytes / 4)
        {
            return None;
        }
        let block = self.take_block()?;
        self.reads += 1;
        Some(block)
    }

    /// A block was read. `data` is `None` when the read failed or what it gave may be torn
    /// or old, because a write to the block was under way meanwhile.
    pub fn read_done(
        &mut self,
        now: Ns,
        block: (u16, u64, u64),
        data: Option<&[u8]>,
        failed: bool,
    ) {
        self.reads -= 1;
        let (disk, offset_bytes, length_bytes) = block;
        let full = self.is_full_for(length_bytes);
        match data {
            Some(data) if self.mode == Mode::Resync && !full => {
                for (from, to) in self.wanted(block, data) {
                    let part = self.config.data.size(from)..self.config.data.size(to);
                    let part = &data[part];
                    let is_zero = self.is_known_zero(part);
                    self.resync.sent_bytes += to - from;
                    self.push(&Record {
                        change: if is_zero { Change::Zero } else { Change::Write },
                        disk,
                        offset_bytes: offset_bytes + from,
                        length_bytes: to - from,
                        time_ns: now,
                        data: if is_zero { &[] } else { part },
                    });
                }
            }
            _ => {
                self.put_back(block);
                if failed {
                    // A block that cannot be read now may be later; meanwhile the hole stays.
                    self.reads_from_ns = now + 1_000_000_000;
                }
            }
        }
    }

    /// Ends the resynchronisation once every marked block has been sent: cuts its point.
    pub fn end_resync(&mut self, now: Ns) {
        let is_sent = self.reads == 0 && self.dirty.is_empty() && self.is_base_sent();
        if self.mode != Mode::Resync || !is_sent {
            return;
        }
        let Some(hole) = self.hole.take() else { return };
        // Before the mode changes: nothing that was sent since the hole began was waited for.
        self.cut(now);
        self.resume_waiting();
        self.counts.resync.sent_bytes += self.resync.sent_bytes;
        self.counts.resync.compared_bytes += self.resync.compared_bytes;
        self.counts.resync.equal_bytes += self.resync.equal_bytes;
        self.outputs.push(Output::Hole {
            from_ns: hole.from_ns,
            to_ns: now,
            reason: hole.reason,
            resync: self.resync,
        });
        self.end_initial(now);
    }

    /// Since when no restore point is made, and why.
    #[must_use]
    pub fn open_hole(&self) -> Option<(Ns, &'static str)> {
        self.hole.map(|hole| (hole.from_ns, hole.reason))
    }

    /// The run ends inside a hole: it is told as far as it reaches.
    pub fn tell_open_hole(&mut self, now: Ns) {
        if let Some(hole) = self.hole {
            self.outputs.push(Output::Hole {
                from_ns: hole.from_ns,
                to_ns: now,
                reason: hole.reason,
                resync: self.resync,
            });
        }
    }

    /// Whether writes have to be held back now, with backpressure.
    pub fn holds_back(&mut self) -> bool {
        if self.config.degrade != Degrade::Backpressure {
            return false;
        }
        match self.mode {
            Mode::Normal if self.is_high(1.0) => {
                self.set_mode(Mode::Backpressure);
            }
            Mode::Backpressure if !self.is_high(0.9) => {
                self.set_mode(Mode::Normal);
            }
            _ => {}
        }
        self.mode == Mode::Backpressure
    }

    /// Synchronous writes have waited long enough: the guest goes on alone.
    pub fn detach(&mut self) {
        // Held back or not: writes let go now are acknowledged, and belong to the next point.
        if matches!(self.mode, Mode::Normal | Mode::Backpressure) {
            self.set_mode(Mode::Detached);
        }
        self.outputs.push(Output::ReleaseAll);
    }
}
