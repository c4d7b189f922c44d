//! What goes wrong with a modelled device. Drawn from the seed and the I/O's number alone, so that
//! a fault hits the same I/O whatever else is switched on.

use super::platter::mix;

/// By default nothing goes wrong.
#[derive(Debug, Clone, Copy, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Share of the I/Os that fail with EIO. A write that fails may have changed a part.
    pub error_rate: f64,
    /// Share of the reads and writes that the device takes in two parts.
    pub short_rate: f64,
    /// Share of the I/Os that take `spike_ns` longer.
    pub spike_rate: f64,
    pub spike_ns: u64,
    /// A loss of power cuts writes at any sector; else each survives whole or not at all.
    pub torn: bool,
    /// Power fails when so many I/Os have reached the device: nothing is acknowledged any more.
    pub crash_after_ios: Option<u64>,
}

/// The draws for one I/O, uniform in [0, 1).
pub(super) struct Draws {
    seed: u64,
    order: u64,
}

impl Draws {
    pub const fn new(seed: u64, order: u64) -> Self {
        Self { seed, order }
    }

    const fn bits(&self, what: u64) -> u64 {
        mix(mix(self.seed ^ what) ^ self.order)
    }

    fn hits(&self, what: u64, share: f64) -> bool {
        share > 0.0 && ((self.bits(what) >> 11) as f64) < share * (1u64 << 53) as f64
    }

    pub fn fails(&self, faults: &Faults) -> bool {
        self.hits(1, faults.error_rate)
    }

    /// How much of a write that fails is done, in sectors.
    pub const fn sectors_done(&self, sectors: u64) -> u64 {
        self.bits(2) % (sectors + 1)
    }

    pub fn is_short(&self, faults: &Faults) -> bool {
        self.hits(3, faults.short_rate)
    }

    pub fn spikes(&self, faults: &Faults) -> bool {
        self.hits(4, faults.spike_rate)
    }
}

impl Faults {
    /// Whether anything can go wrong.
    #[must_use]
    pub fn any(&self) -> bool {
        self.error_rate > 0.0
            || self.short_rate > 0.0
            || self.spike_rate > 0.0
            || self.crash_after_ios.is_some()
    }
}
