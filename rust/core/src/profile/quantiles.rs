//! Quantiles of whole numbers in bounded memory: exact for short series, log-linear for long.
//!
//! The first [`EXACT`] values are kept as they are. After that they are counted in buckets, 256
//! to an octave (values below 512 have a bucket each), so a quantile is off by at most 0.2 % of
//! its value. The layout is that of HdrHistogram; octaves are allocated when first used.

use std::collections::BTreeMap;

use serde::Serialize;

/// Values kept one by one before the change to buckets.
const EXACT: usize = 16_384;
const SUB_BITS: u32 = 8;
const SUB: usize = 1 << SUB_BITS;

/// A distribution of `u64` values.
#[derive(Debug, Clone, Default)]
pub struct Quantiles {
    values: Vec<u64>,
    octaves: Vec<Vec<u64>>,
    bucketed: bool,
    count: u64,
    sum: f64,
    sum_squares: f64,
    min: u64,
    max: u64,
}

/// A distribution as `info --json` shows it; every value in the unit of its name.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Distribution {
    pub count: u64,
    pub mean: f64,
    pub min: u64,
    pub p1: u64,
    pub p10: u64,
    pub p25: u64,
    pub p50: u64,
    pub p75: u64,
    pub p90: u64,
    pub p95: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
    /// Nearest rank on all values, or on buckets (off by at most 0.2 %).
    pub exact: bool,
}

impl Distribution {
    /// The exact distribution of values counted one by one, in order of value. `None` when empty.
    #[must_use]
    pub fn of_counts(counts: &BTreeMap<u64, u64>) -> Option<Self> {
        let (min, max) = (*counts.keys().next()?, *counts.keys().next_back()?);
        let count: u64 = counts.values().sum();
        let sum: f64 = counts.iter().map(|(value, n)| *value as f64 * *n as f64).sum();
        let at = |q: f64| {
            let mut left = rank(q, count);
            for (value, n) in counts {
                if left <= *n {
                    return *value;
                }
                left -= n;
            }
            max
        };
        Some(Self::new(count, sum, min, max, true, at))
    }

    fn new(count: u64, sum: f64, min: u64, max: u64, exact: bool, at: impl Fn(f64) -> u64) -> Self {
        let [p1, p10, p25, p50, p75, p90, p95, p99, p999] =
            [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999].map(at);
        let mean = sum / count as f64;
        Self { count, mean, min, p1, p10, p25, p50, p75, p90, p95, p99, p999, max, exact }
    }
}

/// Nearest rank of the quantile `q` among `count` values, from 1.
fn rank(q: f64, count: u64) -> u64 {
    ((q * count as f64).ceil() as u64).clamp(1, count)
}

impl Quantiles {
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Records `value` as often as `times` says: a sampled value stands for several.
    #[inline]
    pub fn record_n(&mut self, value: u64, times: u64) {
        if times == 0 {
            return;
        }
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = self.max.max(value);
        self.count += times;
        let (value_f, times_f) = (value as f64, times as f64);
        self.sum += value_f * times_f;
        self.sum_squares += value_f * value_f * times_f;
        if !self.bucketed {
            if times == 1 && self.values.len() < EXACT {
                self.values.push(value);
                return;
            }
            self.change_to_buckets();
        }
        self.add(value, times);
    }

    /// Adds all that `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.min = if self.count == 0 { other.min } else { self.min.min(other.min) };
        self.max = self.max.max(other.max);
        self.count += other.count;
        self.sum += other.sum;
        self.sum_squares += other.sum_squares;
        let fits = self.values.len() + other.values.len() <= EXACT;
        if !self.bucketed && (other.bucketed || !fits) {
            self.change_to_buckets();
        }
        if self.bucketed {
            for &value in &other.values {
                self.add(value, 1);
            }
        } else {
            self.values.extend_from_slice(&other.values);
        }
        for (octave, counts) in other.octaves.iter().enumerate() {
            if !counts.is_empty() {
                let own = self.octave(octave);
                own.iter_mut().zip(counts).for_each(|(a, b)| *a += b);
            }
        }
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Standard deviation over mean; `None` below two values or when all are 0.
    #[must_use]
    pub fn coefficient_of_variation(&self) -> Option<f64> {
        let n = self.count as f64;
        let mean = self.sum / n;
        (self.count >= 2 && mean > 0.0)
            .then(|| (self.sum_squares / n - mean * mean).max(0.0).sqrt() / mean)
    }

