//! From I/Os to requests for blocks, in chunks that consumers can take at any time.

use std::ops::Range;
use std::sync::Arc;

use super::BUCKETS;
use super::ids::Ids;
use crate::error::{Error, Result};
use crate::eviction::Request;
use crate::io::Op;
use crate::profile::MAX_DISK_BYTES;
use crate::trace::{TraceBatch, TraceIo};

/// Requests of a chunk: an I/O may bring some more.
pub const CHUNK_REQUESTS: usize = 1 << 16;
/// Blocks of an I/O at most: its requests are kept in one chunk, 256 MB here.
const IO_BLOCKS_MAX: u64 = 1 << 26;

/// How requests are made and what is kept beside them.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Bytes of a block: a power of two.
    pub block_bytes: u64,
    /// One stream of requests for all disks; else one for each.
    pub is_shared: bool,
    /// Time of each I/O and flushes, for write-back.
    pub is_timed: bool,
    /// I/Os, and time since the first, that warm the caches up and are not counted.
    pub warmup_ios: u64,
    pub warmup_ns: i64,
    /// Width of a bucket of the series: the trace's duration has [`BUCKETS`].
    pub bucket_ns: i64,
}

/// What happens after the requests of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    Nothing,
    /// These of the chunk's `discards` are invalid.
    Discard(Range<usize>),
    /// What was written to this disk is made durable.
    Flush {
        disk: u32,
        time_ns: i64,
    },
}

/// A run of requests that nothing interrupts, all in one bucket, all counted or none.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Of the chunk's requests.
    pub requests: Range<usize>,
    /// First word of its bits in bitmaps: each segment begins a word.
    pub word: usize,
    pub bucket: u32,
    pub is_counted: bool,
    pub after: After,
}

impl Segment {
    #[must_use]
    pub fn words(&self) -> Range<usize> {
        self.word..self.word + self.requests.len().div_ceil(64)
    }
}

/// An I/O whose requests end before the position `end` in its chunk.
#[derive(Debug, Clone, Copy)]
pub struct IoMark {
    pub end: u32,
    pub disk: u32,
    pub time_ns: i64,
}

/// Requests in a row of one stream.
#[derive(Debug, Default, Clone)]
pub struct Chunk {
    pub stream: usize,
    /// Position of its first request in the stream.
    pub first: u64,
    pub requests: Vec<Request>,
    pub segments: Vec<Segment>,
    /// A bit a request, 1 for a write.
    pub writes: Vec<u64>,
    /// A bit a request, 1 for the last of its I/O.
    pub ends: Vec<u64>,
    /// Requests that touch their block in part: bit, and bytes not touched. By bit.
    pub partial: Vec<(u32, u32)>,
    pub discards: Vec<u32>,
    /// With [`Rules::is_timed`] only.
    pub ios: Vec<IoMark>,
}

impl Chunk {
    /// Bytes it takes, more or less.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        4 * self.requests.len()
            + size_of::<Segment>() * self.segments.len()
            + 8 * (self.writes.len() + self.ends.len() + self.partial.len())
            + 4 * self.discards.len()
            + size_of::<IoMark>() * self.ios.len()
    }
}

/// What was counted of requests; of a cache, with its hits.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Reads, writes and write_zeroes of some bytes.
    pub ios: u64,
    pub read_ios: u64,
    pub requests: u64,
    pub read_requests: u64,
    pub bytes: u64,
    pub read_bytes: u64,
}

/// The requests of one disk, or of all.
#[derive(Default)]
struct Stream {
    ids: Ids,
    chunk: Chunk,
    /// Begins the segment that is being filled.
    start: usize,
    position: u64,
    totals: Totals,
}

/// Turns batches into chunks.
pub struct Builder {
    rules: Rules,
    shift: u32,
    streams: Vec<Stream>,
    rows: u64,
    origin_ns: i64,
    last_ns: i64,
    bucket: u32,
    is_counted: bool,
}

