//! RPO(t) and exposure(t) as what they are: pieces of slope one, `t - origin`, else zero.

/// `t - origin` on `[start, end)`, in ns, again `repeats - 1` times, `period` later each.
#[derive(Debug, Clone, Copy)]
pub struct Ramp {
    pub start: f64,
    pub end: f64,
    pub origin: f64,
    pub repeats: u64,
    pub period: f64,
}

impl Ramp {
    /// One piece, cut off where planning ends; None when nothing of it is left.
    #[inline]
    #[must_use]
    pub fn within(start: f64, end: f64, origin: f64, horizon: f64) -> Option<Self> {
        let end = end.min(horizon);
        (start < end).then_some(Self { start, end, origin, repeats: 1, period: 0.0 })
    }

    /// The saw of an idle disk: a point every `period` that is recoverable as it is cut.
    #[must_use]
    pub fn saw(start: f64, period: f64, repeats: u64) -> Self {
        Self { start, end: start + period, origin: start, repeats, period }
    }

    /// The value where the piece begins.
    #[inline]
    #[must_use]
    pub fn low(&self) -> f64 {
        self.start - self.origin
    }

    /// The value it comes up to.
    #[inline]
    #[must_use]
    pub fn high(&self) -> f64 {
        self.end - self.origin
    }
}

/// A time throughout which RPO(t) lies between two bounds, and never is zero.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    pub start: f64,
    pub end: f64,
    pub low: f64,
    pub high: f64,
}

/// What a replication mode tells as it is walked through time. Pieces of one kind come in order
/// of time and do not overlap; where there is none, the value is zero.
pub trait Sink {
    fn rpo(&mut self, ramp: Ramp);

    /// Takes a stretch of RPO as a whole; false where its pieces are wanted. Of the largest value
    /// [`Mode::max_ns`] tells.
    fn stretch(&mut self, stretch: &Stretch) -> bool {
        let _ = stretch;
        false
    }

    fn exposure(&mut self, ramp: Ramp);

    /// Ages at which restore points were replaced: `first`, then `count - 1` more, each less by
    /// `step`.
    fn sessions(&mut self, first: f64, step: f64, count: u64);
}

/// The planning window and what is asked of it. Times in ns.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// Planning ends here.
    pub horizon: f64,
    pub target: f64,
}

impl Frame {
    /// Differences up to this are rounding: the trace's own resolution, or that of a double.
    #[must_use]
    pub fn tolerance(&self) -> f64 {
        (self.horizon * 1e-15).max(1.0)
    }

    /// Time of a piece spent beyond the target.
    #[inline]
    #[must_use]
    pub fn beyond(&self, ramp: &Ramp) -> f64 {
        if ramp.high() <= self.target + self.tolerance() {
            return 0.0;
        }
        ramp.repeats as f64 * (ramp.high() - ramp.low().max(self.target))
    }

    /// Sessions among `count` whose age is within the target.
    #[must_use]
    pub fn sessions_met(&self, first: f64, step: f64, count: u64) -> u64 {
        let too_old = first - self.target - self.tolerance();
        if too_old <= 0.0 {
            count
        } else if step <= 0.0 {
            0
        } else {
            count.saturating_sub((too_old / step).ceil() as u64)
        }
    }
}

/// Adds up the time beyond the target: all that a search for bandwidth asks for.
pub struct Beyond {
    pub frame: Frame,
    pub total_ns: f64,
}

impl Sink for Beyond {
    fn rpo(&mut self, ramp: Ramp) {
        self.total_ns += self.frame.beyond(&ramp);
    }

    fn exposure(&mut self, _: Ramp) {}

    fn sessions(&mut self, _: f64, _: f64, _: u64) {}
}

/// A way of replicating, walked through time at a link speed.
pub trait Mode {
    /// `byte_ns`: the link's time for one byte of the trace's payload.
    fn walk(&self, byte_ns: f64, sink: &mut impl Sink);

    /// As `walk`, where pieces of RPO that stay below `floor` may be left out, and exposure and
    /// sessions are not asked for.
    fn walk_above(&self, byte_ns: f64, floor: f64, sink: &mut impl Sink) {
        let _ = floor;
        self.walk(byte_ns, sink);
    }

    fn frame(&self) -> &Frame;

    /// The largest RPO, ns, where it can be had without a walk. A mode that tells of stretches
    /// has it.
    fn max_ns(&self, byte_ns: f64) -> Option<f64> {
        let _ = byte_ns;
        None
    }

    /// Time beyond the target, ns.
    fn beyond_ns(&self, byte_ns: f64) -> f64 {
        let mut sink = Beyond { frame: *self.frame(), total_ns: 0.0 };
        self.walk(byte_ns, &mut sink);
        sink.total_ns
    }

    /// More bandwidth is never worse.
    fn falls_with_bandwidth(&self) -> bool {
        true
    }

    /// Exposure and RPO are one function: `walk` then tells only of RPO.
    fn exposure_is_rpo(&self) -> bool {
        false
    }
}
