//! The far side: takes messages in, runs the filter's callbacks, says what came of them.
//!
//! The filter sees a `Cx` like any other. Behind it is a core of its own: I/Os as the messages told
//! of them, over the bytes of the chain's slab, and slots for its children that are its alone.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::Spin;
use super::life;
use super::ring::{ASLEEP, ASLEEP_ELSEWHERE, AWAKE, Link, Map, Message, processor};
use super::words::{self, *};
use crate::backends::waker::{Wake, Waker};
use crate::black_box::{Callback, Watched};
use crate::clock::{Ns, usage};
use crate::error::Result;
use crate::filters::{Answer, Cx, Filter, Up};
use crate::io::{OK, Op};
use crate::pipeline::{Action, Core};
use crate::slab::{IoId, NONE, ON_DISK};

/// A sleep of this side at most, so that it looks whether anybody is there at all.
const SLEEP_NS: u64 = 1_000_000_000;
/// Where two sides spin on few processors, others need them too.
const YIELD_EVERY: u32 = 64;

pub(super) struct Far {
    filter: Box<dyn Filter>,
    core: Core,
    link: Link,
    layer: u8,
    spin: Spin,
    /// Ends the other side's sleep in its backend.
    waker: Waker,
    /// Its CPU is the whole process's.
    is_process: bool,
    is_polled: bool,
    is_busy: bool,
    has_failed: bool,
    /// Gathered for the message that follows.
    text: Vec<u8>,
}

/// Ends the far side's own sleep: given to a filter whose work is done yet elsewhere.
struct Nudge(Arc<Map>);

impl Wake for Nudge {
    fn wake(&self) {
        let front = self.0.front();
        front.nudged.store(1, SeqCst);
        if front.far_sleep.0.load(SeqCst) == ASLEEP {
            front.far_sleep.wake();
        }
    }
}

/// What the far side is given to begin with.
pub(super) struct Start {
    pub core: Core,
    pub map: Arc<Map>,
    pub layer: u8,
    pub spin: Spin,
    pub waker: Waker,
    pub is_process: bool,
}

/// Builds the filter and serves until told to stop. A filter that cannot be built, or panics, is
/// told of, and nothing more is done.
pub(super) fn serve(start: Start, make: impl FnOnce() -> Result<Box<dyn Filter>>) {
    let Start { core, map, layer, spin, waker, is_process } = start;
    let watch = Arc::clone(&map);
    let _watched = Watched::by(&watch.front().record);
    let mut link = Link::new(Arc::clone(&map), true);
    crate::clock::end_sleeps_in_time();
    let mut filter = match catch_unwind(AssertUnwindSafe(make)) {
        Ok(Ok(filter)) => filter,
        Ok(Err(error)) => return give_up(&mut link, &waker, &error.to_string()),
        Err(panic) => return give_up(&mut link, &waker, &panicked(&*panic)),
    };
    let is_polled = filter.is_polled();
    if is_polled {
        filter.wake_by(Arc::new(Nudge(map)));
    }
    let mut far = Far {
        filter,
        core,
        link,
        layer,
        spin,
        waker,
        is_process,
        is_polled,
        is_busy: false,
        has_failed: false,
        text: Vec::new(),
    };
    far.say(&Message::of(READY));
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| far.run())) {
        give_up(&mut far.link, &far.waker, &panicked(&*panic));
    }
}

fn panicked(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let words = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    format!("it panicked: {words}")
}

/// The last words of a side that does nothing any more.
fn give_up(link: &mut Link, waker: &Waker, why: &str) {
    for piece in words::pieces(why.as_bytes()) {
        post(link, waker, &piece);
    }
    post(link, waker, &Message { code: DONE, ..Message::of(FAILURE) });
}

fn post(link: &mut Link, waker: &Waker, message: &Message) {
    while !link.push(message) {
        std::thread::yield_now();
    }
    wake_near(link, waker);
}

fn wake_near(link: &Link, waker: &Waker) {
    match link.other_sleeps() {
        ASLEEP => link.front().near_sleep.wake(),
        ASLEEP_ELSEWHERE => {
            link.front().near_sleep.0.store(AWAKE, Relaxed);
            waker.wake();
        }
        _ => {}
    }
}

/// How a callback answered.
type Code = (u8, i32);

impl Far {
    fn run(&mut self) {
        loop {
            let mut has_worked = false;
            while let Some(message) = self.link.pop() {
                if message.kind == STOP {
                    return;
                }
                self.hear(&message);
                has_worked = true;
            }
            let is_lockstep = self.core.clock.is_virtual();
            if self.is_polled && !is_lockstep {
                has_worked |= self.poll();
            }
            if !has_worked {
                self.rest();
            }
        }
    }

