//! `psync`: blocking calls on a pool of threads, so that the queue depth is kept.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::align::{Bounce, is_aligned};
use super::target::Target;
use super::waker::{Bell, Wake, Waker};
use super::{Backend, Completion, Counts, Request};
use crate::clock::Ns;
use crate::error::Result;
use crate::io::{OK, Op, Status};

pub const PAGE: &str = "\
# psync

`pread`, `pwrite`, `fdatasync` and `fallocate` on a pool of threads, as many as I/Os in flight: the
queue depth of the trace is kept where the kernel has no io_uring (containers often forbid it).
`--backend uring` falls back to it by itself and the manifest says so. With `--pace asap --depth 1`
there is nothing else to do meanwhile, and the worker makes the call itself.

## Unsuitable for
The lowest latency at other depths: an I/O crosses two threads. Compare backends only with their
like.
";

/// The pool: started as needed, up to `threads`.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    threads_max: usize,
    in_flight: usize,
    name: &'static str,
}

struct Shared {
    targets: Arc<Vec<Target>>,
    queue: Mutex<Queue>,
    work: Condvar,
    done: Mutex<Vec<Completion>>,
    finished: Condvar,
    /// Somebody else has work for the worker: its next wait returns.
    woken: AtomicBool,
    /// Rung after each completion where a ring waits for it.
    bell: Option<Bell>,
    unaligned: AtomicU64,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    idle: usize,
    closed: bool,
}

/// A thread that panicked cannot have left these queues half-changed: no call inside can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool over `targets`; `with_bell` makes a descriptor that is readable after completions.
    ///
    /// # Errors
    /// `Failed` when the kernel gives no event descriptor.
    pub fn new(
        targets: Arc<Vec<Target>>,
        threads_max: usize,
        with_bell: bool,
        name: &'static str,
    ) -> Result<Self> {
        let bell = if with_bell { Some(Bell::new()?) } else { None };
        Ok(Self {
            shared: Arc::new(Shared {
                targets,
                queue: Mutex::default(),
                work: Condvar::new(),
                done: Mutex::default(),
                finished: Condvar::new(),
                woken: AtomicBool::new(false),
                bell,
                unaligned: AtomicU64::new(0),
            }),
            threads: Vec::new(),
            threads_max: threads_max.max(1),
            in_flight: 0,
            name,
        })
    }

    pub fn submit(&mut self, request: Request) {
        self.in_flight += 1;
        let mut queue = lock(&self.shared.queue);
        queue.requests.push_back(request);
        let short_of_threads =
            queue.idle < queue.requests.len() && self.threads.len() < self.threads_max;
        drop(queue);
        if short_of_threads {
            self.grow();
        }
        self.shared.work.notify_one();
    }

    fn grow(&mut self) {
        let shared = Arc::clone(&self.shared);
        let spawned = std::thread::Builder::new()
            .name(self.name.to_owned())
            .stack_size(256 << 10)
            .spawn(move || serve(&shared));
        // With one thread at work a failure to start another costs depth, not correctness.
        match spawned {
            Ok(thread) => self.threads.push(thread),
            Err(_) if !self.threads.is_empty() => self.threads_max = self.threads.len(),
            Err(_) => {
                let failed = std::mem::take(&mut lock(&self.shared.queue).requests);
                lock(&self.shared.done).extend(failed.into_iter().map(|request| Completion {
                    id: request.id,
                    status: libc::EAGAIN,
                    split: false,
                }));
            }
        }
    }

    pub fn reap(&mut self, out: &mut Vec<Completion>) {
        if self.in_flight == 0 {
            return;
        }
        let mut done = lock(&self.shared.done);
        self.in_flight -= done.len();
        out.append(&mut done);
    }

    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    #[must_use]
    pub fn bell(&self) -> Option<&Bell> {
        self.shared.bell.as_ref()
    }

    #[must_use]
    pub fn unaligned(&self) -> u64 {
        self.shared.unaligned.load(Ordering::Relaxed)
    }

    fn wait(&self, timeout_ns: u64) {
        let timeout = Duration::from_nanos(timeout_ns.min(3_600_000_000_000));
        let done = lock(&self.shared.done);
        if done.is_empty() && !self.shared.woken.swap(false, Ordering::Relaxed) {
            let _ = self.shared.finished.wait_timeout(done, timeout);
        }
    }
}

