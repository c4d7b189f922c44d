//! Time: a calibrated time-stamp counter on the wall, a plain number in virtual time.
//!
//! A stamp by `rdtsc` costs under half of `Instant::now()`, and an I/O needs two for every layer.
//! The counter is held to `CLOCK_MONOTONIC` for as long as a run lasts: [`Clock::discipline`]
//! slews the rate, never steps, so that time neither jumps back nor drifts in a replay of hours.
//! Only this file reads a clock.

use std::sync::OnceLock;

/// Nanoseconds since the clock's origin.
pub type Ns = u64;

/// `ns = (ticks * mult) >> SHIFT`: 32 bits of fraction keep the rate to 0.2 parts per billion.
const SHIFT: u32 = 32;
/// A correction is spread over this long, so that no interval is off by more than the error.
const SLEW_NS: f64 = 1e9;
/// The largest share by which a correction may change the rate.
const SLEW_MAX: f64 = 5e-4;
const DISCIPLINE_EVERY_NS: Ns = 200_000_000;

/// `CLOCK_MONOTONIC` in nanoseconds: the clock of the kernel's own block events.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for one timespec; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

/// Nanoseconds of CPU that this thread has used.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: as above.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

/// User and system nanoseconds of a thread of this process, by its number; `None` once it ended.
///
/// Their sum is exact; it is parted as the kernel's ticks found the thread, as `getrusage` does.
#[must_use]
pub fn thread_usage_ns(thread: i32) -> Option<[u64; 2]> {
    // The kernel's numbers of clocks (CPUCLOCK_PERTHREAD and, from 0, PROF, VIRT, SCHED).
    let read = |which: i32| {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a valid place for one timespec; an unknown clock is an error.
        let found = unsafe { libc::clock_gettime((!thread << 3) | 4 | which, &raw mut time) };
        (found == 0).then(|| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    };
    let (both, user, exact) = (read(0)?, read(1)?, read(2)?);
    let share = if both > 0 { user.min(both) as f64 / both as f64 } else { 1.0 };
    let user = (exact as f64 * share) as u64;
    Some([user, exact.saturating_sub(user)])
}

/// `getrusage` of the calling thread, or of the whole process: user and system nanoseconds,
/// voluntary and involuntary context switches.
#[must_use]
pub fn usage(whole_process: bool) -> [u64; 4] {
    let who = if whole_process { libc::RUSAGE_SELF } else { libc::RUSAGE_THREAD };
    // SAFETY: rusage is plain data.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a valid place for one rusage.
    unsafe { libc::getrusage(who, &raw mut usage) };
    let ns = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1000;
    [ns(usage.ru_utime), ns(usage.ru_stime), usage.ru_nvcsw as u64, usage.ru_nivcsw as u64]
}

/// Left alone, the kernel may end a sleep of this thread 50 us late (all but those in io_uring),
/// and that is most of what it is worth to spin before a due time.
pub fn end_sleeps_in_time() {
    let slack_ns: libc::c_ulong = 1;
    // SAFETY: sets a number of the calling thread.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, slack_ns) };
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn ticks() -> u64 {
    // SAFETY: rdtsc is part of every x86-64 CPU.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn ticks() -> u64 {
    monotonic_ns()
}

/// Whether the counter runs at one rate in every power state (CPUID 8000_0007H, EDX bit 8;
/// Intel SDM vol. 3, "Invariant TSC"). Where it does not, the clock reads `CLOCK_MONOTONIC`.
#[must_use]
pub fn tsc_is_invariant() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let leaf = core::arch::x86_64::__cpuid(0x8000_0000).eax;
        leaf >= 0x8000_0007 && core::arch::x86_64::__cpuid(0x8000_0007).edx & (1 << 8) != 0
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// A counter reading with the monotonic time of the same instant: the narrowest of a few tries.
fn paired_reading() -> (u64, u64) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..8 {
        let before = ticks();
        let ns = monotonic_ns();
        let after = ticks();
        if after.wrapping_sub(before) < best.0 {
            best = (after - before, before + (after - before) / 2, ns);
        }
    }
    (best.1, best.2)
}

/// Nanoseconds a tick, measured once a process over 10 ms; `discipline` makes up for the rest.
fn initial_rate() -> f64 {
    static RATE: OnceLock<f64> = OnceLock::new();
    *RATE.get_or_init(|| {
        let (t0, n0) = paired_reading();
        std::thread::sleep(std::time::Duration::from_millis(10));
        let (t1, n1) = paired_reading();
        (n1 - n0) as f64 / (t1 - t0) as f64
    })
}

/// The wall clock of one worker.
#[derive(Debug, Clone)]
pub struct WallClock {
    use_tsc: bool,
    origin_ns: u64,
    first_ticks: u64,
    first_mono_ns: u64,
    anchor_ticks: u64,
    anchor_ns: Ns,
    mult: u64,
}

impl WallClock {
    /// A clock that counts from `origin_ns` of `CLOCK_MONOTONIC` (which must not be ahead).
    #[must_use]
    pub fn since(origin_ns: u64) -> Self {
        let use_tsc = tsc_is_invariant();
        let rate = if use_tsc { initial_rate() } else { 1.0 };
        let (anchor_ticks, now) =
            if use_tsc { paired_reading() } else { (origin_ns, monotonic_ns()) };
        Self {
            use_tsc,
            origin_ns,
            first_ticks: anchor_ticks,
            first_mono_ns: now,
            anchor_ticks,
            anchor_ns: now - origin_ns,
            mult: to_mult(rate),
        }
    }

    #[inline]
    fn now(&self) -> Ns {
        if !self.use_tsc {
            return monotonic_ns() - self.origin_ns;
        }
        // Another core's counter may read a few ticks behind the anchor: time stands still then.
        let delta = ticks().saturating_sub(self.anchor_ticks);
        self.anchor_ns + ((u128::from(delta) * u128::from(self.mult)) >> SHIFT) as u64
    }

    fn discipline(&mut self) {
        if !self.use_tsc || self.now() < self.anchor_ns + DISCIPLINE_EVERY_NS {
            return;
        }
        let (ticks, mono) = paired_reading();
        let delta = ticks.saturating_sub(self.anchor_ticks);
        let ours = self.anchor_ns + ((u128::from(delta) * u128::from(self.mult)) >> SHIFT) as u64;
        let truth = mono - self.origin_ns;
        // The longer the base, the better the rate: from the clock's first reading on.
        let rate = (mono - self.first_mono_ns) as f64 / (ticks - self.first_ticks) as f64;
        let slew = ((truth as f64 - ours as f64) / SLEW_NS).clamp(-SLEW_MAX, SLEW_MAX);
        self.anchor_ticks = ticks;
        self.anchor_ns = ours;
        self.mult = to_mult(rate * (1.0 + slew));
    }
}

fn to_mult(rate: f64) -> u64 {
    (rate * f64::from(1u32 << 31) * 2.0) as u64
}

/// The clock of a run: every part of the engine takes its time from here.
#[derive(Debug, Clone)]
pub enum Clock {
    Wall(WallClock),
    /// The driver moves it forward; nothing else does.
    Virtual(Ns),
}

impl Clock {
    #[inline]
    #[must_use]
    pub fn now(&self) -> Ns {
        match self {
            Self::Wall(wall) => wall.now(),
            Self::Virtual(now) => *now,
        }
    }

    #[must_use]
    pub const fn is_virtual(&self) -> bool {
        matches!(self, Self::Virtual(_))
    }

    /// Holds the counter to the monotonic clock; cheap to call in every idle moment.
    pub fn discipline(&mut self) {
        if let Self::Wall(wall) = self {
            wall.discipline();
        }
    }

    /// Moves virtual time to `to` (never back). The wall does not listen.
    pub fn advance_to(&mut self, to: Ns) {
        if let Self::Virtual(now) = self {
            *now = to.max(*now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_never_runs_back_and_stays_with_the_monotonic_clock() {
        let origin = monotonic_ns();
        let mut clock = Clock::Wall(WallClock::since(origin));
        let mut last = 0;
        for _ in 0..30 {
            std::thread::sleep(std::time::Duration::from_millis(25));
            clock.discipline();
            let before = monotonic_ns() - origin;
            let now = clock.now();
            let after = monotonic_ns() - origin;
            assert!(now >= last);
            last = now;
            // 10 us of slack for a preemption between the readings is not needed: they bracket.
            assert!(now + 20_000 >= before && now <= after + 20_000, "{before} {now} {after}");
        }
    }

    #[test]
    fn virtual_time_moves_only_when_told() {
        let mut clock = Clock::Virtual(5);
        clock.advance_to(3);
        assert_eq!(clock.now(), 5);
        clock.advance_to(9);
        assert_eq!(clock.now(), 9);
    }
}
