//! `sim`: a modelled device, seeded. The device of virtual time; it runs on the wall as well.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::store::Store;
use super::waker::{Sleeper, Waker};
use super::{Backend, Completion, Request};
use crate::clock::Ns;
use crate::error::Result;
use crate::filters::DataMode;
use crate::io::{OK, Op};
use crate::slab::IoId;

pub const PAGE: &str = "\
# sim

A modelled device. An I/O takes a channel of the device (8 by default) for its latency (read
80 us, write 30 us, flush 200 us, with an exponential tail of a quarter of it) and the shared bus
for its bytes (2 GB/s). The draw depends on the seed and on the order of submission alone, so a
run in virtual time repeats to the byte. It keeps data as `mem` does.

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
        }
    }
}

pub struct Sim {
    model: SimModel,
    store: Store,
    /// When each channel, and the bus, is free.
    channels: BinaryHeap<Reverse<Ns>>,
    bus_free_ns: Ns,
    random: u64,
    order: u64,
    running: BinaryHeap<Reverse<(Ns, u64, IoId)>>,
    sleeper: Arc<Sleeper>,
}

impl Sim {
    #[must_use]
    pub fn new(model: SimModel, mode: DataMode) -> Self {
        Self {
            channels: (0..model.channels.max(1)).map(|_| Reverse(0)).collect(),
            random: model.seed ^ 0x6A09_E667_F3BC_C909,
            store: Store::new(mode),
            bus_free_ns: 0,
            order: 0,
            running: BinaryHeap::new(),
            sleeper: Arc::default(),
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
}

impl Backend for Sim {
    fn submit(&mut self, request: Request, now: Ns) {
        self.store.apply(&request);
        let base = match request.op {
            Op::Read => self.model.read_ns,
            Op::Flush => self.model.flush_ns,
            _ => self.model.write_ns + if request.fua { self.model.flush_ns } else { 0 },
        };
        let tail = -self.uniform().ln() * self.model.tail * base as f64;
        let free = self.channels.pop().map_or(0, |Reverse(free)| free);
        let ready = free.max(now) + base + tail as u64;
        let bytes = if request.op.has_data() { request.length_bytes } else { 0 };
        let transfer = (bytes as f64 / self.model.bytes_per_s * 1e9) as u64;
        self.bus_free_ns = self.bus_free_ns.max(ready) + transfer;
        let done = if bytes == 0 { ready } else { self.bus_free_ns };
        self.channels.push(Reverse(done));
        self.order += 1;
        self.running.push(Reverse((done, self.order, request.id)));
    }

    fn reap(&mut self, now: Ns, out: &mut Vec<Completion>) -> Result<()> {
        while let Some(Reverse((at, _, id))) = self.running.peek() {
            if *at > now {
                break;
            }
            out.push(Completion { id: *id, status: OK, split: false });
            self.running.pop();
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
