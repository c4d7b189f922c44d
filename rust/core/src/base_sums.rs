//! What the disks held before the trace, as digests of their sectors on the way to the run folder:
//! with them a recovered image can be compared with the source where no write of the trace was.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int16Array, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};

use crate::error::{Error, Result};
use crate::filters::SECTOR_BYTES;

/// Sectors that are handed over at a time, and about as many as are kept until then.
const BATCH_SECTORS: usize = 1 << 16;

/// A sector that holds anything but zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseSum {
    pub disk: u16,
    pub sector: u64,
    pub sum: u64,
}

/// The digests that are not handed over yet.
#[derive(Debug, Default)]
pub struct BaseSums(Vec<BaseSum>);

/// The digest of a sector's bytes.
#[must_use]
pub fn sector_sum(data: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(data)
}

impl BaseSums {
    /// Notes whole sectors; an end that is none is not known.
    pub fn note(&mut self, disk: u16, offset_bytes: u64, data: &[u8]) {
        for (i, data) in data.chunks_exact(SECTOR_BYTES as usize).enumerate() {
            if data.iter().any(|byte| *byte != 0) {
                let sector = offset_bytes / SECTOR_BYTES + i as u64;
                self.0.push(BaseSum { disk, sector, sum: sector_sum(data) });
            }
        }
    }

    /// What there is, when it is much or `all` is wanted.
    pub fn take_if_due(&mut self, all: bool) -> Option<Vec<BaseSum>> {
        let due = self.0.len() >= BATCH_SECTORS || all && !self.0.is_empty();
        due.then(|| std::mem::take(&mut self.0))
    }
}

/// As columns: disk (the run's number), sector, sum (its bits as a signed number).
///
/// # Errors
/// `Failed` when Arrow refuses the columns, which would be a fault of this file.
pub fn batch(sums: &[BaseSum]) -> Result<RecordBatch> {
    let field = |name, kind| Field::new(name, kind, false);
    let schema = Schema::new(vec![
        field("disk", DataType::Int16),
        field("sector", DataType::Int64),
        field("sum", DataType::Int64),
    ]);
    let of = |value: fn(&BaseSum) -> i64| -> ArrayRef {
        Arc::new(sums.iter().map(value).collect::<Int64Array>())
    };
    let disks: Int16Array = sums.iter().map(|sum| sum.disk as i16).collect();
    let columns = vec![
        Arc::new(disks) as ArrayRef,
        of(|sum| sum.sector as i64),
        of(|sum| sum.sum.cast_signed()),
    ];
    RecordBatch::try_new(Arc::new(schema), columns)
        .map_err(|e| Error::failed(format!("digests to Arrow: {e}")))
}
