//! `sim`: a modelled device, seeded. The device of virtual time; it runs on the wall as well.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use self::faults::Draws;
pub use self::faults::Faults;
use self::platter::{Change, Platter, SharedPlatter};
use super::store::Place;
use super::waker::{Sleeper, Waker};
use super::{Backend, Completion, Request};
use crate::clock::Ns;
use crate::error::Result;
use crate::filters::{DataMode, SECTOR_BYTES};
use crate::io::{OK, Op, Status};
use crate::slab::IoId;

pub mod faults;
pub mod platter;
#[cfg(test)]
mod tests;

pub const PAGE: &str = "\
# sim

A modelled device. An I/O takes a channel of the device (8 by default) for its latency (read
80 us, write 30 us, flush 200 us, with an exponential tail of a quarter of it) and the shared bus
for its bytes (2 GB/s). The draw depends on the seed and on the order of submission alone, so a
run in virtual time repeats to the byte. It keeps data as `mem` does.

It can be made hostile, which is how the law suite (`vaio-bench certify`) uses it: a volatile write
cache that loses at a crash what was neither flushed nor written with FUA, and seeded faults
(errors that leave half a write behind, short transfers, latency spikes, torn writes, a loss of
power after a given I/O). A hostile device moves data when an I/O completes, not before.

The figures are those of no product: a round, middling SSD. Overhead verdicts from it are refused.

## Unsuitable for
Judging a real device; measuring overhead.
";

/// The model's parameters.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimModel {
    pub channels: u32,
    pub read_ns: u64,
    pub write_ns: u64,
    pub flush_ns: u64,
    /// Mean of the exponential tail, as a share of the latency.
    pub tail: f64,
    pub bytes_per_s: f64,
    pub seed: u64,
    /// Writes are volatile until a flush.
    pub write_cache: bool,
    pub faults: Faults,
}

impl Default for SimModel {
    fn default() -> Self {
        Self {
            channels: 8,
            read_ns: 80_000,
            write_ns: 30_000,
            flush_ns: 200_000,
            tail: 0.25,
            bytes_per_s: 2e9,
            seed: 0,
            write_cache: false,
            faults: Faults::default(),
        }
    }
}

impl SimModel {
    /// Data moves at completion, from copies: what a crash leaves depends on it.
    fn is_hostile(&self) -> bool {
        self.write_cache || self.faults.any()
    }
}

/// An I/O under way in a hostile device.
struct Pending {
    request: Request,
    status: Status,
    short: bool,
    /// For a flush: the count of completions that it covers.
    covers: u64,
    change: Change,
}

pub struct Sim {
    model: SimModel,
    platter: SharedPlatter,
    /// When each channel, and the bus, is free.
    channels: BinaryHeap<Reverse<Ns>>,
    bus_free_ns: Ns,
    random: u64,
    order: u64,
    running: BinaryHeap<Reverse<(Ns, u64, IoId)>>,
    sleeper: Arc<Sleeper>,
    /// By order of submission; only when hostile.
    pending: HashMap<u64, Pending>,
    without_power: bool,
}

impl Sim {
    #[must_use]
    pub fn new(model: SimModel, mode: DataMode) -> Self {
        Self::on(model, Platter::shared(mode, model.write_cache))
    }

    /// A device over contents that outlive it: after a crash, another is made over the same.
    #[must_use]
    pub fn on(model: SimModel, platter: SharedPlatter) -> Self {
        Self {
            channels: (0..model.channels.max(1)).map(|_| Reverse(0)).collect(),
            random: model.seed ^ 0x6A09_E667_F3BC_C909,
            platter,
            bus_free_ns: 0,
            order: 0,
            running: BinaryHeap::new(),
            sleeper: Arc::default(),
            pending: HashMap::new(),
            without_power: false,
            model,
        }
    }

    /// Uniform in (0, 1]: splitmix64 (Steele, Lea, Flood 2014).
    fn uniform(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 * (1.0 / (1u64 << 53) as f64) + f64::EPSILON / 2.0
    }

    /// When a request that comes now is done.
    fn schedule(&mut self, request: &Request, now: Ns, extra_ns: Ns) -> Ns {
        let base = match request.op {
            Op::Read => self.model.read_ns,
            Op::Flush => self.model.flush_ns,
            _ => self.model.write_ns + if request.fua { self.model.flush_ns } else { 0 },
        };
        let tail = -self.uniform().ln() * self.model.tail * base as f64;
        let free = self.channels.pop().map_or(0, |Reverse(free)| free);
        let ready = free.max(now) + base + tail as u64 + extra_ns;
        let bytes = if request.op.has_data() { request.length_bytes } else { 0 };
        let transfer = (bytes as f64 / self.model.bytes_per_s * 1e9) as u64;
        self.bus_free_ns = self.bus_free_ns.max(ready) + transfer;
        let done = if bytes == 0 { ready } else { self.bus_free_ns };
        self.channels.push(Reverse(done));
        done
    }

