//! What each of several bandwidths would give: RPO against bandwidth, and the violations and the
//! worst moment of each day at bandwidths that hold the target for a share of the time.

use serde::Serialize;

use crate::planner::PlanOptions;
use crate::planner::distribution::Histogram;
use crate::planner::ramps::{Frame, Mode, Ramp, Sink, Stretch};
use crate::planner::report::{NeededBps, SHARES};

/// Bandwidths between the ends of the curve, and fewer of them where each is a long walk.
const STEPS: i32 = 6;
const STEPS_LONG: i32 = 4;
const LONG_WRITES: usize = 2_000_000;
const DAY_NS: f64 = 86_400e9;

/// RPO at one bandwidth.
#[derive(Debug, Clone, Serialize)]
pub struct FrontierPoint {
    pub bandwidth_bps: u64,
    /// Why it was asked: `link`, or the share of the time in % for which it holds the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds: Option<&'static str>,
    pub rpo_s: Tail,
    pub met_time: f64,
    pub violations_count: u64,
    pub violations_s: f64,
    pub violation_s_max: f64,
    /// The largest RPO of each day, where the bandwidth holds something.
    pub daily_peak_s: Vec<f64>,
}

/// Quantiles to within 1 %, upwards; the largest value is exact.
#[derive(Debug, Clone, Serialize)]
pub struct Tail {
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

/// The bandwidths to ask about, by rising bandwidth: the link's, what the target needs, and some
/// between half of what is written on the mean and twice the most of these.
#[must_use]
pub fn bandwidths(
    options: &PlanOptions,
    writes: usize,
    mean_bps: f64,
    needed: &NeededBps,
) -> Vec<u64> {
    let long = options.point_interval_ns == 0 && writes > LONG_WRITES;
    let steps = if long { STEPS_LONG } else { STEPS };
    let mut asked = vec![options.bandwidth_bps];
    asked.extend(needed.each().into_iter().flatten());
    asked.retain(|bps| *bps > 0);
    let top = asked.iter().copied().max().unwrap_or(1) as f64 * 2.0;
    let low = (mean_bps / 2.0).clamp(1.0, top / 2.0);
    for step in 0..=steps {
        asked.push((low * (top / low).powf(f64::from(step) / f64::from(steps))).round() as u64);
    }
    asked.sort_unstable();
    asked.dedup();
    asked
}

/// One mode at each of the bandwidths, on as many threads as there are processors.
#[must_use]
pub fn frontier(
    mode: &(impl Mode + Sync),
    options: &PlanOptions,
    asked: &[u64],
    needed: &NeededBps,
) -> Vec<FrontierPoint> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(asked.len());
    let mut found: Vec<Option<FrontierPoint>> = vec![None; asked.len()];
    let share = asked.len().div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        for (places, rates) in found.chunks_mut(share).zip(asked.chunks(share)) {
            scope.spawn(move || {
                // From above: RPO grows as bandwidth falls, so what lies below the p95 of the one
                // before cannot be in a quantile that is asked for. Not so with snapshots.
                let mut floor = 0.0;
                for (place, bps) in places.iter_mut().zip(rates).rev() {
                    let found = at(mode, options, *bps, needed, floor);
                    if mode.falls_with_bandwidth() {
                        floor = found.rpo_s.p95 * 1e9 * 0.99;
                    }
                    *place = Some(found);
                }
            });
        }
    });
    found.into_iter().flatten().collect()
}

fn at(
    mode: &impl Mode,
    options: &PlanOptions,
    bps: u64,
    needed: &NeededBps,
    floor: f64,
) -> FrontierPoint {
    let frame = *mode.frame();
    let mut seen = Seen::new(frame);
    let shares = SHARES.iter().map(|(name, _)| *name).zip(needed.each());
    let holds = if bps == options.bandwidth_bps {
        Some("link")
    } else {
        shares.filter(|(_, rate)| *rate == Some(bps)).map(|(name, _)| name).next()
    };
    // The worst of a good day may be below the floor, and violations begin at the target.
    let all = holds.is_some() && seen.daily.len() > 1;
    let floor = if all { 0.0 } else { floor.min(frame.target) };
    mode.walk_above(options.byte_ns(bps), floor, &mut seen);
    let max = mode.max_ns(options.byte_ns(bps)).unwrap_or(seen.histogram.max);
    if let [only] = &mut seen.daily[..] {
        *only = max;
    }
    let quantile = |share: f64| seen.histogram.upper(frame.horizon, share).min(max) / 1e9;
    let daily = if holds.is_some() { seen.daily } else { Vec::new() };
    let missed = seen.total_ns;
    FrontierPoint {
        bandwidth_bps: bps,
        holds,
        rpo_s: Tail { p95: quantile(0.95), p99: quantile(0.99), max: max / 1e9 },
        met_time: if frame.horizon > 0.0 { 1.0 - missed / frame.horizon } else { 1.0 },
        violations_count: seen.count,
        violations_s: missed / 1e9,
        violation_s_max: seen.longest_ns / 1e9,
        daily_peak_s: daily.into_iter().map(|ns| ns / 1e9).collect(),
    }
}