    fn hear(&mut self, message: &Message) {
        if self.core.clock.is_virtual() {
            self.core.clock.advance_to(message.b);
        }
        self.core.start_ns = self.link.front().start_ns.load(Relaxed);
        let (io, disk) = (message.io, message.disk);
        match message.kind {
            START => {
                self.take_in(message);
                self.call(io, disk, Callback::IoStart, io, |filter, cx| {
                    code_of(filter.io_start(cx, io))
                });
            }
            COMPLETE => {
                self.core.slab.io_mut(io).status = message.status;
                self.call(io, disk, Callback::IoComplete, io, |filter, cx| {
                    match filter.io_complete(cx, io) {
                        Up::Pass => (PASS, OK),
                        Up::Fail(status) => (FAIL, status),
                        Up::Defer => (DEFER, OK),
                    }
                });
            }
            CHILD_DONE => self.child_done(message),
            ABORT => self.tell(disk, Callback::IoAbort, io, |filter, cx| filter.io_abort(cx, io)),
            TIMER => {
                self.tell(disk, Callback::Timer, NONE, |filter, cx| filter.timer(cx, message.a));
            }
            OPEN => self.tell(disk, Callback::Open, NONE, |filter, _| {
                filter.open(message.a as usize);
            }),
            CLOSE => self.tell(disk, Callback::Close, NONE, |filter, cx| filter.close(cx)),
            END => self.tell(disk, Callback::Close, NONE, |filter, cx| filter.end(cx)),
            POLL => self.tell(disk, Callback::Poll, NONE, |filter, cx| {
                // In step with the other side, all that has gathered is done at once.
                for _ in 0..1000 {
                    filter.poll(cx);
                    if filter.may_sleep(cx.now()) {
                        break;
                    }
                }
            }),
            ASK_GAUGES => self.tell_gauges(disk),
            TEXT => words::gather(&mut self.text, message),
            LIFE => {
                let text = std::mem::take(&mut self.text);
                self.call(NONE, disk, Callback::Message, NONE, |filter, cx| {
                    let told = life::heard(message, &text, |event| filter.lifecycle(cx, event));
                    (DID, told.err().unwrap_or(OK))
                });
            }
            _ => {}
        }
    }

    /// The I/O as this side sees it.
    fn take_in(&mut self, message: &Message) {
        let (data, bytes) = (message.data as *mut u8, message.data_bytes as usize);
        self.core.slab.begin(message.io, Op::from_code(message.code), data, bytes);
        let io = self.core.slab.io_mut(message.io);
        (io.disk, io.flags, io.seq) = (message.disk, message.flags, message.a);
        (io.offset_bytes, io.length_bytes) = (message.offset_bytes, message.length_bytes);
        (io.root, io.layer) = (message.root, self.layer);
    }

    fn child_done(&mut self, message: &Message) {
        let child = message.io;
        let io = self.core.slab.io_mut(child);
        io.status = message.status;
        let parent = io.parent;
        self.core.is_done(parent);
        self.call(parent, message.disk, Callback::ChildComplete, child, |filter, cx| {
            filter.child_complete(cx, parent, child);
            (TOLD, OK)
        });
        self.core.slab.give_back(child);
    }

