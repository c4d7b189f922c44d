//! Filters that stand around the one under test: they count, refuse, or keep what they see.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Ns;
use crate::filters::{Answer, Cx, Filter, Properties, Up};
use crate::io::{OK, Op, Status};
use crate::slab::{IoId, NONE};

/// I/Os that went down past a place, and came up.
#[derive(Default)]
pub struct Count {
    down: AtomicU64,
    up: AtomicU64,
}

impl Count {
    #[must_use]
    pub fn shared() -> Arc<Self> {
        Arc::default()
    }

    #[must_use]
    pub fn read(&self) -> (u64, u64) {
        (self.down.load(Relaxed), self.up.load(Relaxed))
    }
}

pub struct Probe(Arc<Count>);

impl Probe {
    #[must_use]
    pub fn built(count: &Arc<Count>) -> (Box<dyn Filter>, Properties) {
        (Box::new(Self(Arc::clone(count))), Properties::TRANSPARENT)
    }
}

impl Filter for Probe {
    fn io_start(&mut self, _cx: &mut Cx<'_>, _io: IoId) -> Answer {
        self.0.down.fetch_add(1, Relaxed);
        Answer::Pass
    }

    fn io_complete(&mut self, _cx: &mut Cx<'_>, _io: IoId) -> Up {
        self.0.up.fetch_add(1, Relaxed);
        Up::Pass
    }
}

/// Fails every I/O of one operation.
pub struct Refuse {
    op: Op,
    status: Status,
    refused: Arc<Count>,
}

impl Refuse {
    /// `refused` counts (as gone down) what it failed.
    #[must_use]
    pub fn built(op: Op, status: Status, refused: &Arc<Count>) -> (Box<dyn Filter>, Properties) {
        let refused = Arc::clone(refused);
        (Box::new(Self { op, status, refused }), Properties::TRANSPARENT)
    }
}

impl Filter for Refuse {
    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        if cx.io(io).op != self.op {
            return Answer::Pass;
        }
        self.refused.down.fetch_add(1, Relaxed);
        Answer::Fail(self.status)
    }

    fn wants_complete(&self) -> bool {
        false
    }
}

/// An I/O that failed below a place.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    pub at_ns: Ns,
    pub offset_bytes: u64,
    pub length_bytes: u64,
    pub status: Status,
    /// The guest's I/O that it was done for; `None` in the background.
    pub seq: Option<u64>,
}

/// What several see, one after the other.
type Shared<T> = Arc<Mutex<T>>;

/// Under the lock. A panic elsewhere cannot have left it half-changed.
pub fn seen<T>(shared: &Shared<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps every failure that comes up from below.
pub struct Witness(Shared<Vec<Failure>>);

impl Witness {
    #[must_use]
    pub fn built(failures: &Shared<Vec<Failure>>) -> (Box<dyn Filter>, Properties) {
        (Box::new(Self(Arc::clone(failures))), Properties::TRANSPARENT)
    }
}

impl Filter for Witness {
    fn io_start(&mut self, _cx: &mut Cx<'_>, _io: IoId) -> Answer {
        Answer::Pass
    }

    fn io_complete(&mut self, cx: &mut Cx<'_>, io: IoId) -> Up {
        let (at_ns, io) = (cx.now(), cx.io(io));
        if io.status != OK {
            seen(&self.0).push(Failure {
                at_ns,
                offset_bytes: io.offset_bytes,
                length_bytes: io.length_bytes,
                status: io.status,
                seq: (io.root != NONE).then_some(io.seq),
            });
        }
        Up::Pass
    }
}
