//! What a source is told at its start, and what it has to say.

use super::super::store::LongTerm;
use super::base::Initial;
use super::degrade::Resync;
use crate::clock::Ns;
use crate::filters::DataMode;
use crate::io::Status;

/// What a write waits for before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// Nothing: it is in the journal.
    Async,
    /// The replica has it in memory.
    SemiSync,
    /// The replica has it on stable storage.
    Sync,
}

/// What happens when the journal is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Degrade {
    /// Blocks are marked instead: a hole until they have been sent again.
    Bitmap,
    /// Writes are held back first, so that the link may catch up.
    Backpressure,
    /// The journal takes what there is room for; lag grows.
    Lag,
}

/// The source's settings.
#[derive(Debug, Clone)]
pub struct Config {
    pub run: String,
    pub disks: Vec<String>,
    pub disk_bytes: Vec<u64>,
    pub data: DataMode,
    pub waits: Waits,
    pub degrade: Degrade,
    /// 0 for continuous.
    pub point_interval_ns: Ns,
    /// An entry's bytes: at most, and the least that it is held to where little waits.
    pub batch_bytes: u64,
    pub batch_least_bytes: u64,
    pub folding: bool,
    /// What the journal holds at most: in memory, and with the spill file.
    pub memory_bytes: u64,
    pub journal_bytes: u64,
    /// Of the spill file, 0 for none.
    pub spill_bytes: u64,
    /// The longest record of the spill file.
    pub record_max_bytes: u64,
    /// Writes are held back from here on, with backpressure.
    pub high_water_bytes: u64,
    /// Block of the bitmap and of the reads of a resynchronisation.
    pub block_bytes: u64,
    /// Entries on their way at most.
    pub window_bytes: u64,
    /// The link is given up when nothing was confirmed for so long.
    pub timeout_ns: Ns,
    /// A synchronous write waits for the replica no longer than this.
    pub sync_timeout_ns: Ns,
    pub retention_ns: Ns,
    pub retention_bytes: u64,
    pub long_term: Option<LongTerm>,
    /// A name that outlives runs; empty for none.
    pub stream: String,
    pub initial: Initial,
    /// By disk: ranges, from and to, that hold anything; the whole disk where none are given.
    pub extents: Vec<Vec<(u64, u64)>>,
    /// Blocks that read as zeroes hold zeroes.
    pub skips_zeroes: bool,
    /// What the replica holds is compared before it is sent.
    pub checksums: bool,
}

/// What replication is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Normal,
    /// Writes are held back.
    Backpressure,
    /// Blocks are marked, nothing is journaled.
    Bitmap,
    /// Marked blocks are read and sent, new writes journaled.
    Resync,
    /// A synchronous filter that waits for the replica no longer.
    Detached,
}

impl Mode {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Backpressure => "backpressure",
            Self::Bitmap => "bitmap",
            Self::Resync => "resync",
            Self::Detached => "detached",
        }
    }

    /// The number in the timeline's gauge.
    #[must_use]
    pub const fn code(self) -> i64 {
        self as i64
    }
}

/// What the filter has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A restore point has become recoverable.
    Point {
        id: u64,
        cut_ns: Ns,
        recoverable_ns: Ns,
        bytes: u64,
    },
    /// No restore point was made in this stretch.
    Hole {
        from_ns: Ns,
        to_ns: Ns,
        reason: &'static str,
        resync: Resync,
    },
    Mode(Mode),
    /// How far the initial synchronisation is.
    Syncing {
        done_bytes: u64,
        of_bytes: u64,
        sent_bytes: u64,
        equal_bytes: u64,
    },
    /// The initial synchronisation is done; what was in the stream already was not sent.
    Synced {
        to_ns: Ns,
        of_bytes: u64,
        sent_bytes: u64,
        equal_bytes: u64,
    },
    /// The spill file could not be written.
    SpillFailed {
        status: Status,
    },
    Link {
        up: bool,
        why: String,
    },
    /// Synchronous writes up to this entry may be acknowledged.
    Release {
        no: u64,
    },
    /// All synchronous writes that wait: the replica is waited for no longer.
    ReleaseAll,
    /// The far end refuses this source: the run cannot go on as declared.
    Fatal {
        message: String,
    },
}
