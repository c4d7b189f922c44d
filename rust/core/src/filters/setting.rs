//! What a filter is built with, and what can be wrong with it.

use super::DataMode;

/// A wrong parameter: the key's path inside the filter's table, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamError {
    pub path: String,
    pub message: String,
}

impl ParamError {
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// What a filter is built with beside its parameters.
#[derive(Debug, Clone)]
pub struct Setting {
    pub disk: String,
    /// All disks of the run, in the order of their numbers: what an instance for a group sees.
    pub disks: Vec<String>,
    /// Index of the disk among the run's, and the run's seed: the filter's randomness.
    pub disk_index: u16,
    /// Index of the disk among its worker's, as in `disk_bytes` and `disk_ids`.
    pub local_index: u16,
    /// The filter's place in the policy, from 0.
    pub layer: u8,
    pub seed: u64,
    pub data: DataMode,
    /// The longest I/O that will come, 0 where that is not known yet.
    pub longest_bytes: u64,
    /// By disk: its size, none where that is not known yet.
    pub disk_bytes: Vec<u64>,
    /// By disk: ranges, from and to, that hold anything but zeroes; none where that is not known.
    pub extents: Vec<Vec<(u64, u64)>>,
    /// By disk: a number that its target alone has, none where that is not known.
    pub disk_ids: Vec<u64>,
    /// By disk: a number of the run that wrote to it last, and that of this one.
    pub disk_writers: Vec<u64>,
    pub writer: u64,
    /// A word for this run, policy and round: what is kept elsewhere belongs to it.
    pub run: String,
    /// A run in virtual time: nothing outside of it may be reached.
    pub is_virtual: bool,
}
