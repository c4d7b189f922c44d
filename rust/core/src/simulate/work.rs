//! Consumers of chunks on several threads.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::requests::Chunk;
use crate::error::{Error, ErrorKind, Result};

/// Takes the chunks of a trace in order; those of other streams, too.
pub trait Consumer: Send {
    fn take(&mut self, chunk: &Chunk);

    /// There are no more: what only counting needed can go.
    fn end(&mut self) {}
}

/// Told the requests done, over all consumers; an error stops the work.
pub type Progress<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Threads that are worth starting here.
#[must_use]
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Hands every consumer all these chunks; `done` counts their requests. `is_last`: no more come.
///
/// # Errors
/// What `progress` answers; `Failed` when a consumer panicked.
pub fn hand_out<C: Consumer>(
    consumers: &mut [C],
    chunks: &[Arc<Chunk>],
    is_last: bool,
    threads: usize,
    done: &AtomicU64,
    progress: Progress<'_>,
) -> Result<()> {
    let threads = threads.clamp(1, consumers.len().max(1));
    let stop = AtomicBool::new(false);
    let running = AtomicUsize::new(threads);
    let queue = Mutex::new(consumers.iter_mut());
    let main = std::thread::current();
    let work = || {
        let _last = Leaving { running: &running, main: &main };
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(consumer) = next else { return };
            for chunk in chunks {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                consumer.take(chunk);
                done.fetch_add(chunk.requests.len() as u64, Ordering::Relaxed);
            }
            if is_last {
                consumer.end();
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut told = Ok(());
        while running.load(Ordering::Acquire) > 0 {
            std::thread::park_timeout(TELL_EVERY);
            if told.is_ok() {
                told = progress(done.load(Ordering::Relaxed));
                stop.store(told.is_err(), Ordering::Relaxed);
            }
        }
        let panicked = workers.into_iter().any(|worker| worker.join().is_err());
        if panicked {
            return Err(Error::new(ErrorKind::Failed, "a simulated cache failed"));
        }
        told
    })
}

/// Tells the waiting thread that a worker ends, however it does.
struct Leaving<'a> {
    running: &'a AtomicUsize,
    main: &'a std::thread::Thread,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::Release);
        self.main.unpark();
    }
}
