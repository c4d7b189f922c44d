//! The stand-in in the chain: hands every I/O over, takes the answers back, and books the time.

use std::cell::RefCell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use super::booking::tell;
use super::far::{self, Start};
use super::life;
use super::line::Line;
use super::process::Process;
use super::ring::{ASLEEP_ELSEWHERE, AWAKE, Map, Message};
use super::words::{self, *};
use super::{Make, Placement, Spin, Told, Where};
use crate::backends::waker::Waker;
use crate::clock::Ns;
use crate::error::{Error, Result};
use crate::filters::{Answer, Auxiliary, Cx, Filter, Lifecycle, Up, foreign};
use crate::io::{OK, Status};
use crate::slab::{IoId, NONE};

/// A filter is built within this, or never; its last words come within this.
const READY_NAPS: u32 = 60_000;
const END_NAPS: u32 = 5_000;
/// Figures of the moment are waited for so long while others wait.
const GAUGE_NAPS: u32 = 20;
/// Where two sides spin on few processors, others need them too.
const YIELD_NS: Ns = 3_000;
const EIO: Status = libc::EIO;

/// What the far side has to do with an I/O.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Held {
    /// It is to answer.
    pub away: bool,
    /// The I/O is on its way up.
    pub is_up: bool,
    /// Its time runs in the filter.
    pub inside: bool,
    /// When a message about it was last sent.
    pub posted_ns: Ns,
}

pub(super) enum Side {
    Thread(JoinHandle<()>),
    Process(Process),
}

/// See [`super`].
pub struct Hop {
    pub(super) placement: Placement,
    spin: Spin,
    filter: Option<Box<dyn Filter>>,
    make: Option<Make>,
    lent: usize,
    auxiliaries: Vec<Auxiliary>,
    wants_complete: bool,
    is_polled: bool,
    /// In virtual time: every message is answered before time moves.
    is_in_step: bool,
    waker: Option<Waker>,
    pub(super) line: RefCell<Option<Line>>,
    pub(super) side: Option<Side>,
    pub(super) ios: Vec<Held>,
    told: Told,
    pub(super) text: Vec<u8>,
    /// When last something was sent or came.
    pub(super) moved_ns: Ns,
    pub(super) next_look_ns: Ns,
    /// The move of the record that is under way, and since when it was seen.
    pub(super) stuck: (u64, Ns),
    pub(super) is_busy: bool,
    /// Sent since the far side was last polled, in step.
    pub(super) is_unpolled: bool,
    /// Nobody is there any more: its I/Os fail.
    pub(super) is_dead: bool,
    pub(super) failure: Option<String>,
    /// What came of the disk's event that was told last.
    did: Option<Status>,
}

impl Hop {
    pub(super) fn new(
        placement: Placement,
        filter: Box<dyn Filter>,
        make: Option<Make>,
        lent: usize,
        told: Told,
    ) -> Self {
        Self {
            placement,
            spin: Spin::of(&placement),
            auxiliaries: filter.auxiliaries(),
            wants_complete: filter.wants_complete(),
            is_polled: filter.is_polled(),
            filter: Some(filter),
            make,
            lent,
            is_in_step: false,
            waker: None,
            line: RefCell::new(None),
            side: None,
            ios: Vec::new(),
            told,
            text: Vec::new(),
            moved_ns: 0,
            next_look_ns: 0,
            stuck: (0, 0),
            is_busy: false,
            is_unpolled: false,
            is_dead: false,
            failure: None,
            did: None,
        }
    }

    pub(super) fn post(&mut self, cx: &Cx<'_>, message: Message) {
        self.moved_ns = cx.now();
        self.is_unpolled = true;
        if let Some(line) = self.line.get_mut() {
            line.starts_at(cx.core.start_ns);
            line.post(&Message { b: self.moved_ns, disk: cx.disk(), ..message });
        }
    }

    /// A filter whose work is done yet elsewhere has been told something since it was last polled.
    pub(super) fn needs_poll(&self) -> bool {
        self.is_polled && self.is_unpolled
    }

    fn open_messages(&self) -> u32 {
        self.line.borrow().as_ref().map_or(0, |line| line.open)
    }

    fn next(&mut self) -> Option<Message> {
        self.line.get_mut().as_mut().and_then(Line::next)
    }

    pub(super) fn drain(&mut self, cx: &mut Cx<'_>) {
        let mut came = false;
        while let Some(message) = self.next() {
            self.hear(cx, &message);
            came = true;
        }
        if came {
            self.moved_ns = cx.now();
        }
    }

    fn close_one(&mut self) {
        if let Some(line) = self.line.get_mut() {
            line.open -= 1;
        }
    }

