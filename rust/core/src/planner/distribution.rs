//! Exact quantiles over continuous time of a function made of ramps.
//!
//! While a ramp lasts its value passes from low to high at one ns a ns, so it spends equal time
//! at each value between. Time above a value is summed in a histogram with logarithmic edges (two
//! additions a ramp, whatever it spans); a second walk collects what lies in the bins that hold
//! the wanted quantiles, and these are solved there, without the histogram's error.

use crate::planner::ramps::Ramp;

/// 128 bins an octave, from 2^-4 ns (below: bin 0) to 2^64 ns.
const BIN_SHIFT: u32 = 52 - 7;
const FIRST_EDGE: f64 = 0.0625;
const BINS: usize = 68 << 7;

fn bin_of(value: f64) -> usize {
    let value = value.max(FIRST_EDGE);
    (((value.to_bits() - FIRST_EDGE.to_bits()) >> BIN_SHIFT) as usize).min(BINS - 1)
}

fn edge(bin: usize) -> f64 {
    if bin == 0 {
        return 0.0;
    }
    f64::from_bits(FIRST_EDGE.to_bits() + ((bin as u64) << BIN_SHIFT))
}

/// First walk: time by value.
pub struct Histogram {
    bins: Vec<Bin>,
    /// Ramps take turns: most meet the bins of the one before, whose sums they need not wait for.
    turn: usize,
    pub max: f64,
}

#[derive(Clone, Copy, Default)]
struct Bin {
    /// Time spent by ramps that begin or end in the bin, ns.
    partial: [f64; TURNS],
    /// Change, at the bin's lower edge, in the number of ramps that pass it whole.
    passing: [f64; TURNS],
}

const TURNS: usize = 4;

impl Bin {
    fn partial(&self) -> f64 {
        self.partial.iter().sum()
    }

    fn passing(&self) -> f64 {
        self.passing.iter().sum()
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { bins: vec![Bin::default(); BINS + 1], turn: 0, max: 0.0 }
    }
}

impl Histogram {
    /// In registers: handed over in memory, a ramp is read before it is written.
    #[inline(always)]
    pub fn add(&mut self, ramp: &Ramp) {
        let (low, high, times) = (ramp.low(), ramp.high(), ramp.repeats as f64);
        self.max = self.max.max(high);
        let (first, last) = (bin_of(low), bin_of(high));
        self.turn = (self.turn + 1) % TURNS;
        let turn = self.turn;
        if first == last {
            self.bins[first].partial[turn] += times * (high - low);
            return;
        }
        self.bins[first].partial[turn] += times * (edge(first + 1) - low);
        self.bins[first + 1].passing[turn] += times;
        let top = &mut self.bins[last];
        top.partial[turn] += times * (high - edge(last));
        top.passing[turn] -= times;
    }

    /// Adds a time with values between two, if they share a bin: which is all that counts here.
    pub fn add_within(&mut self, low: f64, high: f64, time: f64) -> bool {
        let bin = bin_of(low);
        let fits = bin == bin_of(high);
        if fits {
            self.bins[bin].partial[0] += time;
        }
        fits
    }

    /// The smallest bin edge that is not exceeded for more than `1 - share` of `total` ns: the
    /// quantile to within a bin, 0.8 % at most, upwards.
    #[must_use]
    pub fn upper(&self, total: f64, share: f64) -> f64 {
        self.bracket((1.0 - share) * total + total * 1e-12).high
    }

    /// The distribution for charts: values in ns, rising, and the share of `total` ns within each.
    /// Values are edges of bins; steps of less than half a per cent are left out.
    #[must_use]
    pub fn shares(&self, total: f64) -> (Vec<f64>, Vec<f64>) {
        let (mut values, mut within) = (vec![self.max], vec![1.0]);
        let mut passing: f64 = self.bins.iter().map(Bin::passing).sum();
        let mut above = 0.0;
        for bin in (0..BINS).rev() {
            passing -= self.bins[bin + 1].passing();
            above += self.bins[bin].partial() + passing * (edge(bin + 1) - edge(bin));
            let share = (1.0 - above / total).clamp(0.0, 1.0);
            if within[within.len() - 1] - share >= 0.005 {
                values.push(edge(bin));
                within.push(share);
            }
        }
        values.reverse();
        within.reverse();
        (values, within)
    }

    /// Prepares the second walk for the quantiles `shares` of a time of `total` ns.
    #[must_use]
    pub fn quantiles(&self, total: f64, shares: &[f64]) -> Quantiles {
        let mut wanted = Vec::new();
        for share in shares {
            // The value that time above it may exceed for so long; with room for rounding.
            let allowed = (1.0 - share) * total + total * 1e-12;
            wanted.push(self.bracket(allowed));
        }
        Quantiles { wanted }
    }

