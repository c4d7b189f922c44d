//! From Arrow batches of a canonical trace to I/Os: the disk filter, the window, the time base.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt32Type};
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchReader};

use crate::error::{Error, Result};
use crate::io::Op;
use crate::trace::{NO_LATENCY, NO_STREAM, TraceIo};

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
    reader: Box<dyn RecordBatchReader + Send>,
    window: Window,
    rows: std::vec::IntoIter<Numbered>,
    next_seq: u64,
    selected: u64,
    origin_ns: Option<i64>,
    last_ns: i64,
}

impl Feed {
    #[must_use]
    pub fn new(reader: Box<dyn RecordBatchReader + Send>, window: Window) -> Self {
        Self {
            reader,
            window,
            rows: Vec::new().into_iter(),
            next_seq: 0,
            selected: 0,
            origin_ns: None,
            last_ns: 0,
        }
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
            let Some(batch) = self.reader.next() else { return Ok(None) };
            let batch = batch.map_err(|e| Error::input(format!("the trace is damaged: {e}")))?;
            self.rows = self.select(&batch)?.into_iter();
        }
    }

    fn select(&mut self, batch: &RecordBatch) -> Result<Vec<Numbered>> {
        let columns = TraceColumns::of(batch, &self.window.disks)?;
        let mut rows = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let seq = self.next_seq;
            self.next_seq += 1;
            let Some(mut io) = columns.io(row) else { continue };
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
                return Err(Error::input(format!(
                    "time_ns goes back, from {} to {}; import the trace again to sort it",
                    self.last_ns + origin,
                    io.time_ns + origin
                ))
                .with("row", seq));
            }
            if let Some(fault) = fault_of(&io) {
                return Err(Error::input(fault).with("row", seq));
            }
            self.last_ns = io.time_ns;
            rows.push(Numbered { seq, io });
        }
        Ok(rows)
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

/// The columns of a batch, dictionaries resolved once.
struct TraceColumns<'a> {
    time_ns: &'a [i64],
    disk_keys: Vec<usize>,
    /// By dictionary value: the run's disk, or none.
    disks: Vec<Option<u32>>,
    op_keys: Vec<usize>,
    ops: Vec<Op>,
    offset_bytes: &'a [i64],
    length_bytes: &'a [i64],
    latency: Option<&'a arrow_array::Int64Array>,
    flags: Option<&'a [u32]>,
}

impl<'a> TraceColumns<'a> {
    fn of(batch: &'a RecordBatch, wanted: &[String]) -> Result<Self> {
        let column = |name: &str| {
            batch
                .column_by_name(name)
                .ok_or_else(|| Error::input(format!("not a canonical trace: no column {name}")))
        };
        let long = |name: &str| -> Result<&'a [i64]> {
            let array = column(name)?;
            let array = array.as_primitive_opt::<Int64Type>().ok_or_else(|| {
                Error::input(format!("column {name}: expected int64, got {}", array.data_type()))
            })?;
            Ok(array.values())
        };
        let (disk_keys, disk_names) = dictionary("disk", column("disk")?)?;
        let (op_keys, op_names) = dictionary("op", column("op")?)?;
        let ops = op_names
            .iter()
            .map(|name| {
                Op::from_name(name).ok_or_else(|| {
                    Error::input(format!("column op: expected one of {:?}, got {name}", Op::NAMES))
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            time_ns: long("time_ns")?,
            disks: disk_names
                .iter()
                .map(|name| wanted.iter().position(|w| w == name).map(|i| i as u32))
                .collect(),
            disk_keys,
            op_keys,
            ops,
            offset_bytes: long("offset_bytes")?,
            length_bytes: long("length_bytes")?,
            latency: batch
                .column_by_name("latency_ns")
                .and_then(|array| array.as_primitive_opt::<Int64Type>()),
            flags: batch
                .column_by_name("flags")
                .and_then(|array| array.as_primitive_opt::<UInt32Type>())
                .map(|array| &array.values()[..]),
        })
    }

    fn io(&self, row: usize) -> Option<TraceIo> {
        let disk = self.disks[self.disk_keys[row]]?;
        Some(TraceIo {
            time_ns: self.time_ns[row],
            disk,
            op: self.ops[self.op_keys[row]],
            offset_bytes: self.offset_bytes[row],
            length_bytes: self.length_bytes[row],
            latency_ns: match self.latency {
                Some(latency) if latency.is_valid(row) => latency.value(row),
                _ => NO_LATENCY,
            },
            flags: self.flags.map_or(0, |flags| flags[row]),
            stream: NO_STREAM,
        })
    }
}

fn dictionary(name: &str, array: &ArrayRef) -> Result<(Vec<usize>, Vec<String>)> {
    let wrong = || {
        Error::input(format!(
            "column {name}: expected a dictionary of strings without nulls, got {}",
            array.data_type()
        ))
    };
    let dictionary = array.as_any_dictionary_opt().ok_or_else(wrong)?;
    if dictionary.keys().null_count() > 0 {
        return Err(wrong());
    }
    let values = dictionary.values();
    let names: Vec<String> = if let Some(values) = values.as_string_opt::<i32>() {
        values.iter().map(|v| v.unwrap_or_default().to_owned()).collect()
    } else if let Some(values) = values.as_string_opt::<i64>() {
        values.iter().map(|v| v.unwrap_or_default().to_owned()).collect()
    } else {
        return Err(wrong());
    };
    let keys = if names.is_empty() { Vec::new() } else { dictionary.normalized_keys() };
    Ok((keys, names))
}