    /// Keeps what a hostile device needs to know of the request; what goes wrong takes longer.
    fn note(&mut self, request: &Request) -> Ns {
        let draws = Draws::new(self.model.seed, self.order);
        let faults = &self.model.faults;
        let short = request.op.has_data() && draws.is_short(faults);
        let extra_ns = if draws.spikes(faults) { faults.spike_ns } else { 0 };
        let data = if request.op == Op::Write {
            // SAFETY: the slot's bytes, which the worker lends until the completion is reaped.
            unsafe { std::slice::from_raw_parts(request.data, request.data_bytes) }.to_vec()
        } else {
            Vec::new()
        };
        let change = Change {
            order: self.order,
            op: request.op,
            place: Place::of(request),
            fua: request.fua,
            data,
        };
        let status = if draws.fails(faults) { libc::EIO } else { OK };
        let covers = platter::lock(&self.platter).completions();
        let pending = Pending { request: *request, status, short, covers, change };
        self.pending.insert(self.order, pending);
        extra_ns + if short { self.model.write_ns } else { 0 }
    }

    fn finish(&self, pending: &Pending) {
        let mut platter = platter::lock(&self.platter);
        let (request, change) = (&pending.request, &pending.change);
        let failed = pending.status != OK;
        match request.op {
            Op::Read => {
                // SAFETY: the slot's bytes, lent until this completion is reaped.
                let out =
                    unsafe { std::slice::from_raw_parts_mut(request.data, request.data_bytes) };
                if failed {
                    // Nobody may rely on what a failed read left there.
                    out.fill(0xee);
                } else if !out.is_empty() {
                    platter.seen().read(change.place, out);
                }
            }
            Op::Flush if failed => {}
            Op::Flush => platter.flushed(pending.covers, request.disk),
            Op::Write | Op::Discard | Op::WriteZeroes => {
                let sectors = request.length_bytes / SECTOR_BYTES;
                let done = Draws::new(self.model.seed, change.order).sectors_done(sectors);
                platter.complete(change, if failed { done * SECTOR_BYTES } else { u64::MAX });
            }
        }
    }

    /// Nothing is acknowledged any more. Whoever waits is told so.
    fn lose_power(&mut self) {
        self.without_power = true;
        let changes = self.pending.drain().map(|(_, pending)| pending.change).collect();
        let mut platter = platter::lock(&self.platter);
        platter.leave_on_the_way(changes);
        platter.crash(self.model.seed, self.model.faults.torn);
    }
}

impl Backend for Sim {
    fn prefetch(&self, disk: u16, offset_bytes: u64) {
        if !self.model.is_hostile() {
            platter::lock(&self.platter).seen().prefetch(disk, offset_bytes);
        }
    }

    fn submit(&mut self, request: Request, now: Ns) {
        self.order += 1;
        if self.model.faults.crash_after_ios.is_some_and(|ios| self.order > ios)
            && !self.without_power
        {
            self.lose_power();
            let lost: Vec<_> =
                self.running.drain().map(|Reverse((_, order, id))| (order, id)).collect();
            self.running.extend(lost.into_iter().map(|(order, id)| Reverse((now, order, id))));
        }
        let done = if self.without_power {
            now
        } else if self.model.is_hostile() {
            let extra_ns = self.note(&request);
            self.schedule(&request, now, extra_ns)
        } else {
            platter::lock(&self.platter).seen_mut().apply(&request);
            self.schedule(&request, now, 0)
        };
        self.running.push(Reverse((done, self.order, request.id)));
    }

    fn reap(&mut self, now: Ns, out: &mut Vec<Completion>) -> Result<()> {
        while let Some(Reverse((at, order, id))) = self.running.peek().copied() {
            if at > now {
                break;
            }
            self.running.pop();
            let (mut status, mut split) = (OK, false);
            if self.without_power {
                status = libc::ENODEV;
            } else if let Some(pending) = self.pending.remove(&order) {
                self.finish(&pending);
                (status, split) = (pending.status, pending.short);
            }
            out.push(Completion { id, status, split });
        }
        Ok(())
    }

    fn next_event_ns(&self) -> Option<Ns> {
        self.running.peek().map(|Reverse(next)| next.0)
    }

    fn wait(&mut self, timeout_ns: u64) -> Result<()> {
        self.sleeper.sleep(false, timeout_ns);
        Ok(())
    }

    fn waker(&mut self) -> Waker {
        Arc::clone(&self.sleeper) as Waker
    }

    fn is_model(&self) -> bool {
        true
    }
}

impl Drop for Sim {
    /// What is on its way when the device goes may reach the platter at a crash.
    fn drop(&mut self) {
        let changes = self.pending.drain().map(|(_, pending)| pending.change).collect();
        platter::lock(&self.platter).leave_on_the_way(changes);
    }
}