    fn hear(&mut self, cx: &mut Cx<'_>, message: &Message) {
        match message.kind {
            TEXT => words::gather(&mut self.text, message),
            OVER => self.close_one(),
            ANSWER => {
                if message.flags & MORE == 0 {
                    self.close_one();
                }
                self.is_busy = message.flags & BUSY != 0;
                if message.code == DID {
                    self.did = Some(message.status);
                }
                if message.io != NONE {
                    self.answered(cx, message);
                }
            }
            STATE => self.is_busy = message.flags & BUSY != 0,
            FORK => self.adopt(cx, message),
            RESUME => {
                self.leave(cx, message.io, message.b);
                cx.resume(message.io);
            }
            FINISH => {
                self.leave(cx, message.io, message.b);
                cx.finish(message.io, message.status);
            }
            COUNT => cx.count_blocks(message.io, message.a as u32, message.b as u32),
            SET_TIMER => {
                cx.core.set_timer(message.a, message.disk, cx.layer, message.b);
            }
            EVENT => {
                let text = words::take(&mut self.text);
                let (kind, detail) = text.split_once('\n').unwrap_or((&text, "{}"));
                tell(cx, cx.disk(), message.a, foreign::word(kind), detail.to_owned());
            }
            GAUGE | GAUGED => {
                if let Some(line) = self.line.get_mut() {
                    line.figure(message, &mut self.text);
                }
            }
            FAILURE => {
                let why = words::take(&mut self.text);
                if message.code != DONE {
                    self.failure = Some(why);
                } else if self.placement.placement == Where::Process {
                    self.bury(cx, "filter_crash", &why);
                } else {
                    self.failure = Some(why);
                    self.fail_all(cx);
                }
            }
            _ => {}
        }
    }
}

impl Hop {
    fn begin(&mut self, cx: &mut Cx<'_>) -> Result<()> {
        let slots = cx.core.slab.capacity();
        let map = Map::new(2 * slots.max(128))?;
        let is_process = self.placement.placement == Where::Process;
        let missing = || Error::failed("a placed filter has no way to wake its worker");
        let mut waker = self.waker.clone().ok_or_else(missing)?;
        let make: Make = match (self.make.take(), self.filter.take()) {
            (Some(make), _) if is_process => make,
            (_, Some(filter)) => Box::new(move || Ok(filter)),
            _ => return Err(missing()),
        };
        self.line.replace(Some(Line::new(Arc::clone(&map))));
        self.is_in_step = cx.core.clock.is_virtual();
        let core = cx.core.for_far_side(self.lent);
        let (layer, spin) = (cx.layer, self.spin);
        let start = |waker| Start { core, map, layer, spin, waker, is_process };
        self.side = Some(if is_process {
            let relay = super::process::Relay::for_waker(&mut waker)?;
            Side::Process(Process::fork(start(waker), make, relay)?)
        } else {
            let start = start(waker);
            let thread = std::thread::Builder::new().name("hop".to_owned());
            let spawned = thread.spawn(move || far::serve(start, make));
            Side::Thread(spawned.map_err(|e| Error::failed("cannot start a thread").caused_by(e))?)
        });
        self.await_ready(cx)
    }

    fn await_ready(&mut self, cx: &mut Cx<'_>) -> Result<()> {
        for _ in 0..READY_NAPS {
            while let Some(message) = self.next() {
                match message.kind {
                    READY => return Ok(()),
                    FAILURE => return Err(Error::input(words::take(&mut self.text))),
                    _ => self.hear(cx, &message),
                }
            }
            if let Some(Side::Process(process)) = &mut self.side
                && let Some(how) = process.ended()
            {
                return Err(Error::failed(format!("its process {how} while it was built")));
            }
            if let Some(line) = self.line.get_mut() {
                line.nap();
            }
        }
        Err(Error::failed("a placed filter was not built within a minute"))
    }

    /// Waits until every message is answered, so many naps at most.
    pub(super) fn settle(&mut self, cx: &mut Cx<'_>, naps: u32) {
        for _ in 0..naps {
            self.drain(cx);
            if self.is_dead || self.open_messages() == 0 {
                return;
            }
            self.look_after(cx);
            if let Some(line) = self.line.get_mut() {
                line.send_rest();
                line.nap();
            }
        }
    }

    fn ask(&self, naps: u32) {
        if let Some(line) = &mut *self.line.borrow_mut()
            && !self.is_dead
        {
            line.ask(naps);
        }
    }
}

impl Filter for Hop {
    fn place(&mut self, cx: &mut Cx<'_>) -> Result<()> {
        self.begin(cx)
    }

