//! A filter that is shown its I/Os many at a time: what Python needs, where entering the
//! interpreter costs more than an I/O.
//!
//! Every I/O is deferred as it comes, down or up, and all that have gathered are shown when the
//! worker next looks. What the filter gets wrong is told, not trusted, as in [`super::dylib`].

use std::cell::RefCell;

use super::foreign::misuse;
use super::{Answer, Child, Cx, Filter, Lifecycle, Up};
use crate::black_box::{Callback, Record, Shown};
use crate::clock::Ns;
use crate::io::{OK, Status};
use crate::slab::{IoId, NONE};

/// What a filter has to do with an I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    No,
    Down,
    Up,
}

/// The filter's answers to one batch, in the order of its I/Os. An answer that is missing fails
/// its I/O.
#[derive(Debug, Default)]
pub struct Answers {
    pub down: Vec<Answer>,
    pub up: Vec<Up>,
}

/// The far side: what it cannot do is an event of its own, and its answers then fail the I/Os.
pub trait Target: Send {
    fn open(&mut self, slots: usize);
    /// I/Os on their way down, and others on their way up.
    fn batch(&mut self, cx: &mut BatchCx<'_, '_>, down: &[IoId], up: &[IoId]) -> Answers;
    fn io_abort(&mut self, cx: &mut BatchCx<'_, '_>, io: IoId);
    /// False where the filter broke on it: then nobody else would end the parent.
    fn child_complete(&mut self, cx: &mut BatchCx<'_, '_>, child: IoId) -> bool;
    fn timer(&mut self, cx: &mut BatchCx<'_, '_>, token: u64);
    fn close(&mut self, cx: &mut BatchCx<'_, '_>);
    /// # Errors
    /// The errno of a filter that cannot do what was asked.
    fn lifecycle(&mut self, cx: &mut BatchCx<'_, '_>, event: Lifecycle<'_>) -> Result<(), Status>;
    /// # Errors
    /// What was raised, as the detail of an `error` event.
    fn gauges(&self, out: &mut Vec<(&'static str, i64)>) -> Result<(), String>;
    /// Why the filter cannot do its work.
    fn failure(&self) -> Option<String>;
}

/// A callback's context that knows which I/Os the filter holds.
pub struct BatchCx<'a, 'b> {
    pub cx: &'a mut Cx<'b>,
    held: &'a mut Vec<Held>,
    record: &'static Record,
}

impl BatchCx<'_, '_> {
    /// The filter turns to this I/O of its batch, or to so many from `io` to `last_seq`.
    #[inline]
    pub fn turn_to(&self, callback: Callback, io: &Shown, ios: u32, last_seq: u64) {
        self.record.note(callback, io, ios, last_seq);
    }

    /// Lets an I/O go on below; false where the filter does not hold it on its way down.
    pub fn resume(&mut self, io: IoId) -> bool {
        let held = self.let_go(io, &[Held::Down]);
        if held {
            self.cx.resume(io);
        }
        held
    }

    /// Ends an I/O; false where the filter does not hold it.
    pub fn finish(&mut self, io: IoId, status: Status) -> bool {
        let held = self.let_go(io, &[Held::Down, Held::Up]);
        if held {
            self.cx.finish(io, status.max(OK));
        }
        held
    }

    /// Forks a child; `None` where the filter does not hold the parent, or has too many.
    pub fn child(&mut self, parent: IoId, child: Child) -> Option<IoId> {
        let held = *self.held.get(parent as usize)? != Held::No;
        (held && self.cx.fits(child.length_bytes)).then(|| self.cx.child(parent, child)).flatten()
    }

    /// An I/O that no I/O waits for.
    pub fn background(&mut self, child: Child) -> Option<IoId> {
        self.cx.fits(child.length_bytes).then(|| self.cx.background(child)).flatten()
    }

    fn let_go(&mut self, io: IoId, ways: &[Held]) -> bool {
        match self.held.get_mut(io as usize) {
            Some(way) if ways.contains(way) && self.cx.io(io).open_children == 0 => {
                *way = Held::No;
                true
            }
            _ => false,
        }
    }
}

pub struct Batched {
    target: Box<dyn Target>,
    record: &'static Record,
    down: Vec<IoId>,
    up: Vec<IoId>,
    held: Vec<Held>,
    /// By I/O: it is to fail once its children are done, if the filter does not end it.
    is_broken: Vec<bool>,
    /// What `gauges` raised, until it is told, and what it raised last.
    raised: RefCell<Option<String>>,
    told: Option<String>,
}

impl Batched {
    #[must_use]
    pub fn new(target: Box<dyn Target>, record: &'static Record) -> Self {
        let (down, up, held, is_broken) = Default::default();
        let (raised, told) = Default::default();
        Self { target, record, down, up, held, is_broken, raised, told }
    }

    fn call<T>(
        &mut self,
        cx: &mut Cx<'_>,
        callback: Callback,
        io: Option<IoId>,
        call: impl FnOnce(&mut dyn Target, &mut BatchCx<'_, '_>) -> T,
    ) -> T {
        self.record.enter(callback, io.map(|io| cx.io(io)));
        let mut lent = BatchCx { cx, held: &mut self.held, record: self.record };
        let out = call(&mut *self.target, &mut lent);
        self.record.leave();
        out
    }

    /// Whether the filter has left an I/O of a batch to its answer, and may.
    fn is_open(&mut self, cx: &mut Cx<'_>, io: IoId, deferred: bool) -> bool {
        let held = &mut self.held[io as usize];
        if deferred {
            return false;
        }
        if *held == Held::No {
            misuse(cx, "an I/O was resumed or finished, and then not answered DEFER", io);
            return false;
        }
        if cx.io(io).open_children > 0 {
            misuse(cx, "an I/O with children under way was not answered DEFER", io);
            self.is_broken[io as usize] = true;
            return false;
        }
        *held = Held::No;
        true
    }
}

impl Filter for Batched {
    fn open(&mut self, slots: usize) {
        self.held.clear();
        self.held.resize(slots, Held::No);
        self.is_broken.clear();
        self.is_broken.resize(slots, false);
        self.record.enter(Callback::Open, None);
        self.target.open(slots);
        self.record.leave();
    }

    fn io_start(&mut self, _cx: &mut Cx<'_>, io: IoId) -> Answer {
        self.held[io as usize] = Held::Down;
        self.is_broken[io as usize] = false;
        self.down.push(io);
        Answer::Defer
    }

    fn io_complete(&mut self, _cx: &mut Cx<'_>, io: IoId) -> Up {
        self.held[io as usize] = Held::Up;
        self.is_broken[io as usize] = false;
        self.up.push(io);
        Up::Defer
    }

    fn is_polled(&self) -> bool {
        true
    }

    fn may_sleep(&mut self, _now: Ns) -> bool {
        self.down.is_empty() && self.up.is_empty()
    }

    fn poll(&mut self, cx: &mut Cx<'_>) {
        let (down, up) = (std::mem::take(&mut self.down), std::mem::take(&mut self.up));
        let Some(first) = down.first().or(up.first()) else { return };
        let answers =
            self.call(cx, Callback::Batch, Some(*first), |target, cx| target.batch(cx, &down, &up));
        let failed = Answer::Fail(libc::EIO);
        for (at, io) in down.iter().enumerate() {
            let answer = answers.down.get(at).copied().unwrap_or(failed);
            if !self.is_open(cx, *io, answer == Answer::Defer) {
                continue;
            }
            match answer {
                Answer::Pass => cx.resume(*io),
                Answer::Complete | Answer::Defer => cx.finish(*io, OK),
                Answer::Fail(status) => cx.finish(*io, status),
            }
        }
        for (at, io) in up.iter().enumerate() {
            let answer = answers.up.get(at).copied().unwrap_or(Up::Fail(libc::EIO));
            if !self.is_open(cx, *io, answer == Up::Defer) {
                continue;
            }
            let status = cx.io(*io).status;
            cx.finish(*io, if let Up::Fail(failure) = answer { failure } else { status });
        }
        // Their room is kept for the next batch.
        (self.down, self.up) = (emptied(down), emptied(up));
    }

    fn io_abort(&mut self, cx: &mut Cx<'_>, io: IoId) {
        self.call(cx, Callback::IoAbort, Some(io), |target, cx| target.io_abort(cx, io));
    }

    fn child_complete(&mut self, cx: &mut Cx<'_>, parent: IoId, child: IoId) {
        let status = cx.io(child).status;
        let is_taken = self.call(cx, Callback::ChildComplete, Some(child), |target, cx| {
            target.child_complete(cx, child)
        });
        if parent == NONE {
            return;
        }
        let is_broken = &mut self.is_broken[parent as usize];
        *is_broken |= !is_taken;
        // Left alone with a failed child, or when the filter broke, nobody would end its parent.
        let status = if *is_broken && status == OK { libc::EIO } else { status };
        let held = &mut self.held[parent as usize];
        if status != OK && *held != Held::No && cx.io(parent).open_children == 0 {
            *held = Held::No;
            cx.finish(parent, status);
        }
    }

    fn timer(&mut self, cx: &mut Cx<'_>, token: u64) {
        self.call(cx, Callback::Timer, None, |target, cx| target.timer(cx, token));
    }

    fn close(&mut self, cx: &mut Cx<'_>) {
        self.call(cx, Callback::Close, None, |target, cx| target.close(cx));
    }

    fn lifecycle(&mut self, cx: &mut Cx<'_>, event: Lifecycle<'_>) -> Result<(), Status> {
        self.call(cx, Callback::Message, None, |target, cx| target.lifecycle(cx, event))
    }

    fn gauges(&self, out: &mut Vec<(&'static str, i64)>) {
        self.record.enter(Callback::Gauges, None);
        let outcome = self.target.gauges(out);
        self.record.leave();
        *self.raised.borrow_mut() = outcome.err();
    }

    fn gauges_error(&mut self) -> Option<String> {
        let raised = self.raised.take()?;
        // Figures are asked for many times a second: what they raise again is known.
        (self.told.as_ref() != Some(&raised)).then(|| self.told.insert(raised).clone())
    }

    fn failure(&self) -> Option<String> {
        self.target.failure()
    }
}

fn emptied(mut ios: Vec<IoId>) -> Vec<IoId> {
    ios.clear();
    ios
}
