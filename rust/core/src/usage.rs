//! What the way of the I/Os uses of the machine: every thread of the process that is not the
//! bench's own, known to it or not (a pool of a backend, a filter on another thread, what a foreign
//! library starts, the kernel's workers of a ring).
//!
//! The bench's own are the process's first thread, which takes the rows, those that it started (a
//! thread has the name of the one that starts it until it gives itself another), and those that
//! [`Apart`] was told of. Each is read by its own clock, which is exact; what threads that have
//! ended used is what is left of the process's sum, which lags by a tick of the kernel where a
//! thread runs on another processor: it is never more than it was, and nothing where none ended.

use std::fs::{read_dir, read_to_string};
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::{thread_usage_ns, usage};

/// User and system nanoseconds, voluntary and involuntary context switches.
pub type Used = [u64; 4];

/// The thread that reads the trace; what it starts (decoders of the file) has its name.
pub const READER: &str = "trace-reader";

const TASKS: &str = "/proc/self/task";

/// Threads whose use is booked elsewhere, or to nobody.
#[derive(Debug, Default)]
pub struct Apart {
    /// Each with what it had used when it left.
    threads: Mutex<Vec<(i32, Option<Used>)>>,
}

/// Notes at its end what the thread has used.
pub struct Stay(Arc<Apart>, i32);

impl Apart {
    /// The calling thread is one of them, to its end.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Stay {
        // SAFETY: a number of the calling thread.
        let thread = unsafe { libc::gettid() };
        self.lock().push((thread, None));
        Stay(Arc::clone(self), thread)
    }

    /// What the other threads have used so far, those that have ended included.
    #[must_use]
    pub fn used_by_others(&self) -> Used {
        // Before the threads: what lags behind them can only look like less.
        let whole = usage(true);
        let apart = self.lock().clone();
        let first = comm("self");
        let (mut others, mut all) = ([0; 4], [0; 4]);
        let mut live = Vec::new();
        for thread in threads() {
            let Some(used) = used_by(thread) else { continue };
            live.push(thread);
            add(&mut all, used);
            let named = comm(&format!("self/task/{thread}"));
            let is_ours = named == first || named.as_deref() == Some(READER);
            if !is_ours && !apart.iter().any(|(known, _)| *known == thread) {
                add(&mut others, used);
            }
        }
        for (thread, left) in apart {
            if let (false, Some(used)) = (live.contains(&thread), left) {
                add(&mut all, used);
            }
        }
        std::array::from_fn(|i| others[i] + whole[i].saturating_sub(all[i]))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(i32, Option<Used>)>> {
        // A push or a store of a number: nobody can leave it half done.
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let used = usage(false);
        for (thread, left) in &mut *self.0.lock() {
            if *thread == self.1 {
                *left = Some(used);
            }
        }
    }
}

fn add(sum: &mut Used, used: Used) {
    for (sum, used) in sum.iter_mut().zip(used) {
        *sum += used;
    }
}

fn threads() -> Vec<i32> {
    let entries = read_dir(TASKS).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn comm(of: &str) -> Option<String> {
    read_to_string(format!("/proc/{of}/comm")).ok().map(|name| name.trim_end().to_owned())
}

/// `None` once it has ended.
fn used_by(thread: i32) -> Option<Used> {
    let [user, system] = thread_usage_ns(thread)?;
    let status = read_to_string(format!("{TASKS}/{thread}/status")).ok()?;
    let count = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    };
    let voluntary = count("voluntary_ctxt_switches:");
    Some([user, system, voluntary, count("nonvoluntary_ctxt_switches:")])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::thread_cpu_ns;
    use std::sync::mpsc::channel;
    use std::thread::{Builder, JoinHandle};

    const BURNT_NS: u64 = 60_000_000;
    /// What else runs in the process of the tests meanwhile is no more than others; it is not less.
    fn burn() {
        let until = thread_cpu_ns() + BURNT_NS;
        while thread_cpu_ns() < until {
            std::hint::black_box(0);
        }
    }

    fn cpu(used: Used) -> u64 {
        used[0] + used[1]
    }

    /// Burns, tells, and stays until the sender is dropped.
    fn burner(name: &str, stays: bool) -> (std::sync::mpsc::Sender<()>, JoinHandle<()>) {
        let (go, wait) = channel::<()>();
        let (done, burnt) = channel();
        let work = move || {
            burn();
            let _ = done.send(());
            if stays {
                let _ = wait.recv();
            }
        };
        let thread = Builder::new().name(name.to_owned()).spawn(work).unwrap();
        burnt.recv().unwrap();
        (go, thread)
    }

    #[test]
    fn a_thread_that_nobody_knows_is_counted_while_it_lives_and_when_it_is_gone() {
        let apart = Arc::new(Apart::default());
        let before = cpu(apart.used_by_others());
        let (go, thread) = burner("somebody", true);
        assert!(cpu(apart.used_by_others()) >= before + BURNT_NS);
        drop(go);
        thread.join().unwrap();
        let (_go, thread) = burner("somebody", false);
        thread.join().unwrap();
        // The sum of the process may lag by a tick.
        assert!(cpu(apart.used_by_others()) + 20_000_000 >= before + 2 * BURNT_NS);
    }

    #[test]
    fn user_and_system_time_of_a_thread_add_up_to_its_clock() {
        let (go, thread) = burner("adder", true);
        burn();
        // SAFETY: a number of the calling thread.
        let own = unsafe { libc::gettid() };
        let [user, system] = thread_usage_ns(own).unwrap();
        let now = thread_cpu_ns();
        assert!(user + system <= now && now - (user + system) < 5_000_000);
        drop(go);
        thread.join().unwrap();
        assert_eq!(thread_usage_ns(1 << 27), None);
    }
}
