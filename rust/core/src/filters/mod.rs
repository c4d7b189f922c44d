//! What a filter is, what it may do, and THE list of filters. One file a filter.
//!
//! A filter is a state machine: it never reads a clock, opens a file or touches a socket by
//! itself. Its context [`Cx`] gives it the time, timers, and I/Os of its own, so the same object
//! runs on the wall clock and in virtual time.

use serde_json::Value;

use crate::backends::waker::Waker;
use crate::clock::Ns;
use crate::io::{OK, Op, Status, row_flags};
use crate::pipeline::{Action, Core, Event};
use crate::slab::{Io, IoId, NONE};

pub mod batch;
pub mod cache;
pub mod cdp;
pub mod crypt;
mod data_mode;
pub mod delay;
pub mod dylib;
pub mod foreign;
pub mod params;
pub mod pass;
mod properties;
mod setting;
pub mod snapshot;
#[cfg(test)]
pub(crate) mod testing;
pub mod throttle;

pub use self::data_mode::{DataMode, SECTOR_BYTES, TOKEN_BYTES};
pub use self::properties::{Auxiliary, Class, Lifecycle, Properties, Scope};
pub use self::setting::{ParamError, Setting};

/// What to do with an I/O that comes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// On to the next layer.
    Pass,
    /// Answered here: up again, and the layers below never see it.
    Complete,
    /// Failed here with this errno: only the layers above are told.
    Fail(Status),
    /// Held: the filter resumes or finishes it later; other I/Os keep flowing.
    Defer,
}

/// What to do with an I/O that comes back up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Up {
    Pass,
    /// Turned into a failure for the layers above.
    Fail(Status),
    /// Held: the filter finishes it later.
    Defer,
}

/// The callbacks. A method that a filter lacks is a pass.
pub trait Filter: Send {
    /// The virtual disk is opened; `slots` bounds every [`IoId`] the filter will see.
    /// Called again after the prefill: what was learnt from it must not be in the figures.
    fn open(&mut self, slots: usize) {
        let _ = slots;
    }

    /// An I/O comes down.
    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer;

    /// An I/O that passed here comes back up; the status is that of the layers below.
    fn io_complete(&mut self, cx: &mut Cx<'_>, io: IoId) -> Up {
        let _ = (cx, io);
        Up::Pass
    }

    /// False spares `io_complete` its call and its time stamp.
    fn wants_complete(&self) -> bool {
        true
    }

    /// The driver gives up an I/O that this filter holds: finish it soon, as with `ECANCELED`.
    fn io_abort(&mut self, cx: &mut Cx<'_>, io: IoId) {
        let _ = (cx, io);
    }

    /// An I/O of the filter's own is done. `parent` is the I/O it was forked for, or [`NONE`] for
    /// a background I/O. The child's slot is freed when this returns.
    fn child_complete(&mut self, cx: &mut Cx<'_>, parent: IoId, child: IoId) {
        let _ = child;
        if parent != NONE {
            cx.finish(parent, OK);
        }
    }

    /// A timer that the filter set is due.
    fn timer(&mut self, cx: &mut Cx<'_>, token: u64) {
        let _ = (cx, token);
    }

    /// The disk is closed: start what must reach the device (background I/Os), and what is left as
    /// those are done, so that the run ends with nothing held back. Called at a run's end, and at
    /// the prefill's, before the next `open`. Each waits until nothing is in flight.
    fn close(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }

    /// True while something is on its way that no I/O waits for: the end of a run waits for it.
    fn is_busy(&self) -> bool {
        false
    }

    /// Why the filter cannot do its work: the round ends with it.
    fn failure(&self) -> Option<String> {
        None
    }

    /// The run is over, and nothing is in flight: the last chance for events.
    fn end(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }

    /// What happens to the virtual disk beside I/O. Applying the policy is the filter's building,
    /// and taking it off again is its end.
    ///
    /// # Errors
    /// The errno of a filter that cannot do what was asked.
    fn lifecycle(&mut self, cx: &mut Cx<'_>, event: Lifecycle<'_>) -> Result<(), Status> {
        let _ = (cx, event);
        Ok(())
    }

