use std::sync::atomic::AtomicBool;

use super::*;
use crate::backends::mem::Mem;
use crate::clock::{Clock, WallClock, monotonic_ns};
use crate::filters::DataMode;
use crate::io::{OK, Op};
use crate::pipeline::{Chains, Event, Pipeline};
use crate::slab::Slab;

/// Does something unusual at I/O 3.
#[derive(Clone, Copy)]
enum At3 {
    Abort,
    Hang,
    Panic,
}

struct Odd(At3);

impl Filter for Odd {
    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        if cx.io(io).seq == 3 {
            match self.0 {
                At3::Abort => std::process::abort(),
                At3::Hang => loop {
                    std::thread::yield_now();
                },
                At3::Panic => std::panic::resume_unwind(Box::new("enough")),
            }
        }
        Answer::Pass
    }
}

/// Sends six writes one after the other; their statuses, the events and why the round failed.
fn six(at: Where, odd: At3) -> (Vec<i32>, Vec<Event>, Option<String>) {
    let placement = Placement { placement: at, spin_ns: 20_000, hang_ns: 50_000_000 };
    let (stand_in, mark) = layers(placement, Box::new(Odd(odd)), None, 4);
    let chain: Vec<Box<dyn Filter>> = vec![Box::new(stand_in), Box::new(mark)];
    let slab = Slab::with_memory(16, 4096, 3, true).unwrap();
    let clock = Clock::Wall(WallClock::since(monotonic_ns()));
    let mem = Box::new(Mem::new(DataMode::Bytes));
    let mut pipeline = Pipeline::new(clock, slab, DataMode::Bytes, 1, Chains::single(chain), mem);
    pipeline.place().unwrap();
    pipeline.open();
    let mut statuses = Vec::new();
    for seq in 0..6 {
        let id = pipeline.core.slab.take(Op::Write, 4096).unwrap();
        let io = pipeline.core.slab.io_mut(id);
        (io.offset_bytes, io.length_bytes, io.seq) = (seq * 4096, 4096, seq);
        pipeline.submit(id);
        let mut done = Vec::new();
        while done.is_empty() {
            pipeline.poll().unwrap();
            pipeline.take_done(&mut done);
            if done.is_empty() && pipeline.may_sleep() {
                pipeline.wait(5_000_000).unwrap();
            }
        }
        statuses.push(pipeline.core.slab.io(id).status);
        pipeline.core.slab.give_back(id);
    }
    pipeline.close();
    while !pipeline.is_idle() {
        pipeline.poll().unwrap();
    }
    (statuses, pipeline.take_events(), pipeline.failure())
}

const LOST: [i32; 6] = [OK, OK, OK, libc::EIO, libc::EIO, libc::EIO];

#[test]
fn a_process_that_dies_fails_its_ios_and_is_named() {
    for (odd, kind, word) in [
        (At3::Abort, "filter_crash", "crashed (SIGABRT) in io_start of I/O 3 (write of 4096"),
        (At3::Hang, "filter_hang", "hung (no return in 0.05 s) in io_start of I/O 3"),
        (At3::Panic, "filter_crash", "it panicked: enough in io_start of I/O 3"),
    ] {
        let (statuses, events, failure) = six(Where::Process, odd);
        assert_eq!(statuses, LOST, "{kind}");
        let [event] = &events[..] else { unreachable!("{events:?}") };
        assert_eq!((event.kind, event.layer), (kind, 1));
        assert!(event.detail.contains(word), "{}", event.detail);
        assert!(event.detail.contains("\"io\":3"), "{}", event.detail);
        assert_eq!(failure, None, "the round goes on");
    }
}

#[test]
fn a_thread_that_panics_ends_the_round_by_name() {
    let (statuses, events, failure) = six(Where::Thread, At3::Panic);
    assert_eq!(statuses, LOST);
    assert!(events.is_empty());
    assert_eq!(failure.as_deref(), Some("it panicked: enough"));
}

