//! Who holds the I/Os, and whether a filter holds its own for ever.
//!
//! A filter may hold an I/O for as long as it has others to let go of first. One that holds some
//! and lets go of none, while nothing that it asked for is under way, will not let go of them.

use super::Pipeline;
use crate::clock::{Ns, monotonic_ns};
use crate::filters::Cx;
use crate::io::Op;
use crate::slab::{IoId, NOWHERE};

/// Looks in the time after which a filter has hung.
const LOOKS: Ns = 8;

/// What one instance of a filter holds: the oldest of its I/Os, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    pub layer: u8,
    /// The worker's number of the disk.
    pub disk: u16,
    pub seq: u64,
    pub op: Op,
    pub offset_bytes: u64,
    pub length_bytes: u64,
    /// It came back up, and is held since.
    pub is_up: bool,
    pub ios: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    is_watched: bool,
    /// How many I/Os it has let go.
    let_go: u64,
    /// What `let_go` was when it was first seen to hold some, and when that was: on the run's clock
    /// and on the wall.
    since: Option<(u64, Ns, u64)>,
}

/// What is known of the instances.
pub(super) struct Watch {
    seen: Vec<Seen>,
    hang_ns: Ns,
    next_ns: Ns,
    /// Where time is virtual, the wall's: a filter's timers may make a second of it last for ever.
    next_wall_ns: u64,
    /// Disk and layer of timers that come without end.
    pub storm: Option<(u16, u8)>,
}

impl Watch {
    pub fn new(instances: usize) -> Self {
        Self {
            seen: vec![Seen::default(); instances],
            hang_ns: Ns::MAX,
            next_ns: Ns::MAX,
            next_wall_ns: u64::MAX,
            storm: None,
        }
    }
}

impl Pipeline {
    /// From now on [`Pipeline::find_hung`] looks at the filters of these layers.
    pub fn watch(&mut self, is_watched: impl Fn(usize) -> bool, hang_ns: Ns) {
        for (seen, instance) in self.watch.seen.iter_mut().zip(self.chains.instances()) {
            seen.is_watched = is_watched(instance.layer as usize);
        }
        if self.watch.seen.iter().any(|seen| seen.is_watched) {
            (self.watch.hang_ns, self.watch.next_ns, self.watch.next_wall_ns) = (hang_ns, 0, 0);
        }
    }

    #[inline]
    pub(super) fn let_go(&mut self, io: IoId, layer: u8) {
        let disk = self.core.slab.io(io).disk;
        self.watch.seen[self.chains.index(disk, layer)].let_go += 1;
    }

    /// A filter that is watched and has let go of nothing for too long. Ask now and then.
    pub fn find_hung(&mut self) -> Option<Holding> {
        let (now, wall) = (self.core.clock.now(), monotonic_ns());
        if now < self.watch.next_ns && wall < self.watch.next_wall_ns {
            return None;
        }
        let hang_ns = self.watch.hang_ns;
        let gap_ns = hang_ns / LOOKS;
        (self.watch.next_ns, self.watch.next_wall_ns) = (now + gap_ns, wall + gap_ns);
        let holdings = self.holdings();
        for (seen, holding) in self.watch.seen.iter_mut().zip(holdings) {
            match (holding.filter(|_| seen.is_watched), seen.since) {
                (None, _) => seen.since = None,
                (hung, Some((let_go, since, wall_since))) if let_go == seen.let_go => {
                    if now - since > hang_ns || wall - wall_since > hang_ns {
                        seen.since = None;
                        return hung;
                    }
                }
                _ => seen.since = Some((seen.let_go, now, wall)),
            }
        }
        None
    }

    /// Why a filter cannot do its work, if one cannot.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failed().map(|(.., why)| why)
    }

    /// As [`Pipeline::failure`], with the filter's disk and layer before it.
    #[must_use]
    pub fn failed(&self) -> Option<(u16, u8, String)> {
        self.chains.instances().iter().find_map(|instance| {
            instance.filter.failure().map(|why| (instance.disk, instance.layer, why))
        })
    }

    /// Disk and layer of a filter that sets timers for this very moment without end.
    #[must_use]
    pub const fn storm(&self) -> Option<(u16, u8)> {
        self.watch.storm
    }

    /// What somebody holds for ever where nothing is to come any more.
    #[must_use]
    pub fn any_holding(&self) -> Option<Holding> {
        self.holdings().into_iter().flatten().next()
    }

    /// Tells the filter that it is given up; true where that ends its process, and nothing else.
    pub fn give_up(&mut self, disk: u16, layer: u8, detail: &str) -> bool {
        let mut cx = Cx { core: &mut self.core, layer, disk };
        let index = self.chains.index(disk, layer);
        let ends = self.chains.instance_mut(index).filter.give_up(&mut cx, detail);
        self.run_actions();
        ends
    }

    /// By instance: what it holds while nothing of its own is under way.
    fn holdings(&self) -> Vec<Option<Holding>> {
        let instances = self.chains.instances().len();
        let mut held: Vec<Option<Holding>> = vec![None; instances];
        let mut waits = vec![false; instances];
        for id in 0..self.core.slab.capacity() as IoId {
            let io = self.core.slab.io(id);
            if io.layer == NOWHERE {
                continue;
            }
            if io.root != id && io.floor > 0 {
                waits[self.chains.index(io.disk, io.owner)] = true;
            }
            if io.layer as usize >= self.filters || io.open_children > 0 {
                continue;
            }
            let index = self.chains.index(io.disk, io.layer);
            let ios = held[index].map_or(1, |other| other.ios + 1);
            match &mut held[index] {
                Some(older) if older.seq <= io.seq => older.ios = ios,
                place => {
                    *place = Some(Holding {
                        layer: io.layer,
                        disk: io.disk,
                        seq: io.seq,
                        op: io.op,
                        offset_bytes: io.offset_bytes,
                        length_bytes: io.length_bytes,
                        is_up: io.is_up,
                        ios,
                    });
                }
            }
        }
        held.into_iter().zip(waits).map(|(held, waits)| held.filter(|_| !waits)).collect()
    }
}
