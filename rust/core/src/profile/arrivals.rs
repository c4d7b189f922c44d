//! When I/Os arrive: interarrival times, burstiness by scale, self-similarity.
//!
//! Bursts are counted in bins that tile time from the first I/O; the last, incomplete bin is left
//! out and empty ones count. Hurst's exponent is estimated from aggregated variances (Taqqu,
//! Teverovsky and Willinger 1995): counts in bins of 10 ms, 20 ms, 40 ms ... have a variance that
//! grows as the width to the power 2H. About 0.5 is what independent (Poisson) arrivals give;
//! towards 1, bursts do not even out at any scale. A trend or a change of load also raises it.

use serde::Serialize;

use super::quantiles::{Distribution, Quantiles};

/// Scales of the burst figures: 100 ms, 1 s, 1 min.
const SCALES_NS: [i64; 3] = [100_000_000, 1_000_000_000, 60_000_000_000];
const HURST_BASE_NS: i64 = 10_000_000;
/// Doublings of the base bin: the widest is 1.5 hours.
const HURST_LEVELS: usize = 20;
/// A variance is used only from this many complete bins on.
const HURST_MIN_BINS: u64 = 32;
/// A line is drawn only through this many variances or more.
const HURST_MIN_SCALES: usize = 5;

/// Arrivals of one disk, or of all.
#[derive(Debug, Clone)]
pub struct Arrivals {
    last_ns: Option<i64>,
    between: Quantiles,
    scales: [Bins; 3],
    levels: Vec<Level>,
}

#[derive(Debug, Clone, Default)]
struct Bins {
    width_ns: i64,
    end_ns: i64,
    ios: u64,
    bytes: u64,
    sum: f64,
    sum_squares: f64,
    peak_ios: u64,
    peak_bytes: u64,
}

/// Counts in bins of one width; only bins with I/Os are seen, the empty ones add nothing.
#[derive(Debug, Clone, Default)]
struct Level {
    bin: i64,
    count: u64,
    sum: f64,
    sum_squares: f64,
}

#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct ArrivalSummary {
    pub interarrival_ns: Option<Distribution>,
    /// Standard deviation over mean of the interarrival times: 1 for Poisson, 0 for constant.
    pub interarrival_cov: Option<f64>,
    pub burstiness: Vec<Burst>,
    pub hurst: Option<Hurst>,
}

/// Burst figures at one scale.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Burst {
    pub window_s: f64,
    /// Complete windows, empty ones included.
    pub windows: u64,
    pub peak_ios_per_s: f64,
    pub peak_bytes_per_s: f64,
    pub peak_to_mean: f64,
    /// Variance over mean of the counts: 1 for Poisson at every scale.
    pub index_of_dispersion: Option<f64>,
}

#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Hurst {
    pub exponent: f64,
    /// Share of the variance that the fitted line explains; far below 1: not self-similar.
    pub r_squared: f64,
    pub scales: usize,
    pub method: &'static str,
}

impl Default for Arrivals {
    fn default() -> Self {
        let bins = |width_ns| Bins { width_ns, end_ns: width_ns, ..Bins::default() };
        Self {
            last_ns: None,
            between: Quantiles::default(),
            scales: SCALES_NS.map(bins),
            levels: vec![Level::default(); HURST_LEVELS],
        }
    }
}

impl Arrivals {
    /// Counts an I/O at `time_ns` since the first of the trace, in order of time.
    #[inline]
    pub fn record(&mut self, time_ns: i64, bytes: u64) {
        if let Some(last_ns) = self.last_ns {
            self.between.record((time_ns - last_ns) as u64);
        }
        self.last_ns = Some(time_ns);
        for bins in &mut self.scales {
            bins.record(time_ns, bytes);
        }
        add_level(&mut self.levels, time_ns / HURST_BASE_NS, 1);
    }

    #[must_use]
    pub fn summary(&self, duration_ns: i64) -> ArrivalSummary {
        ArrivalSummary {
            interarrival_ns: self.between.distribution(),
            interarrival_cov: self.between.coefficient_of_variation(),
            burstiness: self.scales.iter().filter_map(|b| b.summary(duration_ns)).collect(),
            hurst: self.hurst(duration_ns),
        }
    }

