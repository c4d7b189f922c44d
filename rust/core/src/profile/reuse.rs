//! Reuse: how long, and how many other blocks, until a block comes back; how skewed the touches.
//!
//! The reuse distance of a request is the number of distinct other blocks requested since the
//! last request of its block; an LRU cache of `C` blocks hits just when it is below `C` (Mattson
//! et al. 1970). It is counted exactly, by [`crate::recency`].
//!
//! Beyond [`MAX_REGIONS`] regions of 8 blocks the tracked set is halved by a hash of the region,
//! again and again, as in SHARDS (Waldspurger et al., FAST '15) with a fixed size; a distance
//! found among 1 in `n` regions stands for `n` times as many blocks and is counted `n` times.
//! What the sample holds too many or too few of, is booked to the shortest distance, as SHARDS-adj
//! does. `sampled` then says so.

use serde::Serialize;

use super::blocks::{KeyMap, spread};
use super::quantiles::{Distribution, Quantiles};
use crate::recency::Order;

/// Regions tracked before sampling sets in: 2 Mi regions are 64 GiB at 4 KiB blocks where
/// neighbours are touched too, 8 GiB where no two are; about 300 MB of memory.
pub const MAX_REGIONS: usize = 2 << 20;
const REGION_BITS: u32 = 3;
const REGION: usize = 1 << REGION_BITS;

/// LRU hit ratios are given for caches of these shares of the footprint.
const CACHE_SHARES: [f64; 7] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];
/// Popularity is given for these shares of the blocks, the most requested first.
const TOP_SHARES: [f64; 4] = [0.001, 0.01, 0.1, 0.2];

#[derive(Debug, Clone, Copy, Default)]
struct Last {
    /// Position of the last request, plus one; 0 when never requested.
    position: u32,
    requests: u32,
    time_ns: i64,
}

/// Reuse of one disk's blocks, or of all disks' (keys then carry the disk).
#[derive(Debug, Clone)]
pub struct Reuse {
    index: KeyMap<u32>,
    regions: Vec<[Last; REGION]>,
    /// Key of each region, in step with `regions`.
    keys: Vec<u64>,
    order: Order,
    max_regions: usize,
    /// One region in `2^sample_bits` is tracked.
    sample_bits: u32,
    requests: u64,
    distance: Quantiles,
    time_ns: Quantiles,
    /// Requests of blocks never requested before, scaled up where sampled.
    first_requests: u64,
}

#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct ReuseSummary {
    /// Block requests; each is a reuse or the first request of its block.
    pub requests: u64,
    pub reuse_share: Option<f64>,
    pub distance_blocks: Option<Distribution>,
    pub time_ns: Option<Distribution>,
    pub lru: Vec<LruPoint>,
    pub popularity: Vec<TopBlocks>,
    pub method: &'static str,
    /// Share of the blocks that were tracked: 1 means exact.
    pub sampled: f64,
}

#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct LruPoint {
    pub footprint_share: f64,
    pub cache_bytes: u64,
    pub hit_ratio: f64,
}

#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct TopBlocks {
    pub block_share: f64,
    pub request_share: f64,
}

impl Default for Reuse {
    fn default() -> Self {
        Self::with_limit(MAX_REGIONS)
    }
}

impl Reuse {
    /// Tracks at most `max_regions` regions at a time.
    #[must_use]
    pub fn with_limit(max_regions: usize) -> Self {
        Self {
            index: KeyMap::default(),
            regions: Vec::new(),
            keys: Vec::new(),
            order: Order::default(),
            max_regions,
            sample_bits: 0,
            requests: 0,
            distance: Quantiles::default(),
            time_ns: Quantiles::default(),
            first_requests: 0,
        }
    }

    /// Counts requests of blocks `first..=last` in address order. `key_base` is added to region
    /// numbers to tell disks apart.
    pub fn touch(&mut self, key_base: u64, first: u64, last: u64, time_ns: i64) {
        self.requests += last - first + 1;
        for region in first >> REGION_BITS..=last >> REGION_BITS {
            let key = key_base + region;
            if !self.is_sampled(key) {
                continue;
            }
            let at = self.find_or_add(key);
            let low = first.max(region << REGION_BITS) as usize % REGION;
            let high = last.min((region << REGION_BITS) + REGION as u64 - 1) as usize % REGION;
            for slot in low..=high {
                self.touch_block(at, slot, time_ns);
            }
            if self.regions.len() > self.max_regions {
                self.halve();
            }
        }
    }

