//! Where a replica keeps what it has received. The trait, and two that live in memory.

use std::collections::HashMap;
use std::sync::Arc;

use super::entry::{Change, Entry, Kind};
use super::frame::{Ask, Held, Hello, digest};
use crate::clock::Ns;
use crate::error::{Error, Result};
use crate::filters::{DataMode, SECTOR_BYTES, TOKEN_BYTES};

/// Why an entry was not kept.
#[derive(Debug)]
pub enum Refusal {
    /// There is no room: it may be offered again later.
    Full,
    Broken(Error),
}

/// A place for the entries of one source.
pub trait Vault: Send {
    /// Appends the entry that follows the last one.
    ///
    /// # Errors
    /// Nothing of the entry was kept.
    fn append(&mut self, entry: &Arc<Entry>, now: Ns) -> Result<(), Refusal>;

    /// Makes everything durable that was appended.
    ///
    /// # Errors
    /// As `append`: what was not durable is gone.
    fn sync(&mut self, now: Ns) -> Result<(), Refusal>;

    /// The last entry appended.
    fn received_no(&self) -> u64;

    /// Takes a source that has greeted; what is held that it has not sent.
    ///
    /// # Errors
    /// `Input` when what is held is another's.
    fn join(&mut self, hello: &Hello) -> Result<Option<Held>>;

    /// Digests of blocks, of the state after the last entry or any state since the source joined.
    ///
    /// # Errors
    /// There is no such disk, it cannot be read, or nothing is compared here.
    fn sums(&mut self, ask: Ask) -> Result<Vec<u128>>;
}

/// Counts entries and keeps none: for figures of a link in virtual time.
#[derive(Debug, Default)]
pub struct Counts {
    received_no: u64,
    durable_no: u64,
    pub real_bytes: u64,
}

impl Vault for Counts {
    fn append(&mut self, entry: &Arc<Entry>, _now: Ns) -> Result<(), Refusal> {
        self.received_no = entry.no;
        self.real_bytes += entry.real_bytes;
        Ok(())
    }

    fn sync(&mut self, _now: Ns) -> Result<(), Refusal> {
        self.durable_no = self.received_no;
        Ok(())
    }

    fn received_no(&self) -> u64 {
        self.received_no
    }

    fn join(&mut self, _hello: &Hello) -> Result<Option<Held>> {
        Ok(None)
    }

    fn sums(&mut self, _ask: Ask) -> Result<Vec<u128>> {
        Err(Error::failed("what is only counted has no digests"))
    }
}

/// The state of a group's disks by sector, with a digest that follows each change at once: the
/// sum of a hash of every sector that does not hold zeroes. Two states are the same if it is.
#[derive(Debug, Clone, Default)]
pub struct State {
    sectors: HashMap<(u16, u64), u64>,
    digest: u64,
}

impl State {
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// Sets a sector; what it held before.
    pub fn set(&mut self, disk: u16, sector: u64, token: u64) -> u64 {
        let before = if token == 0 {
            self.sectors.remove(&(disk, sector)).unwrap_or(0)
        } else {
            self.sectors.insert((disk, sector), token).unwrap_or(0)
        };
        let weigh = |token: u64| if token == 0 { 0 } else { weight(disk, sector, token) };
        self.digest = self.digest.wrapping_sub(weigh(before)).wrapping_add(weigh(token));
        before
    }

    #[must_use]
    pub fn get(&self, disk: u16, sector: u64) -> u64 {
        self.sectors.get(&(disk, sector)).copied().unwrap_or(0)
    }

    /// Applies a change of whole sectors; `undo` gets `(disk, sector, token before)`.
    pub fn apply(
        &mut self,
        change: Change,
        disk: u16,
        range: (u64, u64),
        data: &[u8],
        mut undo: impl FnMut(u16, u64, u64),
    ) {
        let first = range.0 / SECTOR_BYTES;
        for i in 0..range.1 / SECTOR_BYTES {
            let token = match change {
                Change::Write => {
                    let mut token = [0; TOKEN_BYTES];
                    let at = i as usize * TOKEN_BYTES;
                    token.copy_from_slice(&data[at..at + TOKEN_BYTES]);
                    u64::from_le_bytes(token)
                }
                Change::Zero | Change::Discard => 0,
            };
            let before = self.set(disk, first + i, token);
            undo(disk, first + i, before);
        }
    }
}

