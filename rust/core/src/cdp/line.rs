//! The link over time: outages, broken connections, and other bandwidths and round trips from
//! some moment on.
//!
//! *Link time* is the time that the line has worked, counted at its undisturbed bandwidth: it
//! stands still in an outage, and passes half as fast at half the bandwidth. In link time the
//! queue is that of a steady line, whatever happens to it; so modes keep their queue there, and
//! turn to the clock where something has arrived. Link time does not depend on the bandwidth:
//! another one is looked at with the same share of it left.

use crate::cdp::faults::Fault;
use crate::cdp::source::{BACKOFF_MAX_NS, BACKOFF_MIN_NS, GREETING_PATIENCE_MAX};

/// Between the clock and link time, ns both.
pub trait Way: Sync {
    /// Link time at a moment.
    fn served(&self, at: f64) -> f64;

    /// When a byte is recoverable whose transmission ends at a link time.
    fn arrives(&self, served: f64) -> f64;

    /// When the far end hears of what is said without a byte: at once, or after the outage that it
    /// is said in, or on its way in.
    fn heard(&self, said: f64) -> f64;

    /// The last moment, for what is said at one or later, that the next outage leaves; beyond all
    /// time where none comes.
    fn closes_after(&self, at: f64) -> f64;
}

/// A line that nothing happens to.
pub struct Steady {
    pub half_rtt: f64,
}

impl Way for Steady {
    #[inline(always)]
    fn served(&self, at: f64) -> f64 {
        at
    }

    #[inline(always)]
    fn arrives(&self, served: f64) -> f64 {
        served + self.half_rtt
    }

    #[inline(always)]
    fn heard(&self, said: f64) -> f64 {
        said
    }

    #[inline(always)]
    fn closes_after(&self, _: f64) -> f64 {
        f64::MAX
    }
}

/// From a moment on the line is like this.
#[derive(Debug)]
struct Stretch {
    from: f64,
    /// Link time, and the time in which what is under way comes nearer, until then.
    served: f64,
    open: f64,
    /// Of both in this stretch; 0 in an outage.
    serving: f64,
    opening: f64,
    half_rtt: f64,
    /// What is sent from here on arrives no earlier: it stays behind what was sent before.
    not_before: f64,
}

impl Stretch {
    fn served_at(&self, at: f64) -> f64 {
        self.served + (at - self.from) * self.serving
    }

    fn open_at(&self, at: f64) -> f64 {
        self.open + (at - self.from) * self.opening
    }
}

/// A line with faults, as those of the modelled link.
#[derive(Debug)]
pub struct Disturbed {
    /// By time; the first begins at 0, the last never ends and is open.
    stretches: Vec<Stretch>,
    /// Between these, by time, nothing is said that arrives before the second.
    deaf: Vec<(f64, f64)>,
    /// As they were declared, where they touch one another as one.
    pub outages: Vec<(f64, f64)>,
}

impl Disturbed {
    /// `bytes_per_s` is the undisturbed bandwidth; without a sign of life for `timeout_ns` a
    /// connection is given up.
    #[must_use]
    pub fn new(bytes_per_s: f64, rtt_ns: u64, timeout_ns: u64, faults: &[Fault]) -> Self {
        let mut rtts = vec![(0.0, rtt_ns as f64)];
        let mut rates = vec![(0.0, 1.0)];
        let (mut gone, mut paused, mut breaks) = (Vec::new(), Vec::new(), Vec::new());
        for fault in faults {
            match *fault {
                Fault::Rtt { at_ns, rtt_ns } => rtts.push((at_ns as f64, rtt_ns as f64)),
                Fault::Bandwidth { at_ns, bytes_per_s: changed } => {
                    rates.push((at_ns as f64, changed / bytes_per_s));
                }
                Fault::Outage { from_ns, to_ns } => paused.push((from_ns as f64, to_ns as f64)),
                Fault::Restart { at_ns, back_ns } => {
                    gone.push((at_ns as f64, back_ns as f64));
                    breaks.push(Break::at(at_ns as f64, back_ns as f64));
                }
                Fault::Reset { at_ns } => breaks.push(Break::at(at_ns as f64, 0.0)),
            }
        }
        rtts.sort_by(|a, b| a.0.total_cmp(&b.0));
        rates.sort_by(|a, b| a.0.total_cmp(&b.0));
        let paused = joined(paused);
        let outages = joined(gone.into_iter().chain(paused.iter().copied()).collect());
        let (mut idle, mut closed) = (paused.clone(), paused.clone());
        for (from, to) in paused.iter().filter(|(from, to)| to - from > timeout_ns as f64) {
            // Nobody has heard of what was on its way as it began.
            idle.push((*from - last(&rtts, *from) / 2.0, *to));
            let given_up = true;
            breaks.push(Break { given_up, ..Break::at(from + timeout_ns as f64, 0.0) });
        }
        breaks.sort_by(|a, b| a.at.total_cmp(&b.at));
        for (at, again) in reconnections(&breaks, timeout_ns as f64, &rtts, &paused) {
            // What has left and not arrived when a connection breaks is sent again.
            idle.push((at - last(&rtts, at) / 2.0, again));
            closed.push((at, again));
        }
        for (from, _) in &mut idle {
            *from = from.max(0.0);
        }
        let deaf = closed.iter().map(|(from, to)| (from - last(&rtts, *from) / 2.0, *to)).collect();
        let stretches = stretches(&joined(idle), &joined(closed), &rtts, &rates);
        Self { stretches, deaf: joined(deaf), outages }
    }