    /// Devices of the filter's own beside the disk (a cache file, a journal), in the order of the
    /// numbers that [`Cx::child_on`] takes. Asked once, before the run.
    fn auxiliaries(&self) -> Vec<Auxiliary> {
        Vec::new()
    }

    /// True for a filter whose work is done elsewhere: [`Filter::poll`] is called whenever the
    /// worker looks for completions, and the waker of [`Filter::wake_by`] ends its sleep.
    fn is_polled(&self) -> bool {
        false
    }

    /// Given once, before `open`, to a filter that is polled.
    fn wake_by(&mut self, waker: Waker) {
        let _ = waker;
    }

    /// Takes in what has been done elsewhere.
    fn poll(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }

    /// Asked of a filter that is polled before the worker sleeps: false makes it look again.
    fn may_sleep(&mut self, now: Ns) -> bool {
        let _ = now;
        true
    }

    /// True for the stand-in of a filter that runs elsewhere: what it is handed is answered there.
    fn is_hop(&self) -> bool {
        false
    }

    /// It lets go of nothing that it holds, as the event's detail tells. True where it runs in a
    /// process of its own: that ends, and what it held fails.
    fn give_up(&mut self, cx: &mut Cx<'_>, detail: &str) -> bool {
        let _ = (cx, detail);
        false
    }

    /// Goes where its policy places it: asked once, before `open`.
    ///
    /// # Errors
    /// `Input` when the filter cannot be built there, `Failed` when there is no such place.
    fn place(&mut self, cx: &mut Cx<'_>) -> crate::error::Result<()> {
        let _ = cx;
        Ok(())
    }

    /// What it has used of the machine in another process, see [`crate::usage`].
    fn used_elsewhere(&self) -> crate::usage::Used {
        [0; 4]
    }

    /// The figures of this moment are asked for next.
    fn settle(&mut self, now: Ns) {
        let _ = now;
    }

    /// Figures of the moment: `("dirty_bytes", 4096)`. All are kept (`RUN/gauges`); the timeline
    /// has columns for `dirty_bytes`, `backlog_bytes` and `lag_ns`.
    fn gauges(&self, out: &mut Vec<(&'static str, i64)>) {
        let _ = out;
    }

    /// What kept `gauges` from telling, as the detail of an `error` event. Asked after it.
    fn gauges_error(&mut self) -> Option<String> {
        None
    }
}

pub type Built = Result<(Box<dyn Filter>, Properties), Vec<ParamError>>;

/// A filter as the catalogue lists it.
pub struct Kind {
    /// The word that names its file, `use = "..."` in a policy, page and test.
    pub name: &'static str,
    pub class: Option<Class>,
    pub page: &'static str,
    /// JSON Schema of the parameters.
    pub schema: fn() -> Value,
    /// Checks the parameters and builds the filter; all errors at once.
    pub build: fn(&Value, &Setting) -> Built,
}

/// THE list.
pub static FILTERS: &[Kind] =
    &[cache::KIND, cdp::KIND, crypt::KIND, delay::KIND, pass::KIND, snapshot::KIND, throttle::KIND];

#[must_use]
pub fn find(name: &str) -> Option<&'static Kind> {
    FILTERS.iter().find(|kind| kind.name == name)
}

/// The bytes of a child.
#[derive(Debug, Clone, Copy)]
pub enum ChildData {
    /// A buffer of its own slot.
    Own,
    /// Its parent's, from this byte of the disk's range on (a multiple of the sector with tokens).
    Share { from_bytes: u64 },
}

/// An I/O that a filter wants done below itself.
#[derive(Debug, Clone, Copy)]
pub struct Child {
    pub op: Op,
    pub offset_bytes: u64,
    pub length_bytes: u64,
    /// Bits of [`crate::io::flags`].
    pub flags: u32,
    pub data: ChildData,
    /// Given back in `child_complete` as the child's `tag`.
    pub tag: u64,
}

