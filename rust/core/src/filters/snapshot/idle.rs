//! Snapshots that have nothing to send.

use super::{Cx, HEARD, SCHEDULE, Snapshot, start_ns};
use crate::cdp::line::Way;
use crate::clock::Ns;

impl Snapshot {
    /// Snapshots of a disk that has not changed hold what the disk holds: they are points as soon
    /// as the far end hears of them.
    pub(super) fn pass_idle(&mut self, cx: &mut Cx<'_>, now: Ns) {
        loop {
            let at = self.next_slot(cx).max(self.idle_since_ns);
            if at > now {
                return;
            }
            let start = start_ns(cx);
            let heard = start + self.settings.line.heard((at - start) as f64).ceil() as Ns;
            if heard > now {
                self.unheard_ns = Some(at);
                self.timer_at(cx, heard, HEARD);
                return;
            }
            self.idle_since_ns = heard;
            self.point(cx, at, heard, 0);
        }
    }

    pub(super) fn is_heard(&mut self, cx: &mut Cx<'_>) {
        let Some(cut_ns) = self.unheard_ns.take() else { return };
        let now = cx.now();
        self.idle_since_ns = now;
        self.point(cx, cut_ns, now, 0);
        let at = self.next_slot(cx).max(now);
        self.timer_at(cx, at, SCHEDULE);
    }
}
