use super::platter::lock;
use super::*;

const SECTOR: usize = 512;
const DISK: u16 = 0;

/// A device, driven by hand: one request a slot.
struct Bench {
    sim: Sim,
    now: Ns,
    buffers: Vec<Vec<u8>>,
    ended: Vec<(IoId, Status, bool)>,
}

impl Bench {
    fn new(model: SimModel, platter: &SharedPlatter) -> Self {
        let sim = Sim::on(model, SharedPlatter::clone(platter));
        Self { sim, now: 0, buffers: Vec::new(), ended: Vec::new() }
    }

    fn start(&mut self, op: Op, offset: u64, length: usize, byte: u8, fua: bool) -> IoId {
        let id = self.buffers.len() as IoId;
        self.buffers.push(vec![byte; if op.has_data() { length } else { 0 }]);
        let buffer = self.buffers.last_mut().unwrap();
        let request = Request {
            id,
            disk: DISK,
            op,
            offset_bytes: offset,
            length_bytes: length as u64,
            data: buffer.as_mut_ptr(),
            data_bytes: buffer.len(),
            fua,
        };
        self.sim.submit(request, self.now);
        id
    }

    /// Lets everything under way end.
    fn settle(&mut self) {
        while let Some(next) = self.sim.next_event_ns() {
            self.now = self.now.max(next);
            self.step();
        }
    }

    fn step(&mut self) {
        let mut out = Vec::new();
        self.sim.reap(self.now, &mut out).unwrap();
        self.ended.extend(out.into_iter().map(|c| (c.id, c.status, c.split)));
    }

    fn one(&mut self, op: Op, offset: u64, length: usize, byte: u8) -> Status {
        self.full(op, offset, length, byte, false)
    }

    fn full(&mut self, op: Op, offset: u64, length: usize, byte: u8, fua: bool) -> Status {
        let id = self.start(op, offset, length, byte, fua);
        self.settle();
        self.ended.iter().find(|(done, ..)| *done == id).unwrap().1
    }
}

fn cached() -> SimModel {
    SimModel { write_cache: true, ..SimModel::default() }
}

fn seen(platter: &SharedPlatter, offset: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    let place = Place { disk: DISK, offset_bytes: offset, length_bytes: length as u64 };
    lock(platter).seen().read(place, &mut out);
    out
}

fn fresh() -> SharedPlatter {
    Platter::shared(DataMode::Bytes, true)
}

/// What the first byte of each sector is after a crash with each of many seeds.
fn after_crashes(
    run: impl Fn(&mut Bench),
    model: SimModel,
    torn: bool,
    sectors: usize,
) -> Vec<Vec<u8>> {
    (0..64)
        .map(|seed| {
            let platter = fresh();
            let mut bench = Bench::new(model, &platter);
            run(&mut bench);
            drop(bench);
            lock(&platter).crash(seed, torn);
            seen(&platter, 0, sectors * SECTOR).chunks(SECTOR).map(|s| s[0]).collect()
        })
        .collect()
}

#[test]
fn an_acknowledged_write_is_volatile_until_a_flush() {
    let left = after_crashes(|b| _ = b.one(Op::Write, 0, 1024, 7), cached(), false, 2);
    assert!(left.contains(&vec![7, 7]) && left.contains(&vec![0, 0]));
    let left = after_crashes(
        |b| {
            b.one(Op::Write, 0, 1024, 7);
            b.one(Op::Flush, 0, 0, 0);
            b.one(Op::Write, 512, 512, 8);
        },
        cached(),
        false,
        2,
    );
    assert!(left.iter().all(|sectors| sectors[0] == 7 && [7, 8].contains(&sectors[1])));
    assert!(left.iter().any(|s| s[1] == 7) && left.iter().any(|s| s[1] == 8));
}

#[test]
fn fua_is_stable_at_once_and_does_not_bring_an_older_write_back() {
    let left = after_crashes(
        |b| {
            b.one(Op::Write, 0, 1024, 7);
            b.full(Op::Write, 0, 512, 8, true);
        },
        cached(),
        true,
        2,
    );
    assert!(left.iter().all(|sectors| sectors[0] == 8));
    assert!(left.iter().any(|s| s[1] == 7) && left.iter().any(|s| s[1] == 0));
}

#[test]
fn a_flush_covers_what_was_acknowledged_before_it_was_submitted() {
    let left = after_crashes(
        |b| {
            // The write is under way when the flush comes, and both end.
            b.start(Op::Write, 0, 512, 7, false);
            b.start(Op::Flush, 0, 0, 0, false);
            b.settle();
        },
        cached(),
        false,
        1,
    );
    assert!(left.contains(&vec![0]) && left.contains(&vec![7]));
}

