//! The only file that walks a chain: down through the filters, to the backend, and back up.
//!
//! Callbacks never nest. What a filter asks for is queued and done when its callback has returned,
//! so a chain of any depth uses one stack frame, and a filter may ask for anything at any time.
//!
//! Every layer is entered and left with one time stamp each way. A layer's span less that of the
//! layer below is its self time, so the self times of an I/O add up to its latency exactly. The
//! children of one I/O book their time to it; where they overlap, the time counts once.

use std::collections::{BinaryHeap, VecDeque};

use crate::backends::{Backend, Completion, Request};
use crate::base_sums::BaseSums;
use crate::clock::{Clock, Ns};
use crate::error::Result;
use crate::filters::{Answer, Child, ChildData, Cx, DataMode, Up};
use crate::io::{OK, Op, Status, flags, row_flags};
use crate::slab::{IoId, NONE, ON_DISK, Slab};

mod chains;
mod core;
mod device;
mod held;
mod lifecycle;
#[cfg(test)]
mod tests;

pub use self::chains::{Chains, Place};
pub(crate) use self::core::{Action, Core, Most};
pub use self::core::{ENOMEM, Event};
pub use self::held::Holding;

/// The chains of one worker's disks over one backend.
pub struct Pipeline {
    /// First, so that it goes first: it waits for I/Os that write into the slots' memory.
    backend: Box<dyn Backend>,
    pub(crate) core: Core,
    chains: Chains,
    wants_complete: Vec<bool>,
    /// By layer: handing an I/O over is not yet deferring it.
    is_hop: Vec<bool>,
    /// Instances that are asked at every `poll`.
    polled: Vec<usize>,
    filters: usize,
    backend_is_model: bool,
    /// Submitted since the last kick: the kick's time is theirs.
    unkicked: Vec<IoId>,
    done: Vec<IoId>,
    /// Writes whose preflush is done.
    flushed: Vec<IoId>,
    completions: Vec<Completion>,
    watch: held::Watch,
}

impl Pipeline {
    #[must_use]
    pub fn new(
        clock: Clock,
        slab: Slab,
        data: DataMode,
        disks: usize,
        mut chains: Chains,
        mut backend: Box<dyn Backend>,
    ) -> Self {
        let slots = slab.capacity();
        let (memory, memory_bytes) = slab.memory();
        backend.lend(memory, memory_bytes);
        let filters = chains.layers();
        let wants_complete =
            (0..filters).map(|layer| chains.get(0, layer).wants_complete()).collect();
        let is_hop = (0..filters).map(|layer| chains.get(0, layer).is_hop()).collect();
        let mut polled = Vec::new();
        for (index, instance) in chains.iter_mut().enumerate() {
            if instance.filter.is_polled() {
                instance.filter.wake_by(backend.waker());
                polled.push(index);
            }
        }
        Self {
            watch: held::Watch::new(chains.instances().len()),
            core: Core {
                clock,
                start_ns: 0,
                slab,
                data,
                actions: VecDeque::with_capacity(slots),
                events: Vec::new(),
                base: BaseSums::default(),
                timers: BinaryHeap::new(),
                timer_count: 0,
                children: 0,
                background: 0,
                most: Most::default(),
                auxiliaries: chains.auxiliary_numbers(disks),
                layers: filters,
                disks: disks as u16,
                counted: None,
            },
            chains,
            wants_complete,
            is_hop,
            polled,
            filters,
            backend_is_model: backend.is_model(),
            backend,
            unkicked: Vec::with_capacity(slots),
            done: Vec::with_capacity(slots),
            flushed: Vec::with_capacity(slots),
            completions: Vec::with_capacity(slots),
        }
    }

    /// Opens every filter, forgetting what it learnt before: at the start and after a prefill.
    pub fn open(&mut self) {
        let slots = self.core.slab.capacity();
        for instance in self.chains.iter_mut() {
            instance.filter.open(slots);
        }
    }

    /// Lets every filter write back what it holds. Drive the pipeline until `is_idle`.
    pub fn close(&mut self) {
        for instance in self.chains.iter_mut() {
            let (disk, layer) = (instance.disk, instance.layer);
            instance.filter.close(&mut Cx { core: &mut self.core, layer, disk });
        }
        self.run_actions();
    }