/// What a filter may do inside a callback. Actions take effect when the callback has returned.
pub struct Cx<'a> {
    pub(crate) core: &'a mut Core,
    pub(crate) layer: u8,
    pub(crate) disk: u16,
}

impl Cx<'_> {
    /// Nanoseconds since the run's origin: of the wall, or virtual.
    #[must_use]
    pub fn now(&self) -> Ns {
        self.core.clock.now()
    }

    /// What the run carries as data.
    #[must_use]
    pub fn data_mode(&self) -> DataMode {
        self.core.data
    }

    /// Whether there is a slot of that number.
    #[must_use]
    pub fn has(&self, io: IoId) -> bool {
        (io as usize) < self.core.slab.capacity()
    }

    /// Whether the I/O is this filter's own, with bytes that it shares with none.
    #[must_use]
    pub fn is_own_buffer(&self, io: IoId) -> bool {
        let it = self.core.slab.io(io);
        it.root != io && it.owner == self.layer && self.core.slab.has_own_bytes(io)
    }

    /// Whether a slot has room for the bytes of so long an I/O.
    #[must_use]
    pub fn fits(&self, length_bytes: u64) -> bool {
        let slot_bytes = self.core.slab.slot_bytes();
        length_bytes <= 1 << 40 && self.core.data.size(length_bytes) <= slot_bytes
    }

    #[inline]
    #[must_use]
    pub fn io(&self, io: IoId) -> &Io {
        self.core.slab.io(io)
    }

    /// The I/O's bytes. A write's must not be changed: a layer above still needs them.
    #[inline]
    #[must_use]
    pub fn data(&self, io: IoId) -> &[u8] {
        self.core.slab.data(io)
    }

    /// A read's bytes on the way up, or those of a child's own buffer.
    #[inline]
    pub fn data_mut(&mut self, io: IoId) -> &mut [u8] {
        self.core.slab.data_mut(io)
    }

    /// The bytes of two I/Os that do not share: one to read, one to write.
    pub fn data_pair(&mut self, from: IoId, to: IoId) -> Option<(&[u8], &mut [u8])> {
        self.core.slab.data_pair(from, to)
    }

    /// Counts blocks looked up and found, and marks the I/O's row as a hit or a partial one.
    pub fn count_blocks(&mut self, io: IoId, blocks: u32, hits: u32) {
        if let Some(counted) = &mut self.core.counted {
            return counted.push((io, blocks, hits));
        }
        let root = self.core.slab.io(io).root;
        if root != NONE {
            let root = self.core.slab.io_mut(root);
            root.blocks += blocks;
            root.hit_blocks += hits;
            root.row_flags &= !(row_flags::HIT | row_flags::PARTIAL_HIT);
            root.row_flags |= match root.hit_blocks {
                0 => 0,
                hits if hits == root.blocks => row_flags::HIT,
                _ => row_flags::PARTIAL_HIT,
            };
        }
    }

    /// Forks a child of `parent` (which the callback must answer with `Defer`, or have deferred
    /// before). It starts at the next layer and ends in `child_complete`. `None` when the filter
    /// has more children open than it declared.
    pub fn child(&mut self, parent: IoId, child: Child) -> Option<IoId> {
        // An instance for a group may fork it while it is told of another disk's I/O.
        let disk = self.core.slab.io(parent).disk;
        self.core.fork(parent, self.layer, disk, child)
    }

    /// An I/O of the filter's own that no I/O waits for; its buffer is its own.
    pub fn background(&mut self, child: Child) -> Option<IoId> {
        self.core.fork(NONE, self.layer, self.disk, child)
    }

    /// As [`Cx::child`], for the `device`-th auxiliary device of the filter: it passes no layer,
    /// and its time is the filter's own.
    pub fn child_on(&mut self, device: u8, parent: IoId, child: Child) -> Option<IoId> {
        let disk = self.core.slab.io(parent).disk;
        self.core.fork_auxiliary(parent, self.layer, disk, device, child)
    }

    /// As [`Cx::background`], for the `device`-th auxiliary device of the filter.
    pub fn background_on(&mut self, device: u8, child: Child) -> Option<IoId> {
        self.core.fork_auxiliary(NONE, self.layer, self.disk, device, child)
    }

    /// As [`Cx::background`], for another disk of the filter's group.
    pub fn background_of(&mut self, disk: u16, child: Child) -> Option<IoId> {
        self.core.fork(NONE, self.layer, disk, child)
    }

    /// Starts a child that the far side of a hop has forked, with the bytes that it has there.
    pub(crate) fn adopt(
        &mut self,
        id: IoId,
        parent: IoId,
        disk: u16,
        child: Child,
        data: (*mut u8, usize),
        device: Option<u8>,
    ) {
        self.core.adopt(id, parent, self.layer, disk, child, data);
        if let Some(device) = device {
            self.core.send_to_auxiliary(id, device);
        }
        self.core.actions.push_back(Action::Start { io: id });
    }

    /// The worker's number of the disk whose I/O this is: an instance for a group sees several.
    #[must_use]
    pub const fn disk(&self) -> u16 {
        self.disk
    }

    /// Lets an I/O deferred on its way down go on to the next layer.
    pub fn resume(&mut self, io: IoId) {
        self.core.actions.push_back(Action::Resume { io });
    }

    /// Ends an I/O deferred here (on its way down or up): up again from this layer.
    pub fn finish(&mut self, io: IoId, status: Status) {
        self.core.actions.push_back(Action::Finish { io, layer: self.layer, status });
    }

    /// Calls `timer` with this token at `at_ns`, or as soon after as the clock allows.
    pub fn timer(&mut self, at_ns: Ns, token: u64) {
        self.core.set_timer(at_ns, self.disk, self.layer, token);
    }

    /// A time of this clock as rows and events count it: since the round's start, so that times
    /// in an event's detail and its own `time_ns` are of one kind.
    #[must_use]
    pub fn since_start(&self, at_ns: Ns) -> i64 {
        at_ns as i64 - self.core.start_ns as i64
    }

    /// Keeps the worker busy until `at_ns`: a filter that computes, modelled. False in virtual
    /// time, which charges no CPU: use a timer there.
    #[must_use]
    pub fn spin_until(&self, at_ns: Ns) -> bool {
        if self.core.clock.is_virtual() {
            return false;
        }
        while self.now() < at_ns {
            std::hint::spin_loop();
        }
        true
    }

    /// The time of this clock at which the round started.
    #[must_use]
    pub fn started_ns(&self) -> Ns {
        self.core.start_ns
    }

    /// A row of events.parquet; `detail` is a JSON object. A filter that changes how it works says
    /// so by kind `mode` and `{"mode": "..."}`, and the timeline shows it. Replication tells of
    /// `restore_point`, `hole` and `stun` as `analyses/run_rpo.py` says.
    pub fn event(&mut self, kind: &'static str, detail: String) {
        let event = Event { at_ns: self.now(), disk: self.disk, layer: self.layer, kind, detail };
        self.core.events.push(event);
    }

    /// Tells what a disk held before the trace, for whoever looks later whether a replica is the
    /// source's state.
    pub fn note_base(&mut self, disk: u16, offset_bytes: u64, io: IoId) {
        if self.core.data == DataMode::Bytes {
            self.core.base.note(disk, offset_bytes, self.core.slab.data(io));
        }
    }

    /// As [`Cx::event`], for each of the worker's disks: what a group tells of all of them.
    pub fn event_for_all(&mut self, kind: &'static str, detail: &str) {
        for disk in 0..self.core.disks {
            let (at_ns, detail) = (self.now(), detail.to_owned());
            self.core.events.push(Event { at_ns, disk, layer: self.layer, kind, detail });
        }
    }
}
