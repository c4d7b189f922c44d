//! The canonical trace as Arrow batches (what a Parquet reader gives) turned into [`TraceBatch`].
//!
//! Columns are found by name; `time_ns`, `disk`, `op`, `offset_bytes` and `length_bytes` must be
//! there, `latency_ns`, `flags`, `stream` and `content` may be missing. Strings may be plain or
//! dictionaries, with another dictionary in every batch.

use std::collections::HashMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Int64Type, UInt32Type};
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchReader};
use arrow_schema::DataType;

use crate::error::{Error, Result};
use crate::io::Op;
use crate::trace::{NO_LATENCY, NO_STREAM, TraceBatch, TraceSource};

/// A trace read from a stream of Arrow batches.
pub struct ArrowTrace<R> {
    reader: R,
    /// What errors name: the Parquet file.
    file: String,
    disks: Vec<String>,
    by_name: HashMap<String, u32>,
    rows: u64,
    /// Of which the rows from there on are still to come.
    pending: Option<(RecordBatch, usize)>,
}

impl<R: RecordBatchReader + Send> ArrowTrace<R> {
    /// `file` is named in errors.
    pub fn new(reader: R, file: impl Into<String>) -> Self {
        let (disks, by_name) = (Vec::new(), HashMap::new());
        Self { reader, file: file.into(), disks, by_name, rows: 0, pending: None }
    }

    /// The file that errors name.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The next Arrow batch as it comes, whatever its size.
    ///
    /// # Errors
    /// `Input` with the file, and the row (from 0) where one is wrong.
    pub fn next_as_stored(&mut self) -> Result<Option<TraceBatch>> {
        self.next_batch(usize::MAX)
    }

    /// The next Arrow batch that has rows.
    fn next_stored(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            match self.reader.next() {
                None => return Ok(None),
                Some(Ok(batch)) if batch.num_rows() == 0 => {}
                Some(Ok(batch)) => return Ok(Some(batch)),
                // A reader's errors are those of the file: damaged pages, a truncated footer.
                Some(Err(e)) => {
                    let message = e.to_string().replace('\n', " ");
                    return Err(Error::input(message).with("file", &self.file));
                }
            }
        }
    }

    fn convert(&mut self, batch: &RecordBatch) -> Result<TraceBatch> {
        let names = strings(batch, "disk", self.rows)?;
        let mut ids = Vec::with_capacity(names.values.len());
        for name in &names.values {
            ids.push(self.disk_id(name));
        }
        let ops = strings(batch, "op", self.rows)?;
        let codes: Vec<Option<u8>> =
            ops.values.iter().map(|name| Op::from_name(name).map(|op| op as u8)).collect();
        let op_of = |(row, key): (usize, &usize)| {
            codes[*key].ok_or_else(|| {
                let expected = Op::NAMES.join(", ");
                let got = &ops.values[*key];
                Error::input(format!("op: expected one of {expected}, got {got:?}"))
                    .with("row", self.rows + row as u64)
            })
        };
        let n = batch.num_rows();
        let time_ns = required(batch, "time_ns", self.rows)?;
        // That later ones do not go back is for whoever reads them in order to see.
        if let Some(first) = time_ns.first().filter(|first| self.rows == 0 && **first < 0) {
            let message = format!("time_ns: expected 0 or more, got {first}");
            return Err(Error::input(message).with("row", 0));
        }
        Ok(TraceBatch {
            time_ns,
            disk: names.keys.iter().map(|key| ids[*key]).collect(),
            op: ops.keys.iter().enumerate().map(op_of).collect::<Result<_>>()?,
            offset_bytes: required(batch, "offset_bytes", self.rows)?,
            length_bytes: required(batch, "length_bytes", self.rows)?,
            latency_ns: optional::<Int64Type>(batch, "latency_ns", NO_LATENCY)?
                .unwrap_or_else(|| vec![NO_LATENCY; n]),
            flags: optional::<UInt32Type>(batch, "flags", 0)?.unwrap_or_else(|| vec![0; n]),
            stream: optional::<UInt32Type>(batch, "stream", NO_STREAM)?
                .unwrap_or_else(|| vec![NO_STREAM; n]),
            content: batch.column_by_name("content").cloned(),
        })
    }

    fn disk_id(&mut self, name: &str) -> u32 {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let id = self.disks.len() as u32;
        self.disks.push(name.to_owned());
        self.by_name.insert(name.to_owned(), id);
        id
    }
}

