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
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};

use crate::error::{Error, Result};
use crate::io::Op;
use crate::slab::Io;

pub const RECORD_BYTES: usize = 64;
const RECORDS: usize = 4096;
const NO_SEQ: u64 = u64::MAX;

/// The callbacks by their neutral names: their index is what a record holds.
pub const CALLBACKS: [&str; 26] = [
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
    "start_batch",
    "complete_batch",
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
    StartBatch,
    CompleteBatch,
}

impl Callback {
    /// Those in which a filter looks at I/Os that it was shown many at a time.
    const OF_BATCHES: [Self; 6] = [
        Self::IoStart,
        Self::IoComplete,
        Self::Flush,
        Self::Batch,
        Self::StartBatch,
        Self::CompleteBatch,
    ];

    /// The callback of a batch's I/Os that has this name.
    #[must_use]
    pub fn of_batch(name: &str) -> Option<Self> {
        Self::OF_BATCHES.into_iter().find(|callback| CALLBACKS[*callback as usize] == name)
    }
}

/// What a record says of the I/O, or of the first of several.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    pub seq: u64,
    pub op: Op,
    pub offset_bytes: u64,
    pub length_bytes: u64,
}

impl Shown {
    #[must_use]
    pub const fn of(io: &Io) -> Self {
        let Io { seq, op, offset_bytes, length_bytes, .. } = *io;
        Self { seq, op, offset_bytes, length_bytes }
    }

    fn words(&self) -> String {
        let Self { op, offset_bytes, length_bytes, .. } = self;
        format!("{} of {length_bytes} bytes at offset {offset_bytes}", op.name())
    }
}

/// `io_start of I/O 17 (write of 512 bytes at offset 4096)`; an I/O of the prefill has no number.
#[must_use]
pub fn words(callback: Callback, io: &Shown) -> String {
    let number = Some(io.seq).filter(|seq| *seq != NO_SEQ);
    let which = number.map_or("an I/O of the prefill".to_owned(), |seq| format!("I/O {seq}"));
    format!("{} of {which} ({})", CALLBACKS[callback as usize], io.words())
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
    /// How many I/Os the callback is about, where that is more than one.
    pub ios: AtomicU32,
    /// Of several I/Os the highest number; `seq` is the lowest.
    pub last_seq: AtomicU64,
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
            ios: AtomicU32::new(0),
            last_seq: AtomicU64::new(NO_SEQ),
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
        match io {
            Some(io) => self.about(callback, &Shown::of(io), 1, NO_SEQ),
            None => {
                self.seq.store(NO_SEQ, Relaxed);
                self.ios.store(0, Relaxed);
                self.callback.store(callback as u32, Relaxed);
            }
        }
        INSIDE.set(std::ptr::from_ref(self));
        // Nobody else writes it: no read-modify-write is needed.
        self.moves.store(self.moves.load(Relaxed) + 1, Release);
    }

    #[inline]
    fn about(&self, callback: Callback, io: &Shown, ios: u32, last_seq: u64) {
        self.seq.store(io.seq, Relaxed);
        self.offset_bytes.store(io.offset_bytes, Relaxed);
        self.length_bytes.store(io.length_bytes, Relaxed);
        self.op.store(io.op as u32, Relaxed);
        self.ios.store(ios, Relaxed);
        self.last_seq.store(last_seq, Relaxed);
        self.callback.store(callback as u32, Relaxed);
    }

    /// Inside already, and now at this I/O of a batch, or at so many from `io` to `last_seq`.
    #[inline]
    pub fn note(&self, callback: Callback, io: &Shown, ios: u32, last_seq: u64) {
        self.about(callback, io, ios, last_seq);
        // As odd as before: still inside, and not at what it was at.
        self.moves.store(self.moves.load(Relaxed) + 2, Release);
        let watched = WATCHED.get();
        if !watched.is_null() && !std::ptr::eq(watched, self) {
            // SAFETY: `Watched` lends it for as long as it is in this place.
            unsafe { &*watched }.note(callback, io, ios, last_seq);
        }
    }

    /// The callback that is under way, in words, and the number of its I/O, if it has one:
    /// `io_start of I/O 17 (write of 512 bytes at offset 4096)`.
    #[must_use]
    pub fn doing(&self) -> Option<(String, Option<u64>)> {
        if self.moves.load(Relaxed).is_multiple_of(2) {
            return None;
        }
        let name = CALLBACKS.get(self.callback.load(Relaxed) as usize).copied().unwrap_or("?");
        let (ios, seq) = (self.ios.load(Relaxed), self.io_seq());
        if ios == 0 {
            return Some((name.to_owned(), None));
        }
        let io = Shown {
            seq: seq.unwrap_or(NO_SEQ),
            op: Op::from_code(self.op.load(Relaxed) as u8),
            offset_bytes: self.offset_bytes.load(Relaxed),
            length_bytes: self.length_bytes.load(Relaxed),
        };
        let io = io.words();
        let words = match seq {
            Some(seq) if ios > 1 => {
                let last = self.last_seq.load(Relaxed);
                format!("{name} of {ios} I/Os from {seq} to {last} (the first: {io})")
            }
            None if ios > 1 => format!("{name} of {ios} I/Os that are not of the trace ({io})"),
            Some(seq) => format!("{name} of I/O {seq} ({io})"),
            None => format!("{name} of an I/O that is not of the trace ({io})"),
        };
        Some((words, seq))
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
    static WATCHED: Cell<*const Record> = const { Cell::new(std::ptr::null()) };
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

/// While it lives, what this thread notes is noted in another record as well: the one by which
/// whoever handed the I/Os over looks after the filter.
pub struct Watched<'a>(PhantomData<&'a Record>);

impl<'a> Watched<'a> {
    #[must_use]
    pub fn by(record: &'a Record) -> Self {
        WATCHED.set(record);
        Self(PhantomData)
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        WATCHED.set(std::ptr::null());
    }
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
        assert_eq!(std::mem::offset_of!(Record, ios), 52);
        assert_eq!(std::mem::offset_of!(Record, last_seq), 56);
        assert_eq!(CALLBACKS[Callback::Batch as usize], "batch");
        assert_eq!(CALLBACKS[Callback::Configure as usize], "configure");
        assert_eq!(CALLBACKS[Callback::CompleteBatch as usize], "complete_batch");
        assert_eq!(Callback::of_batch("start_batch"), Some(Callback::StartBatch));
        assert_eq!(Callback::of_batch("timer"), None);
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

    #[test]
    fn it_tells_which_of_a_batch_it_is_at() {
        let record = Record::new();
        assert_eq!(record.doing(), None);
        record.enter(Callback::Batch, None);
        assert_eq!(record.doing(), Some(("batch".to_owned(), None)));
        let io = Shown { seq: 17, op: Op::Write, offset_bytes: 4096, length_bytes: 512 };
        record.note(Callback::IoStart, &io, 1, 17);
        let one = "io_start of I/O 17 (write of 512 bytes at offset 4096)";
        assert_eq!(record.doing(), Some((one.to_owned(), Some(17))));
        record.note(Callback::StartBatch, &io, 8, 24);
        let words = record.doing().expect("inside").0;
        assert!(words.starts_with("start_batch of 8 I/Os from 17 to 24 (the first: write"));
        record.leave();
        assert_eq!(record.doing(), None);
    }
}