impl Wake for Shared {
    fn wake(&self) {
        // Under the lock of what the worker waits on: it sees this before it sleeps.
        let _done = lock(&self.done);
        self.woken.store(true, Ordering::Relaxed);
        self.finished.notify_one();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(shared: &Shared) {
    let mut queue = lock(&shared.queue);
    loop {
        let Some(request) = queue.requests.pop_front() else {
            if queue.closed {
                return;
            }
            queue.idle += 1;
            queue = shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
            continue;
        };
        drop(queue);
        let completion = perform(shared, &request);
        lock(&shared.done).push(completion);
        shared.finished.notify_one();
        if let Some(bell) = &shared.bell {
            bell.wake();
        }
        queue = lock(&shared.queue);
    }
}

fn perform(shared: &Shared, request: &Request) -> Completion {
    let target = &shared.targets[request.disk as usize];
    let mut split = false;
    let outcome = match request.op {
        Op::Flush => check(unsafe_fdatasync(target.fd())),
        Op::Discard => discard(target, request),
        Op::WriteZeroes => write_zeroes(shared, target, request, &mut split),
        Op::Read | Op::Write => {
            if is_aligned(request, target.offset_align, target.memory_align) {
                transfer(target.fd(), request, &mut split)
            } else {
                shared.unaligned.fetch_add(1, Ordering::Relaxed);
                read_change_write(target, request, &mut split)
            }
        }
    };
    Completion { id: request.id, status: outcome.err().unwrap_or(OK), split }
}

fn errno() -> Status {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn check(code: i32) -> Result<(), Status> {
    if code == 0 { Ok(()) } else { Err(errno()) }
}

fn unsafe_fdatasync(fd: RawFd) -> i32 {
    // SAFETY: takes a descriptor, touches no memory.
    unsafe { libc::fdatasync(fd) }
}

/// The whole length, in as many calls as the kernel takes; a transfer of nothing is an error.
fn transfer(fd: RawFd, request: &Request, split: &mut bool) -> Result<(), Status> {
    let mut at = 0u64;
    while at < request.length_bytes {
        // SAFETY: within the request's bytes.
        let data = unsafe { request.data.add(at as usize) }.cast();
        let length = (request.length_bytes - at) as usize;
        let offset = (request.offset_bytes + at) as libc::off_t;
        let vector = libc::iovec { iov_base: data, iov_len: length };
        // SAFETY: these are bytes that the slot lends until the completion is reaped.
        let moved = unsafe {
            match request.op {
                Op::Read => libc::pread(fd, data, length, offset),
                _ if request.fua => {
                    libc::pwritev2(fd, &raw const vector, 1, offset, libc::RWF_DSYNC)
                }
                _ => libc::pwrite(fd, data, length, offset),
            }
        };
        match moved {
            0 => return Err(libc::EIO),
            moved if moved > 0 => at += moved as u64,
            _ => match errno() {
                libc::EINTR => {}
                error => return Err(error),
            },
        }
        *split |= at < request.length_bytes;
    }
    Ok(())
}

fn read_change_write(target: &Target, request: &Request, split: &mut bool) -> Result<(), Status> {
    if let Some(fd) = target.tail_fd(request.offset_bytes + request.length_bytes) {
        return through_the_cache(fd, request, split);
    }
    let mut bounce = Bounce::around(request, target.offset_align);
    let span = Request {
        op: Op::Read,
        offset_bytes: bounce.offset_bytes,
        length_bytes: bounce.length_bytes,
        data: bounce.pointer(),
        data_bytes: bounce.length_bytes as usize,
        ..*request
    };
    transfer(target.fd(), &span, split)?;
    if request.op == Op::Read {
        bounce.deliver(request);
        return Ok(());
    }
    bounce.merge(request);
    transfer(target.fd(), &Request { op: Op::Write, ..span }, split)
}

/// What reaches behind the last whole block. Nothing of it stays in the cache: O_DIRECT, which may
/// touch other blocks of the same page next, and the device have what was written.
fn through_the_cache(fd: RawFd, request: &Request, split: &mut bool) -> Result<(), Status> {
    if request.op == Op::WriteZeroes {
        let mut zeros = Bounce::around(request, 512);
        zeros.bytes().fill(0);
        transfer(fd, &Request { op: Op::Write, data: zeros.pointer(), ..*request }, split)?;
    } else {
        transfer(fd, request, split)?;
    }
    if request.op != Op::Read {
        check(unsafe_fdatasync(fd))?;
    }
    let (offset, length) = (request.offset_bytes as libc::off_t, request.length_bytes);
    // SAFETY: takes numbers only. Its failure costs memory, nothing else.
    unsafe { libc::posix_fadvise(fd, offset, length as libc::off_t, libc::POSIX_FADV_DONTNEED) };
    Ok(())
}

/// Advisory: a range smaller than the device's block, or a device that cannot, is no error.
fn discard(target: &Target, request: &Request) -> Result<(), Status> {
    let align = target.offset_align;
    let from = request.offset_bytes.next_multiple_of(align);
    let to = (request.offset_bytes + request.length_bytes) & !(align - 1);
    if from >= to {
        return Ok(());
    }
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    match fallocate(target.fd(), mode, from, to - from) {
        Err(libc::EOPNOTSUPP) => Ok(()),
        outcome => outcome,
    }
}

fn fallocate(fd: RawFd, mode: i32, from: u64, length: u64) -> Result<(), Status> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::fallocate(fd, mode, from as libc::off_t, length as libc::off_t) })
}

