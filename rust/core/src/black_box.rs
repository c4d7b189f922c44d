//! What foreign code was doing when its process died or stopped moving.
//!
//! A file that is mapped shared: before each callback of a foreign filter its record is filled in
//! with the callback and the I/O, and marked as inside; what is written there outlives the process.
//! The parent reads it when the round's process has died, and kills the process when a callback
//! does not return. Where there is no such file, records lie in memory and cost the same.
//!
//! Layout (little endian, read by `vaio_bench/black_box.py`): records of [`RECORD_BYTES`], the
//! fields of [`Record`] in their order. A record whose `layer` is zero is not in use.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};

use crate::error::{Error, Result};
use crate::slab::Io;

pub const RECORD_BYTES: usize = 64;
const RECORDS: usize = 4096;
const NO_SEQ: u64 = u64::MAX;

/// The callbacks by their neutral names: their index is what a record holds.
pub const CALLBACKS: [&str; 24] = [
    "attach",
    "detach",
    "open",
    "close",
    "io_start",
    "io_complete",
    "io_abort",
    "flush",
    "child_complete",
    "timer",
    "poll",
    "message",
    "stun",
    "unstun",
    "snapshot",
    "consolidate",
    "clone",
    "resize",
    "migrate",
    "configure",
    "wake_by",
    "auxiliary",
    "gauges",
    "batch",
];

/// A callback, as its index in [`CALLBACKS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Callback {
    Attach,
    Detach,
    Open,
    Close,
    IoStart,
    IoComplete,
    IoAbort,
    Flush,
    ChildComplete,
    Timer,
    Poll,
    Message,
    Stun,
    Unstun,
    Snapshot,
    Consolidate,
    Clone,
    Resize,
    Migrate,
    Configure,
    WakeBy,
    Auxiliary,
    Gauges,
    Batch,
}

/// What one instance of a foreign filter is doing.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Record {
    /// Odd while inside a callback; moves on with each.
    pub moves: AtomicU64,
    /// Of the I/O, or all ones.
    pub seq: AtomicU64,
    pub offset_bytes: AtomicU64,
    pub length_bytes: AtomicU64,
    pub callback: AtomicU32,
    pub op: AtomicU32,
    /// The filter's place in the policy, from 1.
    pub layer: AtomicU32,
    pub disk: AtomicU32,
    /// The signal that came while inside.
    pub signal: AtomicU32,
}

