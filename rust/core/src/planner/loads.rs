//! What each disk, each group of disks and all of them ask for, window by window.
//!
//! The rate of a group is the sum over its disks in each window: its peak is the peak of the sum,
//! which is less than the sum of the peaks unless all disks are busy at once.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::io::Op;

/// What came in one window.
#[derive(Debug, Default, Clone, Copy)]
pub struct Load {
    pub reads: u64,
    pub writes: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
}

impl Load {
    fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.read_bytes += other.read_bytes;
        self.written_bytes += other.written_bytes;
    }
}

/// The loads of every disk in windows of one length. Memory: 40 bytes a disk and window in which
/// it was used.
pub struct Loads {
    window_ns: u64,
    /// Where the current window ends.
    boundary_ns: i64,
    window: u32,
    current: Vec<Load>,
    /// Disks used in the current window.
    used: Vec<u32>,
    /// By disk: (window, load).
    kept: Vec<Vec<(u32, Load)>>,
    /// By disk: the end of the last I/O on it, bytes.
    pub reach_bytes: Vec<u64>,
}

impl Loads {
    #[must_use]
    pub fn new(window_ns: u64) -> Self {
        Self {
            window_ns,
            boundary_ns: i64::try_from(window_ns).unwrap_or(i64::MAX),
            window: 0,
            current: Vec::new(),
            used: Vec::new(),
            kept: Vec::new(),
            reach_bytes: Vec::new(),
        }
    }

    /// Counts an I/O; times do not go back.
    ///
    /// # Errors
    /// `Input` beyond 2^32 windows.
    #[inline]
    pub fn add(&mut self, time_ns: i64, disk: u32, op: Op, end: u64, bytes: u64) -> Result<()> {
        if time_ns >= self.boundary_ns {
            self.next_window(time_ns)?;
        }
        if matches!(op, Op::Flush | Op::Discard) {
            return Ok(());
        }
        let index = disk as usize;
        if index >= self.current.len() {
            self.current.resize(index + 1, Load::default());
            self.reach_bytes.resize(index + 1, 0);
        }
        let load = &mut self.current[index];
        if load.reads + load.writes == 0 {
            self.used.push(disk);
        }
        if op == Op::Read {
            load.reads += 1;
            load.read_bytes += bytes;
        } else {
            load.writes += 1;
            load.written_bytes += bytes;
        }
        self.reach_bytes[index] = self.reach_bytes[index].max(end);
        Ok(())
    }

    #[cold]
    fn next_window(&mut self, time_ns: i64) -> Result<()> {
        self.keep();
        let window = time_ns as u64 / self.window_ns;
        self.window = u32::try_from(window)
            .map_err(|_| Error::input("rate-window: expected at most 2^32 of them in the trace"))?;
        self.boundary_ns = ((window + 1) * self.window_ns).min(i64::MAX as u64) as i64;
        Ok(())
    }

    fn keep(&mut self) {
        self.kept.resize(self.current.len(), Vec::new());
        for disk in self.used.drain(..) {
            let load = std::mem::take(&mut self.current[disk as usize]);
            self.kept[disk as usize].push((self.window, load));
        }
    }

    /// Call after the last I/O.
    pub fn finish(&mut self) {
        self.keep();
    }

    #[must_use]
    pub fn disks(&self) -> usize {
        self.kept.len()
    }

    /// The rates of some disks together. `share` is the percentile as a fraction, `growth` makes
    /// all of it larger.
    #[must_use]
    pub fn rates(&self, disks: &[u32], end_ns: i64, share: f64, growth: f64) -> Rates {
        // The last window takes what is left, so that none is a sliver.
        let windows = ((end_ns as u64 / self.window_ns) as usize).max(1);
        let last_ns = (end_ns as u64 - (windows as u64 - 1) * self.window_ns).max(1);
        let mut sums = vec![Load::default(); windows];
        for disk in disks {
            for (window, load) in &self.kept[*disk as usize] {
                sums[(*window as usize).min(windows - 1)].add(load);
            }
        }
        let mut total = Load::default();
        sums.iter().for_each(|load| total.add(load));
        let over = |what: fn(&Load) -> u64| {
            let rate = |(i, load): (usize, &Load)| {
                let ns = if i + 1 == windows { last_ns } else { self.window_ns };
                what(load) as f64 * (1.0 + growth) / (ns as f64 / 1e9)
            };
            Spread::of(sums.iter().enumerate().map(rate).collect(), share)
        };
        Rates {
            total,
            written_bytes_per_s: over(|load| load.written_bytes),
            write_iops: over(|load| load.writes),
            iops: over(|load| load.reads + load.writes),
        }
    }
}

/// A rate over the windows of a trace, in units a second.
#[derive(Debug, Clone, Serialize)]
pub struct Spread {
    pub mean: f64,
    /// At the percentile asked for: the smallest rate that share of the windows stays within.
    pub percentile: f64,
    pub peak: f64,
}

impl Spread {
    fn of(mut rates: Vec<f64>, share: f64) -> Self {
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        let rank = ((share * rates.len() as f64).ceil() as usize).clamp(1, rates.len()) - 1;
        let (_, percentile, above) = rates.select_nth_unstable_by(rank, f64::total_cmp);
        let peak = above.iter().copied().fold(*percentile, f64::max);
        Self { mean, percentile: *percentile, peak }
    }
}

/// What some disks ask for together.
#[derive(Debug, Clone)]
pub struct Rates {
    pub total: Load,
    pub written_bytes_per_s: Spread,
    pub write_iops: Spread,
    pub iops: Spread,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_of_a_group_is_the_peak_of_its_sum() {
        let mut loads = Loads::new(10);
        // Disk 0 is busy in the first window, disk 1 in the second, both in the third.
        for (time, disk, bytes) in [(0, 0, 100), (12, 1, 80), (21, 0, 50), (22, 1, 40)] {
            loads.add(time, disk, Op::Write, bytes, bytes).unwrap();
        }
        loads.add(39, 0, Op::Read, 4, 4).unwrap();
        loads.finish();
        let rate = |disks: &[u32]| loads.rates(disks, 40, 0.5, 0.0);
        let bytes = |disks: &[u32]| rate(disks).written_bytes_per_s.peak / 1e8;
        assert!((bytes(&[0]) - 100.0).abs() < 1e-9);
        assert!((bytes(&[1]) - 80.0).abs() < 1e-9);
        assert!((bytes(&[0, 1]) - 100.0).abs() < 1e-9);
        let both = rate(&[0, 1]);
        // Windows of 100, 80, 90 and 0 bytes: half of them are within 80.
        assert!((both.written_bytes_per_s.percentile / 1e8 - 80.0).abs() < 1e-9);
        assert!((both.written_bytes_per_s.mean / 1e8 - 67.5).abs() < 1e-9);
        assert_eq!((both.total.writes, both.total.reads), (4, 1));
        assert!((both.iops.peak / 1e8 - 2.0).abs() < 1e-9);
    }

    #[test]
    fn the_last_window_takes_what_is_left() {
        let mut loads = Loads::new(10);
        loads.add(0, 0, Op::Write, 30, 30).unwrap();
        loads.add(11, 0, Op::Flush, 0, 0).unwrap();
        loads.add(14, 0, Op::Write, 30, 30).unwrap();
        loads.finish();
        let found = loads.rates(&[0], 15, 1.0, 1.0).written_bytes_per_s;
        assert!((found.peak - 60.0 * 2.0 / 15e-9).abs() < 1.0, "{}", found.peak);
    }
}
