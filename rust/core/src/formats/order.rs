//! Rows in order of time, in bounded memory.
//!
//! Most sources are in order and pass through, checked. One that shows disorder in its first
//! batch is sorted: runs of bounded length go aside to unnamed files, and are merged. Disorder
//! that shows up later cannot be repaired on the way: the source ends with `needs_sort`, and the
//! importer starts again with `sort`. Equal times keep the order of the source.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::io::Op;
use crate::trace::{DecodeReport, TraceBatch, TraceIo, TraceSource};

/// Rows of a run: about 100 MB in memory.
const RUN_ROWS: usize = 1 << 21;
/// Bytes of a row set aside.
const ROW_BYTES: usize = 45;
/// Rows read at once from a run: a thousand runs (2 billion rows) take 50 MB.
const READ_BYTES: usize = ROW_BYTES * 1024;

enum State {
    /// Nothing read yet.
    New {
        sort: bool,
    },
    /// In order so far; the time of the last row.
    Passing {
        last_ns: i64,
    },
    Merging(Merge),
    NeedsSort,
}

pub struct Ordered {
    source: Box<dyn TraceSource>,
    aside: PathBuf,
    run_rows: usize,
    state: State,
}

impl Ordered {
    /// Rows of `source` by time. `aside` is the folder for what must be set aside; with `sort`
    /// the source is known to be out of order.
    #[must_use]
    pub fn new(source: Box<dyn TraceSource>, aside: &Path, sort: bool) -> Self {
        Self::with_run_rows(source, aside, sort, RUN_ROWS)
    }

    fn with_run_rows(
        source: Box<dyn TraceSource>,
        aside: &Path,
        sort: bool,
        run_rows: usize,
    ) -> Self {
        Self { source, aside: aside.to_owned(), run_rows, state: State::New { sort } }
    }

    /// The rows given so far are worthless: read again with `sort`.
    #[must_use]
    pub fn needs_sort(&self) -> bool {
        matches!(self.state, State::NeedsSort)
    }

    fn start_merge(&mut self, first: Option<TraceBatch>) -> Result<()> {
        let mut run: Vec<TraceIo> = Vec::new();
        let mut runs = Vec::new();
        let mut next = first;
        loop {
            if let Some(batch) = &next {
                run.extend((0..batch.len()).map(|i| batch.get(i)));
                if run.len() >= self.run_rows {
                    runs.push(Run::set_aside(&mut run, &self.aside)?);
                }
            }
            next = self.source.next_batch(self.run_rows.min(1 << 16))?;
            if next.is_none() {
                break;
            }
        }
        run.sort_by_key(|io| io.time_ns);
        self.state = State::Merging(Merge::new(runs, run)?);
        Ok(())
    }
}

/// Whether the times never go back, from `last_ns` on.
fn is_ordered(batch: &TraceBatch, last_ns: i64) -> bool {
    let times = &batch.time_ns;
    times.first().is_none_or(|&first| first >= last_ns) && times.is_sorted()
}

impl TraceSource for Ordered {
    fn next_batch(&mut self, max_rows: usize) -> Result<Option<TraceBatch>> {
        match self.state {
            State::New { sort: true } => self.start_merge(None)?,
            State::New { sort: false } => {
                let Some(batch) = self.source.next_batch(max_rows)? else { return Ok(None) };
                if is_ordered(&batch, i64::MIN) {
                    let last_ns = batch.time_ns.last().copied().unwrap_or(i64::MIN);
                    self.state = State::Passing { last_ns };
                    return Ok(Some(batch));
                }
                self.start_merge(Some(batch))?;
            }
            State::Passing { last_ns } => {
                let Some(batch) = self.source.next_batch(max_rows)? else { return Ok(None) };
                if is_ordered(&batch, last_ns) {
                    let last_ns = batch.time_ns.last().copied().unwrap_or(last_ns);
                    self.state = State::Passing { last_ns };
                    return Ok(Some(batch));
                }
                self.state = State::NeedsSort;
            }
            State::Merging(_) | State::NeedsSort => {}
        }
        match &mut self.state {
            State::Merging(merge) => merge.next_batch(max_rows),
            _ => Ok(None),
        }
    }

    fn disks(&self) -> &[String] {
        self.source.disks()
    }

    fn report(&self) -> DecodeReport {
        self.source.report()
    }
}

/// A sorted run in a file without a name.
struct Run {
    file: BufReader<File>,
    left: u64,
}

fn failed(aside: &Path, e: std::io::Error) -> Error {
    Error::failed("rows cannot be set aside for sorting").with("file", aside.display()).caused_by(e)
}

impl Run {
    /// Sorts the rows and writes them out, leaving none.
    fn set_aside(rows: &mut Vec<TraceIo>, aside: &Path) -> Result<Self> {
        rows.sort_by_key(|io| io.time_ns);
        let write = || -> std::io::Result<File> {
            let mut file = BufWriter::with_capacity(1 << 20, unnamed_file(aside)?);
            for io in rows.iter() {
                file.write_all(&to_bytes(io))?;
            }
            let mut file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.rewind()?;
            Ok(file)
        };
        let file = write().map_err(|e| failed(aside, e))?;
        let left = rows.len() as u64;
        rows.clear();
        Ok(Self { file: BufReader::with_capacity(READ_BYTES, file), left })
    }

    fn next(&mut self) -> std::io::Result<Option<TraceIo>> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut bytes = [0; ROW_BYTES];
        self.file.read_exact(&mut bytes)?;
        self.left -= 1;
        Ok(Some(from_bytes(&bytes)))
    }
}

