//! From a block's number to a number of the policy's own (a slot, a ghost).

use std::ops::Range;
use std::sync::Arc;

use crate::int_map::IntMap;

/// No slot, no entry.
pub(crate) const NONE: u32 = u32::MAX;

/// What a policy is built over. Each policy is compiled for both kinds, so that no request asks
/// which it is.
pub enum Index {
    Dense(Dense),
    Hashed(Hashed),
}

impl Index {
    /// For block numbers from 0 on, without gaps, as a simulator gives them: one load a look-up.
    /// `blocks` of them are expected; more may come.
    #[must_use]
    pub fn dense(blocks: usize) -> Self {
        Self::marked(blocks, Arc::default())
    }

    /// As [`Index::dense`]; `marks` has the [`mark`] of each block's number on its disk, so that a
    /// policy that looks at it decides as over [`Index::hashed`].
    #[must_use]
    pub fn marked(blocks: usize, marks: Arc<Vec<u32>>) -> Self {
        Self::Dense(Dense { entries: vec![NONE; blocks], marks })
    }

    /// For any block numbers.
    #[must_use]
    pub fn hashed() -> Self {
        Self::Hashed(Hashed(IntMap::default()))
    }
}

/// A hash of a block's number, the same wherever its policy runs.
#[inline]
#[must_use]
pub fn mark(block: u64) -> u32 {
    let product = u128::from(block ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
    let folded = (product as u64) ^ (product >> 64) as u64;
    (folded ^ folded >> 32) as u32
}

/// A table of entries by block number; an entry is below [`NONE`].
pub trait BlockIndex: Send + 'static {
    /// A block's number as a policy's nodes keep it.
    type Number: Copy + Default + Send;

    fn number(block: u64) -> Self::Number;
    fn block(number: Self::Number) -> u64;
    fn get(&self, block: u64) -> Option<u32>;
    fn set(&mut self, block: u64, entry: u32);
    fn remove(&mut self, block: u64) -> Option<u32>;
    /// Blocks of the range that have an entry, in order.
    fn known(&self, blocks: Range<u64>) -> Vec<u64>;
    /// The block's [`mark`].
    fn mark(&self, block: u64) -> u32;
    fn clear(&mut self);
    /// Asks the processor for the entry of a block that a later request is for.
    fn prefetch(&self, block: u64);
    /// As `prefetch`, for its mark.
    fn prefetch_mark(&self, _block: u64) {}
}

pub struct Dense {
    entries: Vec<u32>,
    /// Empty where nobody gave any.
    marks: Arc<Vec<u32>>,
}

impl Dense {
    #[cold]
    fn grow(&mut self, block: u64) {
        let blocks = (block as usize + 1).max(2 * self.entries.len());
        self.entries.resize(blocks, NONE);
    }
}

impl BlockIndex for Dense {
    type Number = u32;

    #[inline]
    fn number(block: u64) -> u32 {
        block as u32
    }

    #[inline]
    fn block(number: u32) -> u64 {
        u64::from(number)
    }

    #[inline]
    fn get(&self, block: u64) -> Option<u32> {
        self.entries.get(block as usize).copied().filter(|entry| *entry != NONE)
    }

    #[inline]
    fn set(&mut self, block: u64, entry: u32) {
        if block as usize >= self.entries.len() {
            self.grow(block);
        }
        self.entries[block as usize] = entry;
    }

    #[inline]
    fn remove(&mut self, block: u64) -> Option<u32> {
        let entry = self.entries.get_mut(block as usize)?;
        Some(std::mem::replace(entry, NONE)).filter(|entry| *entry != NONE)
    }

    fn known(&self, blocks: Range<u64>) -> Vec<u64> {
        let end = blocks.end.min(self.entries.len() as u64);
        (blocks.start..end).filter(|block| self.entries[*block as usize] != NONE).collect()
    }

    #[inline]
    fn mark(&self, block: u64) -> u32 {
        self.marks.get(block as usize).copied().unwrap_or_else(|| mark(block))
    }

    fn clear(&mut self) {
        self.entries.fill(NONE);
    }

    #[inline]
    fn prefetch(&self, block: u64) {
        prefetch(&self.entries, block as usize);
    }

    #[inline]
    fn prefetch_mark(&self, block: u64) {
        prefetch(&self.marks, block as usize);
    }
}

pub struct Hashed(IntMap<u32>);

impl BlockIndex for Hashed {
    type Number = u64;

    #[inline]
    fn number(block: u64) -> u64 {
        block
    }

    #[inline]
    fn block(number: u64) -> u64 {
        number
    }

    #[inline]
    fn get(&self, block: u64) -> Option<u32> {
        self.0.get(&block).copied()
    }

    #[inline]
    fn set(&mut self, block: u64, entry: u32) {
        self.0.insert(block, entry);
    }

    #[inline]
    fn remove(&mut self, block: u64) -> Option<u32> {
        self.0.remove(&block)
    }

    fn known(&self, blocks: Range<u64>) -> Vec<u64> {
        let mut known: Vec<u64> =
            self.0.keys().copied().filter(|block| blocks.contains(block)).collect();
        known.sort_unstable();
        known
    }

    #[inline]
    fn mark(&self, block: u64) -> u32 {
        mark(block)
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn prefetch(&self, _block: u64) {}
}

/// Asks the processor to load `items[at]`; nothing where there is no such item.
#[inline]
pub(crate) fn prefetch<T>(items: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(item) = items.get(at) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing; its address is that of an item that exists.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(item).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (items, at);
}