    /// No child or background I/O is under way, and no filter waits for what is done elsewhere.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.core.children == 0
            && self.core.actions.is_empty()
            && !self.chains.instances().iter().any(|instance| instance.filter.is_busy())
    }

    /// The run is over: the filters' last words.
    pub fn end(&mut self) {
        for instance in self.chains.iter_mut() {
            let (disk, layer) = (instance.disk, instance.layer);
            instance.filter.end(&mut Cx { core: &mut self.core, layer, disk });
        }
    }

    /// Sends a root down. A write with preflush waits for a flush of its own first.
    #[inline]
    pub fn submit(&mut self, id: IoId) {
        let now = self.core.clock.now();
        let io = self.core.slab.io_mut(id);
        (io.submit_ns, io.layer) = (now, 0);
        if io.flags & flags::PREFLUSH != 0 && io.op != Op::Flush {
            let flush = Child {
                op: Op::Flush,
                offset_bytes: 0,
                length_bytes: 0,
                flags: 0,
                data: ChildData::Own,
                tag: 0,
            };
            let disk = io.disk;
            match self.core.bear(id, 0, disk, flush) {
                Some(child) => {
                    let io = self.core.slab.io_mut(child);
                    (io.floor, io.layer) = (0, 0);
                    // With this time stamp: self times add up to the latency exactly.
                    self.descend(child, now);
                }
                None => self.ascend(id, 0, ENOMEM, now),
            }
        } else {
            self.descend(id, now);
        }
        self.run_actions();
    }

    /// The writes whose preflush is done since this was last asked.
    pub fn take_flushed(&mut self) -> std::vec::Drain<'_, IoId> {
        self.flushed.drain(..)
    }

    /// Whether `take_flushed` has anything to give.
    #[inline]
    #[must_use]
    pub fn has_flushed(&self) -> bool {
        !self.flushed.is_empty()
    }

    /// An I/O of a disk follows soon.
    #[inline]
    pub fn prefetch(&self, disk: u16, offset_bytes: u64) {
        self.backend.prefetch(disk, offset_bytes);
    }

    /// Takes in what the backend has finished and what timers are due; then `take_done`.
    ///
    /// # Errors
    /// What the backend cannot go on from (its ring or its threads broke).
    #[inline]
    pub fn poll(&mut self) -> Result<()> {
        let now = self.core.clock.now();
        self.backend.reap(now, &mut self.completions)?;
        for i in 0..self.completions.len() {
            self.backend_done(self.completions[i]);
        }
        self.completions.clear();
        if !self.core.timers.is_empty() {
            self.fire_timers();
        }
        if !self.polled.is_empty() {
            self.ask_polled();
        }
        Ok(())
    }

    /// Filters whose work is done elsewhere (another thread, the far end of a link).
    fn ask_polled(&mut self) {
        for index in &self.polled {
            let instance = self.chains.instance_mut(*index);
            let (disk, layer) = (instance.disk, instance.layer);
            instance.filter.poll(&mut Cx { core: &mut self.core, layer, disk });
        }
        self.run_actions();
    }

    /// Whether every filter that is polled lets the worker sleep.
    #[inline]
    pub fn may_sleep(&mut self) -> bool {
        if self.polled.is_empty() {
            return true;
        }
        let now = self.core.clock.now();
        let chains = &mut self.chains;
        self.polled.iter().all(|index| chains.instance_mut(*index).filter.may_sleep(now))
    }

    /// Roots that are done since the last call, in order of completion.
    #[inline]
    pub fn take_done(&mut self, out: &mut Vec<IoId>) {
        if out.is_empty() {
            std::mem::swap(out, &mut self.done);
        } else {
            out.append(&mut self.done);
        }
    }

    /// Whether `take_done` has anything to give.
    #[inline]
    #[must_use]
    pub fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// What the filters of a disk tell of the moment, with their layers.
    pub fn gauges(&mut self, disk: usize, now: Ns, out: &mut Vec<(u8, &'static str, i64)>) {
        let mut own = Vec::new();
        for instance in self.chains.iter_mut() {
            if instance.disk as usize == disk {
                instance.filter.settle(now);
                instance.filter.gauges(&mut own);
                out.extend(own.drain(..).map(|(name, value)| (instance.layer, name, value)));
                if let Some(detail) = instance.filter.gauges_error() {
                    let layer = instance.layer;
                    let mut cx = Cx { core: &mut self.core, layer, disk: instance.disk };
                    cx.event("error", detail);
                }
            }
        }
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.core.events)
    }

    /// Down from the I/O's layer until somebody keeps it. `now` is when it enters that layer.
    fn descend(&mut self, id: IoId, mut now: Ns) {
        let io = self.core.slab.io(id);
        let (root, disk) = (io.root, io.disk);
        let mut layer = io.layer as usize;
        if io.auxiliary != ON_DISK {
            // Its time is that of the filter that asked for it: it enters no other layer.
            return self.reach_backend(id, now);
        }
        while layer < self.filters {
            self.core.enter(root, layer, now);
            self.core.slab.io_mut(id).layer = layer as u8;
            let mut cx = Cx { core: &mut self.core, layer: layer as u8, disk };
            let answer = self.chains.get(disk as usize, layer).io_start(&mut cx, id);
            let after = self.core.clock.now();
            self.core.book_cpu(root, layer, after - now);
            now = after;
            let status = match answer {
                Answer::Pass => {
                    layer += 1;
                    continue;
                }
                Answer::Defer => {
                    if root == id && !self.is_hop[layer] {
                        self.core.slab.io_mut(id).row_flags |= row_flags::DEFERRED;
                    }
                    return;
                }
                Answer::Complete => OK,
                Answer::Fail(status) => status,
            };
            self.core.exit(root, layer, now);
            return self.ascend(id, layer, status, now);
        }
        self.core.enter(root, layer, now);
        self.reach_backend(id, now);
    }

    #[inline]
    fn reach_backend(&mut self, id: IoId, now: Ns) {
        let io = self.core.slab.io_mut(id);
        io.layer = self.filters as u8;
        let request = Request {
            id,
            disk: if io.auxiliary == ON_DISK { io.disk } else { io.auxiliary },
            op: io.op,
            offset_bytes: io.offset_bytes,
            length_bytes: io.length_bytes,
            data: io.data,
            data_bytes: io.data_bytes,
            fua: io.flags & flags::FUA != 0,
        };
        self.backend.submit(request, now);
        if !self.backend_is_model {
            self.unkicked.push(id);
        }
    }

    #[inline]
    fn backend_done(&mut self, completion: Completion) {
        let now = self.core.clock.now();
        let id = completion.id;
        let (root, auxiliary) = (self.core.slab.io(id).root, self.core.slab.io(id).auxiliary);
        if auxiliary == ON_DISK {
            self.core.exit(root, self.filters, now);
        }
        if completion.split && root != NONE {
            self.core.slab.io_mut(root).row_flags |= row_flags::SPLIT;
        }
        self.ascend(id, self.filters, completion.status, now);
        if !self.core.actions.is_empty() {
            self.run_actions();
        }
    }

    /// Up through the layers above `from`, down to none; the layers below `from` were left.
    fn ascend(&mut self, id: IoId, from: usize, mut status: Status, mut now: Ns) {
        let io = self.core.slab.io(id);
        let (root, disk, floor) = (io.root, io.disk as usize, io.floor as usize);
        let mut layer = from;
        while layer > floor {
            layer -= 1;
            if self.wants_complete[layer] {
                let io = self.core.slab.io_mut(id);
                io.layer = layer as u8;
                io.status = status;
                let mut cx = Cx { core: &mut self.core, layer: layer as u8, disk: disk as u16 };
                let up = self.chains.get(disk, layer).io_complete(&mut cx, id);
                let after = self.core.clock.now();
                self.core.book_cpu(root, layer, after - now);
                now = after;
                match up {
                    Up::Pass => {}
                    Up::Fail(failure) => status = failure,
                    Up::Defer => {
                        self.core.slab.io_mut(id).is_up = true;
                        if root == id && !self.is_hop[layer] {
                            self.core.slab.io_mut(id).row_flags |= row_flags::DEFERRED;
                        }
                        return;
                    }
                }
            }
            self.core.exit(root, layer, now);
        }
        self.arrive(id, status, now);
    }

    /// An I/O is back where it came from: the driver, or the filter that forked it.
    #[inline]
    fn arrive(&mut self, id: IoId, status: Status, now: Ns) {
        let io = self.core.slab.io_mut(id);
        io.status = status;
        if io.root == id {
            io.complete_ns = now;
            self.done.push(id);
            return;
        }
        let (parent, floor, disk, root) = (io.parent, io.floor, io.disk, io.root);
        let layer = io.owner as usize;
        self.core.is_done(parent);
        if floor == 0 {
            // The flush before a write with preflush: no filter owns it.
            self.core.slab.give_back(id);
            self.flushed.push(parent);
            return if status == OK {
                self.descend(parent, now);
            } else {
                self.ascend(parent, 0, status, now);
            };
        }
        let mut cx = Cx { core: &mut self.core, layer: layer as u8, disk };
        self.chains.get(disk as usize, layer).child_complete(&mut cx, parent, id);
        let after = self.core.clock.now();
        self.core.book_cpu(root, layer, after - now);
        self.core.slab.give_back(id);
    }

    fn run_actions(&mut self) {
        while let Some(action) = self.core.actions.pop_front() {
            let now = self.core.clock.now();
            match action {
                Action::Start { io } => self.descend(io, now),
                Action::Resume { io } => {
                    self.let_go(io, self.core.slab.io(io).layer);
                    self.core.slab.io_mut(io).layer += 1;
                    self.descend(io, now);
                }
                Action::Finish { io, layer, status } => {
                    debug_assert_eq!(self.core.slab.io(io).open_children, 0);
                    self.let_go(io, layer);
                    let root = self.core.slab.io(io).root;
                    self.core.exit(root, layer as usize, now);
                    self.ascend(io, layer as usize, status, now);
                }
            }
        }
    }
}
