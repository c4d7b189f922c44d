//! One row an I/O: into preallocated words on the worker's side, into Arrow columns on the other.
//!
//! The worker writes a row as one run of words, two or three cache lines; taking it apart into
//! columns is the drain thread's work. The number of chunks bounds the memory: a worker that finds
//! none free waits, and the wait is counted.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arrow_array::types::Int8Type;
use arrow_array::{
    ArrayRef, DictionaryArray, Int8Array, Int16Array, Int32Array, Int64Array, ListArray,
    RecordBatch, StringArray, UInt32Array,
};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Schema};

use crate::clock::{Ns, monotonic_ns};
use crate::error::{Error, Result};
use crate::io::Op;
use crate::slab::{Io, LayerTime};

pub const CHUNK_ROWS: usize = 1 << 16;
/// Chunks of one worker: one to fill, the others on their way.
const CHUNKS: usize = 4;
/// Words of a row before its layers' times.
const FIXED: usize = 10;
/// Rows taken apart at a time: they stay in the second-level cache meanwhile.
const BLOCK: usize = 512;

/// Rows of one worker on their way to the drain thread.
pub struct Chunk {
    words: Vec<u64>,
    stride: usize,
    recycle: SyncSender<Vec<u64>>,
}

/// The worker's end.
pub struct Recorder {
    words: Vec<u64>,
    stride: usize,
    opened_ns: Ns,
    empty: Receiver<Vec<u64>>,
    recycle: SyncSender<Vec<u64>>,
    /// Time spent waiting for the drain thread.
    pub stalled_ns: u64,
}

/// What identifies a row beside the I/O itself, and the times relative to the round's start.
#[derive(Debug, Clone, Copy)]
pub struct RowTimes {
    pub due_ns: i64,
    pub submit_ns: i64,
    pub complete_ns: i64,
}

impl Recorder {
    /// A recorder for a chain of `layers` layers, the backend included.
    #[must_use]
    pub fn new(layers: usize) -> Self {
        let stride = FIXED + 2 * layers;
        let (recycle, empty) = sync_channel(CHUNKS);
        for _ in 1..CHUNKS {
            // The channel holds CHUNKS: this cannot block.
            let _ = recycle.send(Vec::with_capacity(CHUNK_ROWS * stride));
        }
        Self {
            words: Vec::with_capacity(CHUNK_ROWS * stride),
            stride,
            opened_ns: 0,
            empty,
            recycle,
            stalled_ns: 0,
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, io: &Io, disk: u16, times: RowTimes, layers: &[LayerTime]) {
        self.words.extend_from_slice(&[
            io.seq,
            u64::from(disk) | (io.op as u64) << 16 | u64::from(io.status as u32) << 32,
            io.trace_offset_bytes,
            io.offset_bytes,
            io.length_bytes,
            times.due_ns as u64,
            times.submit_ns as u64,
            times.complete_ns as u64,
            u64::from(io.row_flags) | u64::from(io.blocks) << 32,
            u64::from(io.hit_blocks) | io.harness_ns.min(u64::from(u32::MAX)) << 32,
        ]);
        for (i, time) in layers.iter().enumerate() {
            let below_ns = layers.get(i + 1).map_or(0, |below| below.span_ns);
            // A layer's self time is its span less the layer below's: they add up to the latency.
            self.words.push(time.span_ns - below_ns);
        }
        self.words.extend(layers.iter().map(|time| time.cpu_ns));
    }

    /// The chunk, when it is full or `age_ns` old; `now` is any clock that goes forward.
    pub fn take_if_due(&mut self, now: Ns, age_ns: u64) -> Option<Chunk> {
        if self.words.is_empty() {
            self.opened_ns = now;
            return None;
        }
        let full = self.words.len() >= CHUNK_ROWS * self.stride;
        (full || now.saturating_sub(self.opened_ns) >= age_ns).then(|| self.take(now))
    }

    #[must_use]
    #[inline]
    pub fn is_full(&self) -> bool {
        self.words.len() >= CHUNK_ROWS * self.stride
    }

    pub fn take(&mut self, now: Ns) -> Chunk {
        let next = self.empty.try_recv().unwrap_or_else(|_| {
            let before = monotonic_ns();
            // The drain side went away: the run is over, and a new vector serves as well.
            let next = self.empty.recv().unwrap_or_default();
            self.stalled_ns += monotonic_ns() - before;
            next
        });
        self.opened_ns = now;
        Chunk {
            words: std::mem::replace(&mut self.words, next),
            stride: self.stride,
            recycle: self.recycle.clone(),
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let mut words = std::mem::take(&mut self.words);
        words.clear();
        // The worker may be gone: then nobody needs the memory.
        let _ = self.recycle.try_send(words);
    }
}

/// Makes record batches of a round's rows.
pub struct RowSchema {
    schema: Arc<Schema>,
    policy: ArrayRef,
    disks: ArrayRef,
    ops: ArrayRef,
    round: i32,
}

impl RowSchema {
    #[must_use]
    pub fn new(policy: &str, round: i32, disks: &[String]) -> Self {
        let dictionary = |key| DataType::Dictionary(Box::new(key), Box::new(DataType::Utf8));
        let times = DataType::List(Arc::new(Field::new("item", DataType::Int64, false)));
        let columns = [
            ("policy", dictionary(DataType::Int8)),
            ("round", DataType::Int32),
            ("disk", dictionary(DataType::Int16)),
            ("seq", DataType::Int64),
            ("op", dictionary(DataType::Int8)),
            ("trace_offset_bytes", DataType::Int64),
            ("offset_bytes", DataType::Int64),
            ("length_bytes", DataType::Int64),
            ("due_ns", DataType::Int64),
            ("submit_ns", DataType::Int64),
            ("complete_ns", DataType::Int64),
            ("status", DataType::Int32),
            ("flags", DataType::UInt32),
            ("blocks", DataType::Int64),
            ("hit_blocks", DataType::Int64),
            ("self_ns", times.clone()),
            ("cpu_ns", times),
            ("harness_ns", DataType::Int64),
        ];
        let fields: Vec<Field> =
            columns.into_iter().map(|(name, kind)| Field::new(name, kind, false)).collect();
        Self {
            schema: Arc::new(Schema::new(fields)),
            policy: Arc::new(StringArray::from(vec![policy])),
            disks: Arc::new(StringArray::from(disks.to_vec())),
            ops: Arc::new(StringArray::from(Op::NAMES.to_vec())),
            round,
        }
    }

    #[must_use]
    pub fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.schema)
    }