    fn open(&mut self, slots: usize) {
        self.ios.clear();
        self.ios.resize(slots, Held::default());
        if let Some(line) = self.line.get_mut() {
            line.post(&Message { a: slots as u64, ..Message::of(OPEN) });
        }
    }

    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        if self.is_dead {
            return Answer::Fail(EIO);
        }
        let it = cx.io(io);
        let message = Message {
            code: it.op as u8,
            io,
            flags: it.flags,
            offset_bytes: it.offset_bytes,
            length_bytes: it.length_bytes,
            a: it.seq,
            data: it.data as u64,
            data_bytes: it.data_bytes as u32,
            root: it.root,
            ..Message::of(START)
        };
        self.post(cx, message);
        self.ios[io as usize] =
            Held { away: true, is_up: false, inside: false, posted_ns: self.moved_ns };
        Answer::Defer
    }

    fn io_complete(&mut self, cx: &mut Cx<'_>, io: IoId) -> Up {
        if self.is_dead {
            return Up::Fail(EIO);
        }
        self.post(cx, Message { io, status: cx.io(io).status, ..Message::of(COMPLETE) });
        self.ios[io as usize] =
            Held { away: true, is_up: true, inside: false, posted_ns: self.moved_ns };
        Up::Defer
    }

    fn wants_complete(&self) -> bool {
        self.wants_complete
    }

    fn io_abort(&mut self, cx: &mut Cx<'_>, io: IoId) {
        if !self.is_dead {
            self.post(cx, Message { io, ..Message::of(ABORT) });
        }
    }

    fn child_complete(&mut self, cx: &mut Cx<'_>, parent: IoId, child: IoId) {
        if self.is_dead {
            return self.fail_if_left(cx, parent);
        }
        let status = cx.io(child).status;
        self.post(cx, Message { io: child, status, ..Message::of(CHILD_DONE) });
        if parent != NONE {
            self.ios[parent as usize].posted_ns = self.moved_ns;
        }
    }

    fn timer(&mut self, cx: &mut Cx<'_>, token: u64) {
        if !self.is_dead {
            self.post(cx, Message { a: token, ..Message::of(TIMER) });
        }
    }

    fn close(&mut self, cx: &mut Cx<'_>) {
        if !self.is_dead {
            self.post(cx, Message::of(CLOSE));
        }
    }

    fn is_busy(&self) -> bool {
        !self.is_dead && (self.is_busy || self.open_messages() > 0)
    }

    fn failure(&self) -> Option<String> {
        self.failure.clone()
    }

    fn end(&mut self, cx: &mut Cx<'_>) {
        if !self.is_dead {
            self.post(cx, Message::of(END));
            self.settle(cx, END_NAPS);
        }
    }

    fn lifecycle(
        &mut self,
        cx: &mut Cx<'_>,
        event: Lifecycle<'_>,
    ) -> std::result::Result<(), Status> {
        let (message, text) = life::told(event);
        if self.is_dead {
            return Err(EIO);
        }
        if let Some(line) = self.line.get_mut() {
            words::pieces(&text).for_each(|piece| line.send(&piece));
        }
        self.did = None;
        self.post(cx, message);
        self.settle(cx, END_NAPS);
        match self.did {
            Some(OK) => Ok(()),
            Some(status) => Err(status),
            None => Err(EIO),
        }
    }

    fn auxiliaries(&self) -> Vec<Auxiliary> {
        self.auxiliaries.clone()
    }

    fn is_polled(&self) -> bool {
        true
    }

    fn is_hop(&self) -> bool {
        true
    }

    fn give_up(&mut self, cx: &mut Cx<'_>, detail: &str) -> bool {
        self.end_hung(cx, detail)
    }

    fn wake_by(&mut self, waker: Waker) {
        self.waker = Some(waker);
    }

    fn poll(&mut self, cx: &mut Cx<'_>) {
        if self.is_dead {
            return;
        }
        if let Some(line) = self.line.get_mut() {
            line.link.front().near_sleep.0.store(AWAKE, Relaxed);
            if line.has_unsent() {
                line.send_rest();
            }
        }
        self.drain(cx);
        if self.is_in_step {
            self.keep_step(cx);
        } else if self.open_messages() > 0 {
            self.look_after(cx);
        }
    }

    fn may_sleep(&mut self, now: Ns) -> bool {
        let spin_ns = self.spin.ns(false);
        let Some(line) = self.line.get_mut().as_mut().filter(|_| !self.is_dead) else {
            return true;
        };
        if line.has_unsent() || line.has_replies() {
            return false;
        }
        if self.is_in_step {
            return line.open == 0;
        }
        let waited_ns = now.saturating_sub(self.moved_ns);
        if line.open > 0 && waited_ns < spin_ns {
            if line.shares_processor() || waited_ns > YIELD_NS {
                std::thread::yield_now();
            }
            return false;
        }
        line.link.lie_down(ASLEEP_ELSEWHERE)
    }

    fn used_elsewhere(&self) -> [u64; 4] {
        let Some(Side::Process(_)) = self.side else { return [0; 4] };
        self.ask(GAUGE_NAPS);
        self.line.borrow().as_ref().map_or([0; 4], |line| line.usage)
    }

    fn gauges(&self, out: &mut Vec<(&'static str, i64)>) {
        self.ask(GAUGE_NAPS);
        if let Some(line) = &*self.line.borrow() {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.clone_from(&line.gauges);
            let [user, system, ..] = line.usage;
            let sleeps = line.link.front().far_sleeps.load(Relaxed);
            out.push(("hop_cpu_ns", (user + system) as i64));
            out.push(("hop_sleeps", sleeps as i64));
        }
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        let Some(line) = self.line.get_mut() else { return };
        line.hang_up();
        match self.side.take() {
            Some(Side::Thread(thread)) => {
                while !thread.is_finished() {
                    line.discard();
                    line.nap();
                }
                let _ = thread.join();
            }
            Some(Side::Process(mut process)) => process.end(|| {
                line.discard();
                line.nap();
            }),
            None => {}
        }
    }
}
