//! How many distinct blocks each stretch of time asks for, and how many came up so far.

use super::BUCKETS;
use super::requests::Chunk;
use super::work::Consumer;

/// Distinct blocks of all streams by bucket of time.
pub struct WorkingSet {
    /// By stream and block: the last bucket that asked for it, plus one.
    seen: Vec<Vec<u8>>,
    /// By bucket: distinct blocks, and those never asked for before.
    pub buckets: Vec<(u64, u64)>,
}

// A bucket, plus one, fits into a byte.
const _: () = assert!(BUCKETS < 256);

impl Default for WorkingSet {
    fn default() -> Self {
        Self { seen: Vec::new(), buckets: vec![(0, 0); BUCKETS] }
    }
}

impl Consumer for WorkingSet {
    fn take(&mut self, chunk: &Chunk) {
        if chunk.stream >= self.seen.len() {
            self.seen.resize_with(chunk.stream + 1, Vec::new);
        }
        let seen = &mut self.seen[chunk.stream];
        for segment in &chunk.segments {
            let mark = segment.bucket as u8 + 1;
            let (mut distinct, mut new) = (0, 0);
            for request in &chunk.requests[segment.requests.clone()] {
                let block = request.block() as usize;
                if block >= seen.len() {
                    seen.resize((block + 1).next_power_of_two(), 0);
                }
                let before = std::mem::replace(&mut seen[block], mark);
                distinct += u64::from(before != mark);
                new += u64::from(before == 0);
            }
            let bucket = &mut self.buckets[segment.bucket as usize];
            bucket.0 += distinct;
            bucket.1 += new;
        }
    }
}