#[test]
fn without_a_write_cache_what_is_acknowledged_stays() {
    let model = SimModel {
        faults: Faults { spike_rate: 0.5, spike_ns: 1, ..Faults::default() },
        ..SimModel::default()
    };
    let platter = Platter::shared(DataMode::Bytes, false);
    let mut bench = Bench::new(model, &platter);
    bench.one(Op::Write, 0, 1024, 7);
    drop(bench);
    lock(&platter).crash(3, true);
    assert_eq!(seen(&platter, 0, 1024), vec![7; 1024]);
}

#[test]
fn a_write_on_its_way_may_be_there_whole_torn_or_not_at_all() {
    let run = |b: &mut Bench| _ = b.start(Op::Write, 0, 4096, 7, false);
    let whole = after_crashes(run, cached(), false, 8);
    assert!(whole.iter().all(|s| *s == [0; 8] || *s == [7; 8]));
    assert!(whole.contains(&vec![0; 8]) && whole.contains(&vec![7; 8]));
    let torn = after_crashes(run, cached(), true, 8);
    assert!(torn.iter().any(|s| s.contains(&0) && s.contains(&7)));
}

#[test]
fn tokens_are_torn_by_sector_like_bytes() {
    let platter = Platter::shared(DataMode::Tokens, true);
    let mut bench = Bench::new(cached(), &platter);
    let id = bench.start(Op::Write, 4096, 4096, 0, false);
    // Eight bytes for each sector: drive it again with what a token run hands over.
    bench.sim.pending.get_mut(&1).unwrap().change.data = vec![9; 8 * 8];
    assert_eq!(id, 0);
    drop(bench);
    lock(&platter).crash(1, true);
    let mut out = vec![0; 64];
    let place = Place { disk: DISK, offset_bytes: 4096, length_bytes: 4096 };
    lock(&platter).seen().read(place, &mut out);
    let sectors: Vec<bool> = out.chunks(8).map(|token| token == [9; 8]).collect();
    assert!(sectors.contains(&true) && sectors.contains(&false), "{sectors:?}");
}

#[test]
fn failures_are_as_many_as_asked_for_and_leave_a_part() {
    let faults = Faults { error_rate: 0.25, short_rate: 0.5, ..Faults::default() };
    let model = SimModel { faults, seed: 5, ..SimModel::default() };
    let platter = fresh();
    let mut bench = Bench::new(model, &platter);
    for i in 0..400u64 {
        bench.start(Op::Write, i * 4096, 4096, 7, false);
    }
    bench.settle();
    let failed = bench.ended.iter().filter(|(_, status, _)| *status == libc::EIO).count();
    let short = bench.ended.iter().filter(|(.., split)| *split).count();
    assert!((70..130).contains(&failed) && (160..240).contains(&short), "{failed} {short}");
    let mut parts = 0;
    for (id, status, _) in &bench.ended {
        let found = seen(&platter, u64::from(*id) * 4096, 4096);
        assert!(*status != OK || found == [7; 4096]);
        parts += usize::from(found.contains(&0) && found.contains(&7));
    }
    assert!(parts > 10, "{parts}");
}

#[test]
fn a_loss_of_power_ends_all_acknowledgement() {
    let faults = Faults { crash_after_ios: Some(3), ..Faults::default() };
    let model = SimModel { faults, write_cache: true, ..SimModel::default() };
    let platter = fresh();
    let mut bench = Bench::new(model, &platter);
    let status = [0u64, 1, 2, 3].map(|i| bench.one(Op::Write, i * 512, 512, 7));
    assert_eq!(status, [OK, OK, OK, libc::ENODEV]);
    assert_eq!(bench.one(Op::Read, 0, 512, 0), libc::ENODEV);
    assert_eq!(seen(&platter, 3 * 512, 512), [0; 512]);
}

#[test]
fn a_hostile_device_has_the_latencies_of_a_friendly_one() {
    let ends = |model: SimModel| {
        let platter = Platter::shared(DataMode::Bytes, model.write_cache);
        let mut bench = Bench::new(model, &platter);
        for i in 0..64 {
            bench.start(Op::Write, i * 4096, 4096, 1, false);
        }
        let mut ends = Vec::new();
        while let Some(next) = bench.sim.next_event_ns() {
            bench.now = next;
            bench.step();
            ends.push((next, bench.ended.last().unwrap().0));
        }
        ends
    };
    assert_eq!(ends(SimModel::default()), ends(cached()));
}
