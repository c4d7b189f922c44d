//! What goes to the journal's spill file and comes back from it.

use std::sync::Arc;

use super::super::entry::{Entry, Kind};
use super::super::spill::Region;
use super::{Ns, Output, Source};
use crate::io::Status;

/// Writes under way to the spill file at most, and reads of it.
pub const MOVES_MAX: usize = 4;
/// A spill file that could not be written is tried again after this long.
const RETRY_NS: Ns = 5_000_000_000;

/// What moves between memory and file.
#[derive(Debug, Default)]
pub(super) struct Overflow {
    writes: usize,
    reads: usize,
    from_ns: Ns,
}

impl Source {
    /// Memory and file have no room for so many bytes more.
    pub(super) fn is_full_for(&self, bytes: u64) -> bool {
        let more = self.open.real_bytes + bytes;
        self.journal.bytes() + more > self.config.journal_bytes
            || self.journal.resident_bytes() + more > self.config.memory_bytes
    }

    /// Memory is so full that writes have to be held back, where they may be.
    pub(super) fn is_high(&self, share: f64) -> bool {
        let high = |used: u64, of: u64| used as f64 >= of as f64 * share;
        let open = self.open.real_bytes;
        high(self.journal.bytes() + open, self.config.high_water_bytes)
            || high(self.journal.resident_bytes() + open, self.config.memory_bytes / 10 * 9)
    }

    /// Whether `next_spill` or `next_unspill` may have something to do.
    #[must_use]
    pub const fn has_overflow(&self) -> bool {
        self.config.spill_bytes > 0
            && (self.journal.has_spilled()
                || self.journal.resident_bytes() > self.config.memory_bytes / 2)
    }

    /// An entry that memory shall be rid of, and where it goes.
    pub fn next_spill(&mut self, now: Ns) -> Option<(Arc<Entry>, Region)> {
        let is_time = self.overflow.writes < MOVES_MAX
            && now >= self.overflow.from_ns
            && self.journal.resident_bytes() > self.config.memory_bytes / 2;
        let moved = is_time.then(|| self.journal.spill(self.config.record_max_bytes)).flatten()?;
        self.overflow.writes += 1;
        Some(moved)
    }

    /// A record was written, or could not be: then the journal goes on without the file, and what
    /// is declared for a full journal happens when memory is full.
    pub fn spilled(&mut self, now: Ns, region: Region, status: Status) {
        self.overflow.writes -= 1;
        let well = status == crate::io::OK;
        if let Some(entry) = self.journal.spilled(region, well) {
            self.counts.spilled_bytes += entry.real_bytes;
            for record in entry.records(self.config.data).filter_map(Result::ok) {
                self.spilled.mark(record.disk, record.offset_bytes, record.length_bytes);
            }
        }
        if !well {
            self.overflow.from_ns = now + RETRY_NS;
            self.outputs.push(Output::SpillFailed { status });
        }
    }

    /// A record that is needed in memory soon.
    pub fn next_unspill(&mut self) -> Option<Region> {
        let region = (self.overflow.reads < MOVES_MAX).then(|| self.journal.unspill()).flatten()?;
        self.overflow.reads += 1;
        Some(region)
    }

    /// A record was read. `None` where it is not what was written: its blocks, and those of all
    /// that was to follow, are read from the disks again.
    pub fn unspilled(&mut self, now: Ns, region: Region, entry: Option<Entry>) {
        self.overflow.reads -= 1;
        if !self.journal.unspilled(region, entry) {
            self.enter_bitmap(now, "spill file damaged");
        }
        if !self.journal.has_spilled() {
            self.spilled.clear_all();
        }
    }

    /// As `unspilled`, for an entry whose tokens never left memory.
    pub fn returned(&mut self, now: Ns, region: Region) {
        self.unspilled(now, region, Some(Entry::mark(region.no, Kind::Batch, 0)));
    }

    /// Entries in the file alone are about to be dropped: what they changed is marked.
    pub(super) fn mark_spilled(&mut self) {
        self.dirty.mark_all_of(&self.spilled);
        self.spilled.clear_all();
    }
}
