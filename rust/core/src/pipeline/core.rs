//! What a callback's context may touch: clock, slots, timers, and the actions it asks for.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::base_sums::BaseSums;
use crate::clock::{Clock, Ns};
use crate::filters::{Child, ChildData, DataMode};
use crate::io::{Status, row_flags};
use crate::slab::{IoId, NONE, Slab};

/// Told to a filter that forks more children than it declared.
pub const ENOMEM: Status = libc::ENOMEM;

/// What a callback asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    /// A new child starts at its floor.
    Start { io: IoId },
    /// A deferred I/O goes on below the layer that held it.
    Resume { io: IoId },
    /// A deferred I/O goes up from `layer`.
    Finish { io: IoId, layer: u8, status: Status },
}

/// A row of events.parquet.
#[derive(Debug, Clone)]
pub struct Event {
    pub at_ns: Ns,
    pub disk: u16,
    pub layer: u8,
    pub kind: &'static str,
    pub detail: String,
}

/// When, the count that breaks ties, disk, layer, and the filter's token.
pub(crate) type Timer = (Ns, u64, u16, u8, u64);

/// I/Os of the filters' own that were open at one time, at most.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Most {
    /// For one I/O.
    pub children: u32,
    pub background: u32,
}

/// Everything but the filters: what a callback's context may touch.
pub(crate) struct Core {
    pub clock: Clock,
    /// When the phase that runs began: rows and events count from there.
    pub start_ns: Ns,
    pub slab: Slab,
    pub data: DataMode,
    pub actions: VecDeque<Action>,
    pub events: Vec<Event>,
    pub base: BaseSums,
    pub timers: BinaryHeap<Reverse<Timer>>,
    pub timer_count: u64,
    /// Children and background I/Os that are not done.
    pub children: usize,
    /// Of these, the background I/Os.
    pub background: u32,
    /// The most of both kinds that there were at one time.
    pub most: Most,
    /// By disk, then by layer: the backend's number of a filter's first auxiliary device.
    pub auxiliaries: Vec<u16>,
    pub layers: usize,
    pub disks: u16,
    /// On the far side of a hop: blocks and hits counted for an I/O, for the chain's side to book.
    pub counted: Option<Vec<(IoId, u32, u32)>>,
}

impl Core {
    /// What the filter of `layer` on the other side of a hop is given in place of this: its own
    /// clock, timers and actions, and `lent` slots for its children.
    pub(crate) fn for_far_side(&mut self, lent: usize) -> Self {
        Self {
            clock: self.clock.clone(),
            start_ns: self.start_ns,
            slab: self.slab.lend(lent),
            data: self.data,
            actions: VecDeque::new(),
            events: Vec::new(),
            base: BaseSums::default(),
            timers: BinaryHeap::new(),
            timer_count: 0,
            children: 0,
            background: 0,
            most: Most::default(),
            // The number of a device is then the filter's own.
            auxiliaries: vec![0; self.auxiliaries.len()],
            layers: self.layers,
            disks: self.disks,
            counted: Some(Vec::new()),
        }
    }

    pub(crate) fn set_timer(&mut self, at_ns: Ns, disk: u16, layer: u8, token: u64) {
        // The count breaks ties in the order of asking: virtual runs must repeat to the byte.
        self.timer_count += 1;
        self.timers.push(Reverse((at_ns, self.timer_count, disk, layer, token)));
    }

    /// A child that starts below `layer` once the callback has returned.
    pub(crate) fn fork(
        &mut self,
        parent: IoId,
        layer: u8,
        disk: u16,
        child: Child,
    ) -> Option<IoId> {
        let id = self.bear(parent, layer, disk, child)?;
        self.actions.push_back(Action::Start { io: id });
        Some(id)
    }

