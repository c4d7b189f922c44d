//! What filter tests share: a chain in virtual time over a device of theirs, every read checked.
//!
//! The device finishes I/Os out of order, after seeded latencies, and moves the data at
//! completion: the worst that a real one may do. It can be told to fail, and keeps a log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

mod device;
mod moving;
mod power;
mod stall;
mod tests;

use serde_json::Value;

pub use self::device::Device;
use self::device::TestBackend;
use self::power::{History, Volatile};
use super::{DataMode, Filter, Properties, SECTOR_BYTES, Setting, find};
use crate::clock::{Clock, Ns};
use crate::int_map::IntMap;
use crate::io::{OK, Op, Status};
use crate::pipeline::{Chains, Event, Pipeline};
use crate::rangelock::RangeLock;
use crate::slab::{IoId, Slab};

pub const EIO: Status = libc::EIO;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub seq: u64,
    pub op: Op,
    pub status: Status,
    pub due_ns: Ns,
    pub complete_ns: Ns,
    pub blocks: u32,
    pub hit_blocks: u32,
}

impl Row {
    pub fn response_ns(&self) -> Ns {
        self.complete_ns - self.due_ns
    }
}

/// One disk, one chain, one device, and what each sector should hold.
pub struct Rig {
    pipeline: Pipeline,
    lock: RangeLock,
    pub device: Arc<Mutex<Device>>,
    mode: DataMode,
    plan: VecDeque<Planned>,
    flight: IntMap<(Row, u64, u64)>,
    /// Sector to what was last written there; 0 for zeroes, absent where nothing is known.
    known: IntMap<u64>,
    seq: u64,
    rows: Vec<Row>,
    pub unverified_sectors: u64,
    history: Option<History>,
}

#[derive(Debug, Clone, Copy)]
struct Planned {
    at_ns: Ns,
    op: Op,
    flags: u32,
    offset: u64,
    length: u64,
}

pub fn setting(mode: DataMode) -> Setting {
    Setting {
        disk: "disk".into(),
        disks: vec!["disk".into()],
        disk_index: 0,
        local_index: 0,
        layer: 0,
        seed: 7,
        data: mode,
        longest_bytes: 0,
        disk_bytes: Vec::new(),
        extents: Vec::new(),
        run: "test".into(),
        disk_ids: Vec::new(),
        disk_writers: Vec::new(),
        writer: 0,
        is_virtual: true,
    }
}

/// The longest I/O of a test.
const IO_BYTES_MAX: u64 = 1 << 20;

impl Rig {
    /// A chain of filters by name over a device of `disk_bytes`.
    pub fn new(chain: &[(&str, Value)], mode: DataMode, disk_bytes: u64) -> Self {
        let built = chain
            .iter()
            .map(|(name, params)| (find(name).unwrap().build)(params, &setting(mode)).unwrap())
            .collect();
        Self::of(built, mode, disk_bytes)
    }

    /// A chain of these filters.
    pub fn of(built: Vec<(Box<dyn Filter>, Properties)>, mode: DataMode, disk_bytes: u64) -> Self {
        let properties: Vec<Properties> = built.iter().map(|(_, p)| *p).collect();
        let unit = properties.iter().map(|p| p.unit_bytes).max().unwrap_or(1);
        let device = Arc::new(Mutex::new(Device {
            image: vec![0x5a; mode.size(disk_bytes)],
            ..Device::default()
        }));
        let backend = TestBackend::over(&device, mode);
        let slots = 512;
        let longest = properties.iter().map(|p| p.child_bytes).max().unwrap_or(0);
        let slot_bytes = mode.size(longest.max(IO_BYTES_MAX + unit));
        let slab = Slab::new(slots, slot_bytes, built.len() + 1).unwrap();
        let filters = built.into_iter().map(|(filter, _)| filter).collect();
        let clock = Clock::Virtual(0);
        let mut pipeline =
            Pipeline::new(clock, slab, mode, 1, Chains::single(filters), Box::new(backend));
        pipeline.open();
        Self {
            pipeline,
            lock: RangeLock::new(slots, unit),
            device,
            mode,
            plan: VecDeque::new(),
            flight: IntMap::default(),
            known: IntMap::default(),
            seq: 0,
            rows: Vec::new(),
            unverified_sectors: 0,
            history: None,
        }
    }

    /// From now on the device may lose what was not flushed: for [`Rig::lose_power`].
    pub fn with_power_loss(mut self) -> Self {
        let mut device = self.device.lock().unwrap();
        let sector = self.mode.size(SECTOR_BYTES);
        device.volatile = Some(Volatile::new(device.image.clone(), sector));
        drop(device);
        self.history = Some(History::default());
        self
    }

