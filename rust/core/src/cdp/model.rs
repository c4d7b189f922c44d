//! A modelled link with a replica at its far end, for virtual time: bandwidth, round trip, and
//! the faults that a policy declares. A byte has arrived at the end of its transmission and half
//! a round trip; acknowledgements take half a round trip and no bandwidth.

use std::collections::VecDeque;
use std::sync::Arc;

use super::entry::Entry;
use super::faults::Fault;
use super::frame::Frame;
use super::link::{Ack, Link, LinkEvent};
use super::replica::{Replica, Synced};
use super::vault::Vault;
use crate::clock::Ns;

/// What a restart of the modelled site does to its vault.
pub trait Crash {
    fn crash(&mut self);
}

impl Crash for super::vault::Counts {
    fn crash(&mut self) {}
}

impl Crash for super::vault::Memory {
    fn crash(&mut self) {
        Self::crash(self);
    }
}

/// A link's nature.
#[derive(Debug, Clone)]
pub struct Line {
    /// Of data: headers take no time.
    pub bytes_per_s: f64,
    pub rtt_ns: Ns,
    /// Share of a body's bytes that travels, with compression.
    pub compression_ratio: f64,
    /// How long after its arrival an entry is durable.
    pub sync_ns: Ns,
    pub faults: Vec<Fault>,
}

/// A frame on its way to the site: most are entries.
enum Going {
    Entry(Arc<Entry>),
    Word(Box<Frame>),
}

/// A frame on its way back: most are confirmations without points.
enum Coming {
    Ack { received_no: u64, durable_no: u64 },
    Word(Box<Frame>),
}

enum Connection {
    Down,
    /// Up at this time, if nothing happens before.
    Opening(Ns),
    Up,
}

/// The model. Everything in it happens in the order of time, whenever it is looked at.
pub struct Model<V> {
    line: Line,
    pub replica: Replica<V>,
    connection: Connection,
    /// From now on, sorted by time, last first.
    faults: Vec<Fault>,
    outage_until_ns: Ns,
    site_down_until_ns: Ns,
    shaped: bool,
    /// When the last frame will have left, and what is on its way, by arrival.
    busy_until_ns: Ns,
    forward: VecDeque<(Ns, Going)>,
    /// What is on its way back, by arrival, and how long it takes.
    back: VecDeque<(Ns, Coming, Ns)>,
    /// An entry was taken and is not durable yet; when it will be.
    sync_at_ns: Option<Ns>,
    told: Vec<LinkEvent>,
    looked_ns: Ns,
    pub sent_bytes: u64,
    busy_ns: Ns,
}

impl<V: Vault + Crash> Model<V> {
    #[must_use]
    pub fn new(line: Line, vault: V) -> Self {
        let mut faults = line.faults.clone();
        faults.sort_by_key(|fault| std::cmp::Reverse(fault.at_ns()));
        Self {
            line,
            replica: Replica::new(vault),
            connection: Connection::Down,
            faults,
            outage_until_ns: 0,
            site_down_until_ns: 0,
            shaped: true,
            busy_until_ns: 0,
            forward: VecDeque::new(),
            back: VecDeque::new(),
            sync_at_ns: None,
            told: Vec::new(),
            looked_ns: 0,
            sent_bytes: 0,
            busy_ns: 0,
        }
    }

    /// Faults count from here on: the trace's start.
    pub fn start_faults(&mut self, start_ns: Ns) {
        for fault in &mut self.faults {
            match fault {
                Fault::Outage { from_ns, to_ns } => {
                    *from_ns += start_ns;
                    *to_ns += start_ns;
                }
                Fault::Restart { at_ns, back_ns } => {
                    *at_ns += start_ns;
                    *back_ns += start_ns;
                }
                Fault::Reset { at_ns }
                | Fault::Bandwidth { at_ns, .. }
                | Fault::Rtt { at_ns, .. } => {
                    *at_ns += start_ns;
                }
            }
        }
    }

    /// Adds a fault: for tests that make them up as they go.
    pub fn fault(&mut self, fault: Fault) {
        let at = self.faults.partition_point(|other| other.at_ns() > fault.at_ns());
        self.faults.insert(at, fault);
    }

