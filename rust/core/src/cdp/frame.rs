//! What the two ends say to each other.

use std::sync::Arc;

use super::entry::{Entry, HEADER_BYTES};
use super::store::LongTerm;
use crate::clock::Ns;

/// The version of protocol and store; ends of different versions refuse each other.
pub const VERSION: u32 = 3;

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
    /// One point of every interval is kept for longer.
    pub long_term: Option<LongTerm>,
    /// A name that outlives runs: sources of the same name go on with one store; empty for none.
    pub stream: String,
}

/// What a store holds that the source which greets it has not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Held {
    /// The newest point's number.
    pub last_id: u64,
    /// Times of this source's stream count from here.
    pub stream_ns: Ns,
}

/// Asks for the digests of a range's blocks, as the store has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ask {
    pub disk: u16,
    pub offset_bytes: u64,
    pub length_bytes: u64,
    pub block_bytes: u64,
}

/// Blocks of one question at most.
pub const ASK_MAX: u64 = 2048;

impl Ask {
    /// The ranges asked for, `(offset, length)`; the last one may be shorter than a block.
    pub fn blocks(self) -> impl Iterator<Item = (u64, u64)> {
        let end = self.offset_bytes + self.length_bytes;
        (self.offset_bytes..end)
            .step_by(self.block_bytes.max(1) as usize)
            .map(move |from| (from, self.block_bytes.min(end - from)))
    }

    /// It is one that a site answers: of bounded work.
    #[must_use]
    pub const fn is_fair(self) -> bool {
        matches!(self.block_bytes, 512..=0x10_0000)
            && self.length_bytes <= self.block_bytes * ASK_MAX
            && self.offset_bytes <= 1 << 60
    }
}

/// The digest of a block: two are the same if their data is.
#[must_use]
pub fn digest(data: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(data)
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
    /// Boxed: it is large, comes once a connection, and every frame has its room.
    Hello(Box<Hello>),
    Entry(Arc<Entry>),
    /// The answer to a hello: the replica stands before `next_no`.
    Welcome {
        next_no: u64,
        points: Vec<Durable>,
        held: Option<Held>,
    },
    Ask(Ask),
    /// The digests of all blocks asked for; none where nothing can be compared.
    Sums(Ask, Vec<u128>),
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
    /// Bytes of a line's bandwidth that an entry takes: its data. The bandwidth of a link is what
    /// is left for data, to this tool: headers, like those of the layers below, are in the share
    /// that `efficiency` takes off.
    #[must_use]
    pub fn payload_bytes(&self, compression_ratio: f64) -> u64 {
        match self {
            Self::Entry(entry) => (entry.payload_bytes as f64 * compression_ratio) as u64,
            _ => self.wire_bytes(compression_ratio),
        }
    }

    /// Bytes on the wire, of which an entry's are those with bytes in place of tokens.
    #[must_use]
    pub fn wire_bytes(&self, compression_ratio: f64) -> u64 {
        match self {
            Self::Entry(entry) => {
                let is_whole = compression_ratio.to_bits() == 1f64.to_bits();
                let left = entry.real_bytes as f64 * compression_ratio;
                HEADER_BYTES as u64 + if is_whole { entry.real_bytes } else { left as u64 }
            }
            Self::Hello(_) | Self::Welcome { .. } | Self::Refuse(_) => 256,
            Self::Ack { points, .. } => 64 + 16 * points.len() as u64,
            Self::Full | Self::Ask(_) => 64,
            Self::Sums(_, sums) => 64 + 16 * sums.len() as u64,
        }
    }
}
