//! Gauges: what filters tell of the moment, on its way to the run folder.
//!
//! A reading is kept when its value is not the one that stood before: a value stands until the next
//! reading of the same gauge, so that an idle hour costs nothing.

use std::sync::Arc;

use arrow_array::builder::StringDictionaryBuilder;
use arrow_array::types::{Int8Type, Int16Type};
use arrow_array::{
    ArrayRef, DictionaryArray, Int8Array, Int16Array, Int32Array, Int64Array, RecordBatch,
    StringArray,
};
use arrow_schema::{DataType, Field, Schema};

use crate::clock::Ns;
use crate::error::{Error, Result};

/// Readings that are handed over at a time, and about as many as are kept until then.
const BATCH_READINGS: usize = 4096;

/// A row of the gauges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Since the round's start.
    pub at_ns: Ns,
    /// The run's number of the disk.
    pub disk: u16,
    pub layer: u8,
    pub name: &'static str,
    pub value: i64,
}

/// A worker's gauges: the values that stand, and the readings that are not handed over yet.
#[derive(Debug, Default)]
pub struct Gauges {
    /// By the worker's own number of the disk, in the order in which the filters tell them.
    standing: Vec<Vec<(u8, &'static str, i64)>>,
    readings: Vec<Reading>,
    opened_ns: Ns,
}

impl Gauges {
    /// Takes in all gauges of one disk (`local` is the worker's number of it).
    pub fn read(&mut self, at_ns: Ns, local: usize, disk: u16, told: &[(u8, &'static str, i64)]) {
        if self.standing.len() <= local {
            self.standing.resize(local + 1, Vec::new());
        }
        if self.readings.is_empty() {
            self.opened_ns = at_ns;
        }
        let standing = &mut self.standing[local];
        for (at, gauge) in told.iter().enumerate() {
            if standing.get(at) != Some(gauge) {
                let (layer, name, value) = *gauge;
                self.readings.push(Reading { at_ns, disk, layer, name, value });
            }
        }
        standing.clear();
        standing.extend_from_slice(told);
    }

    /// The readings, when they are many or `age_ns` old.
    pub fn take_if_due(&mut self, now_ns: Ns, age_ns: u64) -> Option<Vec<Reading>> {
        let old = now_ns.saturating_sub(self.opened_ns) >= age_ns;
        let due = self.readings.len() >= BATCH_READINGS || (old && !self.readings.is_empty());
        due.then(|| std::mem::take(&mut self.readings))
    }
}

/// Makes record batches of a round's gauges.
pub struct GaugeSchema {
    schema: Arc<Schema>,
    policy: ArrayRef,
    disks: ArrayRef,
    layers: ArrayRef,
    round: i32,
}

impl GaugeSchema {
    /// `layers` are the names of the chain's filters.
    #[must_use]
    pub fn new(policy: &str, round: i32, disks: &[String], layers: &[String]) -> Self {
        let dictionary = |key| DataType::Dictionary(Box::new(key), Box::new(DataType::Utf8));
        let columns = [
            ("policy", dictionary(DataType::Int8)),
            ("round", DataType::Int32),
            ("disk", dictionary(DataType::Int16)),
            ("time_ns", DataType::Int64),
            ("layer", dictionary(DataType::Int16)),
            ("layer_index", DataType::Int32),
            ("gauge", dictionary(DataType::Int16)),
            ("value", DataType::Int64),
        ];
        let fields: Vec<Field> =
            columns.into_iter().map(|(name, kind)| Field::new(name, kind, false)).collect();
        Self {
            schema: Arc::new(Schema::new(fields)),
            policy: Arc::new(StringArray::from(vec![policy])),
            disks: Arc::new(StringArray::from(disks.to_vec())),
            layers: Arc::new(StringArray::from(layers.to_vec())),
            round,
        }
    }

    /// # Errors
    /// `Failed` when Arrow refuses the columns, which would be a fault of this file.
    pub fn batch(&self, readings: &[Reading]) -> Result<RecordBatch> {
        let fault = |e: arrow_schema::ArrowError| Error::failed(format!("gauges to Arrow: {e}"));
        let rows = readings.len();
        let policy = DictionaryArray::<Int8Type>::try_new(
            Int8Array::from(vec![0; rows]),
            Arc::clone(&self.policy),
        );
        let named = |keys: Vec<i16>, names: &ArrayRef| {
            DictionaryArray::<Int16Type>::try_new(Int16Array::from(keys), Arc::clone(names))
        };
        let disk = named(readings.iter().map(|r| r.disk as i16).collect(), &self.disks);
        let layer = named(readings.iter().map(|r| i16::from(r.layer)).collect(), &self.layers);
        let mut gauge = StringDictionaryBuilder::<Int16Type>::new();
        for reading in readings {
            gauge.append(reading.name).map_err(fault)?;
        }
        let times: Int64Array = readings.iter().map(|r| r.at_ns as i64).collect();
        let indices: Int32Array = readings.iter().map(|r| i32::from(r.layer)).collect();
        let values: Int64Array = readings.iter().map(|r| r.value).collect();
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(policy.map_err(fault)?),
            Arc::new(Int32Array::from(vec![self.round; rows])),
            Arc::new(disk.map_err(fault)?),
            Arc::new(times),
            Arc::new(layer.map_err(fault)?),
            Arc::new(indices),
            Arc::new(gauge.finish()),
            Arc::new(values),
        ];
        RecordBatch::try_new(Arc::clone(&self.schema), arrays).map_err(fault)
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;

    use super::*;

    #[test]
    fn a_value_is_kept_when_it_changes_and_each_disk_has_its_own() {
        let mut gauges = Gauges::default();
        gauges.read(0, 0, 4, &[(0, "dirty_bytes", 0), (2, "lag_ns", 7)]);
        gauges.read(5, 0, 4, &[(0, "dirty_bytes", 0), (2, "lag_ns", 8)]);
        gauges.read(5, 1, 6, &[(0, "dirty_bytes", 0)]);
        gauges.read(9, 0, 4, &[(0, "dirty_bytes", 1), (2, "lag_ns", 8)]);
        assert_eq!(gauges.take_if_due(9, 10), None);
        let told: Vec<_> = gauges
            .take_if_due(10, 10)
            .unwrap()
            .into_iter()
            .map(|r| (r.at_ns, r.disk, r.layer, r.name, r.value))
            .collect();
        assert_eq!(
            told,
            [
                (0, 4, 0, "dirty_bytes", 0),
                (0, 4, 2, "lag_ns", 7),
                (5, 4, 2, "lag_ns", 8),
                (5, 6, 0, "dirty_bytes", 0),
                (9, 4, 0, "dirty_bytes", 1),
            ]
        );
        gauges.read(20, 0, 4, &[(0, "dirty_bytes", 1), (2, "lag_ns", 8)]);
        assert_eq!(gauges.take_if_due(u64::MAX, 0), None, "nothing has changed");
    }

    #[test]
    fn a_batch_names_disk_layer_and_gauge() {
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let schema = GaugeSchema::new("p", 3, &names(&["a", "b"]), &names(&["cdp", "cache"]));
        let readings = [
            Reading { at_ns: 1, disk: 1, layer: 0, name: "lag_ns", value: -5 },
            Reading { at_ns: 2, disk: 0, layer: 1, name: "dirty_bytes", value: 1 << 40 },
        ];
        let batch = schema.batch(&readings).unwrap();
        let column = |name: &str| Arc::clone(batch.column_by_name(name).unwrap());
        let text = |name: &str| {
            let column = column(name);
            let column = column.as_any().downcast_ref::<DictionaryArray<Int16Type>>().unwrap();
            let text = column.downcast_dict::<StringArray>().unwrap();
            text.into_iter().map(|name| name.unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(text("disk"), ["b", "a"]);
        assert_eq!(text("layer"), ["cdp", "cache"]);
        assert_eq!(text("gauge"), ["lag_ns", "dirty_bytes"]);
        let values = column("value");
        let values = values.as_any().downcast_ref::<Int64Array>().unwrap();
        assert_eq!(values.values(), &[-5, 1 << 40]);
    }
}