    /// Entries that have left the source and not arrived.
    #[must_use]
    pub fn in_flight(&self, now: Ns) -> usize {
        self.forward.iter().filter(|(at, _)| *at > now).count()
    }

    #[must_use]
    pub fn is_disturbed(&self, now: Ns) -> bool {
        now < self.outage_until_ns
            || now < self.site_down_until_ns
            || !matches!(self.connection, Connection::Up)
    }

    const fn half_rtt_ns(&self) -> Ns {
        if self.shaped { self.line.rtt_ns / 2 } else { 0 }
    }

    fn transmission_ns(&self, bytes: u64) -> Ns {
        if !self.shaped {
            return 0;
        }
        let took = bytes as f64 / self.line.bytes_per_s * 1e9;
        // Rounded up; a call to the library's `ceil` would take longer than all else here.
        let whole = took as Ns;
        whole + Ns::from((whole as f64) < took)
    }

    /// Before the trace starts the line is neither shaped nor disturbed.
    fn next_fault_ns(&self) -> Ns {
        self.faults.last().filter(|_| self.shaped).map_or(Ns::MAX, Fault::at_ns)
    }

    /// Everything that happens up to `now`, in its order.
    pub fn advance(&mut self, now: Ns) {
        loop {
            let fault = self.next_fault_ns();
            let arrival = self.forward.front().map_or(Ns::MAX, |(at, _)| *at);
            let sync = self.sync_at_ns.unwrap_or(Ns::MAX);
            let next = fault.min(arrival).min(sync);
            if next > now {
                break;
            }
            if fault == next {
                self.strike();
            } else if sync == next {
                self.sync_at_ns = None;
                let answer = self.make_durable(next);
                self.reply(next, answer);
            } else if let Some((at, frame)) = self.forward.pop_front() {
                let answer = self.arrive(at, frame);
                self.reply(at, answer);
            }
        }
        if let Connection::Opening(at) = self.connection
            && at <= now
        {
            self.connection = Connection::Up;
            self.busy_until_ns = self.busy_until_ns.max(at);
            self.told.push(LinkEvent::Up);
        }
    }

    fn strike(&mut self) {
        let Some(fault) = self.faults.pop() else { return };
        match fault {
            Fault::Outage { from_ns, to_ns } => self.pause(from_ns, to_ns),
            Fault::Reset { at_ns } => self.disconnect(at_ns, "connection reset"),
            Fault::Restart { at_ns, back_ns } => {
                self.disconnect(at_ns, "the site is gone");
                self.replica.vault.crash();
                self.replica.restart();
                self.sync_at_ns = None;
                self.site_down_until_ns = self.site_down_until_ns.max(back_ns);
            }
            Fault::Bandwidth { at_ns, bytes_per_s } => {
                // What waits for its transmission takes longer, or less long.
                let scale = self.line.bytes_per_s / bytes_per_s;
                let half = self.half_rtt_ns();
                // What is left of an outage does not.
                let from = at_ns.max(self.outage_until_ns);
                for (at, _) in &mut self.forward {
                    let left = at.saturating_sub(half);
                    if left > from {
                        *at = from + ((left - from) as f64 * scale) as Ns + half;
                    }
                }
                if self.busy_until_ns > from {
                    let left = (self.busy_until_ns - from) as f64;
                    self.busy_until_ns = from + (left * scale) as Ns;
                }
                self.line.bytes_per_s = bytes_per_s;
            }
            Fault::Rtt { rtt_ns, .. } => self.line.rtt_ns = rtt_ns,
        }
    }

    /// Nothing passes from then on. Of an outage that begins in another only the rest counts.
    fn pause(&mut self, from_ns: Ns, to_ns: Ns) {
        let pause = to_ns.saturating_sub(from_ns.max(self.outage_until_ns));
        self.outage_until_ns = self.outage_until_ns.max(to_ns);
        if self.busy_until_ns > from_ns {
            self.busy_until_ns += pause;
        }
        // What was on its way is sent again by the transport once it can.
        for (at, _) in &mut self.forward {
            *at += pause;
        }
        for (at, _, one_way_ns) in &mut self.back {
            if *at > from_ns {
                *at += pause;
                *one_way_ns += pause;
            }
        }
        if let Connection::Opening(at) = &mut self.connection
            && *at > from_ns
        {
            *at += pause;
        }
    }

