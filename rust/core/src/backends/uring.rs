//! `uring`: io_uring, one ring a worker.
//!
//! Success is `res == length` and nothing else: a short transfer is resubmitted for the rest and
//! counted. What the ring cannot take as it is (an unaligned request, zeros on a file system that
//! cannot make them) goes to a small pool of threads that rings a descriptor the ring waits on.

use std::ops::Range;
use std::sync::Arc;

use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};

use super::align::is_aligned;
use super::psync::Pool;
use super::target::Target;
use super::waker::{Bell, Waker};
use super::{Backend, Completion, Counts, Request};
use crate::clock::Ns;
use crate::error::{Error, Result};
use crate::io::{OK, Op};

pub const PAGE: &str = "\
# uring

io_uring, one ring a worker, the default. O_DIRECT where the file allows it. Used when the kernel
permits it; otherwise `psync` takes its place and the manifest says so.

## Unsuitable for
Kernels before 5.11 (no timeout on a wait) and containers that forbid io_uring.
";

/// `user_data` of the wait for the pool's bell, and for the waker's.
const BELL: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;
const POOL_THREADS: usize = 8;
const ENTRIES_MAX: usize = 4096;
/// Bytes of a worker's slots that the kernel maps once, not at every I/O: those in steady use.
const REGISTERED_BYTES_MAX: usize = 32 << 20;
const REGISTERED_BYTES_MIN: usize = 4096;

pub struct Uring {
    ring: IoUring,
    targets: Arc<Vec<Target>>,
    /// Addresses that the kernel has mapped.
    registered: Range<usize>,
    /// By slot: the request under way and how much of it is done.
    requests: Vec<Option<(Request, u64)>>,
    pool: Pool,
    bell_armed: bool,
    /// Rung by whoever has the waker.
    wake: Arc<Bell>,
    wake_given: bool,
    wake_armed: bool,
    zero_range_refused: bool,
    /// Completion work is asked for when there is some: no call comes soon that does it anyway.
    polled: bool,
    done: Vec<Completion>,
}

/// Whether this kernel lets this process make a ring, and why not.
///
/// # Errors
/// The kernel's reason.
pub fn probe() -> std::io::Result<()> {
    IoUring::new(2).and_then(|ring| {
        if ring.params().is_feature_ext_arg() {
            Ok(())
        } else {
            Err(std::io::Error::other("no timeout on a wait (Linux before 5.11)"))
        }
    })
}

