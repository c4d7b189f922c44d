//! The canonical trace in memory: columns, as decoders write them and the replay reads them.
//!
//! The stored form is Parquet (Python writes it); the columns and their units are the contract:
//! `time_ns` since the first I/O, `offset_bytes`, `length_bytes`, `latency_ns` (service time at
//! capture), `flags`, `stream`, and the disk as an index into the list of names.

use arrow_array::ArrayRef;

use crate::error::Result;
use crate::io::Op;

/// `latency_ns` where the source has none.
pub const NO_LATENCY: i64 = -1;
/// `stream` where the source has none.
pub const NO_STREAM: u32 = u32::MAX;

/// One I/O of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceIo {
    /// Decoders may give any origin (boot, 1601): the importer subtracts the first.
    pub time_ns: i64,
    /// Index into the decoder's list of disk names.
    pub disk: u32,
    pub op: Op,
    pub offset_bytes: i64,
    pub length_bytes: i64,
    /// Service time seen at capture, or [`NO_LATENCY`].
    pub latency_ns: i64,
    /// Bits of [`crate::io::flags`].
    pub flags: u32,
    /// Process, CPU or initiator at capture, or [`NO_STREAM`].
    pub stream: u32,
}

/// A batch of a trace as columns, all of one length.
#[derive(Debug, Default, Clone)]
pub struct TraceBatch {
    pub time_ns: Vec<i64>,
    pub disk: Vec<u32>,
    pub op: Vec<u8>,
    pub offset_bytes: Vec<i64>,
    pub length_bytes: Vec<i64>,
    pub latency_ns: Vec<i64>,
    pub flags: Vec<u32>,
    pub stream: Vec<u32>,
    /// Where the source has them: a list of digests a row, one a block of 4 KiB.
    pub content: Option<ArrayRef>,
}

impl TraceBatch {
    #[must_use]
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            time_ns: Vec::with_capacity(rows),
            disk: Vec::with_capacity(rows),
            op: Vec::with_capacity(rows),
            offset_bytes: Vec::with_capacity(rows),
            length_bytes: Vec::with_capacity(rows),
            latency_ns: Vec::with_capacity(rows),
            flags: Vec::with_capacity(rows),
            stream: Vec::with_capacity(rows),
            content: None,
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.time_ns.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.time_ns.is_empty()
    }

    pub fn push(&mut self, io: &TraceIo) {
        self.time_ns.push(io.time_ns);
        self.disk.push(io.disk);
        self.op.push(io.op as u8);
        self.offset_bytes.push(io.offset_bytes);
        self.length_bytes.push(io.length_bytes);
        self.latency_ns.push(io.latency_ns);
        self.flags.push(io.flags);
        self.stream.push(io.stream);
    }

    /// Row `i`. Panics when out of range: callers loop over `0..len()`.
    #[must_use]
    pub fn get(&self, i: usize) -> TraceIo {
        TraceIo {
            time_ns: self.time_ns[i],
            disk: self.disk[i],
            op: Op::from_code(self.op[i]),
            offset_bytes: self.offset_bytes[i],
            length_bytes: self.length_bytes[i],
            latency_ns: self.latency_ns[i],
            flags: self.flags[i],
            stream: self.stream[i],
        }
    }
}

/// What a decoder dropped and why; the importer stores it in the file's metadata.
#[derive(Debug, Default, Clone)]
pub struct DecodeReport {
    /// Rows or records read, whatever they held.
    pub records: u64,
    /// `(reason, how many)`, in order of first occurrence.
    pub dropped: Vec<(String, u64)>,
    /// Remarks for the user: a capture that starts in mid-flight, a lossy trace.
    pub warnings: Vec<String>,
}

impl DecodeReport {
    pub fn drop_row(&mut self, reason: &str, rows: u64) {
        match self.dropped.iter_mut().find(|(r, _)| r == reason) {
            Some((_, n)) => *n += rows,
            None => self.dropped.push((reason.to_owned(), rows)),
        }
    }
}

/// A source of trace batches: every format is one of these, and so is a Parquet reader.
pub trait TraceSource: Send {
    /// The next batch of at most `max_rows` rows, or `None` at the end.
    ///
    /// # Errors
    /// `Input` with the file and the row or byte when the source is damaged.
    fn next_batch(&mut self, max_rows: usize) -> Result<Option<TraceBatch>>;

    /// Disk names seen so far; `TraceIo::disk` indexes it. It only grows.
    fn disks(&self) -> &[String];

    /// Complete after the last batch.
    fn report(&self) -> DecodeReport {
        DecodeReport::default()
    }
}