    #[inline]
    fn is_sampled(&self, key: u64) -> bool {
        // The low bits order the hash table: sampling takes others, the topmost.
        self.sample_bits == 0 || spread(key ^ 0x5ca1_ab1e) >> (64 - self.sample_bits) == 0
    }

    #[inline]
    fn find_or_add(&mut self, key: u64) -> usize {
        let next = self.regions.len() as u32;
        let at = *self.index.entry(key).or_insert(next);
        if at == next {
            self.regions.push([Last::default(); REGION]);
            self.keys.push(key);
        }
        at as usize
    }

    #[inline]
    fn touch_block(&mut self, at: usize, slot: usize, time_ns: i64) {
        if self.order.is_full() {
            self.renumber();
        }
        let times = 1_u64 << self.sample_bits;
        let last = &mut self.regions[at][slot];
        if last.position == 0 {
            self.first_requests += times;
        } else {
            let distance = self.order.remove(last.position - 1);
            self.distance.record_n(u64::from(distance) << self.sample_bits, times);
            self.time_ns.record_n((time_ns - last.time_ns) as u64, times);
        }
        last.position = self.order.push() + 1;
        last.requests = last.requests.saturating_add(1);
        last.time_ns = time_ns;
    }

    fn renumber(&mut self) {
        let ranks = self.order.ranks();
        for last in self.regions.iter_mut().flatten().filter(|l| l.position != 0) {
            last.position = ranks.of(last.position - 1) + 1;
        }
        self.order.restart();
    }

    /// Drops every other region, by hash, and with it its bits.
    fn halve(&mut self) {
        self.sample_bits += 1;
        let mut kept = 0;
        for at in 0..self.regions.len() {
            if self.is_sampled(self.keys[at]) {
                self.keys[kept] = self.keys[at];
                self.regions[kept] = self.regions[at];
                kept += 1;
            } else {
                for last in self.regions[at].iter().filter(|l| l.position != 0) {
                    self.order.remove(last.position - 1);
                }
            }
        }
        self.keys.truncate(kept);
        self.regions.truncate(kept);
        self.index.clear();
        self.index.extend(self.keys.iter().enumerate().map(|(i, key)| (*key, i as u32)));
    }

    /// `unique_blocks` is the exact number of distinct blocks.
    #[must_use]
    pub fn summary(&self, unique_blocks: u64, block_bytes: u64) -> ReuseSummary {
        let is_exact = self.sample_bits == 0;
        let reuses = self.requests.saturating_sub(unique_blocks);
        let share = |part: f64| part / self.requests as f64;
        ReuseSummary {
            requests: self.requests,
            reuse_share: (self.requests > 0).then(|| share(reuses as f64)),
            distance_blocks: self.distance.distribution(),
            time_ns: self.time_ns.distribution(),
            lru: self.lru(unique_blocks, block_bytes),
            popularity: self.popularity(),
            method: if is_exact {
                "exact stack distances"
            } else {
                "SHARDS-adj, fixed size, sampled by regions of 8 blocks"
            },
            sampled: 0.5_f64.powi(self.sample_bits as i32),
        }
    }

    fn lru(&self, unique_blocks: u64, block_bytes: u64) -> Vec<LruPoint> {
        if self.requests == 0 {
            return Vec::new();
        }
        let seen = self.distance.count() + self.first_requests;
        let adjustment = self.requests as f64 - seen as f64;
        let point = |share: f64| {
            let blocks = ((unique_blocks as f64 * share) as u64).max(1);
            let hits = self.distance.count_below(blocks) + adjustment;
            LruPoint {
                footprint_share: share,
                cache_bytes: blocks * block_bytes,
                hit_ratio: (hits / self.requests as f64).clamp(0.0, 1.0),
            }
        };
        CACHE_SHARES.into_iter().map(point).collect()
    }

