//! Backends: what stands below the last filter. The trait, the list, and what they share.

use self::waker::Waker;
use crate::clock::Ns;
use crate::error::{Error, Result};
use crate::io::{Op, Status};
use crate::slab::IoId;

pub mod align;
pub mod mem;
pub mod nbd;
pub mod null;
pub mod pieces;
pub mod psync;
pub mod sim;
pub mod store;
pub mod target;
pub mod uring;
pub mod waker;

/// An I/O on its way to the device. The bytes stay valid until its completion is reaped.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub id: IoId,
    /// Index into the worker's disks.
    pub disk: u16,
    pub op: Op,
    pub offset_bytes: u64,
    pub length_bytes: u64,
    pub data: *mut u8,
    /// Bytes at `data`; with tokens in place of bytes it is not `length_bytes`.
    pub data_bytes: usize,
    /// The write is on stable storage when it completes.
    pub fua: bool,
}

// SAFETY: a request travels to one thread at a time, and its bytes belong to its slot, which the
// worker does not touch until the completion is reaped.
unsafe impl Send for Request {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    pub id: IoId,
    /// 0 or a positive errno.
    pub status: Status,
    /// The device took it in several parts.
    pub split: bool,
}

/// One backend of one worker. All calls come from the worker's thread.
pub trait Backend: Send {
    /// Told once, before all else: the bytes of most requests lie here, those near the start the
    /// most often. They stay where they are as long as the backend lives.
    fn lend(&mut self, _start: *mut u8, _bytes: usize) {}

    /// A request for this place follows soon: what a model keeps of it may be fetched meanwhile.
    fn prefetch(&self, disk: u16, offset_bytes: u64) {
        let _ = (disk, offset_bytes);
    }

    /// Takes a request. It may start now or at the next `kick` or `wait`.
    fn submit(&mut self, request: Request, now: Ns);

    /// Hands over everything that was submitted.
    fn kick(&mut self) -> Result<()> {
        Ok(())
    }

    /// Appends what has completed by `now`.
    fn reap(&mut self, now: Ns, out: &mut Vec<Completion>) -> Result<()>;

    /// Whether `reap` may find something, told without a call to the kernel; true when in doubt.
    fn has_completions(&mut self) -> bool {
        true
    }

    /// Has the kernel do what is left to do before `reap` finds what `has_completions` saw.
    fn fetch(&mut self) -> Result<()> {
        Ok(())
    }

    /// When the next completion will come, where a model knows it.
    fn next_event_ns(&self) -> Option<Ns> {
        None
    }

    /// Kicks, then sleeps until a completion may be there, `timeout_ns` at most.
    /// Models return at once: the driver knows `next_event_ns`.
    fn wait(&mut self, timeout_ns: u64) -> Result<()>;

    /// What ends this backend's `wait` from another thread. Asked only where somebody needs it.
    fn waker(&mut self) -> Waker;

    /// True where `kick` and `wait` cost nothing worth booking to the I/Os, and nothing breaks.
    fn is_model(&self) -> bool {
        false
    }

    /// What it did beside what it was asked for.
    fn counts(&self) -> Counts {
        Counts::default()
    }

    /// Why nothing will come of any further I/O, told once: the run ends, in good order.
    fn broken(&mut self) -> Option<Error> {
        None
    }
}

/// Counts of a backend.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were read, changed and written back because they were not aligned.
    pub unaligned: u64,
    /// Writes with FUA that were written and then flushed, because the device has no FUA.
    pub fua_by_flush: u64,
    /// Flushes, and writes with FUA, that nothing could be done for.
    pub unflushed: u64,
}

/// Name and page of each backend, for the catalogue.
pub const BACKENDS: [(&str, &str); 6] = [
    ("uring", uring::PAGE),
    ("psync", psync::PAGE),
    ("mem", mem::PAGE),
    ("null", null::PAGE),
    ("sim", sim::PAGE),
    ("nbd", nbd::PAGE),
];
