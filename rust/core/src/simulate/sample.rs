//! A trace in small: the requests of a sample of the blocks, for simulations of any policy.
//!
//! A cache of `R` times the blocks on the requests of a share `R` of them behaves much as the
//! large one does on all (Waldspurger et al., 'Cache modeling and optimization using miniature
//! simulations', ATC '17).

use std::sync::Arc;

use super::requests::{After, Chunk, Segment};
use super::shards::{hash, threshold};

const UNSEEN: u32 = u32::MAX;

/// Makes chunks of the sampled requests out of those of a stream.
pub struct Sampler {
    stream: usize,
    salt: u64,
    threshold: u64,
    /// By block: its number in the sample.
    numbers: Vec<u32>,
    blocks: u32,
    chunk: Chunk,
    pub chunks: Vec<Arc<Chunk>>,
}

impl Sampler {
    #[must_use]
    pub fn new(stream: usize, salt: u64, rate: f64) -> Self {
        Self {
            stream,
            salt,
            threshold: threshold(rate),
            numbers: Vec::new(),
            blocks: 0,
            chunk: Chunk { stream, ..Chunk::default() },
            chunks: Vec::new(),
        }
    }

    /// Distinct blocks sampled.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks as usize
    }

    fn number(&mut self, block: u32) -> Option<u32> {
        if hash(block, self.salt) >= self.threshold {
            return None;
        }
        if block as usize >= self.numbers.len() {
            self.numbers.resize((block as usize + 1).next_power_of_two(), UNSEEN);
        }
        let number = &mut self.numbers[block as usize];
        if *number == UNSEEN {
            *number = self.blocks;
            self.blocks += 1;
        }
        Some(*number)
    }

    fn end_segment(&mut self, of: &Segment, start: usize, after: After) {
        let requests = start..self.chunk.requests.len();
        let word = self.chunk.writes.len();
        for part in self.chunk.requests[requests.clone()].chunks(64) {
            let bit = |(i, r): (usize, &crate::eviction::Request)| u64::from(r.is_write()) << i;
            self.chunk.writes.push(part.iter().enumerate().map(bit).sum());
        }
        self.chunk.segments.push(Segment { requests, word, after, ..of.clone() });
    }

    /// Adds the sampled requests of a chunk.
    pub fn take(&mut self, chunk: &Chunk) {
        if chunk.stream != self.stream {
            return;
        }
        for segment in &chunk.segments {
            let start = self.chunk.requests.len();
            for request in &chunk.requests[segment.requests.clone()] {
                if let Some(number) = self.number(request.block() as u32) {
                    let request = crate::eviction::Request::new(number, request.is_write());
                    self.chunk.requests.push(request);
                }
            }
            let mut after = After::Nothing;
            if let After::Discard(range) = &segment.after {
                let from = self.chunk.discards.len();
                for &block in &chunk.discards[range.clone()] {
                    let number = self.number(block);
                    self.chunk.discards.extend(number);
                }
                after = After::Discard(from..self.chunk.discards.len());
            }
            if self.chunk.requests.len() > start || after != After::Nothing {
                self.end_segment(segment, start, after);
            }
        }
        if self.chunk.requests.len() >= super::requests::CHUNK_REQUESTS {
            self.finish();
        }
    }

    /// The last chunk.
    pub fn finish(&mut self) {
        let first = self.chunk.first + self.chunk.requests.len() as u64;
        let next = Chunk { stream: self.stream, first, ..Chunk::default() };
        self.chunks.push(Arc::new(std::mem::replace(&mut self.chunk, next)));
    }
}
