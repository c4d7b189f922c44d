//! `mem`: the disk in memory, at once. For tests of data and for chains without a device.

use std::sync::Arc;

use super::store::Store;
use super::waker::{Sleeper, Waker};
use super::{Backend, Completion, Request};
use crate::clock::Ns;
use crate::error::Result;
use crate::filters::DataMode;
use crate::io::OK;

pub const PAGE: &str = "\
# mem

Keeps the disk in memory and completes at the next look. Holds what was written, so `--verify`
works; memory grows with the blocks written, not with the length of the trace.

## Unsuitable for
Judging a device: there is none.
";

pub struct Mem {
    store: Store,
    done: Vec<Completion>,
    sleeper: Arc<Sleeper>,
}

impl Mem {
    #[must_use]
    pub fn new(mode: DataMode) -> Self {
        Self { store: Store::new(mode), done: Vec::new(), sleeper: Arc::default() }
    }
}

impl Backend for Mem {
    fn prefetch(&self, disk: u16, offset_bytes: u64) {
        self.store.prefetch(disk, offset_bytes);
    }

    fn submit(&mut self, request: Request, _now: Ns) {
        self.store.apply(&request);
        self.done.push(Completion { id: request.id, status: OK, split: false });
    }

    fn reap(&mut self, _now: Ns, out: &mut Vec<Completion>) -> Result<()> {
        if out.is_empty() {
            std::mem::swap(out, &mut self.done);
        } else {
            out.append(&mut self.done);
        }
        Ok(())
    }

    fn next_event_ns(&self) -> Option<Ns> {
        (!self.done.is_empty()).then_some(0)
    }

    fn wait(&mut self, timeout_ns: u64) -> Result<()> {
        self.sleeper.sleep(!self.done.is_empty(), timeout_ns);
        Ok(())
    }

    fn waker(&mut self) -> Waker {
        Arc::clone(&self.sleeper) as Waker
    }

    fn is_model(&self) -> bool {
        true
    }
}