impl Uring {
    /// A ring for `slots` requests. Call on the worker's thread. Where the kernel can (Linux 6.1),
    /// completion work is left to the worker's own calls: nothing interrupts it, and a flag that it
    /// sees without a call says that there is some. `polled` says that the worker spins before due
    /// times, where it has to make that call by itself.
    ///
    /// # Errors
    /// `Failed` with the kernel's reason.
    pub fn new(targets: Arc<Vec<Target>>, slots: usize, polled: bool) -> Result<Self> {
        let entries = slots.next_power_of_two().clamp(8, ENTRIES_MAX) as u32;
        let mut deferred = IoUring::builder();
        deferred.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        let ring = deferred
            .build(entries)
            .or_else(|_| IoUring::new(entries))
            .map_err(|e| Error::failed("cannot make an io_uring").caused_by(e))?;
        Ok(Self {
            ring,
            pool: Pool::new(Arc::clone(&targets), POOL_THREADS, true, "uring-slow")?,
            targets,
            registered: 0..0,
            requests: vec![None; slots],
            bell_armed: false,
            wake: Arc::new(Bell::new()?),
            wake_given: false,
            wake_armed: false,
            zero_range_refused: false,
            polled,
            done: Vec::new(),
        })
    }

    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: the entry's memory is the slot's, or the ring's own bell, and both outlive
            // the request: `drop` waits for what is in flight.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            // The queue is full: hand it over. An error shows at the next `kick`.
            if self.ring.submit().is_err() {
                std::thread::yield_now();
            }
        }
    }

    fn start(&mut self, request: Request, done_bytes: u64) {
        let target = &self.targets[request.disk as usize];
        let fd = Fd(target.fd());
        let rest = request.length_bytes - done_bytes;
        let offset = request.offset_bytes + done_bytes;
        let length = rest.min(1 << 30) as u32;
        let entry = match request.op {
            Op::Read => {
                // SAFETY: within the request's bytes.
                let data = unsafe { request.data.add(done_bytes as usize) };
                if self.is_registered(data, length) {
                    opcode::ReadFixed::new(fd, data, length, 0).offset(offset).build()
                } else {
                    opcode::Read::new(fd, data, length).offset(offset).build()
                }
            }
            Op::Write => {
                // SAFETY: within the request's bytes.
                let data = unsafe { request.data.add(done_bytes as usize) };
                let flags = if request.fua { libc::RWF_DSYNC } else { 0 };
                if self.is_registered(data, length) {
                    let entry = opcode::WriteFixed::new(fd, data, length, 0);
                    entry.offset(offset).rw_flags(flags).build()
                } else {
                    opcode::Write::new(fd, data, length).offset(offset).rw_flags(flags).build()
                }
            }
            Op::Flush => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
            Op::Discard => opcode::Fallocate::new(fd, request.length_bytes)
                .offset(request.offset_bytes)
                .mode(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE)
                .build(),
            Op::WriteZeroes => opcode::Fallocate::new(fd, request.length_bytes)
                .offset(request.offset_bytes)
                .mode(libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE)
                .build(),
        };
        self.requests[request.id as usize] = Some((request, done_bytes));
        self.push(&entry.user_data(u64::from(request.id)));
    }

    #[inline]
    fn is_registered(&self, data: *const u8, length: u32) -> bool {
        let from = data as usize;
        self.registered.start <= from && from + length as usize <= self.registered.end
    }

    /// What a ring cannot do in one entry.
    fn needs_pool(&self, request: &Request) -> bool {
        let target = &self.targets[request.disk as usize];
        let zeroes = request.op == Op::WriteZeroes;
        (zeroes && (self.zero_range_refused || request.fua))
            || !is_aligned(request, target.offset_align, target.memory_align)
    }

    fn hand_to_pool(&mut self, request: Request) {
        self.pool.submit(request);
        self.rearm();
    }

    fn finish(&mut self, id: u32, res: i32) {
        let Some((request, done_bytes)) = self.requests[id as usize].take() else { return };
        if res < 0 {
            match -res {
                libc::EINTR | libc::EAGAIN => self.start(request, done_bytes),
                libc::EOPNOTSUPP | libc::EINVAL if request.op == Op::WriteZeroes => {
                    self.zero_range_refused = true;
                    self.hand_to_pool(request);
                }
                libc::EOPNOTSUPP if request.op == Op::Discard => self.complete(id, OK, false),
                error => self.complete(id, error, done_bytes > 0),
            }
            return;
        }
        if !request.op.has_data() {
            return self.complete(id, OK, false);
        }
        let done = done_bytes + res as u64;
        if done == request.length_bytes {
            self.complete(id, OK, done_bytes > 0);
        } else if res == 0 {
            self.complete(id, libc::EIO, true);
        } else {
            self.start(request, done);
        }
    }

    fn complete(&mut self, id: u32, status: i32, split: bool) {
        self.done.push(Completion { id, status, split });
    }

    fn hear_bell(&mut self) {
        self.bell_armed = false;
        if let Some(bell) = self.pool.bell() {
            bell.clear();
        }
        self.pool.reap(&mut self.done);
        self.rearm();
    }

    /// Waits for the bell by a poll in the ring, while the pool has work.
    fn rearm(&mut self) {
        if self.pool.in_flight() > 0
            && !self.bell_armed
            && let Some(bell) = self.pool.bell().map(Bell::fd)
        {
            self.bell_armed = true;
            let entry = opcode::PollAdd::new(Fd(bell), libc::POLLIN as u32).build();
            self.push(&entry.user_data(BELL));
        }
    }
}

