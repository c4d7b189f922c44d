//! What a filter says of itself, the devices it needs, and what a disk goes through beside I/O.

use serde_json::Value;

/// What a virtual disk goes through, as public documents of the framework tell of it.
#[derive(Debug, Clone, Copy)]
pub enum Lifecycle<'a> {
    /// From whoever manages the filter.
    Message(&'a [u8]),
    /// The virtual machine is held, and goes on.
    Stun,
    Unstun,
    /// The snapshot's name.
    Snapshot(&'a str),
    Consolidate,
    /// The clone's name.
    Clone(&'a str),
    /// The disk's new size in bytes.
    Resize(u64),
    /// Where the machine goes.
    Migrate(&'a str),
    /// Changed parameters: the filter's whole table.
    Configure(&'a Value),
}

/// A device of a filter's own: a file on the wall clock, a modelled store otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auxiliary {
    /// What it is for, in messages: `cache file`.
    pub name: &'static str,
    /// Where its file is, or is made. `None` only where no file is needed (a model).
    pub path: Option<std::path::PathBuf>,
    pub size_bytes: u64,
}

/// Whose I/Os one instance of a filter sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Those of one disk.
    Disk,
    /// Those of all disks of the run, which then share one worker.
    Group,
}

/// What a filter says of itself; the law suite tests what follows from it.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct Properties {
    /// A reader below sees the same bytes as one above.
    pub transparent: bool,
    /// What it writes below is longer, shorter or elsewhere than what was written above.
    pub changes_length: bool,
    pub may_answer: bool,
    pub may_defer: bool,
    /// Writes may come below in another order than they came.
    pub reorders: bool,
    /// Keeps data over a run's end on devices of its own: the disk may lack what was written.
    pub persists: bool,
    /// Looks at the bytes: a virtual run carries bytes in place of tokens for it.
    pub needs_data: bool,
    /// Unit that the filter reads, changes and writes back as a whole: range locks round to it.
    pub unit_bytes: u64,
    /// I/Os of its own at most at one time for one I/O passing it.
    pub children_per_io: u32,
    /// Background I/Os at most at one time.
    pub background_ios: u32,
    /// The longest I/O of its own, 0 for no longer than the I/O passing it (or a unit more).
    pub child_bytes: u64,
    pub scope: Scope,
}

impl Properties {
    /// A filter that touches nothing and keeps nothing.
    pub const TRANSPARENT: Self = Self {
        transparent: true,
        changes_length: false,
        may_answer: false,
        may_defer: false,
        reorders: false,
        persists: false,
        needs_data: false,
        unit_bytes: 1,
        children_per_io: 0,
        background_ios: 0,
        child_bytes: 0,
        scope: Scope::Disk,
    };
}

/// The framework's classes (`vim.IoFilterManager.IoFilterType`): one filter a class on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    Cache,
    Compression,
    DataCapture,
    DataProvider,
    DatastoreIoControl,
    Encryption,
    Inspection,
    Replication,
}
