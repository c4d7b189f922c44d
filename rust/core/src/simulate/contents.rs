//! Content-based caches over a trace that names what its blocks hold: the `cache` filter's `dedup`,
//! without data. A request looks its address up; what a read brought and what a write left is
//! learnt when the I/O is done, as by the filter.

use std::collections::HashMap;
use std::ops::Range;

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

use super::ids::Ids;
use crate::contents::CONTENT_BYTES;
use crate::error::{Error, Result};
use crate::eviction::{Access, Eviction};
use crate::io::Op;
use crate::trace::{TraceBatch, TraceIo};
use crate::trace_arrow::digests;

const NONE: u32 = u32::MAX;
/// What write_zeroes leaves, and a discard.
const ZEROES: u32 = 0;

/// What a content-based cache hit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ContentReport {
    pub requests: u64,
    pub read_requests: u64,
    pub hits: u64,
    pub read_hits: u64,
    /// Blocks in the cache at the end, and addresses that they stand for.
    pub resident_blocks: u64,
    pub logical_blocks: u64,
    /// Blocks brought whose content was there.
    pub shared_blocks: u64,
}

/// A block of an I/O.
#[derive(Debug, Clone, Copy)]
struct Touch {
    /// The block's number among those of its stream.
    address: u32,
    /// What it holds when the I/O is done.
    content: u32,
    is_whole: bool,
}

/// A content-based cache for the requests of a stream.
pub struct ContentCache {
    pub stream: usize,
    policy: Box<dyn Eviction>,
    /// By address: its content as far as the cache knows.
    known: Vec<u32>,
    /// By content: how many addresses are known to hold it.
    addresses: Vec<u32>,
    missed: Vec<Touch>,
    report: ContentReport,
}

impl ContentCache {
    #[must_use]
    pub fn new(stream: usize, policy: Box<dyn Eviction>) -> Self {
        let (known, addresses, missed) = (Vec::new(), Vec::new(), Vec::new());
        Self { stream, policy, known, addresses, missed, report: ContentReport::default() }
    }

    #[must_use]
    pub fn finish(self) -> ContentReport {
        ContentReport { resident_blocks: self.policy.len() as u64, ..self.report }
    }

    fn known(&self, address: u32) -> Option<u32> {
        self.known.get(address as usize).copied().filter(|content| *content != NONE)
    }

    /// The content of an address, if it is known and here.
    fn here(&self, address: u32) -> Option<u32> {
        self.known(address).filter(|content| self.policy.resident(u64::from(*content)).is_some())
    }

    fn io(&mut self, op: Op, touched: &[Touch], is_counted: bool) {
        self.missed.clear();
        for touch in touched {
            match self.here(touch.address) {
                Some(content) => {
                    self.policy.access(u64::from(content));
                }
                None => self.missed.push(*touch),
            }
        }
        if is_counted {
            let requests = touched.len() as u64;
            let hits = requests - self.missed.len() as u64;
            self.report.requests += requests;
            self.report.hits += hits;
            if op == Op::Read {
                self.report.read_requests += requests;
                self.report.read_hits += hits;
            }
        }
        if op == Op::Read {
            for touch in std::mem::take(&mut self.missed) {
                self.learn(touch);
            }
            return;
        }
        for touch in touched {
            // Of a block written in part the rest must be here for its content to be known.
            if touch.is_whole || self.here(touch.address).is_some() {
                self.learn(*touch);
            } else {
                self.forget(touch.address);
            }
        }
    }

    fn addresses_of(&mut self, content: u32) -> &mut u32 {
        if content as usize >= self.addresses.len() {
            self.addresses.resize((content as usize + 1).next_power_of_two(), 0);
        }
        &mut self.addresses[content as usize]
    }

    fn learn(&mut self, touch: Touch) {
        let Touch { address, content, .. } = touch;
        let is_known = self.known(address) == Some(content);
        if !is_known {
            self.forget(address);
        }
        match self.policy.access(u64::from(content)) {
            Access::Hit(_) => self.report.shared_blocks += u64::from(!is_known),
            Access::Miss { evicted, .. } => {
                if let Some(evicted) = evicted {
                    self.report.logical_blocks -= u64::from(*self.addresses_of(evicted as u32));
                }
                self.report.logical_blocks += u64::from(*self.addresses_of(content));
            }
        }
        if is_known {
            return;
        }
        if address as usize >= self.known.len() {
            self.known.resize((address as usize + 1).next_power_of_two(), NONE);
        }
        self.known[address as usize] = content;
        *self.addresses_of(content) += 1;
        self.report.logical_blocks += 1;
    }

    fn forget(&mut self, address: u32) {
        let Some(content) = self.known(address) else { return };
        self.known[address as usize] = NONE;
        *self.addresses_of(content) -= 1;
        if self.policy.resident(u64::from(content)).is_some() {
            self.report.logical_blocks -= 1;
        }
    }
}

/// The blocks of one disk, or of all.
struct Stream {
    ids: Ids,
    /// By address: what it holds.
    holds: Vec<u32>,
}

