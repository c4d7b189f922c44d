//! Filters that stand around the one under test: they count, refuse, or keep what they see.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Ns;
use crate::filters::{Answer, Cx, Filter, Properties, Up};
use crate::int_map::IntMap;
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
pub type Shared<T> = Arc<Mutex<T>>;

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

/// What became of an I/O between the place above the filter and the one below it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trail {
    pub above_ns: Ns,
    /// The I/O itself, where it passed: when it came below, and went up from there.
    pub below_ns: Option<(Ns, Ns)>,
    /// Another was done for it below.
    pub is_forked: bool,
    pub end_ns: Ns,
    pub status: Status,
}

/// Trails by I/O.
pub type Trails = Shared<IntMap<Trail>>;

/// Marks the trails of I/Os that pass, above the filter or below it.
pub struct Tracer {
    trails: Trails,
    is_above: bool,
}

impl Tracer {
    #[must_use]
    pub fn built(trails: &Trails, is_above: bool) -> (Box<dyn Filter>, Properties) {
        (Box::new(Self { trails: Arc::clone(trails), is_above }), Properties::TRANSPARENT)
    }
}

impl Filter for Tracer {
    fn io_start(&mut self, cx: &mut Cx<'_>, id: IoId) -> Answer {
        let (now, io) = (cx.now(), cx.io(id));
        if io.root != NONE {
            let mut trails = seen(&self.trails);
            let trail = trails.entry(io.seq).or_default();
            match (self.is_above, io.root == id) {
                (true, _) => trail.above_ns = now,
                (false, true) => trail.below_ns = Some((now, now)),
                (false, false) => trail.is_forked = true,
            }
        }
        Answer::Pass
    }

    fn io_complete(&mut self, cx: &mut Cx<'_>, id: IoId) -> Up {
        let (now, io) = (cx.now(), cx.io(id));
        if io.root == id {
            let mut trails = seen(&self.trails);
            let trail = trails.entry(io.seq).or_default();
            if self.is_above {
                (trail.end_ns, trail.status) = (now, io.status);
            } else if let Some((_, up_ns)) = &mut trail.below_ns {
                *up_ns = now;
            }
        }
        Up::Pass
    }
}

/// Shows every I/O that goes down to a closure.
pub struct Look<F>(F);

impl<F: FnMut(&Cx<'_>, IoId) + Send + 'static> Look<F> {
    #[must_use]
    pub fn built(look: F) -> (Box<dyn Filter>, Properties) {
        (Box::new(Self(look)), Properties::TRANSPARENT)
    }
}

impl<F: FnMut(&Cx<'_>, IoId) + Send> Filter for Look<F> {
    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        (self.0)(cx, io);
        Answer::Pass
    }

    fn wants_complete(&self) -> bool {
        false
    }
}
