//! When the far side is gone, or does not move: its I/Os fail, everybody else goes on.

use std::sync::atomic::Ordering::Relaxed;

use serde_json::json;

use super::booking::tell;
use super::near::{Hop, Side};
use super::words::POLL;
use crate::clock::Ns;
use crate::filters::Cx;
use crate::slab::{IoId, NONE};

use super::ring::Message;

/// How long nothing comes before one looks whether anybody is there.
const LOOK_NS: Ns = 2_000_000;
const EIO: i32 = libc::EIO;

impl Hop {
    /// In virtual time: no time passes before every message is answered, so that runs repeat.
    pub(super) fn keep_step(&mut self, cx: &mut Cx<'_>) {
        loop {
            self.settle(cx, u32::MAX);
            if self.is_dead || !self.needs_poll() {
                return;
            }
            self.post(cx, Message::of(POLL));
            self.is_unpolled = false;
        }
    }

    /// Nothing has come for a while: is anybody there, and does it move?
    pub(super) fn look_after(&mut self, cx: &mut Cx<'_>) {
        let now = crate::clock::monotonic_ns();
        if now < self.next_look_ns {
            return;
        }
        self.next_look_ns = now + LOOK_NS;
        let hang_ns = self.placement.hang_ns;
        let moves = self.record_moves();
        let is_stuck = moves == self.stuck.0 && !moves.is_multiple_of(2);
        if !is_stuck {
            self.stuck = (moves, now);
        }
        let Some(Side::Process(process)) = &mut self.side else { return };
        if let Some(how) = process.ended() {
            // What it said before it ended counts.
            self.drain(cx);
            if !self.is_dead {
                self.bury(cx, "filter_crash", &how);
            }
            return;
        }
        if is_stuck && now.saturating_sub(self.stuck.1) > hang_ns {
            process.kill();
            let how = format!("hung (no return in {} s)", hang_ns as f64 / 1e9);
            self.bury(cx, "filter_hang", &how);
        }
    }

    fn record_moves(&self) -> u64 {
        let line = self.line.borrow();
        line.as_ref().map_or(0, |line| line.link.front().record.moves.load(Relaxed))
    }

    /// The process is gone: an event tells what it was doing, and its I/Os fail.
    pub(super) fn bury(&mut self, cx: &mut Cx<'_>, kind: &'static str, how: &str) {
        let (doing, io) = self.last_doing();
        let reason = format!("{how} in {doing}");
        let callback = doing.split(' ').next().unwrap_or_default();
        let detail = json!({ "reason": reason, "callback": callback, "io": io });
        self.end_process(cx, kind, detail.to_string());
    }

    /// It has let go of nothing for too long. A callback that has not returned for most of that
    /// time is why: it is told in place of `detail`, which names what it holds.
    pub(super) fn end_hung(&mut self, cx: &mut Cx<'_>, detail: &str) -> bool {
        let hang_ns = self.placement.hang_ns;
        let (moves, since) = self.stuck;
        let inside_ns = crate::clock::monotonic_ns().saturating_sub(since);
        if moves.is_multiple_of(2) || moves != self.record_moves() || inside_ns < hang_ns / 2 {
            return self.end_process(cx, "filter_hang", detail.to_owned());
        }
        let how = format!("hung (no return in {} s)", hang_ns as f64 / 1e9);
        if let Some(Side::Process(_)) = self.side {
            self.bury(cx, "filter_hang", &how);
            return true;
        }
        self.failure = Some(format!("{how} in {}", self.last_doing().0));
        false
    }

    /// Ends the other process, told by an event, and fails its I/Os; false where there is none.
    pub(super) fn end_process(
        &mut self,
        cx: &mut Cx<'_>,
        kind: &'static str,
        detail: String,
    ) -> bool {
        let Some(Side::Process(process)) = &mut self.side else { return false };
        process.kill();
        // That it cannot do its work is told by the event, and costs this disk alone.
        self.failure = None;
        tell(cx, cx.disk(), cx.now(), kind, detail);
        self.fail_all(cx);
        true
    }

    /// The callback that it was inside of, in words, and its I/O's number in the trace.
    fn last_doing(&self) -> (String, Option<u64>) {
        let line = self.line.borrow();
        let doing = line.as_ref().and_then(|line| line.link.front().record.doing());
        doing.unwrap_or_else(|| ("no callback".to_owned(), None))
    }

    pub(super) fn fail_all(&mut self, cx: &mut Cx<'_>) {
        self.is_dead = true;
        self.is_busy = false;
        for io in 0..self.ios.len() as IoId {
            self.fail_if_left(cx, io);
        }
    }

    /// Fails an I/O that the far side was to answer, once none of its children is under way.
    pub(super) fn fail_if_left(&mut self, cx: &mut Cx<'_>, io: IoId) {
        if io != NONE && self.ios[io as usize].away && cx.io(io).open_children == 0 {
            let now = cx.now();
            self.leave(cx, io, now);
            cx.finish(io, EIO);
        }
    }
}