/// Follows what the blocks of a trace hold, and asks caches.
pub struct ContentWalk {
    block_bytes: u64,
    is_shared: bool,
    streams: Vec<Stream>,
    /// By hash of the digest.
    numbers: HashMap<u128, u32>,
    next: u32,
    touched: Vec<Touch>,
    rows: u64,
    origin_ns: i64,
}

impl ContentWalk {
    #[must_use]
    pub fn new(block_bytes: u64, is_shared: bool) -> Self {
        Self {
            block_bytes,
            is_shared,
            streams: Vec::new(),
            numbers: HashMap::new(),
            next: ZEROES + 1,
            touched: Vec::new(),
            rows: 0,
            origin_ns: 0,
        }
    }

    /// Takes a batch to the caches; I/Os before the warm-up's end are not counted.
    ///
    /// # Errors
    /// `Input`: a range beyond 1 PiB, too many blocks, a `content` of the wrong type.
    pub fn take(
        &mut self,
        batch: &TraceBatch,
        caches: &mut [ContentCache],
        warmup: (u64, i64),
    ) -> Result<u64> {
        for i in 0..batch.len() {
            let io = batch.get(i);
            if self.rows == 0 {
                self.origin_ns = io.time_ns;
            }
            let is_counted = self.rows >= warmup.0 && io.time_ns - self.origin_ns >= warmup.1;
            self.rows += 1;
            let at = if self.is_shared { 0 } else { io.disk as usize };
            while self.streams.len() <= at {
                self.streams.push(Stream { ids: Ids::new(self.is_shared), holds: Vec::new() });
            }
            let own = caches.iter_mut().filter(|cache| cache.stream == at);
            match io.op {
                Op::Flush => {}
                Op::Discard => {
                    let gone = self.discard(at, &io);
                    own.for_each(|cache| gone.iter().for_each(|address| cache.forget(*address)));
                }
                Op::Read | Op::Write | Op::WriteZeroes => {
                    self.touch(batch, i, at, &io)?;
                    own.for_each(|cache| cache.io(io.op, &self.touched, is_counted));
                }
            }
        }
        Ok(self.rows)
    }

    fn blocks(&self, io: &TraceIo) -> Range<u64> {
        let end = (io.offset_bytes + io.length_bytes) as u64;
        io.offset_bytes as u64 / self.block_bytes..end.div_ceil(self.block_bytes)
    }

    fn discard(&mut self, at: usize, io: &TraceIo) -> Vec<u32> {
        let end = (io.offset_bytes + io.length_bytes) as u64 / self.block_bytes;
        let first = (io.offset_bytes as u64).div_ceil(self.block_bytes);
        let stream = &mut self.streams[at];
        let gone = stream.ids.known_range(io.disk, first, end.max(first));
        for address in &gone {
            stream.holds[*address as usize] = ZEROES;
        }
        gone
    }

    /// What the I/O touches, and leaves.
    fn touch(&mut self, batch: &TraceBatch, row: usize, at: usize, io: &TraceIo) -> Result<()> {
        self.touched.clear();
        if io.length_bytes == 0 {
            return Ok(());
        }
        let known = self.contents_of(batch, row, io)?;
        let (start, end) = (io.offset_bytes as u64, (io.offset_bytes + io.length_bytes) as u64);
        for (i, block) in self.blocks(io).enumerate() {
            let stream = &mut self.streams[at];
            let address = stream
                .ids
                .number(io.disk, block)
                .ok_or_else(|| Error::input("more distinct blocks than can be numbered"))?;
            if address as usize >= stream.holds.len() {
                stream.holds.resize((address as usize + 1).next_power_of_two(), NONE);
            }
            let is_whole =
                block * self.block_bytes >= start && (block + 1) * self.block_bytes <= end;
            let told = known.as_ref().and_then(|known| known.get(i).copied());
            let holds = &mut stream.holds[address as usize];
            match io.op {
                Op::Read if *holds != NONE => {}
                Op::WriteZeroes if is_whole => *holds = ZEROES,
                // What nobody names is like nothing else.
                Op::Read | Op::Write | Op::WriteZeroes | Op::Flush | Op::Discard => {
                    *holds = told.unwrap_or(self.next);
                    self.next += u32::from(told.is_none());
                }
            }
            self.touched.push(Touch { address, content: *holds, is_whole });
        }
        Ok(())
    }

    /// Numbers of the contents that the trace names, one a block.
    fn contents_of(
        &mut self,
        batch: &TraceBatch,
        row: usize,
        io: &TraceIo,
    ) -> Result<Option<Vec<u32>>> {
        let is_whole = (io.offset_bytes | io.length_bytes) % CONTENT_BYTES as i64 == 0;
        let named = matches!(io.op, Op::Read | Op::Write);
        let Some(column) = batch.content.as_ref().filter(|_| is_whole && named) else {
            return Ok(None);
        };
        let blocks = (io.length_bytes / CONTENT_BYTES as i64) as usize;
        let Some(digests) = digests(column, row)?.filter(|digests| digests.len() == blocks) else {
            return Ok(None);
        };
        let numbers = digests.iter().map(|digest| {
            let number = *self.numbers.entry(xxh3_128(digest)).or_insert(self.next);
            self.next += u32::from(number == self.next);
            number
        });
        Ok(Some(numbers.collect()))
    }
}