/// Sets a flag when it goes.
struct Drops(Arc<AtomicBool>);

impl Filter for Drops {
    fn io_start(&mut self, _cx: &mut Cx<'_>, _io: IoId) -> Answer {
        Answer::Pass
    }
}

impl Drop for Drops {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn a_thread_ends_with_its_chain_and_a_filter_that_cannot_be_built_is_told() {
    for fails in [false, true] {
        let gone = Arc::new(AtomicBool::new(false));
        let at = if fails { Where::Process } else { Where::Thread };
        let placement = Placement { placement: at, spin_ns: 0, hang_ns: 1 << 40 };
        let make: Make = Box::new(|| Err(Error::input("filter[0].key: no such key")));
        let filter = Box::new(Drops(Arc::clone(&gone)));
        let (stand_in, mark) = layers(placement, filter, fails.then_some(make), 0);
        let chain: Vec<Box<dyn Filter>> = vec![Box::new(stand_in), Box::new(mark)];
        let slab = Slab::new(4, 4096, 3).unwrap();
        let mem = Box::new(Mem::new(DataMode::Bytes));
        let clock = Clock::Wall(WallClock::since(monotonic_ns()));
        let chains = Chains::single(chain);
        let mut pipeline = Pipeline::new(clock, slab, DataMode::Bytes, 1, chains, mem);
        let placed = pipeline.place();
        assert_eq!(placed.is_err(), fails);
        if let Err(error) = placed {
            assert!(error.to_string().contains("filter[0].key: no such key"), "{error}");
        }
        drop(pipeline);
        assert!(gone.load(std::sync::atomic::Ordering::SeqCst));
    }
}

/// Refuses to be resized, and tells of its snapshots.
struct Lives;

impl Filter for Lives {
    fn io_start(&mut self, _cx: &mut Cx<'_>, _io: IoId) -> Answer {
        Answer::Pass
    }

    fn lifecycle(
        &mut self,
        cx: &mut Cx<'_>,
        event: crate::filters::Lifecycle<'_>,
    ) -> std::result::Result<(), i32> {
        cx.event("told", format!("{event:?}"));
        if matches!(event, crate::filters::Lifecycle::Resize(_)) {
            Err(libc::ENOSPC)
        } else {
            Ok(())
        }
    }
}

#[test]
fn what_a_disk_goes_through_is_told_over_the_hop() {
    use crate::filters::Lifecycle;
    for at in [Where::Thread, Where::Process] {
        let placement = Placement { placement: at, spin_ns: 0, hang_ns: 1 << 40 };
        let (stand_in, mark) = layers(placement, Box::new(Lives), None, 0);
        let chain: Vec<Box<dyn Filter>> = vec![Box::new(stand_in), Box::new(mark)];
        let slab = Slab::with_memory(4, 4096, 3, true).unwrap();
        let mem = Box::new(Mem::new(DataMode::Bytes));
        let clock = Clock::Wall(WallClock::since(monotonic_ns()));
        let chains = Chains::single(chain);
        let mut pipeline = Pipeline::new(clock, slab, DataMode::Bytes, 1, chains, mem);
        pipeline.place().unwrap();
        pipeline.open();
        let name = "a name that is longer than one message of forty-eight bytes holds";
        assert_eq!(pipeline.tell(0, Lifecycle::Snapshot(name)), []);
        assert_eq!(pipeline.tell(0, Lifecycle::Resize(4096)), [(0, libc::ENOSPC)]);
        assert_eq!(pipeline.tell(0, Lifecycle::Message(b"hello")), []);
        let told: Vec<String> = pipeline.take_events().into_iter().map(|e| e.detail).collect();
        let expected = [format!("Snapshot({name:?})"), "Resize(4096)".to_owned()];
        assert_eq!(told[..2], expected);
        assert_eq!(told[2], "Message([104, 101, 108, 108, 111])");
    }
}
