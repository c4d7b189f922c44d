//! The framework's rules on scripted filters over memory, in virtual time.

use std::sync::{Arc, Mutex};

use super::*;
use crate::backends::mem::Mem;
use crate::filters::{Auxiliary, Filter, SECTOR_BYTES};

const EIO: Status = libc::EIO;

/// What a scripted filter does with I/Os at one offset; it passes all others.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Script {
    Pass,
    CompleteAt(u64),
    FailAt(u64),
    /// Holds the I/O for so many nanoseconds on its way down.
    HoldAt(u64, Ns),
    /// Holds it on its way up.
    HoldUpAt(u64, Ns),
    /// Reads the same range twice below itself, then finishes the I/O with its first copy.
    ForkAt(u64),
}

/// `(filter, "down" | "up", offset, status)` in the order seen.
type Log = Arc<Mutex<Vec<(usize, &'static str, u64, Status)>>>;

struct Scripted {
    name: usize,
    script: Script,
    log: Log,
    children: u32,
}

impl Filter for Scripted {
    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        let offset = cx.io(io).offset_bytes;
        self.log.lock().unwrap().push((self.name, "down", offset, OK));
        match self.script {
            Script::CompleteAt(at) if at == offset => Answer::Complete,
            Script::FailAt(at) if at == offset => Answer::Fail(EIO),
            Script::HoldAt(at, ns) if at == offset => {
                cx.timer(cx.now() + ns, u64::from(io));
                Answer::Defer
            }
            Script::ForkAt(at) if at == offset => {
                for data in [ChildData::Own, ChildData::Share { from_bytes: 0 }] {
                    let (op, length_bytes) = (cx.io(io).op, cx.io(io).length_bytes);
                    let child =
                        Child { op, offset_bytes: offset, length_bytes, flags: 0, data, tag: 7 };
                    assert!(cx.child(io, child).is_some());
                }
                self.children = 2;
                Answer::Defer
            }
            _ => Answer::Pass,
        }
    }

    fn io_complete(&mut self, cx: &mut Cx<'_>, io: IoId) -> Up {
        let (offset, status) = (cx.io(io).offset_bytes, cx.io(io).status);
        self.log.lock().unwrap().push((self.name, "up", offset, status));
        match self.script {
            Script::HoldUpAt(at, ns) if at == offset => {
                cx.timer(cx.now() + ns, u64::from(io));
                Up::Defer
            }
            _ => Up::Pass,
        }
    }

    fn child_complete(&mut self, cx: &mut Cx<'_>, parent: IoId, child: IoId) {
        assert_eq!(cx.io(child).tag, 7);
        self.children -= 1;
        if self.children == 0 {
            cx.finish(parent, OK);
        }
    }

    fn timer(&mut self, cx: &mut Cx<'_>, token: u64) {
        let io = token as IoId;
        if matches!(self.script, Script::HoldUpAt(..)) {
            cx.finish(io, OK);
        } else {
            cx.resume(io);
        }
    }
}

struct Rig {
    pipeline: Pipeline,
    log: Log,
}

impl Rig {
    fn new(scripts: &[Script]) -> Self {
        let log = Log::default();
        let chain = scripts
            .iter()
            .enumerate()
            .map(|(name, script)| {
                let filter = Scripted { name, script: *script, log: Arc::clone(&log), children: 0 };
                Box::new(filter) as Box<dyn Filter>
            })
            .collect();
        let slab = Slab::new(32, 1 << 16, scripts.len() + 1).unwrap();
        let mem = Box::new(Mem::new(DataMode::Bytes));
        let pipeline =
            Pipeline::new(Clock::Virtual(0), slab, DataMode::Bytes, 1, Chains::single(chain), mem);
        Self { pipeline, log }
    }

    fn submit(&mut self, op: Op, offset: u64, io_flags: u32) -> IoId {
        let bytes = if op.has_data() { SECTOR_BYTES as usize } else { 0 };
        let id = self.pipeline.core.slab.take(op, bytes).unwrap();
        let io = self.pipeline.core.slab.io_mut(id);
        io.disk = 0;
        io.offset_bytes = offset;
        io.length_bytes = bytes as u64;
        io.flags = io_flags;
        self.pipeline.submit(id);
        id
    }