    fn bracket(&self, allowed: f64) -> Wanted {
        let mut passing: f64 = self.bins.iter().map(Bin::passing).sum();
        let mut above = 0.0;
        for bin in (0..BINS).rev() {
            passing -= self.bins[bin + 1].passing();
            let here = self.bins[bin].partial() + passing * (edge(bin + 1) - edge(bin));
            if above + here > allowed {
                let events = Vec::new();
                return Wanted { low: edge(bin), high: edge(bin + 1), above, allowed, events };
            }
            above += here;
        }
        Wanted { low: 0.0, high: 0.0, above, allowed, events: Vec::new() }
    }
}

/// Second walk: what the bins of the quantiles hold.
pub struct Quantiles {
    wanted: Vec<Wanted>,
}

struct Wanted {
    low: f64,
    high: f64,
    /// Time spent above `high`.
    above: f64,
    allowed: f64,
    /// (value, ramps more below it).
    events: Vec<(f64, f64)>,
}

impl Quantiles {
    #[inline]
    pub fn add(&mut self, ramp: &Ramp) {
        for wanted in &mut self.wanted {
            let (low, high) = (ramp.low().max(wanted.low), ramp.high().min(wanted.high));
            if low < high {
                wanted.events.push((high, ramp.repeats as f64));
                wanted.events.push((low, -(ramp.repeats as f64)));
            }
        }
    }

    /// The smallest values that are not exceeded for more than their share of the time, ns.
    #[must_use]
    pub fn solve(self) -> Vec<f64> {
        self.wanted.into_iter().map(Wanted::solve).collect()
    }
}

impl Wanted {
    fn solve(mut self) -> f64 {
        self.events.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let (mut value, mut above, mut ramps) = (self.high, self.above, 0.0);
        for (at, change) in self.events {
            let time = ramps * (value - at);
            if above + time > self.allowed {
                return (value - (self.allowed - above).max(0.0) / ramps).max(self.low);
            }
            above += time;
            ramps += change;
            value = at;
        }
        self.low
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quantiles(ramps: &[Ramp], total: f64, shares: &[f64]) -> (Vec<f64>, f64) {
        let mut histogram = Histogram::default();
        ramps.iter().for_each(|ramp| histogram.add(ramp));
        let mut second = histogram.quantiles(total, shares);
        ramps.iter().for_each(|ramp| second.add(ramp));
        (second.solve(), histogram.max)
    }

    #[test]
    fn a_saw_is_uniform_and_the_rest_of_the_time_is_zero() {
        let saw = Ramp::saw(0.0, 10e9, 6);
        let (found, max) = quantiles(&[saw], 60e9, &[0.0, 0.5, 0.95, 1.0]);
        for (value, expected) in found.iter().zip([0.0, 5e9, 9.5e9, 10e9]) {
            assert!((value - expected).abs() < 1.0, "{value} {expected}");
        }
        assert_eq!(max, 10e9);
        // Six tenths of the time at zero.
        let (found, _) = quantiles(&[saw], 150e9, &[0.5, 0.6, 0.8]);
        assert_eq!(&found[..2], [0.0, 0.0]);
        assert!((found[2] - 5e9).abs() < 1.0, "{found:?}");
    }

    proptest! {
        #[test]
        fn time_above_a_quantile_is_what_it_says(
            pieces in prop::collection::vec((0.0f64..1e10, 0.1f64..1e10, 1u64..4), 1..30),
            idle in 0.0f64..1e10,
            share in 0.0f64..0.999,
        ) {
            let ramp = |(low, length, repeats): &(f64, f64, u64)| Ramp {
                start: *low, end: low + length, origin: 0.0, repeats: *repeats, period: 1e12,
            };
            let ramps: Vec<Ramp> = pieces.iter().map(ramp).collect();
            let above = |value: f64| -> f64 {
                let over = |r: &Ramp| r.repeats as f64 * (r.high() - r.low().max(value)).max(0.0);
                ramps.iter().map(over).sum()
            };
            let total = above(0.0) + idle;
            let (found, _) = quantiles(&ramps, total, &[share]);
            let (allowed, room) = ((1.0 - share) * total, total * 1e-9 + 1.0);
            prop_assert!(above(found[0]) <= allowed + room);
            let step = 1e-6 * found[0] + 10.0;
            prop_assert!(found[0] < step || above(found[0] - step) > allowed - room);
        }
    }
}
