//! The canonical trace as Arrow record batches: the columns and types of the Parquet file.

use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray, UInt32Array,
};
use arrow_buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, Schema};

use crate::error::{Error, Result};
use crate::io::Op;
use crate::trace::{NO_LATENCY, NO_STREAM, TraceBatch};

/// The schema of the canonical trace, without the optional `content`.
#[must_use]
pub fn schema() -> Schema {
    let name = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    Schema::new(vec![
        Field::new("time_ns", DataType::Int64, false),
        Field::new("disk", name(), false),
        Field::new("op", name(), false),
        Field::new("offset_bytes", DataType::Int64, false),
        Field::new("length_bytes", DataType::Int64, false),
        Field::new("latency_ns", DataType::Int64, true),
        Field::new("flags", DataType::UInt32, false),
        Field::new("stream", DataType::UInt32, true),
    ])
}

/// `batch` with its times counted from `origin_ns`; `disks` are the names its indices mean.
///
/// # Errors
/// `Failed` where a disk index has no name: a decoder's mistake.
pub fn to_record_batch(
    mut batch: TraceBatch,
    disks: &[String],
    origin_ns: i64,
) -> Result<RecordBatch> {
    for time_ns in &mut batch.time_ns {
        *time_ns = time_ns.saturating_sub(origin_ns);
    }
    build(batch, disks)
        .map_err(|e| Error::failed(format!("decoded rows do not fit the canonical trace: {e}")))
}

fn build(batch: TraceBatch, disks: &[String]) -> Result<RecordBatch, ArrowError> {
    let latency_nulls = nulls(batch.latency_ns.len(), |i| batch.latency_ns[i] != NO_LATENCY);
    let stream_nulls = nulls(batch.stream.len(), |i| batch.stream[i] != NO_STREAM);
    let disk_keys: Vec<i32> = batch.disk.into_iter().map(|d| d as i32).collect();
    let op_keys: Vec<i32> = batch.op.into_iter().map(i32::from).collect();
    let disk = DictionaryArray::<Int32Type>::try_new(
        Int32Array::from(disk_keys),
        Arc::new(StringArray::from_iter_values(disks)),
    )?;
    let op = DictionaryArray::<Int32Type>::try_new(
        Int32Array::from(op_keys),
        Arc::new(StringArray::from_iter_values(Op::NAMES)),
    )?;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(batch.time_ns)),
        Arc::new(disk),
        Arc::new(op),
        Arc::new(Int64Array::from(batch.offset_bytes)),
        Arc::new(Int64Array::from(batch.length_bytes)),
        Arc::new(Int64Array::try_new(ScalarBuffer::from(batch.latency_ns), latency_nulls)?),
        Arc::new(UInt32Array::from(batch.flags)),
        Arc::new(UInt32Array::try_new(ScalarBuffer::from(batch.stream), stream_nulls)?),
    ];
    RecordBatch::try_new(Arc::new(schema()), columns)
}

/// The validity of `rows` values; `None` where all are valid.
fn nulls(rows: usize, is_valid: impl Fn(usize) -> bool) -> Option<NullBuffer> {
    let buffer = NullBuffer::new(BooleanBuffer::collect_bool(rows, is_valid));
    (buffer.null_count() > 0).then_some(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::TraceIo;
    use arrow_array::Array;
    use arrow_array::cast::AsArray;

    #[test]
    fn missing_values_are_null_and_times_start_at_the_origin() {
        let mut batch = TraceBatch::default();
        for (latency_ns, stream) in [(NO_LATENCY, 7), (5, NO_STREAM)] {
            batch.push(&TraceIo {
                time_ns: 1_000,
                disk: 1,
                op: Op::Write,
                offset_bytes: 4096,
                length_bytes: 512,
                latency_ns,
                flags: 3,
                stream,
            });
        }
        let disks = ["a".to_owned(), "b".to_owned()];
        let batch = to_record_batch(batch, &disks, 400).expect("valid");
        assert_eq!(batch.column(0).as_primitive::<arrow_array::types::Int64Type>().value(1), 600);
        assert!(batch.column(5).is_null(0) && batch.column(5).is_valid(1));
        assert!(batch.column(7).is_valid(0) && batch.column(7).is_null(1));
        let error = to_record_batch(TraceBatch { disk: vec![2], ..one_row() }, &disks, 0);
        assert!(error.is_err(), "an index without a name");
    }

    fn one_row() -> TraceBatch {
        TraceBatch {
            time_ns: vec![0],
            disk: vec![0],
            op: vec![0],
            offset_bytes: vec![0],
            length_bytes: vec![1],
            latency_ns: vec![1],
            flags: vec![0],
            stream: vec![0],
            content: None,
        }
    }
}
