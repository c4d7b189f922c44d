//! Ends a worker's sleep from another thread: for work that is done outside its backend.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};

/// What makes the backend's `wait` return, now or the next time it is called.
pub trait Wake: Send + Sync {
    fn wake(&self);

    /// The descriptor by which a forked process can wake too, where there is one.
    fn fd(&self) -> Option<RawFd> {
        None
    }
}

pub type Waker = Arc<dyn Wake>;

/// A sleep without a device: that of the modelled backends.
#[derive(Default)]
pub struct Sleeper {
    woken: Mutex<bool>,
    told: Condvar,
}

impl Sleeper {
    /// Sleeps `timeout_ns` at most, not at all when something is `ready` or it was woken.
    pub fn sleep(&self, ready: bool, timeout_ns: u64) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        if !ready && !*woken && timeout_ns > 0 {
            let timeout = Duration::from_nanos(timeout_ns.min(3_600_000_000_000));
            woken = match self.told.wait_timeout(woken, timeout) {
                Ok((woken, _)) => woken,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        *woken = false;
    }
}

impl Wake for Sleeper {
    fn wake(&self) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.told.notify_one();
    }
}

/// A descriptor that is readable once rung, for a sleep in the kernel.
pub struct Bell(OwnedFd);

impl Bell {
    /// # Errors
    /// `Failed` when the kernel gives no event descriptor.
    pub fn new() -> Result<Self> {
        // SAFETY: eventfd takes two numbers and returns a new descriptor, ours to own.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(Error::failed("cannot make an event descriptor")
                .caused_by(std::io::Error::last_os_error()));
        }
        // SAFETY: `fd` was just made and belongs to nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Sleeps until it rings.
    pub fn wait(&self) {
        let mut poll = libc::pollfd { fd: self.fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry.
        unsafe { libc::poll(&raw mut poll, 1, -1) };
    }

    /// Silent until it is rung again.
    pub fn clear(&self) {
        let mut rung = 0u64;
        // SAFETY: eight valid bytes; the descriptor does not block.
        unsafe { libc::read(self.fd(), (&raw mut rung).cast(), 8) };
    }
}

impl Wake for Bell {
    fn fd(&self) -> Option<RawFd> {
        Some(self.0.as_raw_fd())
    }

    fn wake(&self) {
        let one = 1u64;
        // SAFETY: eight valid bytes; a full counter only means that it rings already.
        unsafe { libc::write(self.fd(), (&raw const one).cast(), 8) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_ends_when_woken_even_before_it_began() {
        let sleeper = Arc::new(Sleeper::default());
        let from = crate::clock::monotonic_ns();
        sleeper.wake();
        sleeper.sleep(false, 60_000_000_000);
        let waker: Waker = Arc::clone(&sleeper) as Waker;
        let other = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            waker.wake();
        });
        sleeper.sleep(false, 60_000_000_000);
        other.join().unwrap();
        assert!(crate::clock::monotonic_ns() - from < 50_000_000_000);
    }
}
