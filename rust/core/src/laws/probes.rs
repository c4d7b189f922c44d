//! Filters that stand around the one under test: one counts, one refuses.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::filters::{Answer, Cx, Filter, Properties, Up};
use crate::io::{Op, Status};
use crate::slab::IoId;

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