/// A file that vanishes with its last handle, even when the process is killed.
fn unnamed_file(folder: &Path) -> std::io::Result<File> {
    let mut tries = 0u32;
    loop {
        let name = format!(".vaio-bench-sort-{}-{tries}", std::process::id());
        let path = folder.join(name);
        match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && tries < 10_000 => tries += 1,
            Err(e) => return Err(e),
        }
    }
}

fn to_bytes(io: &TraceIo) -> [u8; ROW_BYTES] {
    let mut bytes = [0; ROW_BYTES];
    let wide = [io.time_ns, io.offset_bytes, io.length_bytes, io.latency_ns];
    for (slot, value) in bytes[..32].chunks_exact_mut(8).zip(wide) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
    for (slot, value) in bytes[32..44].chunks_exact_mut(4).zip([io.disk, io.flags, io.stream]) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
    bytes[44] = io.op as u8;
    bytes
}

fn from_bytes(bytes: &[u8; ROW_BYTES]) -> TraceIo {
    let narrow =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let wide = |at: usize| (u64::from(narrow(at)) | u64::from(narrow(at + 4)) << 32) as i64;
    TraceIo {
        time_ns: wide(0),
        offset_bytes: wide(8),
        length_bytes: wide(16),
        latency_ns: wide(24),
        disk: narrow(32),
        flags: narrow(36),
        stream: narrow(40),
        op: Op::from_code(bytes[44]),
    }
}

/// The merge of the runs and of the last, which stayed in memory.
struct Merge {
    runs: Vec<Run>,
    last: std::vec::IntoIter<TraceIo>,
    /// The next row of each run, the last one's behind; ordered by time, then by run.
    heads: std::collections::BinaryHeap<Head>,
}

struct Head {
    io: TraceIo,
    run: usize,
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    /// Reversed: the heap gives its greatest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.io.time_ns, other.run).cmp(&(self.io.time_ns, self.run))
    }
}

impl Merge {
    fn new(runs: Vec<Run>, last: Vec<TraceIo>) -> Result<Self> {
        let mut merge = Self { runs, last: last.into_iter(), heads: Default::default() };
        for run in 0..=merge.runs.len() {
            let head = merge.head(run)?;
            merge.heads.extend(head);
        }
        Ok(merge)
    }

    fn head(&mut self, run: usize) -> Result<Option<Head>> {
        let io = match self.runs.get_mut(run) {
            Some(file) => file.next().map_err(|e| {
                Error::failed("rows set aside for sorting cannot be read").caused_by(e)
            })?,
            None => self.last.next(),
        };
        Ok(io.map(|io| Head { io, run }))
    }

    fn next_batch(&mut self, max_rows: usize) -> Result<Option<TraceBatch>> {
        let mut batch = TraceBatch::default();
        while batch.len() < max_rows {
            let Some(head) = self.heads.pop() else { break };
            batch.push(&head.io);
            let next = self.head(head.run)?;
            self.heads.extend(next);
        }
        Ok(if batch.is_empty() { None } else { Some(batch) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Given {
        rows: Vec<TraceIo>,
        at: usize,
    }

    impl TraceSource for Given {
        fn next_batch(&mut self, max_rows: usize) -> Result<Option<TraceBatch>> {
            let mut batch = TraceBatch::default();
            for io in self.rows[self.at..].iter().take(max_rows) {
                batch.push(io);
            }
            self.at += batch.len();
            Ok(if batch.is_empty() { None } else { Some(batch) })
        }

        fn disks(&self) -> &[String] {
            &[]
        }
    }

    fn row(time_ns: i64, number: u32) -> TraceIo {
        TraceIo {
            time_ns,
            disk: number % 3,
            op: Op::from_code((number % 5) as u8),
            offset_bytes: i64::from(number) << 33,
            length_bytes: 4096,
            latency_ns: -1,
            flags: number,
            stream: u32::MAX - number,
        }
    }

    fn ordered(rows: &[TraceIo], sort: bool, run_rows: usize) -> (Vec<TraceIo>, bool) {
        let source = Box::new(Given { rows: rows.to_vec(), at: 0 });
        let aside = std::env::temp_dir();
        let mut source = Ordered::with_run_rows(source, &aside, sort, run_rows);
        let mut out = Vec::new();
        while let Some(batch) = source.next_batch(7).expect("no error") {
            out.extend((0..batch.len()).map(|i| batch.get(i)));
        }
        (out, source.needs_sort())
    }

    proptest! {
        #[test]
        fn the_merge_is_a_stable_sort(times in prop::collection::vec(-20i64..20, 0..200)) {
            let rows: Vec<TraceIo> =
                times.iter().enumerate().map(|(i, &t)| row(t, i as u32)).collect();
            let mut wanted = rows.clone();
            wanted.sort_by_key(|io| io.time_ns);
            prop_assert_eq!(ordered(&rows, true, 16).0, wanted.clone());
            let (passed, needs_sort) = ordered(&rows, false, 16);
            prop_assert!(needs_sort || passed == wanted);
        }
    }

    #[test]
    fn late_disorder_asks_for_a_second_reading() {
        let mut rows: Vec<TraceIo> = (0..100).map(|i| row(i64::from(i), i)).collect();
        assert_eq!(ordered(&rows, false, 16), (rows.clone(), false));
        rows[50].time_ns = 0;
        assert!(ordered(&rows, false, 16).1);
        rows[3].time_ns = 0;
        assert!(!ordered(&rows, false, 16).1, "disorder in the first batch is sorted at once");
    }
}
