//! The smallest bandwidth at which a share of the time is within the target.

/// Above this, in bits per second, no link is looked for.
const LARGEST_BPS: u64 = 1 << 50;

/// Tries bandwidths and remembers what each gave.
pub struct Search<F> {
    beyond_ns: F,
    /// (bits per second, time beyond the target in ns), by falling bandwidth.
    tried: Vec<(u64, f64)>,
}

impl<F: FnMut(u64) -> f64> Search<F> {
    /// `beyond_ns` gives the time beyond the target at a bandwidth in bits per second.
    pub fn new(beyond_ns: F) -> Self {
        Self { beyond_ns, tried: Vec::new() }
    }

    /// The smallest whole bandwidth with at most `allowed_ns` beyond the target, below the
    /// largest; None when that one is not enough.
    ///
    /// With continuous replication more bandwidth is never worse. With snapshots it can be (a
    /// late sync takes a later state along), so the search comes down from above, by halves: the
    /// answer also holds for every larger bandwidth that was tried.
    pub fn smallest(&mut self, allowed_ns: f64) -> Option<u64> {
        let mut enough = None;
        let mut next = 0;
        let mut too_little = loop {
            let bps = match (self.tried.get(next), enough) {
                (Some((bps, _)), _) => *bps,
                (None, None) => LARGEST_BPS,
                (None, Some(1)) => return Some(1),
                (None, Some(bps)) => bps / 2,
            };
            if self.beyond(bps) > allowed_ns {
                break bps;
            }
            enough = Some(bps);
            next += 1;
        };
        let mut enough = enough?;
        while enough - too_little > 1 {
            let middle = too_little + (enough - too_little) / 2;
            if self.beyond(middle) > allowed_ns {
                too_little = middle;
            } else {
                enough = middle;
            }
        }
        Some(enough)
    }

    fn beyond(&mut self, bps: u64) -> f64 {
        let place = self.tried.partition_point(|(tried, _)| *tried > bps);
        if let Some((_, beyond)) = self.tried.get(place).filter(|(tried, _)| *tried == bps) {
            return *beyond;
        }
        let beyond = (self.beyond_ns)(bps);
        self.tried.insert(place, (bps, beyond));
        beyond
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_is_found_to_the_bit() {
        for edge in [1u64, 2, 3, 1000, 138_000_001, LARGEST_BPS] {
            let mut tries = 0;
            let mut search = Search::new(|bps| {
                tries += 1;
                if bps < edge { (edge - bps) as f64 } else { 0.0 }
            });
            assert_eq!(search.smallest(0.0), Some(edge));
            assert_eq!(search.smallest(0.0), Some(edge));
            assert!(tries < 110, "{tries}");
        }
        assert_eq!(Search::new(|_| 1.0).smallest(0.5), None);
        assert_eq!(Search::new(|_| 1.0).smallest(1.0), Some(1));
    }

    #[test]
    fn of_several_edges_the_uppermost_counts() {
        let mut search = Search::new(|bps| f64::from(bps < 100 || (1000..3000).contains(&bps)));
        assert_eq!(search.smallest(0.0), Some(3000));
    }
}
