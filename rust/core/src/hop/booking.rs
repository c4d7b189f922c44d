//! What an answer from the far side does to an I/O, and whom its time is booked to.
//!
//! The chain books the whole stay of an I/O behind the stand-in to the stand-in's layer. What is
//! told of the filter's callbacks, and of the time for which it held an I/O by its own choice, is
//! booked to the filter's layer inside: what is left to the stand-in is the hop.

use super::near::Hop;
use super::ring::Message;
use super::words::{DEFER, DONE, HAS_CHILDREN, PASS, TOLD};
use crate::clock::Ns;
use crate::filters::{Child, ChildData, Cx};
use crate::io::{OK, Op, row_flags};
use crate::pipeline::Event;
use crate::slab::{IoId, NONE};

impl Hop {
    /// A callback of an I/O is over: its time is the filter's, and so is what it goes on to hold.
    pub(super) fn answered(&mut self, cx: &mut Cx<'_>, message: &Message) {
        let io = message.io;
        let held = &mut self.ios[io as usize];
        let (now, is_up) = (cx.now(), held.is_up);
        // The other side's clock is its own: what it says lies between question and answer.
        let begin = message.a.clamp(held.posted_ns.min(now), now);
        let end = message.b.clamp(begin, now);
        let root = cx.core.slab.io(io).root;
        let filter = cx.layer as usize + 1;
        let was_inside = std::mem::replace(&mut held.inside, true);
        cx.core.book_cpu(root, filter, end - begin);
        if !was_inside && root != NONE {
            cx.core.slab.time_mut(root, filter).entered_at(begin);
        }
        match message.code {
            DEFER | TOLD => {
                if message.code == DEFER && root == io {
                    cx.core.slab.io_mut(io).row_flags |= row_flags::DEFERRED;
                }
                if message.flags & HAS_CHILDREN != 0 {
                    self.step_out(cx, io, end);
                }
                return;
            }
            _ => self.leave(cx, io, end),
        }
        match message.code {
            PASS if is_up => cx.finish(io, cx.io(io).status),
            PASS => cx.resume(io),
            DONE => cx.finish(io, OK),
            _ => cx.finish(io, message.status),
        }
    }

    /// The I/O waits for what is below, and for the hop there and back.
    fn step_out(&mut self, cx: &mut Cx<'_>, io: IoId, at: Ns) {
        let root = cx.core.slab.io(io).root;
        if std::mem::take(&mut self.ios[io as usize].inside) && root != NONE {
            let filter = cx.layer as usize + 1;
            let at = at.min(cx.now());
            cx.core.slab.time_mut(root, filter).left_at(at);
        }
    }

    /// The far side has done with the I/O for now.
    pub(super) fn leave(&mut self, cx: &mut Cx<'_>, io: IoId, at: Ns) {
        self.step_out(cx, io, at);
        self.ios[io as usize].away = false;
    }

    /// A child of the filter's: from here on it is one of the chain's.
    pub(super) fn adopt(&mut self, cx: &mut Cx<'_>, message: &Message) {
        if message.root != NONE {
            self.step_out(cx, message.root, message.b);
        }
        let child = Child {
            op: Op::from_code(message.code),
            offset_bytes: message.offset_bytes,
            length_bytes: message.length_bytes,
            flags: message.flags,
            data: ChildData::Own,
            tag: message.a,
        };
        let data = (message.data as *mut u8, message.data_bytes as usize);
        let device = u8::try_from(message.status).ok();
        cx.adopt(message.io, message.root, message.disk, child, data, device);
    }
}

/// An event of the filter's.
pub(super) fn tell(cx: &mut Cx<'_>, disk: u16, at_ns: Ns, kind: &'static str, detail: String) {
    let layer = cx.layer + 1;
    cx.core.events.push(Event { at_ns, disk, layer, kind, detail });
}