    fn popularity(&self) -> Vec<TopBlocks> {
        let mut counts: Vec<u32> =
            self.regions.iter().flatten().map(|l| l.requests).filter(|n| *n > 0).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let total: u64 = counts.iter().map(|n| u64::from(*n)).sum();
        let top = |share: f64| {
            let blocks = ((counts.len() as f64 * share).ceil() as usize).min(counts.len());
            let requests: u64 = counts[..blocks].iter().map(|n| u64::from(*n)).sum();
            TopBlocks { block_share: share, request_share: requests as f64 / total as f64 }
        };
        if counts.is_empty() { Vec::new() } else { TOP_SHARES.into_iter().map(top).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of a skewed, deterministic walk.
    fn walk(steps: u64, blocks: u64) -> impl Iterator<Item = u64> {
        (0..steps).map(move |i| {
            let x = spread(i + 1);
            let unit = (x >> 11) as f64 / (1_u64 << 53) as f64;
            (unit * unit * unit * blocks as f64) as u64
        })
    }

    /// Distances by moving the block to the front of a list.
    fn plain(blocks: impl Iterator<Item = u64>) -> Vec<u64> {
        let (mut list, mut distances): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
        for block in blocks {
            if let Some(at) = list.iter().rposition(|b| *b == block) {
                distances.push((list.len() - 1 - at) as u64);
                list.remove(at);
            }
            list.push(block);
        }
        distances
    }

    #[test]
    fn distances_agree_with_move_to_front_through_renumbering() {
        // 150,000 requests of some 3,000 blocks: the 65,536 positions run out twice.
        let mut reuse = Reuse::default();
        walk(150_000, 3_000).enumerate().for_each(|(i, b)| reuse.touch(0, b, b, i as i64));
        let expected = plain(walk(150_000, 3_000));
        let mut quantiles = Quantiles::default();
        expected.iter().for_each(|d| quantiles.record(*d));
        assert_eq!(reuse.distance.distribution(), quantiles.distribution());
        let below = expected.iter().filter(|d| **d < 400).count() as f64;
        assert!((reuse.distance.count_below(400) - below).abs() < 1e-6);
    }

    #[test]
    fn a_range_is_requested_block_by_block_in_address_order() {
        let mut reuse = Reuse::default();
        reuse.touch(0, 5, 12, 0);
        reuse.touch(0, 5, 12, 10);
        let summary = reuse.summary(8, 4096);
        let distance = summary.distance_blocks.unwrap();
        assert_eq!((distance.count, distance.min, distance.max), (8, 7, 7));
        assert_eq!(summary.time_ns.unwrap().p50, 10);
        assert_eq!(summary.requests, 16);
    }

    #[test]
    fn a_sample_stays_near_the_exact_hit_ratio() {
        let (steps, blocks) = (400_000, 200_000);
        let mut exact = Reuse::default();
        let mut sampled = Reuse::with_limit(3_000);
        for (i, block) in walk(steps, blocks).enumerate() {
            exact.touch(0, block, block, i as i64);
            sampled.touch(0, block, block, i as i64);
        }
        let unique = exact.first_requests;
        let (a, b) = (exact.summary(unique, 4096), sampled.summary(unique, 4096));
        assert!((1.0 / 32.0..=1.0 / 8.0).contains(&b.sampled), "{}", b.sampled);
        for (a, b) in a.lru.iter().zip(&b.lru) {
            assert!((a.hit_ratio - b.hit_ratio).abs() < 0.03, "{a:?} {b:?}");
        }
        assert!(sampled.regions.len() <= 3_000);
    }

    #[test]
    fn popularity_of_a_hot_block() {
        let mut reuse = Reuse::default();
        (0..1000).for_each(|b| reuse.touch(0, b, b, 0));
        (0..1000).for_each(|_| reuse.touch(0, 3, 3, 0));
        let top = &reuse.summary(1000, 4096).popularity[0];
        assert_eq!(top.block_share, 0.001);
        assert!((top.request_share - 1001.0 / 2000.0).abs() < 1e-12);
    }
}