    /// The values counted that are below `limit`: exact while the values are kept, otherwise a
    /// bucket that `limit` cuts counts by the part below it.
    #[must_use]
    pub fn count_below(&self, limit: u64) -> f64 {
        let kept = self.values.iter().filter(|v| **v < limit).count() as f64;
        let mut counted = 0.0;
        for (octave, counts) in self.octaves.iter().enumerate() {
            for (i, &n) in counts.iter().enumerate().filter(|(_, n)| **n > 0) {
                let (low, width) = bucket_range(octave, i);
                let below = limit.saturating_sub(low).min(width) as f64 / width as f64;
                counted += n as f64 * below;
            }
        }
        kept + counted
    }

    /// The distribution, or `None` when nothing was recorded.
    #[must_use]
    pub fn distribution(&self) -> Option<Distribution> {
        if self.count == 0 {
            return None;
        }
        let mut sorted = self.values.clone();
        sorted.sort_unstable();
        let at = |q| self.quantile(&sorted, q);
        Some(Distribution::new(self.count, self.sum, self.min, self.max, !self.bucketed, at))
    }

    /// The smallest value with at least the share `q` of all values at or below it.
    fn quantile(&self, sorted: &[u64], q: f64) -> u64 {
        let rank = rank(q, self.count);
        if !self.bucketed {
            return sorted[rank as usize - 1];
        }
        let mut seen = 0;
        for (octave, counts) in self.octaves.iter().enumerate() {
            for (i, n) in counts.iter().enumerate() {
                seen += n;
                if seen >= rank {
                    let (low, width) = bucket_range(octave, i);
                    return (low + width / 2).clamp(self.min, self.max);
                }
            }
        }
        self.max
    }

    fn change_to_buckets(&mut self) {
        self.bucketed = true;
        for value in std::mem::take(&mut self.values) {
            self.add(value, 1);
        }
    }

    #[inline]
    fn add(&mut self, value: u64, times: u64) {
        let shift = (u64::BITS - value.leading_zeros()).saturating_sub(SUB_BITS + 1);
        // Below 256 the first octave is used in full, and its upper half starts at 256.
        let (octave, i) = if value < SUB as u64 {
            (0, value as usize)
        } else {
            (shift as usize + 1, (value >> shift) as usize - SUB)
        };
        self.octave(octave)[i] += times;
    }

    #[inline]
    fn octave(&mut self, octave: usize) -> &mut Vec<u64> {
        if self.octaves.len() <= octave {
            self.octaves.resize(octave + 1, Vec::new());
        }
        let counts = &mut self.octaves[octave];
        if counts.is_empty() {
            counts.resize(SUB, 0);
        }
        counts
    }
}

/// Lowest value and width of a bucket.
fn bucket_range(octave: usize, i: usize) -> (u64, u64) {
    match octave {
        0 => (i as u64, 1),
        _ => (((SUB + i) as u64) << (octave - 1), 1 << (octave - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_series_are_exact() {
        let mut q = Quantiles::default();
        (1..=1000).rev().for_each(|v| q.record(v * 1_000_003));
        let d = q.distribution().unwrap();
        assert_eq!((d.p50, d.p99, d.p999), (500_001_500, 990_002_970, 999_002_997));
        assert!(d.exact);
    }

    #[test]
    fn long_series_are_off_by_at_most_a_fifth_of_a_percent() {
        let mut q = Quantiles::default();
        let n = 200_000_u64;
        (1..=n).for_each(|v| q.record(v * v));
        let d = q.distribution().unwrap();
        for (q, got) in [(0.01, d.p1), (0.5, d.p50), (0.99, d.p99), (0.999, d.p999)] {
            let rank = (q * n as f64).ceil();
            let expected = rank * rank;
            assert!((got as f64 / expected - 1.0).abs() < 0.002, "{q}: {got} for {expected}");
        }
        assert!(!d.exact);
        assert_eq!((d.min, d.max, d.count), (1, n * n, n));
    }

    #[test]
    fn buckets_cover_every_value_without_gap() {
        let mut expected_low = 0_u64;
        for octave in 0..=56 {
            for i in 0..SUB {
                let (low, width) = bucket_range(octave, i);
                assert_eq!(low, expected_low);
                expected_low = low.wrapping_add(width);
            }
        }
        assert_eq!(expected_low, 0, "the last bucket ends at 2^64");
        for value in [0, 255, 256, 511, 512, u64::MAX] {
            let mut q = Quantiles::default();
            q.record_n(value, 2);
            assert_eq!(q.distribution().unwrap().p50, value);
        }
    }

    #[test]
    fn merging_equals_recording_into_one() {
        for n in [100_u64, 30_000] {
            let (mut a, mut b, mut all) =
                (Quantiles::default(), Quantiles::default(), Quantiles::default());
            for v in 0..n {
                if v % 3 == 0 {
                    a.record(v)
                } else {
                    b.record(v)
                }
                all.record(v);
            }
            a.merge(&b);
            assert_eq!(a.distribution(), all.distribution());
            assert_eq!(a.count_below(n / 2), (n / 2) as f64);
        }
    }
}
