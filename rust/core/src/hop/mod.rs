//! Where a filter runs: the extra step to another thread or another process, made visible.
//!
//! In the chain a placed filter is two layers. The first is [`near::Hop`], a stand-in that hands
//! every I/O over by a message in a shared ring and takes the answers back; its self time is the
//! hop itself: the queues there and back, and both wake-ups. The second is a [`Mark`], which does
//! nothing: the time that the filter told of its callbacks, and of what it held, is booked there.
//! On the far side ([`far`]) the same filter object runs behind a `Cx` like any other, on I/Os
//! whose bytes are the chain's own: no data is copied. Slots for its children are lent to it once,
//! so that a child costs one message and no allocation.
//!
//! A process is forked, not started anew: it has the map of the I/Os' bytes at the same address,
//! and there is no name under which shared memory could be left behind. It closes every descriptor
//! but the one that wakes the worker, builds the filter itself, and dies with the worker's thread.
//!
//! While I/Os come, both sides look at their rings; a side that has found nothing for a while
//! sleeps, the far one on a futex, the chain's in its backend. In virtual time (the law suite) the
//! chain waits for each answer before time moves, so that runs repeat.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use crate::clock::Ns;
use crate::error::{Error, Result};
use crate::filters::{Answer, Cx, Filter, Properties};
use crate::slab::IoId;

mod booking;
mod death;
mod far;
mod life;
mod line;
mod near;
pub mod process;
mod ring;
mod words;

pub use self::near::Hop;

/// What the engine's options call the stand-in's layer.
pub const LAYER: &str = "hop";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Where {
    Thread,
    Process,
}

/// How a filter is placed: what the options say of the stand-in.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    pub placement: Where,
    /// How long a side looks at its ring before it sleeps.
    pub spin_ns: Ns,
    /// A process whose callback takes longer has hung.
    pub hang_ns: Ns,
}

/// How long a side looks before it sleeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spin(Ns);

impl Spin {
    /// Looking on is worth nothing where the other side cannot run meanwhile.
    fn of(placement: &Placement) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self(if processors > 1 { placement.spin_ns } else { 0 })
    }

    const fn ns(self, is_virtual: bool) -> Ns {
        if is_virtual { 0 } else { self.0 }
    }
}

/// Builds the filter where it runs.
pub type Make = Box<dyn FnOnce() -> Result<Box<dyn Filter>> + Send>;

/// What a filter told of the moment, on its way from the stand-in to its mark.
type Told = Arc<Mutex<Vec<(&'static str, i64)>>>;

/// The layer of a placed filter behind its stand-in: its time is booked here.
pub struct Mark(Told);

impl Filter for Mark {
    fn io_start(&mut self, _cx: &mut Cx<'_>, _io: IoId) -> Answer {
        Answer::Pass
    }

    fn wants_complete(&self) -> bool {
        false
    }

    fn gauges(&self, out: &mut Vec<(&'static str, i64)>) {
        out.extend_from_slice(&self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Why a filter with these properties cannot be placed, if it cannot.
///
/// # Errors
/// `Input` with the rule's name.
pub fn check(properties: &Properties) -> Result<()> {
    if properties.scope == crate::filters::Scope::Group {
        return Err(Error::input(
            "placement: expected \"inline\": an instance for a group of disks runs on the worker \
             that drives them (rule placement-scope)",
        ));
    }
    Ok(())
}

/// The two layers of a placed filter. `filter` is an instance of it, which is asked what it is
/// and, unless `make` builds another, runs; `lent` slots are its children's.
#[must_use]
pub fn layers(
    placement: Placement,
    filter: Box<dyn Filter>,
    make: Option<Make>,
    lent: usize,
) -> (Hop, Mark) {
    let told = Told::default();
    (Hop::new(placement, filter, make, lent, Arc::clone(&told)), Mark(told))
}

#[cfg(test)]
mod tests;
