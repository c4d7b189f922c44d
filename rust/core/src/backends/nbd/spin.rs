//! Whether a reply is worth looking for before a sleep: where the server is quick, a wake-up takes
//! as long as its answer.

use crate::clock::monotonic_ns;

/// The longest look. A sleep that is longer was worth it.
const LOOK_NS_MAX: u64 = 50_000;
const LOOK_NS_MIN: u64 = 5_000;
/// With more requests in flight a sleep gathers several answers, and a server on the same machine
/// has use for the processor.
const OPEN_MAX: usize = 2;
/// Between two calls to the kernel.
const PAUSES: u32 = 20;

/// How long it looks, learnt from how long it slept.
pub struct Spin {
    look_ns: u64,
    max_ns: u64,
}

impl Default for Spin {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { look_ns: 0, max_ns: if processors > 1 { LOOK_NS_MAX } else { 0 } }
    }
}

impl Spin {
    /// A look with so many requests in flight, if it is worth one.
    pub fn begin(&self, open: usize, timeout_ns: u64) -> Option<Looking> {
        let wants = self.look_ns > 0 && (1..=OPEN_MAX).contains(&open);
        wants.then(|| Looking { until_ns: monotonic_ns() + self.look_ns.min(timeout_ns) })
    }

    /// A sleep that a longer look would have spared, or that none would have.
    pub fn learn(&mut self, slept_ns: u64) {
        self.look_ns = if self.max_ns == 0 {
            0
        } else if slept_ns <= self.max_ns {
            (self.look_ns * 2).clamp(LOOK_NS_MIN, self.max_ns)
        } else if self.look_ns <= LOOK_NS_MIN {
            0
        } else {
            self.look_ns / 2
        };
    }
}

pub struct Looking {
    until_ns: u64,
}

impl Looking {
    /// False when it has taken long enough.
    pub fn goes_on(&mut self) -> bool {
        for _ in 0..PAUSES {
            std::hint::spin_loop();
        }
        monotonic_ns() < self.until_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_where_sleeps_are_short_and_stops_where_they_are_long() {
        let mut spin = Spin { look_ns: 0, max_ns: LOOK_NS_MAX };
        assert!(spin.begin(1, u64::MAX).is_none());
        spin.learn(20_000);
        assert!(spin.begin(1, u64::MAX >> 1).is_some());
        assert!(spin.begin(OPEN_MAX + 1, 1).is_none());
        (0..10).for_each(|_| spin.learn(20_000));
        assert_eq!(spin.look_ns, LOOK_NS_MAX);
        (0..10).for_each(|_| spin.learn(1_000_000));
        assert_eq!(spin.look_ns, 0);
    }

    #[test]
    fn one_processor_is_left_to_the_server() {
        let mut spin = Spin { look_ns: 0, max_ns: 0 };
        spin.learn(0);
        assert!(spin.begin(1, 1_000).is_none());
    }
}