impl Builder {
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            shift: rules.block_bytes.trailing_zeros(),
            streams: Vec::new(),
            rows: 0,
            origin_ns: 0,
            last_ns: i64::MIN,
            bucket: 0,
            is_counted: rules.warmup_ios == 0 && rules.warmup_ns == 0,
        }
    }

    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Time from the first I/O to the last so far.
    #[must_use]
    pub fn duration_ns(&self) -> i64 {
        if self.rows == 0 { 0 } else { self.last_ns - self.origin_ns }
    }

    /// Distinct blocks, and what was counted, of each stream.
    #[must_use]
    pub fn streams(&self) -> Vec<(usize, Totals)> {
        self.streams.iter().map(|stream| (stream.ids.len(), stream.totals)).collect()
    }

    /// By stream: the marks of its blocks.
    #[must_use]
    pub fn into_marks(self) -> Vec<Arc<Vec<u32>>> {
        self.streams.into_iter().map(|stream| Arc::new(stream.ids.into_marks())).collect()
    }

    /// Adds a batch; chunks that are full go to `out`.
    ///
    /// # Errors
    /// `Input` naming the row (from 0) that is out of order, negative or too long; too many
    /// blocks to number.
    pub fn add(&mut self, batch: &TraceBatch, out: &mut Vec<Arc<Chunk>>) -> Result<()> {
        for i in 0..batch.len() {
            let io = batch.get(i);
            self.check(&io).map_err(|e| e.with("row", self.rows))?;
            if self.rows == 0 {
                self.origin_ns = io.time_ns;
            }
            self.last_ns = io.time_ns;
            self.enter(io.time_ns - self.origin_ns);
            self.add_io(&io).map_err(|e| e.with("row", self.rows))?;
            self.rows += 1;
            let at = if self.rules.is_shared { 0 } else { io.disk as usize };
            if self.streams[at].chunk.requests.len() >= CHUNK_REQUESTS {
                out.push(self.take_chunk(at));
            }
        }
        Ok(())
    }

    /// The chunks that are not full.
    pub fn finish(&mut self, out: &mut Vec<Arc<Chunk>>) {
        for at in 0..self.streams.len() {
            if self.streams[at].chunk.requests.len() + self.streams[at].chunk.segments.len() > 0 {
                out.push(self.take_chunk(at));
            }
        }
    }

    fn check(&self, io: &TraceIo) -> Result<()> {
        if io.time_ns < self.last_ns {
            let message = "time_ns: expected at least that of the row above";
            return Err(Error::input(format!("{message}, {}, got {}", self.last_ns, io.time_ns)));
        }
        let end = io.offset_bytes.checked_add(io.length_bytes);
        if io.offset_bytes < 0 || io.length_bytes < 0 || end.is_none_or(|e| e > MAX_DISK_BYTES) {
            return Err(Error::input(format!(
                "expected a range within 1 PiB, got offset_bytes {} and length_bytes {}",
                io.offset_bytes, io.length_bytes
            )));
        }
        Ok(())
    }

    /// Ends every segment where a bucket or the warm-up does.
    fn enter(&mut self, time_ns: i64) {
        let bucket = (time_ns / self.rules.bucket_ns.max(1)).min(BUCKETS as i64 - 1) as u32;
        let is_counted = self.rows >= self.rules.warmup_ios && time_ns >= self.rules.warmup_ns;
        if (bucket, is_counted) != (self.bucket, self.is_counted) {
            for stream in &mut self.streams {
                stream.end_segment(self.bucket, self.is_counted, After::Nothing);
            }
            (self.bucket, self.is_counted) = (bucket, is_counted);
        }
    }

    fn add_io(&mut self, io: &TraceIo) -> Result<()> {
        let at = if self.rules.is_shared { 0 } else { io.disk as usize };
        if at >= self.streams.len() {
            let ids = || Ids::new(self.rules.is_shared);
            self.streams.resize_with(at + 1, || Stream { ids: ids(), ..Stream::default() });
        }
        let (bucket, is_counted) = (self.bucket, self.is_counted);
        let time_ns = io.time_ns - self.origin_ns;
        let (start, end) = (io.offset_bytes as u64, (io.offset_bytes + io.length_bytes) as u64);
        let stream = &mut self.streams[at];
        match io.op {
            Op::Flush if self.rules.is_timed => {
                let after = After::Flush { disk: io.disk, time_ns };
                stream.end_segment(bucket, is_counted, after);
            }
            Op::Flush => {}
            Op::Discard => {
                let covered = start.div_ceil(self.rules.block_bytes)..end >> self.shift;
                stream.discard(io.disk, covered, bucket, is_counted);
            }
            _ if start == end => {}
            Op::Read | Op::Write | Op::WriteZeroes => {
                stream.request(io, self.shift, is_counted)?;
                if self.rules.is_timed {
                    let end = stream.chunk.requests.len() as u32;
                    stream.chunk.ios.push(IoMark { end, disk: io.disk, time_ns });
                }
            }
        }
        Ok(())
    }

    fn take_chunk(&mut self, at: usize) -> Arc<Chunk> {
        let (bucket, is_counted) = (self.bucket, self.is_counted);
        let stream = &mut self.streams[at];
        stream.end_segment(bucket, is_counted, After::Nothing);
        let mut chunk = std::mem::take(&mut stream.chunk);
        (chunk.stream, chunk.first) = (at, stream.position);
        stream.position += chunk.requests.len() as u64;
        stream.start = 0;
        Arc::new(chunk)
    }
}