impl Record {
    /// A record in memory of its own.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            moves: AtomicU64::new(0),
            seq: AtomicU64::new(NO_SEQ),
            offset_bytes: AtomicU64::new(0),
            length_bytes: AtomicU64::new(0),
            callback: AtomicU32::new(0),
            op: AtomicU32::new(0),
            layer: AtomicU32::new(0),
            disk: AtomicU32::new(0),
            signal: AtomicU32::new(0),
        }
    }

    /// The number of the I/O that the callback is about, if it is about one.
    #[must_use]
    pub fn io_seq(&self) -> Option<u64> {
        Some(self.seq.load(Relaxed)).filter(|seq| *seq != NO_SEQ)
    }

    /// About to call foreign code.
    #[inline]
    pub fn enter(&self, callback: Callback, io: Option<&Io>) {
        if let Some(io) = io {
            self.seq.store(io.seq, Relaxed);
            self.offset_bytes.store(io.offset_bytes, Relaxed);
            self.length_bytes.store(io.length_bytes, Relaxed);
            self.op.store(io.op as u32, Relaxed);
        } else {
            self.seq.store(NO_SEQ, Relaxed);
        }
        self.callback.store(callback as u32, Relaxed);
        INSIDE.set(std::ptr::from_ref(self));
        // Nobody else writes it: no read-modify-write is needed.
        self.moves.store(self.moves.load(Relaxed) + 1, Release);
    }

    /// Back from it.
    #[inline]
    pub fn leave(&self) {
        self.moves.store(self.moves.load(Relaxed) + 1, Release);
        INSIDE.set(std::ptr::null());
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

thread_local! {
    static INSIDE: Cell<*const Record> = const { Cell::new(std::ptr::null()) };
}

struct Map {
    records: &'static [Record],
    used: AtomicUsize,
}

static MAP: OnceLock<Map> = OnceLock::new();

/// From now on, records of this process lie in `file`, and a deadly signal inside a callback is
/// noted there. Once a process.
///
/// # Errors
/// `Failed` when the file cannot be made or mapped.
pub fn open(file: &Path) -> Result<()> {
    let fault = |e: std::io::Error| {
        Error::failed("cannot make the record of foreign filters")
            .with("file", file.display())
            .caused_by(e)
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let opened = options.open(file).map_err(fault)?;
    let bytes = RECORDS * RECORD_BYTES;
    opened.set_len(bytes as u64).map_err(fault)?;
    // SAFETY: a new map at an address of the kernel's choice; the file keeps its length.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            opened.as_raw_fd(),
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(fault(std::io::Error::last_os_error()));
    }
    // SAFETY: page-aligned, never unmapped, of zeroes or of what an earlier process left: every
    // bit pattern is a record, and all of its fields are atomic.
    let records = unsafe { std::slice::from_raw_parts(start.cast::<Record>(), RECORDS) };
    if MAP.set(Map { records, used: AtomicUsize::new(0) }).is_ok() {
        note_deadly_signals();
    }
    Ok(())
}

static APART: AtomicBool = AtomicBool::new(false);

/// From now on this process keeps its records to itself: it was forked, and its parent tells of it.
pub fn stay_apart() {
    APART.store(true, Relaxed);
}

/// The record of a filter's instance: `layer` is its place in the policy from 0, `disk` the run's.
#[must_use]
pub fn record(layer: u8, disk: u16) -> &'static Record {
    let map = MAP.get().filter(|_| !APART.load(Relaxed));
    let mapped = map.and_then(|map| map.records.get(map.used.fetch_add(1, Relaxed)));
    let record = mapped.unwrap_or_else(|| Box::leak(Box::new(Record::new())));
    record.layer.store(u32::from(layer) + 1, Relaxed);
    record.disk.store(u32::from(disk), Relaxed);
    record
}

const DEADLY: [libc::c_int; 5] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT];

/// Notes the signal in the record of the callback that this thread is inside of, then lets it do
/// what it would have done.
fn note_deadly_signals() {
    for signal in DEADLY {
        // SAFETY: sigaction is plain data, the handler below is safe in a signal.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note_signal as *const () as usize;
            action.sa_flags = libc::SA_RESETHAND | libc::SA_NODEFER;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

extern "C" fn note_signal(signal: libc::c_int) {
    let inside = INSIDE.get();
    if !inside.is_null() {
        // SAFETY: records are never freed while a callback is inside them.
        unsafe { (*inside).signal.store(signal as u32, Relaxed) };
    }
    // SAFETY: the handler was reset on entry: this is the default, which ends the process.
    unsafe { libc::raise(signal) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_laid_out_as_the_parent_reads_it() {
        assert_eq!(size_of::<Record>(), RECORD_BYTES);
        assert_eq!(std::mem::offset_of!(Record, callback), 32);
        assert_eq!(std::mem::offset_of!(Record, signal), 48);
        assert_eq!(CALLBACKS[Callback::Batch as usize], "batch");
        assert_eq!(CALLBACKS[Callback::Configure as usize], "configure");
    }

    #[test]
    fn it_is_odd_inside() {
        let record = Record::new();
        record.enter(Callback::Timer, None);
        assert_eq!(record.moves.load(Relaxed) % 2, 1);
        assert_eq!(record.seq.load(Relaxed), NO_SEQ);
        record.leave();
        assert_eq!(record.moves.load(Relaxed), 2);
    }
}
