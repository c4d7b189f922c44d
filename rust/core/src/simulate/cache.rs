//! A simulated cache: a policy, the requests of one stream, and what is counted.

use std::sync::Arc;

use serde::Serialize;

use super::BUCKETS;
use super::dirty::{Dirty, DirtyReport};
use super::requests::{After, Chunk, Segment};
use super::work::Consumer;
use crate::eviction::belady::{Belady, NEVER};
use crate::eviction::{Access, Eviction, Inserts, Request};

/// What the cache does with writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WritePolicy {
    Through,
    Back,
    Around,
}

/// Hits of a simulated cache, by what was counted.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct CacheReport {
    pub hits: u64,
    pub read_hits: u64,
    /// I/Os all of whose blocks hit.
    pub io_hits: u64,
    pub read_io_hits: u64,
    /// Bytes of the I/Os that lay in blocks that hit.
    pub hit_bytes: u64,
    pub read_hit_bytes: u64,
    /// Blocks in the cache at the end.
    pub resident_blocks: usize,
    /// By bucket of time, warm-up included: requests and hits.
    pub series: Vec<(u64, u64)>,
    /// Counted requests that were asked of it: of a sample, the sample's.
    pub requests: u64,
    /// With write-back.
    pub dirty: Option<DirtyReport>,
}

enum Policy {
    Online(Box<dyn Eviction>),
    /// With the position of the next request of each request's block.
    Offline(Belady, Arc<Vec<u32>>),
    /// All requests are done: its memory is free for others.
    Over,
}

pub struct Cache {
    stream: usize,
    policy: Policy,
    inserts: Inserts,
    block_bytes: u64,
    bits: Vec<u64>,
    report: CacheReport,
    dirty: Option<Dirty>,
}

impl Cache {
    /// A cache for the requests of a stream.
    #[must_use]
    pub fn new(
        policy: Box<dyn Eviction>,
        stream: usize,
        write_policy: WritePolicy,
        block_bytes: u64,
        bucket_ns: i64,
    ) -> Self {
        Self::with(Policy::Online(policy), stream, write_policy, block_bytes, bucket_ns)
    }

    /// The best there is: `next` has an entry for each request of the stream.
    #[must_use]
    pub fn offline(
        belady: Belady,
        next: Arc<Vec<u32>>,
        stream: usize,
        write_policy: WritePolicy,
        block_bytes: u64,
        bucket_ns: i64,
    ) -> Self {
        Self::with(Policy::Offline(belady, next), stream, write_policy, block_bytes, bucket_ns)
    }

    fn with(
        policy: Policy,
        stream: usize,
        write_policy: WritePolicy,
        block_bytes: u64,
        bucket_ns: i64,
    ) -> Self {
        let inserts =
            if write_policy == WritePolicy::Around { Inserts::Reads } else { Inserts::All };
        let is_back = write_policy == WritePolicy::Back;
        let dirty = is_back.then(|| Dirty::new(block_bytes, bucket_ns));
        let report = CacheReport { series: vec![(0, 0); BUCKETS], ..CacheReport::default() };
        Self { stream, policy, inserts, block_bytes, bits: Vec::new(), report, dirty }
    }

    /// What was counted; the trace ends at `end_ns`.
    #[must_use]
    pub fn finish(mut self, end_ns: i64) -> CacheReport {
        self.report.dirty = self.dirty.map(|dirty| dirty.finish(end_ns));
        self.report
    }

    fn count(&mut self, chunk: &Chunk, segment: &Segment, partial: &mut usize) {
        let words = segment.words();
        let count = |words: &mut dyn Iterator<Item = u64>| -> u64 {
            words.map(|word| u64::from(word.count_ones())).sum()
        };
        let pairs = || self.bits[words.clone()].iter().zip(&chunk.writes[words.clone()]);
        let hits = count(&mut pairs().map(|(hit, _)| *hit));
        let read_hits = count(&mut pairs().map(|(hit, write)| hit & !write));
        let (io_hits, read_io_hits) = whole_ios(&self.bits, chunk, words.clone());
        let bucket = &mut self.report.series[segment.bucket as usize];
        bucket.0 += segment.requests.len() as u64;
        bucket.1 += hits;
        let (mut bytes, mut read_bytes) = (hits * self.block_bytes, read_hits * self.block_bytes);
        let end = (words.end * 64) as u32;
        while let Some(&(bit, missing)) = chunk.partial.get(*partial).filter(|(bit, _)| *bit < end)
        {
            *partial += 1;
            let is_set = |words: &[u64]| words[bit as usize / 64] >> (bit % 64) & 1 == 1;
            if is_set(&self.bits) {
                bytes -= u64::from(missing);
                if !is_set(&chunk.writes) {
                    read_bytes -= u64::from(missing);
                }
            }
        }
        if segment.is_counted {
            self.report.requests += segment.requests.len() as u64;
            self.report.hits += hits;
            self.report.read_hits += read_hits;
            self.report.io_hits += io_hits;
            self.report.read_io_hits += read_io_hits;
            self.report.hit_bytes += bytes;
            self.report.read_hit_bytes += read_bytes;
        }
    }