    /// Lets time pass until nothing is left, and gives the roots in order of completion.
    fn run(&mut self) -> Vec<IoId> {
        let mut done = Vec::new();
        loop {
            self.pipeline.poll().unwrap();
            self.pipeline.take_done(&mut done);
            let Some(next) = self.pipeline.next_event_ns() else { return done };
            self.pipeline.core.clock.advance_to(next);
        }
    }

    fn seen(&self) -> Vec<(usize, &'static str, u64, Status)> {
        self.log.lock().unwrap().clone()
    }

    /// Self times by layer, as a row has them.
    fn self_ns(&self, id: IoId) -> Vec<u64> {
        let spans: Vec<u64> =
            self.pipeline.core.slab.times(id).iter().map(|time| time.span_ns).collect();
        let below = spans.iter().skip(1).copied().chain([0]);
        spans.iter().zip(below).map(|(span, below)| span - below).collect()
    }

    fn latency(&self, id: IoId) -> u64 {
        let io = self.pipeline.core.slab.io(id);
        io.complete_ns - io.submit_ns
    }
}

#[test]
fn nothing_is_kept_of_io_that_a_model_has_taken() {
    let mut rig = Rig::new(&[]);
    for _ in 0..3 {
        let id = rig.submit(Op::Write, 0, 0);
        assert_eq!(rig.run(), [id]);
        rig.pipeline.core.slab.give_back(id);
    }
    assert!(rig.pipeline.unkicked.is_empty(), "virtual time never kicks");
}

#[test]
fn goes_down_and_comes_back_up_nearest_to_the_disk_first() {
    let mut rig = Rig::new(&[Script::Pass, Script::Pass]);
    let id = rig.submit(Op::Read, 0, 0);
    assert_eq!(rig.run(), [id]);
    assert_eq!(
        rig.seen(),
        [(0, "down", 0, OK), (1, "down", 0, OK), (1, "up", 0, OK), (0, "up", 0, OK)]
    );
}

#[test]
fn an_answered_io_is_never_seen_below() {
    let mut rig = Rig::new(&[Script::Pass, Script::CompleteAt(0), Script::Pass]);
    let id = rig.submit(Op::Read, 0, 0);
    assert_eq!(rig.run(), [id]);
    assert_eq!(rig.pipeline.core.slab.io(id).status, OK);
    assert_eq!(rig.seen(), [(0, "down", 0, OK), (1, "down", 0, OK), (0, "up", 0, OK)]);
}

#[test]
fn only_filters_before_a_failure_are_told() {
    let mut rig = Rig::new(&[Script::Pass, Script::FailAt(0), Script::Pass]);
    let id = rig.submit(Op::Write, 0, 0);
    assert_eq!(rig.run(), [id]);
    assert_eq!(rig.pipeline.core.slab.io(id).status, EIO);
    assert_eq!(rig.seen(), [(0, "down", 0, OK), (1, "down", 0, OK), (0, "up", 0, EIO)]);
}

#[test]
fn a_deferred_io_holds_nobody_else() {
    for hold in [Script::HoldAt(0, 1000), Script::HoldUpAt(0, 1000)] {
        let mut rig = Rig::new(&[Script::Pass, hold]);
        let held = rig.submit(Op::Read, 0, 0);
        let free = rig.submit(Op::Read, 4096, 0);
        assert_eq!(rig.run(), [free, held], "{hold:?}");
        assert_eq!(rig.latency(held), 1000);
        assert_eq!(rig.latency(free), 0);
        assert_eq!(rig.self_ns(held), [0, 1000, 0], "the wait is the holder's own time");
        assert_ne!(rig.pipeline.core.slab.io(held).row_flags & row_flags::DEFERRED, 0);
    }
}