    fn hurst(&self, duration_ns: i64) -> Option<Hurst> {
        let mut levels = self.levels.clone();
        let mut points = Vec::new();
        for k in 0..HURST_LEVELS {
            let width_ns = HURST_BASE_NS << k;
            let complete = duration_ns / width_ns;
            if levels[k].bin < complete {
                let (bin, count) = levels[k].close(i64::MAX);
                add_level(&mut levels[k + 1..], bin >> 1, count);
            }
            let level = &levels[k];
            let variance = sample_variance(complete as f64, level.sum, level.sum_squares);
            let variance = variance.unwrap_or(0.0);
            if complete as u64 >= HURST_MIN_BINS && variance > 0.0 {
                points.push(((width_ns as f64).log2(), variance.log2()));
            }
        }
        if points.len() < HURST_MIN_SCALES {
            return None;
        }
        let (slope, r_squared) = fit_line(&points);
        let method = "aggregated variance, bins of 10 ms and up, doubling";
        Some(Hurst { exponent: slope / 2.0, r_squared, scales: points.len(), method })
    }
}

impl Bins {
    #[inline]
    fn record(&mut self, time_ns: i64, bytes: u64) {
        if time_ns >= self.end_ns {
            self.close();
            self.end_ns = (time_ns / self.width_ns + 1) * self.width_ns;
        }
        self.ios += 1;
        self.bytes += bytes;
    }

    fn close(&mut self) {
        self.sum += self.ios as f64;
        self.sum_squares += (self.ios * self.ios) as f64;
        self.peak_ios = self.peak_ios.max(self.ios);
        self.peak_bytes = self.peak_bytes.max(self.bytes);
        (self.ios, self.bytes) = (0, 0);
    }

    fn summary(&self, duration_ns: i64) -> Option<Burst> {
        let windows = (duration_ns / self.width_ns) as u64;
        let mut closed = self.clone();
        if self.end_ns / self.width_ns <= windows as i64 {
            closed.close();
        }
        if windows == 0 || closed.sum == 0.0 {
            return None;
        }
        let (n, window_s) = (windows as f64, self.width_ns as f64 / 1e9);
        let mean = closed.sum / n;
        Some(Burst {
            window_s,
            windows,
            peak_ios_per_s: closed.peak_ios as f64 / window_s,
            peak_bytes_per_s: closed.peak_bytes as f64 / window_s,
            peak_to_mean: closed.peak_ios as f64 / mean,
            index_of_dispersion: sample_variance(n, closed.sum, closed.sum_squares)
                .map(|variance| variance / mean),
        })
    }
}

impl Level {
    /// Ends the open bin: books it and gives its number and count.
    fn close(&mut self, next_bin: i64) -> (i64, u64) {
        let closed = (self.bin, self.count);
        self.sum += self.count as f64;
        self.sum_squares += (self.count * self.count) as f64;
        self.bin = next_bin;
        self.count = 0;
        closed
    }
}

/// Adds to bin number `bin` of the first level; a bin that ends goes on to the next level.
#[inline]
fn add_level(levels: &mut [Level], bin: i64, count: u64) {
    let (mut bin, mut count) = (bin, count);
    for level in levels {
        if level.bin == bin {
            level.count += count;
            return;
        }
        let closed = level.close(bin);
        level.count = count;
        (bin, count) = (closed.0 >> 1, closed.1);
    }
}

fn sample_variance(n: f64, sum: f64, sum_squares: f64) -> Option<f64> {
    (n >= 2.0).then(|| ((sum_squares - sum * sum / n) / (n - 1.0)).max(0.0))
}

/// Slope and coefficient of determination of the least-squares line.
fn fit_line(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    let mean_x = points.iter().map(|p| p.0).sum::<f64>() / n;
    let mean_y = points.iter().map(|p| p.1).sum::<f64>() / n;
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in points {
        xx += (x - mean_x).powi(2);
        xy += (x - mean_x) * (y - mean_y);
        yy += (y - mean_y).powi(2);
    }
    let r_squared = if yy > 0.0 { xy * xy / (xx * yy) } else { 1.0 };
    (xy / xx, r_squared)
}

