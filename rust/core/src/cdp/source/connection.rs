//! The source's connection: greeting, sending, confirmations, and coming back after a break.

use super::{
    Ack, Durable, Frame, Hello, Link, LinkEvent, Mode, Ns, Output, Source, State, VERSION, Waits,
};

/// How long nothing may be confirmed, unless a policy says otherwise.
pub const TIMEOUT_NS: Ns = 10_000_000_000;
pub const BACKOFF_MIN_NS: Ns = 100_000_000;
pub const BACKOFF_MAX_NS: Ns = 5_000_000_000;
/// The timeout is doubled this often at most: for confirmations, and for an answer at all.
const PATIENCE_MAX: u32 = 6;
pub const GREETING_PATIENCE_MAX: u32 = 3;
/// A full store is asked again after this long.
const FULL_RETRY_NS: Ns = 5_000_000_000;

impl Source {
    /// Lets the link have what it wants, and time do what is due.
    pub fn pump(&mut self, now: Ns, link: &mut dyn Link) {
        match self.state {
            State::Down { retry_ns } if now >= retry_ns => {
                self.state = State::Connecting { since_ns: now };
                link.connect(now);
            }
            State::Up => self.send(now, link),
            // Whoever took the connection may be silent for ever, or not be the site at all.
            State::Connecting { .. } | State::Greeting { .. } => {
                self.give_up_late(now, link, "the site did not answer in time");
            }
            State::Down { .. } => {}
        }
        if self.mode == Mode::Bitmap && self.state == State::Up && self.journal.is_empty() {
            self.begin_resync(now);
            self.send(now, link);
        }
    }

    fn send(&mut self, now: Ns, link: &mut dyn Link) {
        if self.journal.in_flight_bytes() == 0 && !self.base.is_asking() {
            // What is sent now has its time from now, however long the line was idle.
            self.progress_ns = now;
        }
        while link.wants(now) && self.journal.in_flight_bytes() < self.config.window_bytes {
            // Folded batches are closed by their point alone.
            if !self.journal.has_unsent() && !self.folds() {
                self.close_batch();
            }
            let Some(entry) = self.journal.send() else { break };
            link.send(now, Frame::Entry(entry));
        }
        self.ask(now, link);
        self.give_up_late(now, link, "nothing was confirmed in time");
    }

    fn give_up_late(&mut self, now: Ns, link: &mut dyn Link, why: &str) {
        if !self.given_up && self.deadline_ns().is_some_and(|at| now > at) {
            self.given_up = true;
            self.fruitless += 1;
            link.reset(now, why);
        }
    }

    /// How long the link may be silent. On one so slow that an entry takes longer than the
    /// timeout, every connection would be given up for ever: each in a row is given twice as long.
    fn patience_ns(&self, doublings_max: u32) -> Ns {
        self.config.timeout_ns << self.fruitless.min(doublings_max)
    }

    /// Until when the far end has to answer, if it owes an answer.
    fn deadline_ns(&self) -> Option<Ns> {
        match self.state {
            State::Connecting { since_ns } | State::Greeting { since_ns } => {
                Some(since_ns + self.patience_ns(GREETING_PATIENCE_MAX))
            }
            State::Up if self.journal.in_flight_bytes() > 0 || self.base.is_asking() => {
                Some(self.progress_ns + self.patience_ns(PATIENCE_MAX))
            }
            State::Up | State::Down { .. } => None,
        }
    }

    /// Whether `send` has more to give once the link wants it.
    #[must_use]
    pub fn has_more(&self) -> bool {
        let batch = !self.folds() && !self.open.is_empty();
        batch || self.journal.has_unsent() || self.mode != Mode::Normal
    }