fn weight(disk: u16, sector: u64, token: u64) -> u64 {
    // splitmix64's finaliser over the three, each spread by an odd constant.
    let mut z = sector
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(token.wrapping_mul(0xD1B5_4A32_D192_ED03))
        .wrapping_add(u64::from(disk).wrapping_mul(0xA24B_AED4_963E_E407));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A point in a [`Memory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    pub id: u64,
    pub cut_ns: Ns,
    /// The state it offers.
    pub digest: u64,
    no: u64,
}

/// Keeps the state in tokens, and the way back to what is durable: a site that can crash.
#[derive(Debug)]
pub struct Memory {
    state: State,
    received_no: u64,
    durable_no: u64,
    /// Durable points.
    points: Vec<Kept>,
    fresh: Vec<Kept>,
    /// Digest after each entry that is not durable, and of the last that is.
    digests: Vec<(u64, u64)>,
    undo: Vec<(u16, u64, u64)>,
    /// Entries that may still be appended before it is full.
    pub room: u64,
    resyncing: bool,
    durable_resyncing: bool,
    /// What a source compares with, after that entry: as a store on disk has it.
    compared: Option<(u64, State)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            state: State::default(),
            received_no: 0,
            durable_no: 0,
            points: Vec::new(),
            fresh: Vec::new(),
            digests: vec![(0, 0)],
            undo: Vec::new(),
            room: u64::MAX,
            resyncing: false,
            durable_resyncing: false,
            compared: None,
        }
    }
}

impl Memory {
    /// The points that recovery would offer if the site crashed now.
    #[must_use]
    pub fn points(&self) -> &[Kept] {
        &self.points
    }

    /// Whether the durable end of the stream is inside a resynchronisation.
    #[must_use]
    pub const fn resyncs(&self) -> bool {
        self.durable_resyncing
    }

    /// Takes a state as what was there before any source came.
    #[cfg(test)]
    pub fn adopt(&mut self, state: State) {
        self.digests = vec![(0, state.digest())];
        self.state = state;
    }

    fn holds_something(&self) -> bool {
        self.received_no > 0 || self.state.digest() != 0
    }

    /// Forgets what was not durable.
    pub fn crash(&mut self) {
        for (disk, sector, token) in self.undo.drain(..).rev() {
            self.state.set(disk, sector, token);
        }
        self.fresh.clear();
        self.compared = None;
        self.received_no = self.durable_no;
        self.resyncing = self.durable_resyncing;
        self.digests.retain(|(no, _)| *no <= self.durable_no);
        debug_assert_eq!(self.digests.last().map(|(_, d)| *d), Some(self.state.digest()));
    }
}

impl Vault for Memory {
    fn append(&mut self, entry: &Arc<Entry>, _now: Ns) -> Result<(), Refusal> {
        if self.room == 0 {
            return Err(Refusal::Full);
        }
        self.room -= 1;
        match entry.kind {
            Kind::Batch => {
                for record in entry.records(DataMode::Tokens) {
                    let r = record.map_err(Refusal::Broken)?;
                    let range = (r.offset_bytes, r.length_bytes);
                    let undo = &mut self.undo;
                    self.state.apply(r.change, r.disk, range, r.data, |disk, sector, before| {
                        undo.push((disk, sector, before));
                    });
                }
            }
            Kind::ResyncBegin => {
                self.resyncing = true;
                self.compared.take_if(|(no, _)| *no + 1 != entry.no);
            }
            Kind::Point { id, cut_ns, after_no } => {
                self.resyncing = false;
                let digest = self
                    .digests
                    .iter()
                    .rev()
                    .find(|(no, _)| *no <= after_no)
                    .map_or(0, |(_, digest)| *digest);
                self.fresh.push(Kept { id, cut_ns, digest, no: entry.no });
            }
        }
        self.received_no = entry.no;
        self.digests.push((entry.no, self.state.digest()));
        Ok(())
    }

    fn sync(&mut self, _now: Ns) -> Result<(), Refusal> {
        self.durable_no = self.received_no;
        self.durable_resyncing = self.resyncing;
        if !self.fresh.is_empty() {
            self.compared = None;
        }
        self.points.append(&mut self.fresh);
        self.undo.clear();
        // A point may lie some entries back: what is in flight at most.
        let keep = self.digests.len().saturating_sub(4096);
        self.digests.drain(..keep);
        Ok(())
    }

    fn received_no(&self) -> u64 {
        self.received_no
    }

    fn join(&mut self, hello: &Hello) -> Result<Option<Held>> {
        let is_new = hello.first && hello.acked_no == 0 && self.holds_something();
        Ok(is_new.then(|| Held {
            last_id: self.points.last().map_or(0, |point| point.id),
            stream_ns: 0,
        }))
    }

    fn sums(&mut self, ask: Ask) -> Result<Vec<u128>> {
        let mut data = Vec::new();
        let compared = self.compared.get_or_insert_with(|| (self.received_no, self.state.clone()));
        let sum = |(from, length): (u64, u64)| {
            data.clear();
            for sector in from / SECTOR_BYTES..(from + length) / SECTOR_BYTES {
                data.extend_from_slice(&compared.1.get(ask.disk, sector).to_le_bytes());
            }
            digest(&data)
        };
        Ok(ask.blocks().map(sum).collect())
    }
}