#[cfg(test)]
mod tests {
    use super::super::blocks::spread;
    use super::*;

    /// Exponential gaps with a mean of `mean_ns`.
    fn poisson(n: u64, mean_ns: f64, seed: u64) -> Vec<i64> {
        let mut time = 0.0;
        (0..n)
            .map(|i| {
                let unit =
                    ((spread(seed << 32 | (i + 1)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
                time += -unit.ln() * mean_ns;
                time as i64
            })
            .collect()
    }

    fn of(times: &[i64]) -> ArrivalSummary {
        let mut arrivals = Arrivals::default();
        times.iter().for_each(|t| arrivals.record(t - times[0], 4096));
        arrivals.summary(times[times.len() - 1] - times[0])
    }

    #[test]
    fn poisson_arrivals_look_poisson() {
        let found = of(&poisson(600_000, 1e6, 1));
        assert!((found.interarrival_cov.unwrap() - 1.0).abs() < 0.01);
        // 600 s: 6,000 bins of 100 ms; the deviation of the index is about sqrt(2 / bins).
        let index = found.burstiness[0].index_of_dispersion.unwrap();
        assert!((index - 1.0).abs() < 4.0 * (2.0_f64 / 6000.0).sqrt(), "{index}");
        let hurst = found.hurst.unwrap();
        assert!((hurst.exponent - 0.5).abs() < 0.06 && hurst.r_squared > 0.97, "{hurst:?}");
    }

    #[test]
    fn constant_arrivals_have_no_dispersion() {
        let times: Vec<i64> = (0..30_001).map(|i| i * 1_000_000).collect();
        let found = of(&times);
        assert!(found.interarrival_cov.unwrap() < 1e-6);
        assert_eq!(found.burstiness.len(), 2, "30 s hold no minute");
        assert_eq!(found.burstiness[0].index_of_dispersion, Some(0.0));
        assert_eq!(found.burstiness[1].windows, 30);
        assert_eq!(found.burstiness[1].peak_to_mean, 1.0);
        assert_eq!(found.hurst, None, "no variance, no line");
    }

    #[test]
    fn on_and_off_is_seen_as_bursts() {
        // 1 s in 10 s is busy, with 1,000 I/Os.
        let times: Vec<i64> =
            (0..20_000).map(|i| (i / 1000) * 10_000_000_000 + (i % 1000) * 1_000_000).collect();
        let mut arrivals = Arrivals::default();
        times.iter().for_each(|t| arrivals.record(*t, 512));
        let found = arrivals.summary(200_000_000_000);
        let second = &found.burstiness[1];
        assert_eq!((second.windows, second.peak_ios_per_s), (200, 1000.0));
        assert!((second.peak_to_mean - 10.0).abs() < 1e-9);
        // Counts are 1,000 with probability 1/10: variance 90,000 over mean 100.
        let expected = 90_000.0 * 200.0 / 199.0 / 100.0;
        assert!((second.index_of_dispersion.unwrap() - expected).abs() < 1e-6);
    }

    #[test]
    fn levels_hold_the_same_counts_as_bins_counted_at_once() {
        let times = poisson(50_000, 3e6, 9);
        let mut arrivals = Arrivals::default();
        times.iter().for_each(|t| arrivals.record(*t, 0));
        for k in [0_usize, 3, 7] {
            let mut counts = std::collections::BTreeMap::new();
            times
                .iter()
                .for_each(|t| *counts.entry(t / (HURST_BASE_NS << k)).or_insert(0_u64) += 1);
            // Bins still open anywhere below are not booked yet.
            let open = times[times.len() - 1] / (HURST_BASE_NS << k);
            let last = arrivals.levels[k].bin;
            assert!(last <= open);
            let booked: f64 = counts.range(..last).map(|(_, n)| (n * n) as f64).sum();
            assert_eq!(arrivals.levels[k].sum_squares, booked);
        }
    }
}
