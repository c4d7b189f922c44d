//! From Arrow batches of a canonical trace to I/Os: the disk filter, the window, the time base.

use std::sync::Arc;

use arrow_array::RecordBatchReader;

use crate::contents::{CONTENT_BYTES, Contents};
use crate::error::{Error, Result};
use crate::io::Op;
use crate::payload::Version;
use crate::trace::{TraceBatch, TraceIo, TraceSource};
use crate::trace_arrow::{self, ArrowTrace};

/// The longest read or write: 1 GiB.
const DATA_BYTES_MAX: i64 = 1 << 30;
/// The longest discard or write_zeroes: 1 TiB.
const RANGE_BYTES_MAX: i64 = 1 << 40;
/// No disk is larger: 4 EiB.
const REACH_BYTES_MAX: i64 = 1 << 62;

/// What part of a trace is replayed.
#[derive(Debug, Clone, Default, serde::Deserialize)]
pub struct Window {
    /// The disks to replay, in the order of the run's disk numbers.
    pub disks: Vec<String>,
    /// I/Os of those disks to leave out at the start.
    pub skip: u64,
    /// I/Os of those disks to replay at most.
    pub limit: Option<u64>,
}

/// An I/O with its position in the trace file.
#[derive(Debug, Clone, Copy)]
pub struct Numbered {
    pub seq: u64,
    pub io: TraceIo,
}

/// The I/Os of a trace, one by one; times start at 0 with the first that is replayed.
pub struct Feed {
    trace: ArrowTrace<Box<dyn RecordBatchReader + Send>>,
    window: Window,
    /// By the trace's number of a disk: the window's, or none.
    wanted: Vec<Option<u32>>,
    rows: std::vec::IntoIter<Numbered>,
    next_seq: u64,
    selected: u64,
    origin_ns: Option<i64>,
    last_ns: i64,
    contents: Arc<Contents>,
    /// The contents of reads are kept, too.
    keeps_reads: bool,
}

impl Feed {
    /// `file` is named in errors.
    #[must_use]
    pub fn new(
        reader: Box<dyn RecordBatchReader + Send>,
        file: impl Into<String>,
        window: Window,
    ) -> Self {
        Self {
            trace: ArrowTrace::new(reader, file),
            window,
            wanted: Vec::new(),
            rows: Vec::new().into_iter(),
            next_seq: 0,
            selected: 0,
            origin_ns: None,
            last_ns: 0,
            contents: Arc::default(),
            keeps_reads: true,
        }
    }

    /// What is known of the trace's contents.
    #[must_use]
    pub const fn contents(&self) -> &Arc<Contents> {
        &self.contents
    }

    /// Goes on with the numbers that an earlier reading gave to contents, and keeps those of
    /// writes alone.
    #[must_use]
    pub fn with_contents(self, contents: Arc<Contents>) -> Self {
        Self { contents, keeps_reads: false, ..self }
    }

    /// The next I/O, its `disk` an index into the window's disks.
    ///
    /// # Errors
    /// `Input` when the stream is damaged or is no canonical trace.
    pub fn next_io(&mut self) -> Result<Option<Numbered>> {
        loop {
            if let Some(row) = self.rows.next() {
                return Ok(Some(row));
            }
            if self.window.limit.is_some_and(|limit| self.selected >= self.window.skip + limit) {
                return Ok(None);
            }
            let Some(batch) = self.trace.next_as_stored()? else { return Ok(None) };
            self.rows = self.select(&batch)?.into_iter();
        }
    }

    fn select(&mut self, batch: &TraceBatch) -> Result<Vec<Numbered>> {
        for name in &self.trace.disks()[self.wanted.len()..] {
            let place = self.window.disks.iter().position(|wanted| wanted == name);
            self.wanted.push(place.map(|i| i as u32));
        }
        let mut rows = Vec::with_capacity(batch.len());
        for i in 0..batch.len() {
            let seq = self.next_seq;
            self.next_seq += 1;
            let mut io = batch.get(i);
            let Some(disk) = self.wanted[io.disk as usize] else { continue };
            io.disk = disk;
            self.selected += 1;
            if self.selected <= self.window.skip {
                continue;
            }
            if self.window.limit.is_some_and(|limit| self.selected > self.window.skip + limit) {
                break;
            }
            let origin = *self.origin_ns.get_or_insert(io.time_ns);
            io.time_ns -= origin;
            if io.time_ns < self.last_ns {
                return Err(self.fault_at(
                    seq,
                    format!(
                        "time_ns goes back, from {} to {}; import the trace again to sort it",
                        self.last_ns + origin,
                        io.time_ns + origin
                    ),
                ));
            }
            if let Some(fault) = fault_of(&io) {
                return Err(self.fault_at(seq, fault));
            }
            self.last_ns = io.time_ns;
            self.keep_content(batch, i, seq, &io)?;
            rows.push(Numbered { seq, io });
        }
        Ok(rows)
    }

    /// Keeps the contents of an I/O's blocks where the trace has one for each.
    fn keep_content(&self, batch: &TraceBatch, row: usize, seq: u64, io: &TraceIo) -> Result<()> {
        let (offset, length) = (io.offset_bytes as u64, io.length_bytes as u64);
        let is_kept = io.op == Op::Write || (io.op == Op::Read && self.keeps_reads);
        let Some(content) = batch.content.as_ref().filter(|_| is_kept) else { return Ok(()) };
        if (offset | length) % CONTENT_BYTES != 0 {
            return Ok(());
        }
        let digests = trace_arrow::digests(content, row)
            .map_err(|error| error.with("file", self.trace.file()))?;
        let numbers: Option<Vec<u32>> =
            digests.filter(|digests| digests.len() as u64 == length / CONTENT_BYTES).and_then(
                |digests| digests.iter().map(|digest| self.contents.number(digest)).collect(),
            );
        if let Some(numbers) = numbers.filter(|numbers| !numbers.is_empty()) {
            self.contents.keep(Version::of_write(seq), offset, numbers);
        }
        Ok(())
    }

    fn fault_at(&self, seq: u64, fault: String) -> Error {
        Error::input(fault).with("file", self.trace.file()).with("row", seq)
    }
}

/// What of an I/O no disk can have. A buffer is reserved for the longest read or write, and the
/// scan takes memory for what write_zeroes covers.
fn fault_of(io: &TraceIo) -> Option<String> {
    let (offset, length) = (io.offset_bytes, io.length_bytes);
    if offset < 0 || length < 0 {
        return Some("offset_bytes and length_bytes must not be negative".to_owned());
    }
    let longest = if io.op.has_data() { DATA_BYTES_MAX } else { RANGE_BYTES_MAX };
    if length > longest {
        let op = io.op.name();
        return Some(format!("length_bytes of a {op}: expected at most {longest}, got {length}"));
    }
    (offset > REACH_BYTES_MAX - length).then(|| {
        format!("offset_bytes: expected an end of at most {REACH_BYTES_MAX}, got {offset}")
    })
}