    fn discard(&mut self, blocks: &[u32]) {
        for &block in blocks {
            let _was_here = match &mut self.policy {
                Policy::Online(policy) => policy.remove(u64::from(block)).is_some(),
                Policy::Offline(belady, _) => belady.remove(block),
                Policy::Over => false,
            };
            if let Some(dirty) = &mut self.dirty {
                dirty.clean(block);
            }
        }
    }
}

/// I/Os, and reads among them, all of whose requests hit. `words` are those of a segment.
///
/// Added to the hits, a one at an I/O's first request runs through as many ones as follow it; the
/// last request's own bit is left out, so that what reaches it stays there.
fn whole_ios(hits: &[u64], chunk: &Chunk, words: std::ops::Range<usize>) -> (u64, u64) {
    let (mut first, mut carry) = (1, false);
    let (mut all, mut reads) = (0, 0);
    for word in words {
        let (hit, end) = (hits[word], chunk.ends.get(word).copied().unwrap_or(0));
        let (sum, over) = (hit & !end).overflowing_add(end << 1 | first);
        let (sum, over_too) = sum.overflowing_add(u64::from(carry));
        (first, carry) = (end >> 63, over || over_too);
        let whole = sum & hit & end;
        all += u64::from(whole.count_ones());
        reads += u64::from((whole & !chunk.writes[word]).count_ones());
    }
    (all, reads)
}

/// One request of a policy: whether it hits, and who leaves.
fn ask(
    policy: &mut Policy,
    request: Request,
    position: usize,
    inserts: Inserts,
) -> (bool, Option<u32>) {
    let block = request.block() as u32;
    let passes = inserts == Inserts::Reads && request.is_write();
    match policy {
        Policy::Online(policy) => {
            if passes && policy.resident(u64::from(block)).is_none() {
                return (false, None);
            }
            match policy.access(u64::from(block)) {
                Access::Hit(_) => (true, None),
                Access::Miss { evicted, .. } => (false, evicted.map(|block| block as u32)),
            }
        }
        Policy::Offline(belady, next) => {
            if passes && !belady.is_resident(block) {
                return (false, None);
            }
            belady.access(block, position as u32, next[position])
        }
        Policy::Over => (false, None),
    }
}

impl Consumer for Cache {
    fn take(&mut self, chunk: &Chunk) {
        if chunk.stream != self.stream {
            return;
        }
        self.bits.clear();
        self.bits.resize(chunk.writes.len(), 0);
        let (mut partial, mut io) = (0, 0);
        for segment in &chunk.segments {
            let requests = &chunk.requests[segment.requests.clone()];
            let bits = &mut self.bits[segment.words()];
            match (&mut self.policy, &mut self.dirty) {
                (Policy::Online(policy), None) => policy.access_all(requests, self.inserts, bits),
                (policy, dirty) => {
                    for (i, request) in requests.iter().enumerate() {
                        let at = segment.requests.start + i;
                        let position = chunk.first as usize + at;
                        let (is_hit, evicted) = ask(policy, *request, position, self.inserts);
                        bits[i / 64] |= u64::from(is_hit) << (i % 64);
                        let Some(dirty) = dirty else { continue };
                        while chunk.ios[io].end as usize <= at {
                            io += 1;
                        }
                        dirty.request(*request, chunk.ios[io], evicted);
                    }
                }
            }
            self.count(chunk, segment, &mut partial);
            match (&segment.after, &mut self.dirty) {
                (After::Discard(range), _) => self.discard(&chunk.discards[range.clone()]),
                (After::Flush { disk, time_ns }, Some(dirty)) => dirty.flush(*disk, *time_ns),
                _ => {}
            }
        }
    }

    fn end(&mut self) {
        self.report.resident_blocks = match &self.policy {
            Policy::Online(policy) => policy.len(),
            Policy::Offline(belady, _) => belady.len(),
            Policy::Over => return,
        };
        self.policy = Policy::Over;
        self.bits = Vec::new();
    }
}

/// For each request of a stream, where its block is asked for next: what [`Belady`] knows.
/// `chunks` are all of the stream, in order.
#[must_use]
pub fn next_requests(chunks: &[Arc<Chunk>], stream: usize, blocks: usize) -> Vec<u32> {
    let own = || chunks.iter().filter(|chunk| chunk.stream == stream);
    let requests = own().map(|chunk| chunk.requests.len()).sum();
    let mut next = vec![NEVER; requests];
    let mut seen = vec![NEVER; blocks];
    let mut position = requests;
    for chunk in own().rev() {
        for segment in chunk.segments.iter().rev() {
            if let After::Discard(range) = &segment.after {
                // The next request for these misses in any case.
                chunk.discards[range.clone()].iter().for_each(|id| seen[*id as usize] = NEVER);
            }
            for request in chunk.requests[segment.requests.clone()].iter().rev() {
                position -= 1;
                let seen = &mut seen[request.block() as usize];
                next[position] = std::mem::replace(seen, position as u32);
            }
        }
    }
    next
}
