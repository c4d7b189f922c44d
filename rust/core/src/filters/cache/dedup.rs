//! Content-based caching: from a block's address to the digest of its content to one copy of it.
//!
//! The policy's numbers are digests, so what several addresses hold takes one place. An address
//! keeps its digest when the copy is evicted: once another address has brought the content back,
//! the first hits again.

use xxhash_rust::xxh3::xxh3_128;

use super::super::Cx;
use super::work::{NO_SLOT, Piece, Portion};
use super::{Cache, Found};
use crate::eviction::Access;
use crate::int_map::IntMap;
use crate::io::{OK, Op, Status};
use crate::slab::IoId;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Digest {
    /// The policy's number of the content.
    low: u64,
    high: u64,
}

impl Digest {
    fn of(data: &[u8]) -> Self {
        let digest = xxh3_128(data);
        Self { low: digest as u64, high: (digest >> 64) as u64 }
    }
}

#[derive(Default)]
pub struct Contents {
    /// By address.
    digests: IntMap<Digest>,
    /// Addresses by digest.
    addresses: IntMap<u64>,
    /// By slot: the other half of its content's digest.
    highs: Vec<u64>,
    /// Addresses whose content is here.
    pub logical_blocks: u64,
    /// Blocks brought whose content was here already.
    pub shared_blocks: i64,
    scratch: Vec<u8>,
}

impl Contents {
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn addresses_of(&self, digest: Digest) -> u64 {
        self.addresses.get(&digest.low).copied().unwrap_or(0)
    }
}

impl Cache {
    /// As `look_up`, by content.
    pub(super) fn look_up_content(&mut self, block: u64, key: u64) -> (Piece, bool, Found) {
        if let Some((slot, frame)) = self.content_at(key)
            && let Some(contents) = &self.contents
            && let Some(digest) = contents.digests.get(&key)
        {
            self.policy.access(digest.low);
            let piece = Piece::new(block, key, slot, self.frames.generation(slot));
            return (piece, true, Found::Here(frame));
        }
        (Piece::new(block, key, NO_SLOT, 0), false, Found::Missing)
    }

    /// Where the content of an address is, if it is known and here.
    fn content_at(&self, key: u64) -> Option<(u32, u32)> {
        let contents = self.contents.as_ref()?;
        let digest = contents.digests.get(&key)?;
        let slot = self.policy.resident(digest.low)?;
        let frame = self.frames.of_slot(slot)?;
        (contents.highs[slot as usize] == digest.high).then_some((slot, frame))
    }

    /// The address holds these data.
    pub(super) fn learn(&mut self, key: u64, data: &[u8]) {
        let digest = Digest::of(data);
        let is_known = self.contents.as_ref().and_then(|c| c.digests.get(&key)) == Some(&digest);
        if !is_known {
            self.forget_content(key);
        }
        let Some(contents) = &mut self.contents else { return };
        match self.policy.access(digest.low) {
            Access::Hit(slot) => {
                if contents.highs[slot as usize] != digest.high {
                    // Half a digest alike, by chance: the address stays unknown.
                    return self.forget_content(key);
                }
                contents.shared_blocks += i64::from(!is_known);
            }
            Access::Miss { slot, evicted } => {
                if let Some(low) = evicted {
                    contents.logical_blocks -= contents.addresses_of(Digest { low, high: 0 });
                }
                contents.logical_blocks += contents.addresses_of(digest);
                if contents.highs.len() <= slot as usize {
                    contents.highs.resize(slot as usize + 1, 0);
                }
                contents.highs[slot as usize] = digest.high;
                self.frames.begin(slot, digest.low);
                let frame = self.frames.fill(slot);
                self.frames.data_mut(frame).copy_from_slice(data);
            }
        }
        if !is_known {
            contents.digests.insert(key, digest);
            *contents.addresses.entry(digest.low).or_insert(0) += 1;
            contents.logical_blocks += 1;
        }
    }

    /// Nobody knows what the address holds.
    pub(super) fn forget_content(&mut self, key: u64) {
        let Some(contents) = &mut self.contents else { return };
        let Some(digest) = contents.digests.remove(&key) else { return };
        if self.policy.resident(digest.low).is_some() {
            contents.logical_blocks -= 1;
        }
        if let Some(count) = contents.addresses.get_mut(&digest.low) {
            *count -= 1;
            if *count == 0 {
                contents.addresses.remove(&digest.low);
            }
        }
    }

    /// A write to the disk is done: the content of its addresses is another.
    pub(super) fn content_written(&mut self, cx: &Cx<'_>, io: IoId, piece: &Piece, st: Status) {
        let portion = self.grid.portion(cx, io, piece.block);
        let is_zeroes = cx.io(io).op == Op::WriteZeroes;
        if st == OK && portion.whole && !is_zeroes {
            self.learn(piece.key, &cx.data(io)[portion.of_io]);
            return;
        }
        let base = self.content_at(piece.key).map(|(_, frame)| frame);
        let Some(contents) = self.contents.as_mut().filter(|_| st == OK) else {
            return self.forget_content(piece.key);
        };
        let mut scratch = std::mem::take(&mut contents.scratch);
        scratch.resize(self.grid.mode.size(self.grid.block), 0);
        if let Some(frame) = base {
            scratch.copy_from_slice(self.frames.data(frame));
        }
        if base.is_some() || portion.whole {
            let Portion { of_io, of_block, .. } = portion;
            match is_zeroes {
                true => scratch[of_block].fill(0),
                false => scratch[of_block].copy_from_slice(&cx.data(io)[of_io]),
            }
            self.learn(piece.key, &scratch);
        } else {
            self.forget_content(piece.key);
        }
        if let Some(contents) = &mut self.contents {
            contents.scratch = scratch;
        }
    }

    pub(super) fn forget_contents(&mut self, keys: std::ops::Range<u64>) {
        let Some(contents) = &self.contents else { return };
        let known = contents.digests.len() as u64;
        if keys.end.saturating_sub(keys.start) <= known {
            return keys.for_each(|key| self.forget_content(key));
        }
        let within: Vec<u64> =
            contents.digests.keys().copied().filter(|key| keys.contains(key)).collect();
        within.into_iter().for_each(|key| self.forget_content(key));
    }
}