    /// The far end has taken this source.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// There is a far end: it may still be looking at what it holds.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        matches!(self.state, State::Up | State::Greeting { .. })
    }

    /// When `pump` has to be called at the latest.
    #[must_use]
    pub fn next_due_ns(&self) -> Option<Ns> {
        match self.state {
            State::Down { retry_ns } => Some(retry_ns),
            // The link says when it is down.
            _ if self.given_up => None,
            _ => self.deadline_ns().map(|at| at + 1),
        }
    }

    /// Something happened on the link.
    pub fn link_event(&mut self, now: Ns, event: LinkEvent, link: &mut dyn Link) {
        match event {
            LinkEvent::Up => {
                self.state = State::Greeting { since_ns: now };
                link.send(
                    now,
                    Frame::Hello(Box::new(Hello {
                        version: VERSION,
                        run: self.config.run.clone(),
                        disks: self.config.disks.clone(),
                        disk_bytes: self.config.disk_bytes.clone(),
                        acked_no: self.journal.confirmed_no(),
                        fresh: self.journal.confirmed_no() == 0,
                        first: !self.joined,
                        continuous: self.config.point_interval_ns == 0,
                        early: self.config.waits == Waits::SemiSync,
                        retention_ns: self.config.retention_ns,
                        retention_bytes: self.config.retention_bytes,
                        long_term: self.config.long_term,
                        stream: self.config.stream.clone(),
                    })),
                );
            }
            LinkEvent::Down(why) => self.down(now, &why),
            LinkEvent::Stranger(why) => {
                self.down(now, &why);
                // Later it may be an impostor, who shall end no run.
                if !self.joined {
                    self.outputs.push(Output::Fatal { message: why });
                }
            }
            LinkEvent::Frame { frame, one_way_ns } => self.frame(now, frame, one_way_ns, link),
        }
    }

    fn down(&mut self, now: Ns, why: &str) {
        let was_up = self.state == State::Up;
        self.given_up = false;
        self.base.forget_questions();
        why.clone_into(&mut self.last_trouble);
        let retry_ns = now + self.backoff_ns;
        self.backoff_ns = (self.backoff_ns * 2).min(BACKOFF_MAX_NS);
        self.state = State::Down { retry_ns };
        if was_up {
            self.counts.reconnects += 1;
            self.outputs.push(Output::Link { up: false, why: why.to_owned() });
        }
    }

    fn frame(&mut self, now: Ns, frame: Frame, one_way_ns: Ns, link: &mut dyn Link) {
        match frame {
            Frame::Welcome { next_no, points, held } => {
                if !self.joined {
                    self.join(next_no, held);
                }
                if next_no > self.journal.next_no() {
                    return self.fatal(
                        link,
                        now,
                        "the store holds entries that this run never sent",
                    );
                }
                self.state = State::Up;
                self.backoff_ns = BACKOFF_MIN_NS;
                self.received_no = self.received_no.max(next_no - 1);
                self.confirm(next_no - 1, &points, one_way_ns, now);
                self.journal.rewind(next_no);
                self.progress_ns = now;
                self.release(next_no - 1, next_no - 1);
                if self.counts.reconnects > 0 {
                    self.outputs.push(Output::Link { up: true, why: String::new() });
                }
            }
            Frame::Ack { received_no, durable_no, points } => {
                self.acked(&Ack { at_ns: now, received_no, durable_no, one_way_ns }, &points);
            }
            Frame::Full => {
                self.store_full = true;
                link.reset(now, "the store is full");
                self.backoff_ns = FULL_RETRY_NS;
                if self.mode != Mode::Bitmap {
                    self.enter_bitmap(now, "store full");
                }
            }
            Frame::Refuse(message) => self.fatal(link, now, &message),
            Frame::Sums(ask, sums) => self.answered(now, ask, &sums),
            Frame::Hello(_) | Frame::Entry(_) | Frame::Ask(_) => {
                self.fatal(link, now, "the far end speaks as a source does");
            }
        }
    }

    /// The far end has entries up to these; the points among them that became durable.
    pub fn acked(&mut self, ack: &Ack, points: &[Durable]) {
        self.received_no = self.received_no.max(ack.received_no);
        self.confirm(ack.durable_no, points, ack.one_way_ns, ack.at_ns);
        self.release(ack.received_no, ack.durable_no);
    }

    /// Whether a confirmation without points may be taken later than it came: nothing is done
    /// on it but that the journal forgets what it confirms.
    #[must_use]
    pub fn is_unhurried(&self) -> bool {
        let is_calm = self.mode == Mode::Normal && self.hole.is_none() && !self.is_continuous();
        let has_window = self.journal.in_flight_bytes() < self.config.window_bytes;
        is_calm
            && self.state == State::Up
            && !self.given_up
            && self.config.waits == Waits::Async
            && self.points.is_empty()
            && !self.has_overflow()
            && (has_window || !self.has_more())
    }

    fn fatal(&mut self, link: &mut dyn Link, now: Ns, message: &str) {
        link.reset(now, message);
        self.outputs.push(Output::Fatal { message: message.to_owned() });
    }

    fn release(&mut self, received_no: u64, durable_no: u64) {
        match self.config.waits {
            Waits::Async => {}
            Waits::SemiSync => self.outputs.push(Output::Release { no: received_no }),
            Waits::Sync => self.outputs.push(Output::Release { no: durable_no }),
        }
        if self.mode == Mode::Detached && !self.journal.has_unsent() {
            self.resume_waiting();
        }
    }
}