impl<R: RecordBatchReader + Send> TraceSource for ArrowTrace<R> {
    fn next_batch(&mut self, max_rows: usize) -> Result<Option<TraceBatch>> {
        let (batch, from) = match self.pending.take() {
            Some(pending) => pending,
            None => match self.next_stored()? {
                None => return Ok(None),
                Some(batch) => (batch, 0),
            },
        };
        let rows = (batch.num_rows() - from).min(max_rows.max(1));
        let part = self.convert(&batch.slice(from, rows)).map_err(|mut e| {
            e.context.insert(0, ("file", self.file.clone()));
            e
        })?;
        self.rows += rows as u64;
        if from + rows < batch.num_rows() {
            self.pending = Some((batch, from + rows));
        }
        Ok(Some(part))
    }

    fn disks(&self) -> &[String] {
        &self.disks
    }
}

/// The digests of a row's blocks, `None` where the trace has none for it.
///
/// # Errors
/// `Input` when `content` is no list of binary values.
pub fn digests(content: &ArrayRef, row: usize) -> Result<Option<Vec<Vec<u8>>>> {
    let values = if content.is_null(row) {
        return Ok(None);
    } else if let Some(lists) = content.as_list_opt::<i32>() {
        lists.value(row)
    } else if let Some(lists) = content.as_list_opt::<i64>() {
        lists.value(row)
    } else {
        return Err(wrong_type("content", "a list of binary values", content.data_type()));
    };
    let known = |digest: Option<&[u8]>| digest.unwrap_or_default().to_vec();
    let found = if let Some(values) = values.as_binary_opt::<i32>() {
        values.iter().map(known).collect()
    } else if let Some(values) = values.as_binary_opt::<i64>() {
        values.iter().map(known).collect()
    } else if let Some(values) = values.as_fixed_size_binary_opt() {
        values.iter().map(known).collect()
    } else {
        return Err(wrong_type("content", "a list of binary values", content.data_type()));
    };
    Ok(Some(found))
}

/// Distinct strings of a column and, for each row, which.
struct Strings {
    values: Vec<String>,
    keys: Vec<usize>,
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| {
        let found: Vec<String> =
            batch.schema().fields().iter().map(|f| f.name().to_owned()).collect();
        Error::input(format!("expected a column {name}, found {}", found.join(", ")))
    })
}

fn wrong_type(name: &str, expected: &str, found: &DataType) -> Error {
    Error::input(format!("column {name}: expected {expected}, found {found}"))
}

fn refuse_nulls(array: &dyn Array, name: &str, first_row: u64) -> Result<()> {
    let Some(nulls) = array.logical_nulls().filter(|n| n.null_count() > 0) else {
        return Ok(());
    };
    let row = (0..array.len()).find(|i| nulls.is_null(*i)).unwrap_or(0);
    Err(Error::input(format!("{name}: expected a value, got null"))
        .with("row", first_row + row as u64))
}

fn required(batch: &RecordBatch, name: &str, first_row: u64) -> Result<Vec<i64>> {
    let array = column(batch, name)?;
    refuse_nulls(array, name, first_row)?;
    let values = array
        .as_primitive_opt::<Int64Type>()
        .ok_or_else(|| wrong_type(name, "int64", array.data_type()))?;
    Ok(values.values().to_vec())
}

fn optional<T: ArrowPrimitiveType>(
    batch: &RecordBatch,
    name: &str,
    missing: T::Native,
) -> Result<Option<Vec<T::Native>>> {
    let Some(array) = batch.column_by_name(name) else { return Ok(None) };
    if matches!(array.data_type(), DataType::Null) {
        return Ok(None);
    }
    let values = array
        .as_primitive_opt::<T>()
        .ok_or_else(|| wrong_type(name, &T::DATA_TYPE.to_string(), array.data_type()))?;
    if values.null_count() == 0 {
        return Ok(Some(values.values().to_vec()));
    }
    Ok(Some(values.iter().map(|v| v.unwrap_or(missing)).collect()))
}

fn strings(batch: &RecordBatch, name: &str, first_row: u64) -> Result<Strings> {
    let array = column(batch, name)?;
    refuse_nulls(array, name, first_row)?;
    if let Some(dictionary) = array.as_any_dictionary_opt() {
        let keys = dictionary.normalized_keys();
        let values = plain_strings(dictionary.values(), name)?;
        return Ok(Strings { values: values.into_iter().map(str::to_owned).collect(), keys });
    }
    let mut found = Strings { values: Vec::new(), keys: Vec::with_capacity(array.len()) };
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for value in plain_strings(array, name)? {
        let key = *seen.entry(value).or_insert_with(|| {
            found.values.push(value.to_owned());
            found.values.len() - 1
        });
        found.keys.push(key);
    }
    Ok(found)
}