    /// A child for an auxiliary device of the filter: it passes no layer on its way.
    pub(crate) fn fork_auxiliary(
        &mut self,
        parent: IoId,
        layer: u8,
        disk: u16,
        device: u8,
        child: Child,
    ) -> Option<IoId> {
        let id = self.bear(parent, layer, disk, child)?;
        self.send_to_auxiliary(id, device);
        self.actions.push_back(Action::Start { io: id });
        Some(id)
    }

    /// A child that is not started goes to an auxiliary device of its owner.
    pub(crate) fn send_to_auxiliary(&mut self, id: IoId, device: u8) {
        let io = self.slab.io(id);
        let first = self.auxiliaries[io.disk as usize * self.layers + io.owner as usize];
        let io = self.slab.io_mut(id);
        io.auxiliary = first + u16::from(device);
        io.floor = self.layers as u8;
        io.layer = self.layers as u8;
    }

    /// A child in a slot, not started.
    pub(crate) fn bear(
        &mut self,
        parent: IoId,
        layer: u8,
        disk: u16,
        child: Child,
    ) -> Option<IoId> {
        let bytes = if child.op.has_data() { self.data.size(child.length_bytes) } else { 0 };
        let id = self.slab.take(child.op, bytes)?;
        self.born(id, parent, layer, disk, child);
        Some(id)
    }

    /// A child that the far side of a hop has borne, with the bytes that it has there.
    pub(crate) fn adopt(
        &mut self,
        id: IoId,
        parent: IoId,
        layer: u8,
        disk: u16,
        child: Child,
        data: (*mut u8, usize),
    ) {
        self.slab.begin(id, child.op, data.0, data.1);
        self.born(id, parent, layer, disk, child);
    }

    fn born(&mut self, id: IoId, parent: IoId, layer: u8, disk: u16, child: Child) {
        let bytes = self.slab.io(id).data_bytes;
        let mut shared = None;
        let (mut root, mut seq) = (NONE, 0);
        if parent != NONE {
            let above = self.slab.io_mut(parent);
            above.open_children += 1;
            self.most.children = self.most.children.max(above.open_children);
            (root, seq) = (above.root, above.seq);
            if let ChildData::Share { from_bytes } = child.data {
                let from = self.data.size(from_bytes);
                debug_assert!(bytes == 0 || from + bytes <= above.data_bytes);
                // SAFETY: within the parent's bytes, which outlive the child.
                shared = (bytes > 0).then(|| unsafe { above.data.add(from) });
            }
            if root != NONE {
                self.slab.io_mut(root).row_flags |= row_flags::FORKED;
            }
        } else {
            self.background += 1;
            self.most.background = self.most.background.max(self.background);
        }
        let io = self.slab.io_mut(id);
        io.disk = disk;
        io.offset_bytes = child.offset_bytes;
        io.length_bytes = child.length_bytes;
        io.flags = child.flags;
        io.tag = child.tag;
        io.parent = parent;
        io.root = root;
        io.seq = seq;
        io.owner = layer;
        io.floor = layer + 1;
        io.layer = layer + 1;
        if let Some(data) = shared {
            io.data = data;
        }
        self.children += 1;
    }

    /// A child of `parent` is done; it has its slot until its filter was told.
    #[inline]
    pub(crate) fn is_done(&mut self, parent: IoId) {
        if parent == NONE {
            self.background -= 1;
        } else {
            self.slab.io_mut(parent).open_children -= 1;
        }
        self.children -= 1;
    }

    #[inline]
    pub(crate) fn enter(&mut self, root: IoId, layer: usize, now: Ns) {
        if root != NONE {
            self.slab.time_mut(root, layer).enter(now);
        }
    }

    #[inline]
    pub(crate) fn exit(&mut self, root: IoId, layer: usize, now: Ns) {
        if root != NONE {
            self.slab.time_mut(root, layer).exit(now);
        }
    }

    #[inline]
    pub(crate) fn book_cpu(&mut self, root: IoId, layer: usize, ns: u64) {
        if root != NONE {
            self.slab.time_mut(root, layer).cpu_ns += ns;
        }
    }
}