    fn stretch(&self, at: f64) -> &Stretch {
        let next = self.stretches.partition_point(|stretch| stretch.from <= at);
        &self.stretches[next.saturating_sub(1)]
    }

    /// The first moment with a link time, and the stretch that it ends in: a transmission has
    /// ended when an outage begins.
    fn sent_in(&self, served: f64) -> (f64, &Stretch) {
        let next = self.stretches.partition_point(|stretch| stretch.served < served);
        let stretch = &self.stretches[next.saturating_sub(1)];
        let further = served - stretch.served;
        let took = if further > 0.0 { further / stretch.serving } else { 0.0 };
        (stretch.from + took, stretch)
    }

    /// When the link has sent what ends at a link time.
    #[must_use]
    pub fn sent(&self, served: f64) -> f64 {
        self.sent_in(served).0
    }
}

impl Way for Disturbed {
    fn served(&self, at: f64) -> f64 {
        self.stretch(at).served_at(at)
    }

    fn arrives(&self, served: f64) -> f64 {
        let (sent, stretch) = self.sent_in(served);
        arrival(&self.stretches, stretch, sent).max(stretch.not_before)
    }

    fn heard(&self, said: f64) -> f64 {
        span_at(&self.deaf, said).filter(|(from, _)| *from < said).map_or(said, |(_, end)| end)
    }

    fn closes_after(&self, at: f64) -> f64 {
        let next = self.deaf.partition_point(|(_, end)| *end <= at);
        self.deaf.get(next).map_or(f64::MAX, |(from, _)| *from)
    }
}

/// The connection breaks, and the site is not there before some time.
#[derive(Clone, Copy)]
struct Break {
    at: f64,
    back: f64,
    /// By the source itself, which had no answer: where it has no connection it is none.
    given_up: bool,
}

impl Break {
    const fn at(at: f64, back: f64) -> Self {
        Self { at, back, given_up: false }
    }
}

/// From when to when there was no connection.
fn reconnections(
    breaks: &[Break],
    timeout: f64,
    rtts: &[(f64, f64)],
    paused: &[(f64, f64)],
) -> Vec<(f64, f64)> {
    let (mut found, mut retry): (Vec<(f64, f64)>, Option<Retry>) = (Vec::new(), None);
    let mut reached = 0.0_f64;
    for of in breaks {
        if let Some(found_again) =
            retry.as_mut().and_then(|r| r.go_on(of.at, reached, rtts, paused))
        {
            found.push(found_again);
            retry = None;
        }
        reached = reached.max(of.back);
        match &mut retry {
            None => retry = Some(Retry::new(*of, timeout)),
            Some(retry) if !of.given_up && of.at >= retry.tried => retry.later(of.at),
            Some(_) => {}
        }
    }
    found.extend(retry.and_then(|mut last| last.go_on(f64::MAX, reached, rtts, paused)));
    found
}

/// The source comes back: it tries after a while, which doubles where that was in vain, and gives
/// an attempt up that is not answered, each later than the one before.
struct Retry {
    since: f64,
    tried: f64,
    wait: f64,
    timeout: f64,
    fruitless: u32,
}

impl Retry {
    fn new(of: Break, timeout: f64) -> Self {
        let wait = BACKOFF_MIN_NS as f64;
        let fruitless = u32::from(of.given_up);
        Self { since: of.at, tried: of.at + wait, wait, timeout, fruitless }
    }

    fn later(&mut self, at: f64) {
        self.wait = (self.wait * 2.0).min(BACKOFF_MAX_NS as f64);
        self.tried = at + self.wait;
    }

    /// The connection is there after a transport's handshake, that of TLS, and the greeting: a
    /// round trip each. None where it is not before `until`.
    fn go_on(
        &mut self,
        until: f64,
        reached: f64,
        rtts: &[(f64, f64)],
        paused: &[(f64, f64)],
    ) -> Option<(f64, f64)> {
        loop {
            let patience = self.timeout * f64::from(1 << self.fruitless.min(GREETING_PATIENCE_MAX));
            let open = through(paused, self.tried.max(reached), 2.0 * last(rtts, self.tried));
            let again = through(paused, open, last(rtts, open));
            let late = if open > self.tried + patience {
                self.tried + patience
            } else if again > open + patience {
                open + patience
            } else {
                return (again <= until).then_some((self.since, again));
            };
            if late > until {
                return None;
            }
            self.fruitless += 1;
            self.later(late);
        }
    }
}

