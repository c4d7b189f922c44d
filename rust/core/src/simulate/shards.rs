//! LRU's hits at every size from a sample of the blocks: SHARDS (Waldspurger et al., FAST '15).
//!
//! A block is sampled when its hash, salted, lies below a threshold; a depth among the sampled
//! blocks stands for one larger by the inverse of the rate. With a fixed size the threshold falls
//! whenever there are more sampled blocks than that, and what was counted before is weighed down
//! by the ratio of the rates. What the sample has too few or too many of is booked to depth 0
//! (SHARDS-adj): it is mostly because of single blocks that are asked for all the time.

use std::collections::BinaryHeap;

use super::requests::{After, Chunk};
use super::stack::Stack;
use super::work::Consumer;

/// Spreads a block's number, with a salt, over 64 bits (the finaliser of splitmix64).
#[inline]
#[must_use]
pub fn hash(block: u32, salt: u64) -> u64 {
    let mut z = (u64::from(block) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ salt.wrapping_mul(0xd6e8_feb8_6659_fd93);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The hash below which a block is sampled at a rate.
#[must_use]
pub fn threshold(rate: f64) -> u64 {
    (rate * 2f64.powi(64)) as u64
}

pub struct Shards {
    stream: usize,
    salt: u64,
    threshold: u64,
    /// Most sampled blocks; the threshold falls to keep it.
    limit: Option<usize>,
    /// (hash, block) of those sampled, with a limit.
    sampled: BinaryHeap<(u64, u32)>,
    is_sampled: Vec<bool>,
    stack: Stack,
    /// Weight by scaled depth, in units of `unit`.
    depths: Vec<f64>,
    /// What a count of now weighs: it grows as the rate falls, in place of all older counts
    /// becoming lighter.
    unit: f64,
    /// Counted requests, sampled or not; and the weight of the sampled.
    requests: u64,
    weight: f64,
}

impl Shards {
    /// At a fixed rate, or at a falling one that keeps to `limit` blocks.
    #[must_use]
    pub fn new(stream: usize, salt: u64, rate: f64, limit: Option<usize>) -> Self {
        Self {
            stream,
            salt,
            threshold: threshold(rate),
            limit,
            sampled: BinaryHeap::new(),
            is_sampled: Vec::new(),
            stack: Stack::default(),
            depths: Vec::new(),
            unit: 1.0,
            requests: 0,
            weight: 0.0,
        }
    }

    /// Share of the blocks sampled, at the end.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.threshold as f64 / 2f64.powi(64)
    }

    /// Counted requests, sampled or not.
    #[must_use]
    pub const fn requests(&self) -> u64 {
        self.requests
    }

    /// Estimated hits per request, for caches of these numbers of blocks, in order.
    #[must_use]
    pub fn hit_ratios(&self, capacities: &[u64]) -> Vec<f64> {
        let expected = self.requests as f64 * self.rate() * self.unit;
        if expected == 0.0 {
            return vec![0.0; capacities.len()];
        }
        let mut found = Vec::with_capacity(capacities.len());
        let (mut depth, mut weight) = (0, expected - self.weight);
        for &capacity in capacities {
            let end = self.depths.len().min(capacity as usize).max(depth);
            weight += self.depths[depth..end].iter().sum::<f64>();
            depth = end;
            found.push((weight / expected).clamp(0.0, 1.0));
        }
        found
    }

    /// The sampled block's depth in a stack of all blocks, where it has one.
    fn request(&mut self, block: u32, hash: u64) -> Option<usize> {
        let rate = self.rate();
        let depth = self.stack.request(block).map(|depth| (f64::from(depth) / rate) as usize);
        if self.limit.is_some() {
            self.keep_to_limit(block, hash);
        }
        depth
    }

    fn keep_to_limit(&mut self, block: u32, hash: u64) {
        if block as usize >= self.is_sampled.len() {
            self.is_sampled.resize((block as usize + 1).next_power_of_two(), false);
        }
        if std::mem::replace(&mut self.is_sampled[block as usize], true) {
            return;
        }
        self.sampled.push((hash, block));
        while self.limit.is_some_and(|limit| self.sampled.len() > limit) {
            let Some(&(largest, _)) = self.sampled.peek() else { return };
            let before = self.rate();
            self.threshold = largest;
            self.unit *= before / self.rate();
            while let Some(&(_, block)) = self.sampled.peek().filter(|(hash, _)| *hash >= largest) {
                self.sampled.pop();
                self.is_sampled[block as usize] = false;
                self.stack.forget(block);
            }
        }
    }
}

impl Consumer for Shards {
    fn take(&mut self, chunk: &Chunk) {
        if chunk.stream != self.stream {
            return;
        }
        for segment in &chunk.segments {
            let requests = &chunk.requests[segment.requests.clone()];
            self.requests += if segment.is_counted { requests.len() as u64 } else { 0 };
            for request in requests {
                let block = request.block() as u32;
                let hash = hash(block, self.salt);
                if hash >= self.threshold {
                    continue;
                }
                let unit = self.unit;
                let depth = self.request(block, hash);
                if !segment.is_counted {
                    continue;
                }
                self.weight += unit;
                if let Some(depth) = depth {
                    if depth >= self.depths.len() {
                        self.depths.resize((depth + 1).next_power_of_two(), 0.0);
                    }
                    self.depths[depth] += unit;
                }
            }
            if let After::Discard(range) = &segment.after {
                for &block in &chunk.discards[range.clone()] {
                    self.stack.discard(block);
                }
            }
        }
    }
}
