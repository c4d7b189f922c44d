//! A device that loses what was not flushed, and what it may have lost.

use std::collections::BTreeMap;

use crate::filters::SECTOR_BYTES;
use crate::io::{Op, flags};
use crate::slab::Io;

/// What is safe, and for each sector what was written since, oldest first.
pub struct Volatile {
    safe: Vec<u8>,
    later: BTreeMap<usize, Vec<(u64, Vec<u8>)>>,
    /// Bytes in memory of a sector.
    sector: usize,
    /// Changes done so far.
    pub changes: u64,
}

impl Volatile {
    pub fn new(safe: Vec<u8>, sector: usize) -> Self {
        Self { safe, later: BTreeMap::new(), sector, changes: 0 }
    }

    pub fn change(&mut self, from: usize, data: &[u8], is_safe: bool) {
        self.changes += 1;
        for (i, data) in data.chunks(self.sector).enumerate() {
            let at = from + i * self.sector;
            if is_safe {
                self.later.remove(&at);
                self.safe[at..at + self.sector].copy_from_slice(data);
            } else {
                self.later.entry(at).or_default().push((self.changes, data.to_vec()));
            }
        }
    }

    /// The first `changes` are safe.
    pub fn flush(&mut self, changes: u64) {
        let safe = &mut self.safe;
        self.later.retain(|at, written| {
            let covered = written.iter().take_while(|(change, _)| *change <= changes).count();
            if let Some((_, data)) = written.drain(..covered).next_back() {
                safe[*at..*at + data.len()].copy_from_slice(&data);
            }
            !written.is_empty()
        });
    }

    pub fn lose(mut self, seed: u64) -> Vec<u8> {
        let mut random = seed;
        for (at, written) in self.later {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let kept = (random >> 33) as usize % (written.len() + 1);
            if let Some((_, data)) = written.get(kept) {
                self.safe[at..at + data.len()].copy_from_slice(data);
            }
        }
        self.safe
    }
}

/// A write to a sector; no token where nobody can know what it holds.
struct Written {
    token: Option<u64>,
    seq: u64,
    done_at: u64,
}

/// What was written to each sector, and from which on it may be found after a loss of power.
#[derive(Default)]
pub struct History {
    /// In the order in which I/Os start and end.
    now: u64,
    started: BTreeMap<u64, u64>,
    sectors: BTreeMap<u64, Vec<Written>>,
}

impl History {
    pub fn starts(&mut self, io: &Io) {
        self.now += 1;
        self.started.insert(io.seq, self.now);
        if !io.op.modifies() {
            return;
        }
        let token = match io.op {
            Op::Write => Some(io.seq + 1),
            Op::WriteZeroes => Some(0),
            _ => None,
        };
        for sector in sectors(io) {
            let before = self
                .sectors
                .entry(sector)
                .or_insert_with(|| vec![Written { token: None, seq: u64::MAX, done_at: 0 }]);
            before.push(Written { token, seq: io.seq, done_at: u64::MAX });
        }
    }

    pub fn done(&mut self, io: &Io) {
        self.now += 1;
        let now = self.now;
        if io.op.modifies() {
            for sector in sectors(io) {
                let written = self.sectors.get_mut(&sector).expect("it started");
                for each in written.iter_mut().filter(|each| each.seq == io.seq) {
                    each.done_at = now;
                }
            }
        }
        if io.op == Op::Flush || io.flags & flags::PREFLUSH != 0 {
            let started = self.started[&io.seq];
            for written in self.sectors.values_mut() {
                forget_before(written, |each| each.done_at < started);
            }
        }
        if io.flags & flags::FUA != 0 && io.op == Op::Write {
            for sector in sectors(io) {
                let written = self.sectors.get_mut(&sector).expect("it started");
                forget_before(written, |each| each.seq == io.seq);
            }
        }
    }

    /// Of each sector that was written to: what may be there.
    pub fn allowed(self) -> impl Iterator<Item = (u64, Vec<Option<u64>>)> {
        self.sectors
            .into_iter()
            .map(|(sector, written)| (sector, written.iter().map(|each| each.token).collect()))
    }
}

/// Drops what is older than the last that `is_safe`.
fn forget_before(written: &mut Vec<Written>, is_safe: impl Fn(&Written) -> bool) {
    if let Some(last) = written.iter().rposition(is_safe) {
        written.drain(..last);
    }
}

fn sectors(io: &Io) -> std::ops::Range<u64> {
    io.offset_bytes / SECTOR_BYTES..(io.offset_bytes + io.length_bytes) / SECTOR_BYTES
}
