//! What the two ends say to each other.

use std::sync::Arc;

use super::entry::{Entry, HEADER_BYTES};
use crate::clock::Ns;

/// The version of protocol and store; ends of different versions refuse each other.
pub const VERSION: u32 = 1;

/// The first word of a source.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Hello {
    pub version: u32,
    /// Whose replica this is: a store belongs to one run.
    pub run: String,
    /// The disks that share points, in the order of their numbers.
    pub disks: Vec<String>,
    /// How large each is.
    pub disk_bytes: Vec<u64>,
    /// The last entry that the source knows to be durable.
    pub acked_no: u64,
    /// The source keeps no earlier entry than the next one: it was started anew.
    pub fresh: bool,
    /// The first greeting of this source: a store with entries is not its own.
    pub first: bool,
    /// Every instant between entries is a point.
    pub continuous: bool,
    /// The source wants to know what is in memory, before it is durable.
    pub early: bool,
    /// How long, and how many bytes of, earlier states are kept; 0 for no bound.
    pub retention_ns: u64,
    pub retention_bytes: u64,
}

/// A restore point that has become durable, and how long before the frame was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Durable {
    pub id: u64,
    pub age_ns: Ns,
}

/// A frame in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Hello(Hello),
    Entry(Arc<Entry>),
    /// The answer to a hello: the replica stands before `next_no`.
    Welcome {
        next_no: u64,
        points: Vec<Durable>,
    },
    /// All entries up to `received_no` are in memory there, up to `durable_no` on stable storage.
    Ack {
        received_no: u64,
        durable_no: u64,
        points: Vec<Durable>,
    },
    /// The store has no room for the next entry.
    Full,
    /// The far end takes no more from this source.
    Refuse(String),
}

impl Frame {
    /// Bytes on the wire, of which an entry's are those with bytes in place of tokens.
    #[must_use]
    pub fn wire_bytes(&self, compression_ratio: f64) -> u64 {
        match self {
            Self::Entry(entry) => {
                HEADER_BYTES as u64 + (entry.real_bytes as f64 * compression_ratio) as u64
            }
            Self::Hello(_) | Self::Welcome { .. } | Self::Refuse(_) => 256,
            Self::Ack { points, .. } => 64 + 16 * points.len() as u64,
            Self::Full => 64,
        }
    }
}
