//! The chain's end of the line: what was sent and not yet answered, and the figures asked for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::ring::{ASLEEP, AWAKE, Link, Map, Message, processor};
use super::words::{self, *};
use crate::clock::Ns;
use crate::filters::foreign;

/// Looks at the ring before a short sleep on it.
const LOOKS: u32 = 200;
const NAP_NS: u64 = 1_000_000;

pub(super) struct Line {
    pub link: Link,
    /// Did not fit into the ring: the far side may itself wait for room in the other one.
    unsent: VecDeque<Message>,
    /// Came while figures were waited for.
    early: VecDeque<Message>,
    /// Messages that are not answered.
    pub open: u32,
    start_ns: Ns,
    asked: bool,
    gathered: Vec<(&'static str, i64)>,
    pub gauges: Vec<(&'static str, i64)>,
    pub usage: [u64; 4],
}

impl Line {
    pub fn new(map: Arc<Map>) -> Self {
        Self {
            link: Link::new(map, false),
            unsent: VecDeque::new(),
            early: VecDeque::new(),
            open: 0,
            start_ns: 0,
            asked: false,
            gathered: Vec::new(),
            gauges: Vec::new(),
            usage: [0; 4],
        }
    }

    pub fn starts_at(&mut self, start_ns: Ns) {
        if self.start_ns != start_ns {
            self.start_ns = start_ns;
            self.link.front().start_ns.store(start_ns, Relaxed);
        }
    }

    #[inline]
    pub fn post(&mut self, message: &Message) {
        self.open += 1;
        self.send(message);
    }

    /// A message that is not answered.
    #[inline]
    pub fn send(&mut self, message: &Message) {
        if !self.unsent.is_empty() || !self.link.push(message) {
            self.unsent.push_back(*message);
        }
        if self.link.other_sleeps() == ASLEEP {
            self.link.front().far_sleep.wake();
        }
    }

    /// Whether both sides take turns on one processor: who looks on keeps the other from answering.
    #[inline]
    pub fn shares_processor(&self) -> bool {
        let (here, front) = (processor(), self.link.front());
        front.near_cpu.store(here, Relaxed);
        front.far_cpu.load(Relaxed) == here
    }

    /// Sends what there is room for by now.
    pub fn send_rest(&mut self) {
        while let Some(message) = self.unsent.front() {
            if !self.link.push(message) {
                break;
            }
            self.unsent.pop_front();
        }
        if self.link.other_sleeps() == ASLEEP {
            self.link.front().far_sleep.wake();
        }
    }

    #[inline]
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub fn has_replies(&mut self) -> bool {
        !self.early.is_empty() || !self.link.is_empty()
    }

    #[inline]
    pub fn next(&mut self) -> Option<Message> {
        self.early.pop_front().or_else(|| self.link.pop())
    }

    /// Waits for a reply, a millisecond at most.
    pub fn nap(&mut self) {
        for _ in 0..LOOKS {
            if !self.link.is_empty() {
                return;
            }
            std::hint::spin_loop();
        }
        if self.link.lie_down(ASLEEP) {
            self.link.front().near_sleep.sleep(NAP_NS);
        }
        self.link.front().near_sleep.0.store(AWAKE, Relaxed);
    }

    /// Asks for the figures of the moment and waits for them, so many naps at most: then those of
    /// the last time have to do.
    pub fn ask(&mut self, naps: u32) {
        if !self.asked {
            self.asked = true;
            self.post(&Message::of(ASK_GAUGES));
        }
        let mut pieces = Vec::new();
        let mut left = naps;
        while self.asked && left > 0 {
            self.send_rest();
            let Some(message) = self.link.pop() else {
                self.nap();
                left -= 1;
                continue;
            };
            match message.kind {
                TEXT => pieces.push(message),
                GAUGE | GAUGED => {
                    let mut text = Vec::new();
                    pieces.drain(..).for_each(|piece| words::gather(&mut text, &piece));
                    self.figure(&message, &mut text);
                }
                _ => {
                    self.early.extend(pieces.drain(..));
                    self.early.push_back(message);
                }
            }
        }
        self.early.extend(pieces);
    }

    /// A [`GAUGE`] or [`GAUGED`] with the text before it.
    pub fn figure(&mut self, message: &Message, text: &mut Vec<u8>) {
        let name = words::take(text);
        if message.kind == GAUGE {
            return self.gathered.push((foreign::word(&name), message.a as i64));
        }
        self.gauges = std::mem::take(&mut self.gathered);
        self.usage = [message.offset_bytes, message.length_bytes, message.a, message.b];
        self.asked = false;
    }

    /// Throws away what comes: nobody is left to hear it.
    pub fn discard(&mut self) {
        while self.link.pop().is_some() {}
        self.early.clear();
    }

    /// The last message. Nothing is waited for any more.
    pub fn hang_up(&mut self) {
        self.unsent.clear();
        for _ in 0..1000 {
            if self.link.push(&Message::of(STOP)) {
                break;
            }
            self.discard();
            std::thread::yield_now();
        }
        self.link.front().far_sleep.wake();
    }
}
