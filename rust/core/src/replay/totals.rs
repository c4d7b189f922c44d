//! Counts of a round, and the progress that others may look at meanwhile.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use super::worker::Phase;
use crate::backends::Counts;
use crate::io::Op;
use crate::usage::Used;
use crate::version_map::Outcome;

/// Mismatches and errors told in words; the rest are counted.
const TOLD_MAX: usize = 10;

#[derive(Debug, Default, Clone, Serialize)]
pub struct Totals {
    /// Rows: I/Os of the trace, or parts where the fit map split one.
    pub rows: u64,
    pub ios_by_op: [u64; 5],
    pub bytes_by_op: [u64; 5],
    pub errors: u64,
    pub told_errors: Vec<String>,
    pub dropped: u64,
    /// Overlaps with an I/O in flight.
    pub conflicts: u64,
    pub verified_bytes: u64,
    pub unverified_bytes: u64,
    pub mismatches: u64,
    pub told_mismatches: Vec<String>,
    /// Of these bytes, those read in the sweep at the end.
    pub sweep_bytes: u64,
    pub sweep_errors: u64,
    /// `CLOCK_MONOTONIC` at the round's start, to lay what others saw beside it; 0 in virtual time.
    pub start_monotonic_ns: u64,
    /// Last completion since the start.
    pub wall_ns: u64,
    pub prefill_bytes: u64,
    pub prefill_ns: u64,
    pub cpu_user_ns: u64,
    pub cpu_system_ns: u64,
    pub context_switches: u64,
    pub involuntary_context_switches: u64,
    /// Requests read, changed and written back for the target's alignment.
    pub unaligned: u64,
    /// Writes with FUA that a flush had to follow, and what could not be made durable at all.
    pub fua_by_flush: u64,
    pub unflushed: u64,
    pub recorder_stalled_ns: u64,
}

impl Totals {
    #[inline]
    pub(super) fn note_row(&mut self, op: Op, bytes: u64, since_start_ns: u64) {
        self.rows += 1;
        self.ios_by_op[op as usize] += 1;
        self.bytes_by_op[op as usize] += bytes;
        self.wall_ns = self.wall_ns.max(since_start_ns);
    }

    pub(super) fn note_error(&mut self, phase: Phase, tell: impl FnOnce() -> String) {
        if phase == Phase::Sweep {
            self.sweep_errors += 1;
        }
        self.errors += 1;
        if self.told_errors.len() < TOLD_MAX {
            self.told_errors.push(tell());
        }
    }

    pub(super) fn note_verified(&mut self, phase: Phase, outcome: &Outcome, disk: &str) {
        self.verified_bytes += outcome.verified_bytes;
        self.unverified_bytes += outcome.unverified_bytes;
        if phase == Phase::Sweep {
            self.sweep_bytes += outcome.verified_bytes;
        }
        if let Some(mismatch) = &outcome.mismatch {
            self.mismatches += 1;
            if self.told_mismatches.len() < TOLD_MAX {
                let when = if phase == Phase::Sweep { " (final sweep)" } else { "" };
                self.told_mismatches.push(format!("disk {disk}: {mismatch}{when}"));
            }
        }
    }

    /// Adds what was used of the machine between two readings.
    pub(super) fn add_usage(&mut self, before: Used, after: Used) {
        // How a thread's time is parted into user and system may move by a tick.
        let used = |at: usize| after[at].saturating_sub(before[at]);
        self.cpu_user_ns += used(0);
        self.cpu_system_ns += used(1);
        self.context_switches += used(2);
        self.involuntary_context_switches += used(3);
    }

    pub(super) fn note_backend(&mut self, counts: Counts) {
        self.unaligned = counts.unaligned;
        self.fua_by_flush = counts.fua_by_flush;
        self.unflushed = counts.unflushed;
    }

    /// Adds another worker's counts.
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        for op in 0..self.ios_by_op.len() {
            self.ios_by_op[op] += other.ios_by_op[op];
            self.bytes_by_op[op] += other.bytes_by_op[op];
        }
        self.errors += other.errors;
        self.dropped += other.dropped;
        self.conflicts += other.conflicts;
        self.verified_bytes += other.verified_bytes;
        self.unverified_bytes += other.unverified_bytes;
        self.mismatches += other.mismatches;
        self.sweep_bytes += other.sweep_bytes;
        self.sweep_errors += other.sweep_errors;
        // All workers start at the same moment.
        self.start_monotonic_ns = self.start_monotonic_ns.max(other.start_monotonic_ns);
        self.wall_ns = self.wall_ns.max(other.wall_ns);
        self.prefill_bytes += other.prefill_bytes;
        self.prefill_ns = self.prefill_ns.max(other.prefill_ns);
        self.cpu_user_ns += other.cpu_user_ns;
        self.cpu_system_ns += other.cpu_system_ns;
        self.context_switches += other.context_switches;
        self.involuntary_context_switches += other.involuntary_context_switches;
        self.unaligned += other.unaligned;
        self.fua_by_flush += other.fua_by_flush;
        self.unflushed += other.unflushed;
        self.recorder_stalled_ns += other.recorder_stalled_ns;
        let room = |told: &[String]| TOLD_MAX - told.len().min(TOLD_MAX);
        let (errors, mismatches) = (room(&self.told_errors), room(&self.told_mismatches));
        self.told_errors.extend(other.told_errors.iter().take(errors).cloned());
        self.told_mismatches.extend(other.told_mismatches.iter().take(mismatches).cloned());
    }
}

/// What a progress bar needs, by disk: whoever publishes last has counted last.
#[derive(Debug, Default)]
pub struct Progress {
    rows: Vec<AtomicU64>,
    bytes: Vec<AtomicU64>,
    prefill: Vec<AtomicU64>,
}

impl Progress {
    /// For `disks` disks; a worker publishes under the number of its first one.
    #[must_use]
    pub fn new(disks: usize) -> Self {
        let zeros = || (0..disks).map(|_| AtomicU64::new(0)).collect();
        Self { rows: zeros(), bytes: zeros(), prefill: zeros() }
    }

    pub(super) fn publish(&self, totals: &Totals, disks: &[u16]) {
        let Some(first) = disks.first() else { return };
        let first = *first as usize;
        self.rows[first].store(totals.rows, Relaxed);
        self.bytes[first].store(totals.bytes_by_op.iter().sum(), Relaxed);
        self.prefill[first].store(totals.prefill_bytes, Relaxed);
    }

    /// `(rows, bytes, prefill bytes)` so far.
    #[must_use]
    pub fn read(&self) -> (u64, u64, u64) {
        let sum = |counts: &[AtomicU64]| counts.iter().map(|count| count.load(Relaxed)).sum();
        (sum(&self.rows), sum(&self.bytes), sum(&self.prefill))
    }
}