    fn disconnect(&mut self, at_ns: Ns, why: &str) {
        self.forward.clear();
        self.back.clear();
        self.busy_until_ns = at_ns;
        if !matches!(self.connection, Connection::Down) {
            self.connection = Connection::Down;
            self.told.push(LinkEvent::Down(why.to_owned()));
        }
    }

    /// What the site says to a frame that arrives.
    #[inline]
    fn arrive(&mut self, at: Ns, frame: Going) -> Option<Coming> {
        let word = match frame {
            Going::Entry(entry) => return self.take(&entry, at),
            Going::Word(word) => match *word {
                Frame::Hello(hello) => self.replica.greet(&hello, at),
                Frame::Ask(ask) => self.replica.sums(ask),
                _ => return None,
            },
        };
        Some(Coming::Word(Box::new(word)))
    }

    #[inline]
    fn take(&mut self, entry: &Arc<Entry>, at: Ns) -> Option<Coming> {
        let word = match self.replica.take(entry, at) {
            Ok(None) if self.line.sync_ns == 0 => return self.make_durable(at),
            Ok(None) => {
                self.sync_at_ns.get_or_insert(at + self.line.sync_ns);
                self.replica.received()
            }
            Ok(Some(answer)) => answer,
            Err(error) => Frame::Refuse(error.to_string()),
        };
        Some(Coming::Word(Box::new(word)))
    }

    #[inline]
    fn make_durable(&mut self, at: Ns) -> Option<Coming> {
        let word = match self.replica.make_durable(at) {
            Ok(Synced::UpTo { no, points }) if points.is_empty() => {
                return Some(Coming::Ack { received_no: no, durable_no: no });
            }
            Ok(Synced::UpTo { no, points }) => {
                Frame::Ack { received_no: no, durable_no: no, points }
            }
            Ok(Synced::Nothing) => return None,
            Ok(Synced::Full) => Frame::Full,
            Err(error) => Frame::Refuse(error.to_string()),
        };
        Some(Coming::Word(Box::new(word)))
    }

    /// When what is said at `at` comes to the source, if nothing that was said before comes later.
    fn back_ns(&self, at: Ns) -> Ns {
        at.max(self.outage_until_ns) + self.half_rtt_ns()
    }

    fn reply(&mut self, at: Ns, answer: Option<Coming>) {
        let Some(answer) = answer else { return };
        let last = self.back.back().map_or(0, |(at, ..)| *at);
        let back = self.back_ns(at).max(last);
        // However long an outage holds it up, what it confirms is recoverable since then.
        self.back.push_back((back, answer, back - at));
    }

    /// Share of the time since `since_ns` in which the line was busy.
    #[must_use]
    pub fn busy_share(&self, since_ns: Ns, now: Ns) -> f64 {
        self.busy_ns as f64 / now.saturating_sub(since_ns).max(1) as f64
    }
}

impl<V: Vault + Crash> Link for Model<V> {
    fn connect(&mut self, now: Ns) {
        self.advance(now);
        // A transport's handshake, then TLS's: a round trip each.
        let from = now.max(self.outage_until_ns).max(self.site_down_until_ns);
        self.connection = Connection::Opening(from + 4 * self.half_rtt_ns());
    }

    fn reset(&mut self, now: Ns, why: &str) {
        self.advance(now);
        self.disconnect(now, why);
    }

    fn send(&mut self, now: Ns, frame: Frame) {
        if !matches!(self.connection, Connection::Up) {
            return;
        }
        self.sent_bytes += frame.wire_bytes(self.line.compression_ratio);
        let start = now.max(self.busy_until_ns).max(self.outage_until_ns);
        let took = self.transmission_ns(frame.payload_bytes(self.line.compression_ratio));
        self.busy_ns += took;
        self.busy_until_ns = start + took;
        let last = self.forward.back().map_or(0, |(at, _)| *at);
        let arrival = (self.busy_until_ns + self.half_rtt_ns()).max(last);
        let going = match frame {
            Frame::Entry(entry) => Going::Entry(entry),
            word => Going::Word(Box::new(word)),
        };
        self.forward.push_back((arrival, going));
    }