    fn tell(
        &mut self,
        disk: u16,
        callback: Callback,
        io: IoId,
        call: impl FnOnce(&mut dyn Filter, &mut Cx<'_>),
    ) {
        self.call(NONE, disk, callback, io, |filter, cx| {
            call(filter, cx);
            (TOLD, OK)
        });
    }

    /// One callback: noted, timed, and what came of it said. Its time is `booked` to an I/O.
    fn call(
        &mut self,
        booked: IoId,
        disk: u16,
        callback: Callback,
        io: IoId,
        call: impl FnOnce(&mut dyn Filter, &mut Cx<'_>) -> Code,
    ) {
        let about = (io != NONE).then(|| self.core.slab.io(io));
        self.link.front().record.enter(callback, about);
        let begin = self.core.clock.now();
        let mut cx = Cx { core: &mut self.core, layer: self.layer, disk };
        let (code, status) = call(&mut *self.filter, &mut cx);
        let end = self.core.clock.now();
        self.link.front().record.leave();
        if matches!(callback, Callback::Close | Callback::Poll | Callback::ChildComplete) {
            self.look_at_filter();
        }
        self.say_counts();
        let has_children = booked != NONE && self.core.slab.io(booked).open_children > 0;
        let has_more = self.has_more();
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        self.say(&Message {
            code,
            io: booked,
            status,
            flags: flag(self.is_busy, BUSY)
                | flag(has_children, HAS_CHILDREN)
                | flag(has_more, MORE),
            a: begin,
            b: end,
            ..Message::of(ANSWER)
        });
        if has_more {
            self.say_actions(end);
            self.say(&Message::of(OVER));
        }
    }

    /// Whether a callback asked for anything beside its answer.
    fn has_more(&self) -> bool {
        let core = &self.core;
        !(core.actions.is_empty() && core.events.is_empty() && core.timers.is_empty())
    }

    /// A filter whose work is done yet elsewhere; whether anything came of it.
    fn poll(&mut self) -> bool {
        self.link.front().nudged.store(0, SeqCst);
        let begin = self.core.clock.now();
        let was_busy = self.is_busy;
        let mut cx = Cx { core: &mut self.core, layer: self.layer, disk: 0 };
        self.link.front().record.enter(Callback::Poll, None);
        self.filter.poll(&mut cx);
        self.link.front().record.leave();
        let end = self.core.clock.now();
        self.look_at_filter();
        if !self.has_more() && was_busy == self.is_busy {
            return false;
        }
        self.say_counts();
        let flags = if self.is_busy { BUSY } else { 0 };
        self.say(&Message { flags, a: begin, b: end, ..Message::of(STATE) });
        self.say_actions(end);
        true
    }

    fn look_at_filter(&mut self) {
        self.is_busy = self.filter.is_busy();
        if !self.has_failed
            && let Some(why) = self.filter.failure()
        {
            self.has_failed = true;
            self.say_text(&why);
            self.say(&Message::of(FAILURE));
        }
    }

    fn say_counts(&mut self) {
        let mut counted = self.core.counted.take().unwrap_or_default();
        for (io, blocks, hits) in counted.drain(..) {
            self.say(&Message { io, a: blocks.into(), b: hits.into(), ..Message::of(COUNT) });
        }
        self.core.counted = Some(counted);
    }

    fn say_actions(&mut self, at_ns: Ns) {
        while let Some(action) = self.core.actions.pop_front() {
            match action {
                Action::Start { io } => self.say_fork(io, at_ns),
                Action::Resume { io } => {
                    self.say(&Message { io, b: at_ns, ..Message::of(RESUME) });
                }
                Action::Finish { io, status, .. } => {
                    self.say(&Message { io, status, b: at_ns, ..Message::of(FINISH) });
                }
            }
        }
        while let Some(std::cmp::Reverse((at, _, disk, _, token))) = self.core.timers.pop() {
            self.say(&Message { disk, a: at, b: token, ..Message::of(SET_TIMER) });
        }
        for event in std::mem::take(&mut self.core.events) {
            self.say_text(&format!("{}\n{}", event.kind, event.detail));
            self.say(&Message { disk: event.disk, a: event.at_ns, ..Message::of(EVENT) });
        }
    }

    fn say_fork(&mut self, id: IoId, at_ns: Ns) {
        let io = self.core.slab.io(id);
        let device = if io.auxiliary == ON_DISK { -1 } else { i32::from(io.auxiliary) };
        let message = Message {
            code: io.op as u8,
            disk: io.disk,
            io: id,
            flags: io.flags,
            status: device,
            offset_bytes: io.offset_bytes,
            length_bytes: io.length_bytes,
            a: io.tag,
            b: at_ns,
            data: io.data as u64,
            data_bytes: io.data_bytes as u32,
            root: io.parent,
            ..Message::of(FORK)
        };
        self.say(&message);
    }

    fn tell_gauges(&mut self, disk: u16) {
        let mut gauges = Vec::new();
        self.filter.settle(self.core.clock.now());
        self.filter.gauges(&mut gauges);
        if let Some(detail) = self.filter.gauges_error() {
            Cx { core: &mut self.core, layer: self.layer, disk }.event("error", detail);
            self.say_actions(self.core.clock.now());
        }
        for (name, value) in gauges {
            self.say_text(name);
            self.say(&Message { a: value as u64, ..Message::of(GAUGE) });
        }
        let [user, system, voluntary, involuntary] = usage(self.is_process);
        self.say(&Message {
            offset_bytes: user,
            length_bytes: system,
            a: voluntary,
            b: involuntary,
            ..Message::of(GAUGED)
        });
        self.say(&Message { code: TOLD, ..Message::of(ANSWER) });
    }

    fn say_text(&mut self, text: &str) {
        for piece in words::pieces(text.as_bytes()) {
            self.say(&piece);
        }
    }

    fn say(&mut self, message: &Message) {
        post(&mut self.link, &self.waker, message);
    }

    /// Looks at the ring for a while, then sleeps until somebody wakes it.
    fn rest(&mut self) {
        let since = self.core.clock.now();
        let spin_ns = self.spin.ns(self.core.clock.is_virtual());
        let mut looks = 0u32;
        loop {
            if !self.link.is_empty() || self.link.front().nudged.load(Relaxed) != 0 {
                return;
            }
            looks = looks.wrapping_add(1);
            let here = processor();
            self.link.front().far_cpu.store(here, Relaxed);
            let is_in_the_way = self.link.front().near_cpu.load(Relaxed) == here;
            if is_in_the_way || looks.is_multiple_of(YIELD_EVERY) {
                if self.core.clock.is_virtual() {
                    break;
                }
                self.core.clock.discipline();
                if self.core.clock.now() >= since + spin_ns {
                    break;
                }
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        if self.is_polled && !self.filter.may_sleep(self.core.clock.now()) {
            return;
        }
        if self.link.lie_down(ASLEEP) {
            let front = self.link.front();
            if front.nudged.load(SeqCst) == 0 {
                front.far_sleeps.fetch_add(1, Relaxed);
                front.far_sleep.sleep(SLEEP_NS);
            }
            front.far_sleep.0.store(AWAKE, Relaxed);
        }
        self.core.clock.discipline();
    }
}

const fn code_of(answer: Answer) -> Code {
    match answer {
        Answer::Pass => (PASS, OK),
        Answer::Complete => (DONE, OK),
        Answer::Fail(status) => (FAIL, status),
        Answer::Defer => (DEFER, OK),
    }
}