impl Backend for Uring {
    /// The kernel maps a buffer's pages once here, which it else does for each I/O: 0.8 us of the
    /// 3 us from the call to the device's queue. As much as it allows (RLIMIT_MEMLOCK).
    fn lend(&mut self, start: *mut u8, bytes: usize) {
        let mut length = bytes.min(REGISTERED_BYTES_MAX);
        while length >= REGISTERED_BYTES_MIN {
            let buffer = libc::iovec { iov_base: start.cast(), iov_len: length };
            // SAFETY: the bytes are lent for as long as this ring lives.
            if unsafe { self.ring.submitter().register_buffers(&[buffer]) }.is_ok() {
                self.registered = start as usize..start as usize + length;
                return;
            }
            length /= 2;
        }
    }

    #[inline]
    fn submit(&mut self, request: Request, _now: Ns) {
        if self.needs_pool(&request) { self.hand_to_pool(request) } else { self.start(request, 0) }
    }

    fn kick(&mut self) -> Result<()> {
        match self.ring.submit() {
            Ok(_) => Ok(()),
            // The completion queue is full or memory is short for a moment: reap, then try again.
            Err(e)
                if matches!(e.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN | libc::EINTR)) =>
            {
                Ok(())
            }
            Err(e) => Err(Error::failed("io_uring refuses submissions").caused_by(e)),
        }
    }

    #[inline]
    fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty() || self.ring.submission().taskrun()
    }

    fn fetch(&mut self) -> Result<()> {
        if self.ring.submission().taskrun() { self.kick() } else { Ok(()) }
    }

    #[inline]
    fn reap(&mut self, _now: Ns, out: &mut Vec<Completion>) -> Result<()> {
        if self.polled && self.ring.submission().taskrun() {
            self.kick()?;
        }
        loop {
            let Some(entry) = self.ring.completion().next() else { break };
            if entry.user_data() == BELL {
                self.hear_bell();
            } else if entry.user_data() == WAKE {
                self.wake.clear();
                self.wake_armed = false;
            } else {
                self.finish(entry.user_data() as u32, entry.result());
            }
        }
        out.append(&mut self.done);
        Ok(())
    }

    fn wait(&mut self, timeout_ns: u64) -> Result<()> {
        if self.wake_given && !self.wake_armed {
            self.wake_armed = true;
            let entry = opcode::PollAdd::new(Fd(self.wake.fd()), libc::POLLIN as u32).build();
            self.push(&entry.user_data(WAKE));
        }
        let outcome = if timeout_ns == u64::MAX {
            self.ring.submit_and_wait(1)
        } else {
            let timeout = Timespec::new()
                .sec(timeout_ns / 1_000_000_000)
                .nsec((timeout_ns % 1_000_000_000) as u32);
            let arguments = SubmitArgs::new().timespec(&timeout);
            self.ring.submitter().submit_with_args(1, &arguments)
        };
        match outcome {
            Ok(_) => Ok(()),
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
                ) =>
            {
                Ok(())
            }
            Err(e) => Err(Error::failed("io_uring refuses to wait").caused_by(e)),
        }
    }

    fn waker(&mut self) -> Waker {
        self.wake_given = true;
        Arc::clone(&self.wake) as Waker
    }

    fn counts(&self) -> Counts {
        Counts { unaligned: self.pool.unaligned(), ..Counts::default() }
    }
}

impl Drop for Uring {
    /// Nothing may write into memory that is about to go: wait for what is in flight.
    fn drop(&mut self) {
        while self.requests.iter().any(Option::is_some) {
            if self.wait(1_000_000_000).is_err() || self.reap(0, &mut Vec::new()).is_err() {
                return;
            }
        }
    }
}
