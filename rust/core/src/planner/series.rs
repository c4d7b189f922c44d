//! A lag over time for charts: its largest value in each of some thousand equal intervals.

use crate::planner::ramps::Ramp;

/// Largest value in ns of each interval of the planning window.
pub struct Series {
    width: f64,
    largest: Vec<f64>,
}

impl Series {
    #[must_use]
    pub fn new(horizon: f64, intervals: usize) -> Self {
        Self { width: horizon / intervals.max(1) as f64, largest: vec![0.0; intervals.max(1)] }
    }

    #[inline]
    pub fn add(&mut self, ramp: &Ramp) {
        let end = ramp.start + (ramp.end - ramp.start).max(ramp.repeats as f64 * ramp.period);
        let (first, last) = (self.interval(ramp.start), self.interval(end));
        for i in first..=last {
            let until = (self.width * (i + 1) as f64).min(end);
            let since = (self.width * i as f64).max(ramp.start);
            let value = if ramp.repeats == 1 {
                until - ramp.origin
            } else if since < until {
                saw_max(ramp, since, until)
            } else {
                continue;
            };
            self.largest[i] = self.largest[i].max(value);
        }
    }

    fn interval(&self, time: f64) -> usize {
        ((time / self.width) as usize).min(self.largest.len() - 1)
    }

    /// Interval starts and largest values, in seconds.
    #[must_use]
    pub fn finish(self) -> (Vec<f64>, Vec<f64>) {
        let starts = (0..self.largest.len()).map(|i| i as f64 * self.width / 1e9).collect();
        (starts, self.largest.into_iter().map(|ns| ns / 1e9).collect())
    }
}

/// The largest value of a saw's teeth between two times.
fn saw_max(saw: &Ramp, since: f64, until: f64) -> f64 {
    let tooth = |time: f64| ((time - saw.start) / saw.period).floor();
    if tooth(until) > tooth(since) {
        saw.high()
    } else {
        until - saw.start - tooth(until) * saw.period + saw.low()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_value_of_each_interval_is_kept() {
        let mut series = Series::new(10e9, 5);
        series.add(&Ramp::within(1e9, 5e9, 0.5e9, 10e9).unwrap());
        series.add(&Ramp::saw(6e9, 1e9, 2));
        let (starts, values) = series.finish();
        assert_eq!(starts, [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(values, [1.5, 3.5, 4.5, 1.0, 0.0]);
    }

    #[test]
    fn slow_teeth_rise_through_several_intervals() {
        let mut series = Series::new(12e9, 6);
        series.add(&Ramp::saw(0.0, 6e9, 2));
        assert_eq!(series.finish().1, [2.0, 4.0, 6.0, 2.0, 4.0, 6.0]);
    }
}
