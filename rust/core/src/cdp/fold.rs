//! Folding: of what is written several times between two points, only the last is sent.

use std::collections::BTreeMap;

use super::entry::{Batch, Change, Record};
use crate::filters::{DataMode, SECTOR_BYTES};

/// Ranges of one disk that later records cover.
#[derive(Debug, Default)]
pub struct Covered(BTreeMap<u64, u64>);

impl Covered {
    /// Adds a range and gives the parts of it that were not yet covered.
    pub fn add(&mut self, from: u64, to: u64, mut fresh: impl FnMut(u64, u64)) {
        let (mut start, mut end, mut at) = (from, to, from);
        if let Some((&a, &b)) = self.0.range(..=from).next_back()
            && b >= from
        {
            start = a;
            end = end.max(b);
            at = at.max(b);
        }
        let inside: Vec<(u64, u64)> = self.0.range(start..=to).map(|(a, b)| (*a, *b)).collect();
        for (a, b) in inside {
            if a > at {
                fresh(at, a.min(to));
            }
            at = at.max(b);
            end = end.max(b);
            self.0.remove(&a);
        }
        if at < to {
            fresh(at, to);
        }
        self.0.insert(start, end);
    }

    /// Ranges that do not touch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where the range begins that has so many before it.
    #[must_use]
    pub fn start_of(&self, index: usize) -> Option<u64> {
        self.0.keys().nth(index).copied()
    }

    /// Forgets the ranges that begin at `start` or after it.
    pub fn cut_at(&mut self, start: u64) {
        self.0.split_off(&start);
    }

    /// The parts of a range that are covered, in their order.
    pub fn within(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
        let before = self.0.range(..from).next_back().filter(|(_, end)| **end > from);
        let inside = self.0.range(from..to);
        before.into_iter().chain(inside).map(move |(a, b)| ((*a).max(from), (*b).min(to)))
    }
}

/// What is left of `records` (in their order) when only the last version of every byte is sent,
/// in batches of about `batch_bytes`. Their times become that of the last record: in between the
/// stream is no state that ever was, so such batches end at a point.
pub fn fold(records: &[Record<'_>], mode: DataMode, batch_bytes: u64, mut out: impl FnMut(Batch)) {
    let Some(last) = records.last() else { return };
    let mut covered: BTreeMap<u16, Covered> = BTreeMap::new();
    let mut kept = Vec::new();
    for record in records.iter().rev() {
        let (from, to) = (record.offset_bytes, record.offset_bytes + record.length_bytes);
        // Tokens stand for whole sectors: the driver carries them only where all I/Os are such.
        debug_assert!(mode != DataMode::Tokens || from % SECTOR_BYTES == 0);
        covered.entry(record.disk).or_default().add(from, to, |a, b| {
            let data = if record.change == Change::Write {
                &record.data[mode.size(a - from)..mode.size(b - from)]
            } else {
                &[]
            };
            kept.push(Record {
                offset_bytes: a,
                length_bytes: b - a,
                time_ns: last.time_ns,
                data,
                ..*record
            });
        });
    }
    let mut batch = Batch::default();
    for record in kept.iter().rev() {
        batch.push(record);
        if batch.real_bytes >= batch_bytes {
            out(std::mem::take(&mut batch));
        }
    }
    if !batch.is_empty() {
        out(batch);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn apply(image: &mut [u8], record: &Record<'_>) {
        let range =
            record.offset_bytes as usize..(record.offset_bytes + record.length_bytes) as usize;
        match record.change {
            Change::Write => image[range].copy_from_slice(record.data),
            Change::Zero | Change::Discard => image[range].fill(0),
        }
    }

    proptest! {
        #[test]
        fn the_last_version_and_nothing_twice(
            steps in proptest::collection::vec((0u8..4, 0u64..200, 1u64..60), 1..50)
        ) {
            let data: Vec<Vec<u8>> = (0..steps.len()).map(|i| vec![i as u8 + 1; 64]).collect();
            let records: Vec<Record<'_>> = steps
                .iter()
                .zip(&data)
                .map(|((kind, offset, length), data)| Record {
                    change: if *kind == 0 { Change::Zero } else { Change::Write },
                    disk: 0,
                    offset_bytes: *offset,
                    length_bytes: *length,
                    time_ns: 1,
                    data: if *kind == 0 { &[] } else { &data[..*length as usize] },
                })
                .collect();
            let (mut expected, mut got) = (vec![9; 300], vec![9; 300]);
            let mut touched = vec![0; 300];
            for record in &records {
                apply(&mut expected, record);
            }
            fold(&records, DataMode::Bytes, 100, |mut batch| {
                let entry = batch.close(1, Vec::new());
                for record in entry.records(DataMode::Bytes) {
                    let record = record.unwrap();
                    apply(&mut got, &record);
                    for byte in record.offset_bytes..record.offset_bytes + record.length_bytes {
                        touched[byte as usize] += 1;
                    }
                }
            });
            prop_assert_eq!(got, expected);
            prop_assert!(touched.iter().all(|times| *times <= 1));
        }
    }
}