impl Stream {
    fn request(&mut self, io: &TraceIo, shift: u32, is_counted: bool) -> Result<()> {
        let (start, end) = (io.offset_bytes as u64, (io.offset_bytes + io.length_bytes) as u64);
        let is_write = io.op != Op::Read;
        let blocks = start >> shift..((end - 1) >> shift) + 1;
        if blocks.end - blocks.start > IO_BLOCKS_MAX {
            return Err(Error::input(format!(
                "expected an I/O of at most {IO_BLOCKS_MAX} blocks, got {} (length_bytes {}); a \
                 larger block makes them fewer",
                blocks.end - blocks.start,
                io.length_bytes
            )));
        }
        let before = self.chunk.requests.len() - self.start;
        for block in blocks.clone() {
            let id = self.ids.number(io.disk, block).ok_or_else(|| {
                Error::input(format!("more than {} distinct blocks", Request::BLOCKS_MAX))
            })?;
            self.chunk.requests.push(Request::new(id, is_write));
        }
        self.end_io();
        let count = blocks.end - blocks.start;
        let (first, last) = (start - (blocks.start << shift), (blocks.end << shift) - end);
        if first + last > 0 {
            self.add_partial(before, count, first as u32, last as u32);
        }
        if is_counted {
            self.totals.ios += 1;
            self.totals.read_ios += u64::from(!is_write);
            self.totals.requests += count;
            self.totals.bytes += end - start;
            if !is_write {
                self.totals.read_requests += count;
                self.totals.read_bytes += end - start;
            }
        }
        Ok(())
    }

    /// Marks the last request so far as the last of its I/O.
    fn end_io(&mut self) {
        let bit = self.chunk.writes.len() * 64 + self.chunk.requests.len() - 1 - self.start;
        if bit / 64 >= self.chunk.ends.len() {
            self.chunk.ends.resize(bit / 64 + 1, 0);
        }
        self.chunk.ends[bit / 64] |= 1 << (bit % 64);
    }

    /// `before` requests of the segment came earlier than the I/O's `count`.
    fn add_partial(&mut self, before: usize, count: u64, first: u32, last: u32) {
        let bit = (self.chunk.writes.len() * 64 + before) as u32;
        if count == 1 {
            self.chunk.partial.push((bit, first + last));
            return;
        }
        if first > 0 {
            self.chunk.partial.push((bit, first));
        }
        if last > 0 {
            self.chunk.partial.push((bit + count as u32 - 1, last));
        }
    }

    fn discard(&mut self, disk: u32, covered: Range<u64>, bucket: u32, is_counted: bool) {
        if covered.is_empty() {
            return;
        }
        let from = self.chunk.discards.len();
        self.chunk.discards.extend(self.ids.known_range(disk, covered.start, covered.end));
        let range = from..self.chunk.discards.len();
        if !range.is_empty() {
            self.end_segment(bucket, is_counted, After::Discard(range));
        }
    }

    fn end_segment(&mut self, bucket: u32, is_counted: bool, after: After) {
        let requests = self.start..self.chunk.requests.len();
        if requests.is_empty() && after == After::Nothing {
            return;
        }
        let word = self.chunk.writes.len();
        for part in self.chunk.requests[requests.clone()].chunks(64) {
            let bit = |(i, request): (usize, &Request)| u64::from(request.is_write()) << i;
            self.chunk.writes.push(part.iter().enumerate().map(bit).sum());
        }
        self.start = requests.end;
        self.chunk.segments.push(Segment { requests, word, bucket, is_counted, after });
    }
}