    /// Plans an I/O; `at_ns` must not fall.
    pub fn io(&mut self, at_ns: Ns, op: Op, offset: u64, length: u64) -> &mut Self {
        self.io_with(0, at_ns, op, offset, length)
    }

    /// As `io`, with flags.
    pub fn io_with(
        &mut self,
        flags: u32,
        at_ns: Ns,
        op: Op,
        offset: u64,
        length: u64,
    ) -> &mut Self {
        self.plan.push_back(Planned { at_ns, op, flags, offset, length });
        self
    }

    /// Runs the plan to its end and gives the rows in order of submission. Panics when a read
    /// does not give back what was last written.
    pub fn run(&mut self) -> Vec<Row> {
        self.run_and_look(|_| {})
    }

    /// As `run`, and `look` is called with the time after every event.
    pub fn run_and_look(&mut self, look: impl FnMut(Ns)) -> Vec<Row> {
        self.drive(Ns::MAX, true, look);
        self.ended()
    }

    /// As `run`, and until no timer is left: of filters that have no clock of their own.
    pub fn settle(&mut self) -> Vec<Row> {
        self.run_until(Ns::MAX);
        self.ended()
    }

    /// Runs until this time, or until nothing happens any more.
    pub fn run_until(&mut self, end_ns: Ns) {
        self.drive(end_ns, false, |_| {});
    }

    fn ended(&mut self) -> Vec<Row> {
        assert!(self.flight.is_empty(), "I/Os never came back: {:?}", self.flight);
        assert!(self.pipeline.is_idle());
        assert_eq!(self.pipeline.core.slab.free_slots(), self.pipeline.core.slab.capacity());
        self.take_rows()
    }

    /// The rows of what is done, in order of submission.
    pub fn take_rows(&mut self) -> Vec<Row> {
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_by_key(|row| row.seq);
        rows
    }

    fn drive(&mut self, end_ns: Ns, until_idle: bool, mut look: impl FnMut(Ns)) {
        loop {
            self.pipeline.poll().unwrap();
            self.take_done();
            look(self.pipeline.core.clock.now());
            let now = self.pipeline.core.clock.now();
            while self.plan.front().is_some_and(|next| next.at_ns <= now) {
                let planned = self.plan.pop_front().unwrap();
                self.submit(planned);
            }
            self.take_done();
            // A filter with a clock of its own always has a timer.
            if until_idle
                && self.plan.is_empty()
                && self.flight.is_empty()
                && self.pipeline.is_idle()
            {
                break;
            }
            let due = self.plan.front().map(|next| next.at_ns);
            let next = match (due, self.pipeline.next_event_ns()) {
                (Some(a), Some(b)) => a.min(b),
                (Some(a), None) | (None, Some(a)) => a,
                (None, None) => break,
            };
            if next > end_ns {
                break;
            }
            self.pipeline.core.clock.advance_to(next);
        }
    }

    /// The power goes: of each sector the device keeps what was flushed or, by chance, something
    /// later. Panics when that is older than what a flush or FUA promised.
    pub fn lose_power(mut self, seed: u64) -> Vec<u8> {
        let image = self.device.lock().unwrap().volatile.take().unwrap().lose(seed);
        let bytes = self.mode.size(SECTOR_BYTES);
        for (sector, tokens) in self.history.take().unwrap().allowed() {
            let from = sector as usize * bytes;
            let found = &image[from..from + bytes];
            let fits = tokens.iter().any(|token| {
                let mut expected = vec![0; bytes];
                token.is_none_or(|token| {
                    fill(self.mode, &mut expected, token);
                    found == expected
                })
            });
            assert!(fits, "sector {sector}: found {:?}, not of {tokens:?}", &found[..8]);
        }
        image
    }

    /// One I/O by itself.
    pub fn one(&mut self, op: Op, offset: u64, length: u64) -> Row {
        let now = self.pipeline.core.clock.now();
        self.io(now, op, offset, length).run()[0]
    }

    /// Ends the run: lets the filters write back and send what they hold.
    pub fn close(&mut self) {
        self.pipeline.close();
        while !self.pipeline.is_idle() {
            let next = self.pipeline.next_event_ns().expect("something that is waited for");
            self.pipeline.core.clock.advance_to(next);
            self.pipeline.poll().unwrap();
        }
        self.pipeline.end();
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        self.pipeline.take_events()
    }

    pub fn gauge(&mut self, name: &str) -> i64 {
        self.find_gauge(name).unwrap()
    }