/// The strings of an array without a dictionary; null is the empty string.
fn plain_strings<'a>(array: &'a ArrayRef, name: &str) -> Result<Vec<&'a str>> {
    if let Some(values) = array.as_string_opt::<i32>() {
        Ok(values.iter().map(Option::unwrap_or_default).collect())
    } else if let Some(values) = array.as_string_opt::<i64>() {
        Ok(values.iter().map(Option::unwrap_or_default).collect())
    } else if let Some(values) = array.as_string_view_opt() {
        Ok(values.iter().map(Option::unwrap_or_default).collect())
    } else {
        Err(wrong_type(name, "a string or a dictionary of strings", array.data_type()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow_array::types::Int32Type;
    use arrow_array::{DictionaryArray, Int64Array, RecordBatchIterator, StringArray, UInt32Array};

    fn batch(disks: &[&str], ops: &[&str]) -> RecordBatch {
        let n = disks.len() as i64;
        let disks: DictionaryArray<Int32Type> = disks.iter().copied().collect();
        let latency: Int64Array = (0..n).map(|i| (i % 2 == 0).then_some(i)).collect();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("time_ns", Arc::new(Int64Array::from_iter_values(0..n))),
            ("disk", Arc::new(disks)),
            ("op", Arc::new(StringArray::from(ops.to_vec()))),
            ("offset_bytes", Arc::new(Int64Array::from_iter_values((0..n).map(|i| i * 512)))),
            ("length_bytes", Arc::new(Int64Array::from(vec![512; n as usize]))),
            ("latency_ns", Arc::new(latency)),
            ("flags", Arc::new(UInt32Array::from(vec![1; n as usize]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn trace(batches: Vec<RecordBatch>) -> ArrowTrace<impl RecordBatchReader + Send> {
        let schema = batches[0].schema();
        ArrowTrace::new(RecordBatchIterator::new(batches.into_iter().map(Ok), schema), "t.parquet")
    }

    #[test]
    fn disks_keep_their_number_when_the_dictionary_changes() {
        let first = batch(&["b", "a", "b"], &["read", "write", "flush"]);
        let second = batch(&["a", "c"], &["discard", "write_zeroes"]);
        let mut trace = trace(vec![first, second]);
        let a = trace.next_batch(100).unwrap().unwrap();
        assert_eq!((a.disk, a.op), (vec![0, 1, 0], vec![0, 1, 2]));
        assert_eq!(a.latency_ns, [0, NO_LATENCY, 2]);
        assert_eq!((a.flags[0], a.stream[0]), (1, NO_STREAM));
        let b = trace.next_batch(1).unwrap().unwrap();
        assert_eq!((b.disk, b.op), (vec![1], vec![3]));
        let c = trace.next_batch(1).unwrap().unwrap();
        assert_eq!((c.disk, c.op), (vec![2], vec![4]));
        assert!(trace.next_batch(1).unwrap().is_none());
        assert_eq!(trace.disks(), ["b", "a", "c"]);
    }

    #[test]
    fn times_before_the_first_are_refused() {
        let whole = batch(&["a", "a"], &["read", "read"]);
        let mut columns = whole.columns().to_vec();
        columns[0] = Arc::new(Int64Array::from(vec![-5, 0]));
        let before = RecordBatch::try_new(whole.schema(), columns).unwrap();
        assert_eq!(
            trace(vec![before]).next_batch(9).unwrap_err().to_string(),
            "t.parquet: row 0: time_ns: expected 0 or more, got -5"
        );
    }

    #[test]
    fn wrong_columns_and_rows_are_named() {
        let mut bad_op = trace(vec![batch(&["a"], &["read"]), batch(&["a", "a"], &["read", "rd"])]);
        assert!(bad_op.next_batch(9).is_ok());
        assert_eq!(
            bad_op.next_batch(9).unwrap_err().to_string(),
            "t.parquet: row 2: op: expected one of read, write, flush, discard, write_zeroes, \
             got \"rd\""
        );
        let whole = batch(&["a"], &["read"]);
        let without = whole.project(&[0, 1, 2, 4]).unwrap();
        assert_eq!(
            trace(vec![without]).next_batch(9).unwrap_err().to_string(),
            "t.parquet: expected a column offset_bytes, found time_ns, disk, op, length_bytes"
        );
    }
}