#[test]
fn children_start_below_their_filter_and_their_time_counts_once() {
    let scripts = [Script::Pass, Script::ForkAt(0), Script::HoldAt(0, 500)];
    let mut rig = Rig::new(&scripts);
    let id = rig.submit(Op::Read, 0, 0);
    assert_eq!(rig.run(), [id]);
    let downs = |name| rig.seen().iter().filter(|s| s.0 == name && s.1 == "down").count();
    assert_eq!((downs(0), downs(1), downs(2)), (1, 1, 2));
    assert_eq!(rig.latency(id), 500);
    assert_eq!(rig.self_ns(id), [0, 0, 500, 0], "two children at one time, 500 ns in all");
    assert!(rig.pipeline.is_idle());
    assert_eq!(rig.pipeline.core.slab.free_slots(), 31, "only the root still has its slot");
}

#[test]
fn a_write_with_preflush_waits_for_its_flush() {
    let mut rig = Rig::new(&[Script::HoldAt(0, 300)]);
    let id = rig.submit(Op::Write, 0, flags::PREFLUSH);
    assert_eq!(rig.run(), [id]);
    let seen = rig.seen();
    assert_eq!(seen.iter().filter(|s| s.1 == "down").count(), 2, "the flush, then the write");
    // The flush is at offset 0 too, and the filter holds both.
    assert_eq!(rig.latency(id), 600);
}

#[test]
fn self_times_add_up_to_the_latency() {
    let scripts =
        [Script::HoldAt(0, 10), Script::HoldUpAt(0, 20), Script::ForkAt(0), Script::HoldAt(0, 40)];
    let mut rig = Rig::new(&scripts);
    let id = rig.submit(Op::Read, 0, 0);
    assert_eq!(rig.run(), [id]);
    assert_eq!(rig.self_ns(id), [10, 20, 0, 40, 0]);
    assert_eq!(rig.self_ns(id).iter().sum::<u64>(), rig.latency(id));
}

#[test]
fn a_filter_that_forks_too_much_gets_no_child() {
    let mut rig = Rig::new(&[Script::Pass]);
    for _ in 0..31 {
        rig.pipeline.core.slab.take(Op::Read, 0).unwrap();
    }
    let id = rig.submit(Op::Write, 0, flags::PREFLUSH);
    assert_eq!(rig.run(), [id]);
    assert_eq!(rig.pipeline.core.slab.io(id).status, ENOMEM);
}

/// Writes each write to its second auxiliary device first, then lets it go on; reads pass.
struct Logging {
    seen: Arc<Mutex<Vec<u16>>>,
}

impl Filter for Logging {
    fn auxiliaries(&self) -> Vec<Auxiliary> {
        ["unused", "log"].map(|name| Auxiliary { name, path: None, size_bytes: 1 << 20 }).to_vec()
    }

    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        self.seen.lock().unwrap().push(cx.disk());
        let (op, offset_bytes, length_bytes) = {
            let io = cx.io(io);
            (io.op, io.offset_bytes, io.length_bytes)
        };
        if op != Op::Write {
            return Answer::Pass;
        }
        let data = ChildData::Share { from_bytes: 0 };
        let child = Child { op, offset_bytes, length_bytes, flags: 0, data, tag: 0 };
        assert!(cx.child_on(1, io, child).is_some());
        Answer::Defer
    }

    fn child_complete(&mut self, cx: &mut Cx<'_>, parent: IoId, _child: IoId) {
        cx.resume(parent);
    }
}

/// A backend that keeps what devices it was asked for.
struct Asked(Mem, Arc<Mutex<Vec<(u16, Op)>>>);

impl Backend for Asked {
    fn submit(&mut self, request: Request, now: Ns) {
        self.1.lock().unwrap().push((request.disk, request.op));
        self.0.submit(request, now);
    }

    fn reap(&mut self, now: Ns, out: &mut Vec<Completion>) -> Result<()> {
        self.0.reap(now, out)
    }

    fn wait(&mut self, timeout_ns: u64) -> Result<()> {
        self.0.wait(timeout_ns)
    }

    fn waker(&mut self) -> crate::backends::waker::Waker {
        self.0.waker()
    }
}