    /// As `gauge`, for one that only some filters tell.
    pub fn gauge_or_zero(&mut self, name: &str) -> i64 {
        self.find_gauge(name).unwrap_or(0)
    }

    fn find_gauge(&mut self, name: &str) -> Option<i64> {
        let mut gauges = Vec::new();
        self.pipeline.gauges(0, self.pipeline.core.clock.now(), &mut gauges);
        gauges.iter().find(|(_, n, _)| *n == name).map(|(.., v)| *v)
    }

    pub fn reopen(&mut self) {
        self.pipeline.open();
    }

    fn submit(&mut self, planned: Planned) {
        let Planned { at_ns: due_ns, op, flags, offset, length } = planned;
        let seq = self.seq;
        self.seq += 1;
        let bytes = if op.has_data() { self.mode.size(length) } else { 0 };
        let id = self.pipeline.core.slab.take(op, bytes).expect("enough slots");
        let io = self.pipeline.core.slab.io_mut(id);
        (io.offset_bytes, io.length_bytes, io.seq, io.disk) = (offset, length, seq, 0);
        io.flags = flags;
        if op == Op::Write {
            fill(self.mode, self.pipeline.core.slab.data_mut(id), seq + 1);
        }
        let row = Row { seq, op, status: OK, due_ns, complete_ns: 0, blocks: 0, hit_blocks: 0 };
        self.flight.insert(u64::from(id), (row, offset, length));
        if self.lock.acquire(id, 0, op, offset, length) == 0 {
            self.start(id);
        }
    }

    fn start(&mut self, id: IoId) {
        if let Some(history) = &mut self.history {
            history.starts(self.pipeline.core.slab.io(id));
        }
        self.pipeline.submit(id);
    }

    fn take_done(&mut self) {
        let mut done = Vec::new();
        self.pipeline.take_done(&mut done);
        while !done.is_empty() {
            for id in done.drain(..) {
                self.finish(id);
                for next in self.lock.release(id).to_vec() {
                    self.start(next);
                }
            }
            self.pipeline.take_done(&mut done);
        }
    }

    fn finish(&mut self, id: IoId) {
        let (mut row, offset, length) = self.flight.remove(&u64::from(id)).unwrap();
        let io = self.pipeline.core.slab.io(id);
        if let Some(history) = self.history.as_mut().filter(|_| io.status == OK) {
            history.done(io);
        }
        (row.status, row.complete_ns) = (io.status, io.complete_ns);
        (row.blocks, row.hit_blocks) = (io.blocks, io.hit_blocks);
        let sectors = offset / SECTOR_BYTES..(offset + length) / SECTOR_BYTES;
        match row.op {
            Op::Read if row.status == OK => self.verify(id, &row, sectors),
            Op::Write if row.status == OK => {
                self.known.extend(sectors.map(|sector| (sector, row.seq + 1)));
            }
            Op::WriteZeroes if row.status == OK => {
                self.known.extend(sectors.map(|sector| (sector, 0)));
            }
            Op::Read | Op::Flush => {}
            _ => self.known.retain(|sector, _| !sectors.contains(sector)),
        }
        if row.op == Op::Write {
            let mut expected = vec![0; self.mode.size(length)];
            fill(self.mode, &mut expected, row.seq + 1);
            let data = self.pipeline.core.slab.data(id);
            assert!(data == expected, "write {} was changed on its way", row.seq);
        }
        self.rows.push(row);
        self.pipeline.core.slab.give_back(id);
    }

    fn verify(&mut self, id: IoId, row: &Row, sectors: std::ops::Range<u64>) {
        let bytes = self.mode.size(SECTOR_BYTES);
        if bytes == 0 {
            return;
        }
        let data = self.pipeline.core.slab.data(id).chunks(bytes);
        for (sector, data) in sectors.zip(data) {
            let Some(token) = self.known.get(&sector) else {
                self.unverified_sectors += 1;
                continue;
            };
            let mut expected = vec![0; bytes];
            fill(self.mode, &mut expected, *token);
            assert!(
                data == expected,
                "read {} of sector {sector}: expected write {}, found {:?}",
                row.seq,
                *token as i64 - 1,
                &data[..8]
            );
        }
    }
}

/// The data of a write: its token, over and over; bytes also differ along the sector.
fn fill(mode: DataMode, data: &mut [u8], token: u64) {
    for (i, word) in data.chunks_exact_mut(8).enumerate() {
        let place = if mode == DataMode::Bytes && token > 0 { (i as u64 % 64) << 48 } else { 0 };
        word.copy_from_slice(&(token | place).to_le_bytes());
    }
}

/// Numbers that a seed gives (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}
