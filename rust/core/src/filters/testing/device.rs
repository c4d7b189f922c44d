//! A device that finishes I/Os out of order and can be told to fail.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Arc, Mutex};

use super::moving::move_data;
use super::power::Volatile;
use super::{DataMode, EIO};
use crate::backends::waker::{Sleeper, Waker};
use crate::backends::{Backend, Completion, Request};
use crate::clock::Ns;
use crate::error::Result;
use crate::int_map::IntMap;
use crate::io::{OK, Op, Status};
use crate::slab::IoId;

/// The device as a test sees it.
#[derive(Default)]
pub struct Device {
    pub image: Vec<u8>,
    /// What reached it, in order of submission.
    pub log: Vec<(Op, u64, u64)>,
    /// I/Os of this operation that touch the range fail.
    pub fail: Option<(Op, std::ops::Range<u64>)>,
    /// The filters' own devices, by number, as far as they were written; and whether they fail.
    pub own: HashMap<u16, Vec<u8>>,
    pub own_fails: bool,
    /// As `log` and `fail` for them, with an errno of its own.
    pub file_log: Vec<(Op, u64, u64)>,
    pub file_fail: Option<(Op, std::ops::Range<u64>, Status)>,
    /// What a loss of power may take, where a test looks at that.
    pub volatile: Option<Volatile>,
}

pub struct TestBackend {
    device: Arc<Mutex<Device>>,
    mode: DataMode,
    random: u64,
    order: u64,
    running: BinaryHeap<Reverse<(Ns, u64, IoId)>>,
    /// With how many changes were done when each came.
    requests: IntMap<(Request, u64)>,
}

impl TestBackend {
    pub fn over(device: &Arc<Mutex<Device>>, mode: DataMode) -> Self {
        Self {
            device: Arc::clone(device),
            mode,
            random: 1,
            order: 0,
            running: BinaryHeap::new(),
            requests: IntMap::default(),
        }
    }

    fn apply(&self, request: &Request, changes_before: u64) -> Status {
        let mut device = self.device.lock().unwrap();
        let end = request.offset_bytes + request.length_bytes;
        let hit = |range: &std::ops::Range<u64>| {
            request.op == Op::Flush || request.offset_bytes < range.end && range.start < end
        };
        let (from, to) = (self.mode.size(request.offset_bytes), self.mode.size(end));
        if request.disk > 0 {
            let failing = device.file_fail.as_ref();
            let failing = failing.filter(|(op, range, _)| *op == request.op && hit(range));
            if device.own_fails || failing.is_some() {
                return failing.map_or(libc::ENOSPC, |(_, _, status)| *status);
            }
            let image = device.own.entry(request.disk).or_default();
            image.resize(image.len().max(to), 0);
            return move_data(request, &mut image[from..to]);
        }
        if device.fail.as_ref().is_some_and(|(op, range)| *op == request.op && hit(range)) {
            return EIO;
        }
        let Some(place) = device.image.get_mut(from..to) else { return EIO };
        move_data(request, place);
        let Device { image, volatile: Some(volatile), .. } = &mut *device else { return OK };
        match request.op {
            Op::Read => {}
            Op::Flush => volatile.flush(changes_before),
            _ => volatile.change(from, &image[from..to], request.fua),
        }
        OK
    }
}

impl Backend for TestBackend {
    fn submit(&mut self, request: Request, now: Ns) {
        let mut device = self.device.lock().unwrap();
        let entry = (request.op, request.offset_bytes, request.length_bytes);
        if request.disk > 0 {
            device.file_log.push(entry)
        } else {
            device.log.push(entry)
        }
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let latency = 1000 + (self.random >> 33) % 9000;
        self.order += 1;
        self.running.push(Reverse((now + latency, self.order, request.id)));
        let changes = device.volatile.as_ref().map_or(0, |volatile| volatile.changes);
        self.requests.insert(u64::from(request.id), (request, changes));
    }

    fn reap(&mut self, now: Ns, out: &mut Vec<Completion>) -> Result<()> {
        while self.running.peek().is_some_and(|Reverse(next)| next.0 <= now) {
            let Some(Reverse((_, _, id))) = self.running.pop() else { break };
            let (request, changes) = self.requests.remove(&u64::from(id)).unwrap();
            out.push(Completion { id, status: self.apply(&request, changes), split: false });
        }
        Ok(())
    }

    fn next_event_ns(&self) -> Option<Ns> {
        self.running.peek().map(|Reverse(next)| next.0)
    }

    fn wait(&mut self, _timeout_ns: u64) -> Result<()> {
        Ok(())
    }

    fn waker(&mut self) -> Waker {
        Arc::new(Sleeper::default())
    }

    fn is_model(&self) -> bool {
        true
    }
}