/// Adds up what a point of the frontier tells.
struct Seen {
    frame: Frame,
    histogram: Histogram,
    count: u64,
    total_ns: f64,
    longest_ns: f64,
    /// Of the violation that may still grow.
    since: f64,
    until: f64,
    daily: Vec<f64>,
}

impl Seen {
    fn new(frame: Frame) -> Self {
        let days = ((frame.horizon / DAY_NS).ceil() as usize).max(1);
        Self {
            frame,
            histogram: Histogram::default(),
            count: 0,
            total_ns: 0.0,
            longest_ns: 0.0,
            since: 0.0,
            until: f64::NEG_INFINITY,
            daily: vec![0.0; days],
        }
    }

    #[inline]
    fn day(&mut self, time: f64, value: f64) {
        let last = self.daily.len() - 1;
        let peak = &mut self.daily[((time / DAY_NS) as usize).min(last)];
        *peak = peak.max(value);
    }

    /// A piece beyond the target.
    #[cold]
    fn violation(&mut self, ramp: &Ramp, beyond: f64) {
        let start = ramp.start.max(ramp.origin + self.frame.target);
        self.total_ns += beyond;
        if start - self.until > self.frame.tolerance() / 2.0 {
            self.count += 1;
            self.since = start;
        }
        self.until = ramp.end;
        self.longest_ns = self.longest_ns.max(self.until - self.since);
        if ramp.repeats > 1 {
            self.count += ramp.repeats - 1;
            self.until = ramp.end + (ramp.repeats - 1) as f64 * ramp.period;
            self.since = self.until - (ramp.end - start);
        }
    }
}

impl Sink for Seen {
    #[inline(always)]
    fn rpo(&mut self, ramp: Ramp) {
        self.histogram.add(&ramp);
        if self.daily.len() == 1 {
            self.daily[0] = self.daily[0].max(ramp.high());
        } else {
            let last = ramp.end + (ramp.repeats - 1) as f64 * ramp.period;
            let (first_day, last_day) = (ramp.start / DAY_NS, last / DAY_NS);
            for day in (first_day as usize)..(last_day as usize) {
                let midnight = (day + 1) as f64 * DAY_NS;
                let value = if ramp.repeats == 1 { midnight - ramp.origin } else { ramp.high() };
                self.day(day as f64 * DAY_NS, value);
            }
            self.day(last, ramp.high());
        }
        let beyond = self.frame.beyond(&ramp);
        if beyond > 0.0 {
            self.violation(&ramp, beyond);
        }
    }

    fn stretch(&mut self, stretch: &Stretch) -> bool {
        let Stretch { start, end, low, high } = *stretch;
        let target = self.frame.target + self.frame.tolerance();
        let is_beyond = low > target;
        // Days want their own peaks, and the edges of a violation their pieces.
        let is_split = self.daily.len() > 1 || (high > target && !is_beyond);
        if is_split || !self.histogram.add_within(low, high, end - start) {
            return false;
        }
        if is_beyond {
            let ramp = Ramp { start, end, origin: end - high, repeats: 1, period: 0.0 };
            self.violation(&ramp, end - start);
        }
        true
    }

    fn exposure(&mut self, _: Ramp) {}

    fn sessions(&mut self, _: f64, _: f64, _: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_that_touch_are_one_and_days_have_their_own_peak() {
        let frame = Frame { horizon: 2.0 * DAY_NS, target: 5e9 };
        let mut seen = Seen::new(frame);
        let ramp = |s: f64, e: f64, o: f64| Ramp::within(s, e, o, frame.horizon).unwrap();
        seen.rpo(ramp(0.0, 20e9, 0.0));
        seen.rpo(ramp(20e9, 30e9, 10e9));
        seen.rpo(ramp(30e9, 40e9, 29e9));
        seen.rpo(Ramp::saw(40e9, 7e9, 3));
        assert_eq!((seen.count, seen.total_ns / 1e9), (5, 15.0 + 10.0 + 6.0 + 6.0));
        assert_eq!(seen.longest_ns / 1e9, 25.0);
        seen.rpo(ramp(DAY_NS - 3e9, DAY_NS + 8e9, DAY_NS - 3e9));
        assert_eq!(seen.daily, [20e9, 11e9]);
    }
}