/// When so much time has passed, without that in outages.
fn through(paused: &[(f64, f64)], from: f64, takes: f64) -> f64 {
    let first = paused.partition_point(|(_, end)| *end <= from);
    let mut at = from + takes;
    for (start, end) in &paused[first..] {
        if *start >= at {
            break;
        }
        at += end - start.max(from);
    }
    at
}

/// The span that a moment is in.
fn span_at(spans: &[(f64, f64)], at: f64) -> Option<(f64, f64)> {
    let next = spans.partition_point(|(_, end)| *end <= at);
    spans.get(next).filter(|(from, _)| *from <= at).copied()
}

/// What was sent within a stretch is on its way for half a round trip, outages left out.
fn arrival(stretches: &[Stretch], of: &Stretch, sent: f64) -> f64 {
    let open = of.open_at(sent) + of.half_rtt;
    let next = stretches.partition_point(|stretch| stretch.open < open);
    let stretch = &stretches[next.saturating_sub(1)];
    if open > stretch.open { stretch.from + (open - stretch.open) } else { stretch.from.max(sent) }
}

fn stretches(
    idle: &[(f64, f64)],
    closed: &[(f64, f64)],
    rtts: &[(f64, f64)],
    rates: &[(f64, f64)],
) -> Vec<Stretch> {
    let edges = idle.iter().chain(closed).flat_map(|(from, end)| [*from, *end]);
    let changes = rtts.iter().chain(rates).map(|(at, _)| *at);
    let mut moments: Vec<f64> = edges.chain(changes).collect();
    moments.sort_by(f64::total_cmp);
    moments.dedup();
    let mut made: Vec<Stretch> = Vec::with_capacity(moments.len());
    for at in moments {
        let (served, open) = made.last().map_or((0.0, 0.0), |s| (s.served_at(at), s.open_at(at)));
        made.push(Stretch {
            from: at,
            served,
            open,
            serving: if span_at(idle, at).is_some() { 0.0 } else { last(rates, at) },
            opening: if span_at(closed, at).is_some() { 0.0 } else { 1.0 },
            half_rtt: last(rtts, at) / 2.0,
            not_before: 0.0,
        });
    }
    for i in 1..made.len() {
        let (before, sent) = (&made[i - 1], made[i].from);
        made[i].not_before = arrival(&made, before, sent).max(before.not_before);
    }
    made
}

/// The value that holds at a moment, of changes by time that begin at 0.
fn last(changes: &[(f64, f64)], at: f64) -> f64 {
    changes[changes.partition_point(|(since, _)| *since <= at).saturating_sub(1)].1
}