fn write_zeroes(
    shared: &Shared,
    target: &Target,
    request: &Request,
    split: &mut bool,
) -> Result<(), Status> {
    let aligned = (request.offset_bytes | request.length_bytes) & (target.offset_align - 1) == 0;
    if aligned {
        let mode = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
        match fallocate(target.fd(), mode, request.offset_bytes, request.length_bytes) {
            Err(libc::EOPNOTSUPP | libc::EINVAL) => {}
            Ok(()) if request.fua => return check(unsafe_fdatasync(target.fd())),
            outcome => return outcome,
        }
    } else {
        shared.unaligned.fetch_add(1, Ordering::Relaxed);
    }
    write_plain_zeroes(target, request, split)
}

/// Zeros by ordinary writes, a megabyte at a time.
fn write_plain_zeroes(target: &Target, request: &Request, split: &mut bool) -> Result<(), Status> {
    const STEP: u64 = 1 << 20;
    let (mut offset, end) = (request.offset_bytes, request.offset_bytes + request.length_bytes);
    while offset < end {
        let length = STEP.min(end - offset);
        let part = Request { offset_bytes: offset, length_bytes: length, ..*request };
        if (offset | length) & (target.offset_align - 1) == 0 {
            let mut zeros = Bounce::around(&part, target.offset_align.max(512));
            zeros.bytes().fill(0);
            let write = Request { op: Op::Write, data: zeros.pointer(), ..part };
            transfer(target.fd(), &write, split)?;
        } else {
            read_change_write(target, &part, split)?;
        }
        offset += length;
    }
    Ok(())
}

/// The backend: a pool of its own, or the worker's own calls.
pub struct Psync {
    pool: Pool,
    /// The worker waits for each I/O anyway: crossing threads would only add to it.
    alone: bool,
    submitted: VecDeque<Request>,
    done: Vec<Completion>,
}

impl Psync {
    /// `alone` makes the calls in the worker's thread, one by one.
    ///
    /// # Errors
    /// As [`Pool::new`].
    pub fn new(targets: Arc<Vec<Target>>, depth: usize, alone: bool) -> Result<Self> {
        let pool = Pool::new(targets, depth, false, "psync")?;
        Ok(Self { pool, alone, submitted: VecDeque::new(), done: Vec::new() })
    }
}

impl Backend for Psync {
    fn submit(&mut self, request: Request, _now: Ns) {
        if self.alone {
            self.submitted.push_back(request);
        } else {
            self.pool.submit(request);
        }
    }

    fn kick(&mut self) -> Result<()> {
        while let Some(request) = self.submitted.pop_front() {
            self.done.push(perform(&self.pool.shared, &request));
        }
        Ok(())
    }

    fn reap(&mut self, _now: Ns, out: &mut Vec<Completion>) -> Result<()> {
        out.append(&mut self.done);
        self.pool.reap(out);
        Ok(())
    }

    fn wait(&mut self, timeout_ns: u64) -> Result<()> {
        self.kick()?;
        if self.done.is_empty() {
            self.pool.wait(timeout_ns);
        }
        Ok(())
    }

    fn waker(&mut self) -> Waker {
        Arc::clone(&self.pool.shared) as Waker
    }

    fn counts(&self) -> Counts {
        Counts { unaligned: self.pool.unaligned(), ..Counts::default() }
    }
}