    fn wants(&self, now: Ns) -> bool {
        matches!(self.connection, Connection::Up) && self.busy_until_ns <= now
    }

    fn poll(&mut self, now: Ns, out: &mut Vec<LinkEvent>) {
        self.advance(now);
        self.looked_ns = now;
        out.append(&mut self.told);
        while self.back.front().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, coming, one_way_ns)) = self.back.pop_front() else { break };
            let frame = match coming {
                Coming::Word(word) => *word,
                Coming::Ack { received_no, durable_no } => {
                    Frame::Ack { received_no, durable_no, points: Vec::new() }
                }
            };
            out.push(LinkEvent::Frame { frame, one_way_ns });
        }
    }

    #[inline]
    fn take_ack(&mut self, before_ns: Ns) -> Option<Ack> {
        // What is said to the next frame comes first of all that happens: in one step.
        let is_calm = self.sync_at_ns.is_none() && self.next_fault_ns() >= before_ns;
        if is_calm && self.back.is_empty() && self.told.is_empty() {
            let back_ns = self.back_ns(self.forward.front()?.0);
            if back_ns >= before_ns {
                return None;
            }
            let (at, frame) = self.forward.pop_front()?;
            let answer = self.arrive(at, frame);
            if let Some(Coming::Ack { received_no, durable_no }) = answer {
                let one_way_ns = back_ns - at;
                return Some(Ack { at_ns: back_ns, received_no, durable_no, one_way_ns });
            }
            self.reply(at, answer);
        }
        self.advance(before_ns.saturating_sub(1));
        let &(at_ns, Coming::Ack { received_no, durable_no }, one_way_ns) = self.back.front()?
        else {
            return None;
        };
        if at_ns >= before_ns || !self.told.is_empty() {
            return None;
        }
        self.back.pop_front();
        Some(Ack { at_ns, received_no, durable_no, one_way_ns })
    }

    fn next_news_ns(&self) -> Option<Ns> {
        let mut next = self.next_fault_ns();
        match self.back.front() {
            Some((at, Coming::Word(_), _)) => next = next.min(*at),
            Some((_, Coming::Ack { .. }, _)) | None => {}
        }
        if !self.told.is_empty() || matches!(self.connection, Connection::Opening(_)) {
            return self.next_event_ns();
        }
        (next < Ns::MAX).then_some(next)
    }

    fn next_event_ns(&self) -> Option<Ns> {
        if !self.told.is_empty() {
            return Some(self.looked_ns);
        }
        let mut next = match self.connection {
            Connection::Opening(at) => at,
            _ => Ns::MAX,
        };
        // Arrivals at the site matter when their answers are back: until then nobody looks.
        let back = self.half_rtt_ns();
        next = next.min(self.next_fault_ns());
        if let Some((at, _)) = self.forward.front() {
            next = next.min(at + back);
        }
        if let Some((at, ..)) = self.back.front() {
            next = next.min(*at);
        }
        if let Some(at) = self.sync_at_ns {
            next = next.min(at + back);
        }
        (next < Ns::MAX).then_some(next)
    }

    fn wants_at_ns(&self) -> Option<Ns> {
        (self.busy_until_ns > self.looked_ns).then_some(self.busy_until_ns)
    }

    fn shape(&mut self, on: bool, now: Ns) {
        let was_on = self.shaped;
        self.shaped &= on;
        self.advance(now);
        if on && !was_on {
            self.start_faults(now);
            (self.sent_bytes, self.busy_ns) = (0, 0);
        }
        self.shaped = on;
    }

    fn close(&mut self, now: Ns) -> serde_json::Value {
        self.advance(now);
        serde_json::json!({"sent_bytes": self.sent_bytes})
    }
}