    /// # Errors
    /// `Failed` when Arrow refuses the columns, which would be a fault of this file.
    pub fn batch(&self, chunk: &Chunk) -> Result<RecordBatch> {
        let rows = chunk.words.len() / chunk.stride;
        let layers = (chunk.stride - FIXED) / 2;
        let columns = Columns::take_apart(&chunk.words, chunk.stride, rows, layers);
        let fault = |e: arrow_schema::ArrowError| Error::failed(format!("rows to Arrow: {e}"));
        let lists = |values: Vec<i64>| -> ArrayRef {
            let offsets: Vec<i32> = (0..=rows).map(|row| (row * layers) as i32).collect();
            Arc::new(ListArray::new(
                Arc::new(Field::new("item", DataType::Int64, false)),
                OffsetBuffer::new(ScalarBuffer::from(offsets)),
                Arc::new(Int64Array::from(values)),
                None,
            ))
        };
        let policy = DictionaryArray::<Int8Type>::try_new(
            Int8Array::from(vec![0; rows]),
            Arc::clone(&self.policy),
        );
        let disk =
            DictionaryArray::try_new(Int16Array::from(columns.disk), Arc::clone(&self.disks));
        let op = DictionaryArray::try_new(Int8Array::from(columns.op), Arc::clone(&self.ops));
        let [seq, trace_offset, offset, length, due, submit, complete] = columns.long;
        let long = |values: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(policy.map_err(fault)?),
            Arc::new(Int32Array::from(vec![self.round; rows])),
            Arc::new(disk.map_err(fault)?),
            long(seq),
            Arc::new(op.map_err(fault)?),
            long(trace_offset),
            long(offset),
            long(length),
            long(due),
            long(submit),
            long(complete),
            Arc::new(Int32Array::from(columns.status)),
            Arc::new(UInt32Array::from(columns.flags)),
            Arc::new(Int64Array::from(columns.blocks)),
            Arc::new(Int64Array::from(columns.hit_blocks)),
            lists(columns.self_ns),
            lists(columns.cpu_ns),
            long(columns.harness),
        ];
        RecordBatch::try_new(self.schema(), arrays).map_err(fault)
    }
}

struct Columns {
    disk: Vec<i16>,
    op: Vec<i8>,
    status: Vec<i32>,
    long: [Vec<i64>; 7],
    flags: Vec<u32>,
    blocks: Vec<i64>,
    hit_blocks: Vec<i64>,
    harness: Vec<i64>,
    self_ns: Vec<i64>,
    cpu_ns: Vec<i64>,
}

impl Columns {
    fn take_apart(words: &[u64], stride: usize, rows: usize, layers: usize) -> Self {
        let mut all = Self {
            disk: Vec::with_capacity(rows),
            op: Vec::with_capacity(rows),
            status: Vec::with_capacity(rows),
            long: std::array::from_fn(|_| Vec::with_capacity(rows)),
            flags: Vec::with_capacity(rows),
            blocks: Vec::with_capacity(rows),
            hit_blocks: Vec::with_capacity(rows),
            harness: Vec::with_capacity(rows),
            self_ns: Vec::with_capacity(rows * layers),
            cpu_ns: Vec::with_capacity(rows * layers),
        };
        for block in words.chunks(BLOCK * stride) {
            let rows = || block.chunks_exact(stride);
            all.disk.extend(rows().map(|row| row[1] as i16));
            all.op.extend(rows().map(|row| (row[1] >> 16) as i8));
            all.status.extend(rows().map(|row| (row[1] >> 32) as i32));
            for (column, word) in all.long.iter_mut().zip([0, 2, 3, 4, 5, 6, 7]) {
                column.extend(rows().map(|row| row[word] as i64));
            }
            all.flags.extend(rows().map(|row| row[8] as u32));
            all.blocks.extend(rows().map(|row| (row[8] >> 32) as i64));
            all.hit_blocks.extend(rows().map(|row| i64::from(row[9] as u32)));
            all.harness.extend(rows().map(|row| (row[9] >> 32) as i64));
            for row in rows() {
                all.self_ns.extend(row[FIXED..FIXED + layers].iter().map(|ns| *ns as i64));
                all.cpu_ns.extend(row[FIXED + layers..].iter().map(|ns| *ns as i64));
            }
        }
        all
    }
}
