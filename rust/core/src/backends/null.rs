//! `null`: completes everything at once and touches no data. The harness's own cost.

use std::sync::Arc;

use super::waker::{Sleeper, Waker};
use super::{Backend, Completion, Request};
use crate::clock::Ns;
use crate::error::Result;
use crate::io::OK;

pub const PAGE: &str = "\
# null

Completes every I/O at the next look, without touching data. What remains is the harness itself:
`vaio-bench doctor` and every run measure their floor with it.

## Unsuitable for
Anything with `--verify`: what was written is gone.
";

#[derive(Default)]
pub struct Null {
    done: Vec<Completion>,
    sleeper: Arc<Sleeper>,
}

impl Backend for Null {
    #[inline]
    fn submit(&mut self, request: Request, _now: Ns) {
        self.done.push(Completion { id: request.id, status: OK, split: false });
    }

    #[inline]
    fn reap(&mut self, _now: Ns, out: &mut Vec<Completion>) -> Result<()> {
        out.append(&mut self.done);
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
