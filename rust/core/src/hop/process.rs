//! Another process: forked, watched, and never left behind.

use std::os::fd::RawFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use super::Make;
use super::far::{self, Start};
use crate::backends::waker::{Bell, Waker};
use crate::error::{Error, Result};

/// Forks this process: 0 in the child, as `fork`. The bindings set it, because an interpreter has
/// to know of it; nothing in here knows one.
pub type Fork = fn() -> i32;

static FORK: OnceLock<Fork> = OnceLock::new();

/// Tells how a process that holds an interpreter is forked. The first one told is kept.
pub fn set_fork(fork: Fork) {
    let _ = FORK.set(fork);
}

fn plain_fork() -> i32 {
    // SAFETY: the child runs nothing of other threads', and what it allocates is allocated with an
    // allocator that survives a fork (glibc's, musl's).
    unsafe { libc::fork() }
}

/// Times that the end of a process is waited for before it is killed, with a nap between them.
const PATIENCE: u32 = 2_000;

/// A process that runs one filter.
pub(super) struct Process {
    pid: i32,
    /// How it ended, once it has.
    ended: Option<String>,
    relay: Option<Relay>,
}

impl Process {
    /// # Errors
    /// `Failed` with the kernel's reason.
    pub fn fork(start: Start, make: Make, relay: Option<Relay>) -> Result<Self> {
        // SAFETY: asks for a number.
        let parent = unsafe { libc::getpid() };
        let pid = FORK.get().map_or_else(plain_fork, |fork| fork());
        if pid < 0 {
            return Err(Error::failed("cannot start a filter's process")
                .caused_by(std::io::Error::last_os_error()));
        }
        if pid == 0 {
            live(parent, start, make, relay.as_ref().map(|relay| relay.bell.fd()));
        }
        Ok(Self { pid, ended: None, relay })
    }

    /// How it ended, if it has: `crashed (signal 11)`.
    pub fn ended(&mut self) -> Option<String> {
        if self.ended.is_none() {
            self.ended = self.wait(libc::WNOHANG);
        }
        self.ended.clone()
    }

    fn wait(&self, flags: i32) -> Option<String> {
        let mut status = 0;
        // SAFETY: a child of ours that nobody else waits for.
        let found = unsafe { libc::waitpid(self.pid, &raw mut status, flags) };
        if found == 0 {
            return None;
        }
        Some(if found == self.pid && libc::WIFSIGNALED(status) {
            format!("crashed ({})", signal_name(libc::WTERMSIG(status)))
        } else {
            format!("ended its process (status {})", libc::WEXITSTATUS(status))
        })
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            // SAFETY: a child of ours that was not waited for: the number is still its own.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            self.ended = self.wait(0);
        }
    }

    /// It was told to stop; what takes too long is killed.
    pub fn end(&mut self, mut meanwhile: impl FnMut()) {
        for _ in 0..PATIENCE {
            if self.ended().is_some() {
                break;
            }
            meanwhile();
        }
        self.kill();
        self.relay = None;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn signal_name(signal: i32) -> String {
    let known = [
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGTERM, "SIGTERM"),
    ];
    let name = known.iter().find(|(number, _)| *number == signal);
    name.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}

/// The child's whole life.
fn live(parent: i32, start: Start, make: Make, bell: Option<RawFd>) -> ! {
    // SAFETY: numbers of this process; it ends here, whatever its parent's threads were doing.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != parent {
            libc::_exit(0);
        }
        // Ctrl-C is the parent's business, which then ends this process in good order.
        libc::signal(libc::SIGINT, libc::SIG_IGN);
    }
    let keep = bell.or_else(|| start.waker.fd());
    close_all_but(keep);
    crate::black_box::stay_apart();
    far::serve(start, make);
    // SAFETY: ends the process without what the parent wants done at its own end.
    unsafe { libc::_exit(0) }
}

/// Whatever the parent has open (targets, rings, pipes that somebody reads to their end) is none of
/// the filter's business. Standard error stays: what a filter says there is for the user.
fn close_all_but(keep: Option<RawFd>) {
    // SAFETY: descriptors of a process that uses none of them.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        if null >= 0 {
            libc::dup2(null, 0);
            libc::dup2(null, 1);
        }
        let close = |from: u32, to: u32| {
            if from <= to {
                libc::syscall(libc::SYS_close_range, from, to, 0);
            }
        };
        match keep {
            Some(fd) if fd > 2 => {
                close(3, fd as u32 - 1);
                close(fd as u32 + 1, u32::MAX);
            }
            _ => close(3, u32::MAX),
        }
    }
}

/// Passes a ring of the process's bell on to a waker that only threads can reach.
pub(super) struct Relay {
    pub bell: Arc<Bell>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Puts a bell in the waker's place where that does not reach another process.
    ///
    /// # Errors
    /// `Failed` when the kernel gives no event descriptor or no thread.
    pub fn for_waker(waker: &mut Waker) -> Result<Option<Self>> {
        if waker.fd().is_some() {
            return Ok(None);
        }
        let bell = Arc::new(Bell::new()?);
        let stop = Arc::new(AtomicBool::new(false));
        let to = std::mem::replace(waker, Arc::clone(&bell) as Waker);
        let (heard, stopped) = (Arc::clone(&bell), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("hop-relay".to_owned())
            .spawn(move || {
                while !stopped.load(Relaxed) {
                    heard.wait();
                    heard.clear();
                    to.wake();
                }
            })
            .map_err(|e| Error::failed("cannot start a thread").caused_by(e))?;
        Ok(Some(Self { bell, stop, thread: Some(thread) }))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        use crate::backends::waker::Wake;
        self.stop.store(true, Relaxed);
        self.bell.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