#[test]
fn an_instance_for_a_group_sees_every_disk_and_its_own_devices_follow_the_disks() {
    let (seen, asked) = (Arc::default(), Arc::default());
    let below = Arc::default();
    let pass = || {
        let filter =
            Scripted { name: 1, script: Script::Pass, log: Arc::clone(&below), children: 0 };
        Place::Own(Box::new(filter))
    };
    let mut chains = Chains::new(2);
    chains.add_disk(vec![Place::Own(Box::new(Logging { seen: Arc::clone(&seen) })), pass()]);
    chains.add_disk(vec![Place::Shared, pass()]);
    let slab = Slab::new(32, 1 << 16, 3).unwrap();
    let backend = Asked(Mem::new(DataMode::Bytes), Arc::clone(&asked));
    let mut pipeline =
        Pipeline::new(Clock::Virtual(0), slab, DataMode::Bytes, 2, chains, Box::new(backend));
    pipeline.open();
    for (disk, op) in [(0, Op::Write), (1, Op::Write), (1, Op::Read)] {
        let id = pipeline.core.slab.take(op, 4096).unwrap();
        let io = pipeline.core.slab.io_mut(id);
        (io.disk, io.offset_bytes, io.length_bytes, io.seq) = (disk, 0, 4096, 0);
        pipeline.submit(id);
        for _ in 0..3 {
            pipeline.poll().unwrap();
        }
        let mut done = Vec::new();
        pipeline.take_done(&mut done);
        assert_eq!(done, [id]);
        assert_eq!(pipeline.core.slab.io(id).status, OK);
        pipeline.core.slab.give_back(id);
    }
    assert_eq!(*seen.lock().unwrap(), [0, 1, 1]);
    // Two disks, then the filter's two devices: the log is number 3.
    let expected = [(3, Op::Write), (0, Op::Write), (3, Op::Write), (1, Op::Write), (1, Op::Read)];
    assert_eq!(*asked.lock().unwrap(), expected);
    // The log's I/Os passed no layer below, and came back to nobody but their owner.
    let downs = below.lock().unwrap().iter().filter(|entry| entry.1 == "down").count();
    assert_eq!((downs, below.lock().unwrap().len()), (3, 6));
    assert!(pipeline.is_idle());
}

/// Holds every I/O until it is given up, and keeps what it was told.
struct Holder {
    told: Arc<Mutex<Vec<String>>>,
}

impl Filter for Holder {
    fn io_start(&mut self, _cx: &mut Cx<'_>, _io: IoId) -> Answer {
        Answer::Defer
    }

    fn io_abort(&mut self, cx: &mut Cx<'_>, io: IoId) {
        cx.finish(io, libc::ECANCELED);
    }

    fn lifecycle(
        &mut self,
        _cx: &mut Cx<'_>,
        event: crate::filters::Lifecycle<'_>,
    ) -> std::result::Result<(), Status> {
        self.told.lock().unwrap().push(format!("{event:?}"));
        if matches!(event, crate::filters::Lifecycle::Resize(_)) { Err(EIO) } else { Ok(()) }
    }
}

#[test]
fn an_io_that_is_given_up_ends_and_every_filter_hears_of_the_disk_s_life() {
    use crate::filters::Lifecycle;
    let mut rig = Rig::new(&[Script::Pass]);
    let told = Arc::default();
    let chain: Vec<Box<dyn Filter>> = vec![Box::new(Holder { told: Arc::clone(&told) })];
    let slab = Slab::new(8, 4096, 2).unwrap();
    let mem = Box::new(Mem::new(DataMode::Bytes));
    rig.pipeline =
        Pipeline::new(Clock::Virtual(0), slab, DataMode::Bytes, 1, Chains::single(chain), mem);
    let id = rig.submit(Op::Write, 0, 0);
    assert!(!rig.pipeline.has_done());
    assert!(rig.pipeline.abort(id));
    assert!(rig.pipeline.has_done());
    assert_eq!(rig.pipeline.core.slab.io(id).status, libc::ECANCELED);
    assert_eq!(rig.pipeline.tell(0, Lifecycle::Stun), []);
    assert_eq!(rig.pipeline.tell(0, Lifecycle::Resize(4096)), [(0, EIO)]);
    assert_eq!(*told.lock().unwrap(), ["Stun", "Resize(4096)"]);
}
