//! Where a snapshot stands: what the guest waits for, the transfer, the removal.

use std::collections::VecDeque;

use super::changes::Runs;
use crate::clock::Ns;

/// What is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Idle,
    /// The guest is held, and its I/Os under way are waited for.
    Quiesce(Then),
    /// Nothing is under way, and the guest is still held.
    Stunned(Then),
    /// Changed blocks are read and sent.
    Sync,
    /// The redo log is merged, the guest runs.
    Merge,
}

/// What a stun is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Cut,
    /// So many bytes are merged while the guest is held.
    Removed(u64),
}

/// One transfer.
#[derive(Default)]
pub struct Sync {
    pub cut_ns: Ns,
    pub left: Runs,
    /// Chunks being read.
    pub reading: usize,
    /// Bytes of the chunks on the link, in order.
    pub sending: VecDeque<u64>,
    /// When the link has sent all of these, in link time.
    pub link_free: f64,
    pub bytes: u64,
    /// Bytes that the link has not taken over.
    pub backlog_bytes: u64,
    pub failed: bool,
}

/// The removal of a snapshot.
#[derive(Default)]
pub struct Merge {
    pub iteration: u32,
    pub left: Runs,
}