/// Spans by time, those that overlap or touch as one; empty ones are left out.
fn joined(mut spans: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    spans.retain(|(from, end)| from < end);
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut found: Vec<(f64, f64)> = Vec::with_capacity(spans.len());
    for (from, end) in spans {
        match found.last_mut().filter(|last| from <= last.1) {
            Some(last) => last.1 = last.1.max(end),
            None => found.push((from, end)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;

    fn line(rtt_ns: u64, faults: &[Fault]) -> Disturbed {
        Disturbed::new(1e6, rtt_ns, 10 * S, faults)
    }

    #[test]
    fn an_outage_holds_up_what_waits_and_what_is_on_its_way() {
        let way = line(2 * S, &[Fault::Outage { from_ns: 10 * S, to_ns: 15 * S }]);
        assert_eq!([way.served(9e9), way.served(12e9), way.served(16e9)], [9e9, 10e9, 11e9]);
        // Sent at 9.5, on its way for a second, of which half is left at 15.
        let arrivals = [8e9, 9.5e9, 10e9, 11e9].map(|served| way.arrives(served));
        assert_eq!(arrivals, [9e9, 15.5e9, 16e9, 17e9]);
        assert_eq!([9e9, 9.5e9, 10e9, 15e9].map(|at| way.heard(at)), [9e9, 15e9, 15e9, 15e9]);
        assert_eq!([way.closes_after(0.0), way.closes_after(15e9)], [9e9, f64::MAX]);
    }

    #[test]
    fn a_broken_connection_loses_what_has_not_arrived() {
        let way = line(2 * S, &[Fault::Reset { at_ns: 10 * S }]);
        // Tried after 0.1 s, and up again three round trips later.
        assert_eq!(way.arrives(8.5e9), 9.5e9);
        assert_eq!(way.arrives(9.5e9), 16.1e9 + 0.5e9 + 1e9);
        // An outage that is given up is one, too; one that is sat out is not.
        let of = |to_ns| line(2 * S, &[Fault::Outage { from_ns: 10 * S, to_ns }]).arrives(9.5e9);
        assert_eq!([of(20 * S), of(30 * S)], [20.5e9, 36e9 + 0.5e9 + 1e9]);
    }

    #[test]
    fn an_attempt_that_is_not_answered_is_given_up_and_tried_again_later() {
        // Given up 1 s after the outage's begin, and tried from 2.1 s on for 2 s, from 4.3 s on for
        // 4 s, from 8.7 s on for 8 s and from 17.5 s on.
        let of = |to_ns| {
            let outage = Fault::Outage { from_ns: S, to_ns };
            Disturbed::new(1e6, 0, S, &[outage]).arrives(1.5e9) / 1e9 - 0.5
        };
        let ms = |at: u64| at * S / 1000;
        let (ends, up): (Vec<u64>, Vec<f64>) = [
            (3_000, 3.0),
            (4_200, 4.3),
            (4_500, 4.5),
            (8_400, 8.7),
            (16_600, 16.6),
            (16_800, 17.5),
        ]
        .into_iter()
        .unzip();
        for (end, up) in ends.into_iter().zip(up) {
            assert!((of(ms(end)) - up).abs() < 1e-6, "{end}: {} is not {up}", of(ms(end)));
        }
        // A site that is away is tried in vain as well; a reset meanwhile makes it wait longer.
        let restart = Fault::Restart { at_ns: S, back_ns: ms(2_500) };
        let again = |faults: &[Fault]| Disturbed::new(1e6, 0, S, faults).arrives(1.5e9) / 1e9 - 0.5;
        assert!((again(&[restart]) - 2.5).abs() < 1e-6, "{}", again(&[restart]));
        let reset = Fault::Reset { at_ns: ms(1_500) };
        let late = again(&[restart, reset]);
        assert!((late - 2.5).abs() < 1e-6, "{late}");
        let gone = Fault::Restart { at_ns: S, back_ns: ms(2_150) };
        assert!((again(&[gone]) - 2.3).abs() < 1e-6, "{}", again(&[gone]));
    }

    #[test]
    fn bandwidths_and_round_trips_change() {
        let half = Fault::Bandwidth { at_ns: 10 * S, bytes_per_s: 5e5 };
        let way = line(0, &[half, Fault::Rtt { at_ns: 20 * S, rtt_ns: 4 * S }]);
        assert_eq!([way.served(12e9), way.arrives(11e9)], [11e9, 12e9]);
        assert_eq!([way.arrives(15e9), way.arrives(16e9)], [20e9, 24e9]);
        // What is sent over the shorter way stays behind what was sent before.
        let way = line(4 * S, &[Fault::Rtt { at_ns: 10 * S, rtt_ns: 0 }]);
        assert_eq!([way.arrives(10e9), way.arrives(11e9), way.arrives(13e9)], [12e9, 12e9, 13e9]);
    }

    #[test]
    fn outages_that_overlap_are_one() {
        let of = |from: u64, to: u64| Fault::Outage { from_ns: from * S, to_ns: to * S };
        let way = line(0, &[of(3, 6), of(1, 4), of(2, 3), of(8, 8)]);
        assert_eq!(way.outages, [(1e9, 6e9)]);
        assert_eq!(way.arrives(2e9), 7e9);
    }

    proptest! {
        #[test]
        fn link_time_and_the_clock_agree(
            faults in prop::collection::vec((0u64..4, 0u64..100, 1u64..30), 0..6),
            at in 0u64..400,
            half_rtt in 0u64..10,
        ) {
            let faults: Vec<Fault> = faults.into_iter().map(|(kind, at, value)| match kind {
                0 => Fault::Outage { from_ns: at * S, to_ns: (at + value) * S },
                1 => Fault::Reset { at_ns: at * S },
                2 => Fault::Bandwidth { at_ns: at * S, bytes_per_s: value as f64 * 1e5 },
                _ => Fault::Rtt { at_ns: at * S, rtt_ns: value * S },
            }).collect();
            let way = line(2 * half_rtt * S, &faults);
            let at = at as f64 * 1e9 / 3.0;
            let served = way.served(at);
            let sent = way.sent(served);
            // Where link time stands still its first moment counts.
            prop_assert!(sent <= at + 1e-3 && (way.served(sent) - served).abs() < 1e-3);
            prop_assert!(way.arrives(served) >= sent - 1e-3);
            prop_assert!(way.served(at + 1e9) >= served);
            prop_assert!(way.arrives(way.served(at + 1e9)) >= way.arrives(served) - 1e-3);
        }
    }
}
