//! Continuous streams under retention: every instant on offer is what the source's disk held then,
//! none is given up too early, and the journal stays small, wherever site and source were killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::merge_tests::work;
use super::*;
use crate::cdp::entry::{Batch, Change, Codec, Record};
use crate::cdp::fold::fold;
use crate::cdp::frame::VERSION;
use crate::cdp::recovery::{Wanted, offer, recover};
use crate::cdp::tcp::packed;
use crate::filters::DataMode;
use crate::filters::testing::Random;

const DISK: u64 = 8192;
const MILLISECOND: Ns = 1_000_000;
const KEPT_NS: Ns = 60 * MILLISECOND;

/// A change of the disk: when, where, and what was there then.
type Written = (Ns, u64, Vec<u8>);

/// A disk, what was sent of it, and what of that may be asked for.
struct Source {
    random: Random,
    now: Ns,
    no: u64,
    id: u64,
    image: Vec<u8>,
    written: Vec<Written>,
    sent: Vec<Arc<Entry>>,
    /// Of every run: the start of its time, and whether it has instants.
    runs: Vec<(Ns, bool)>,
    in_hole: bool,
    /// Times at which there is a state, and the entry that it needs.
    instants: Vec<(Ns, u64)>,
    points: BTreeMap<u64, (Ns, Vec<u8>)>,
    /// When the last hole ended.
    whole_ns: Ns,
}

impl Source {
    fn is_continuous(&self) -> bool {
        matches!(self.runs.last(), Some((_, true)))
    }

    /// A write to the disk alone.
    fn write(&mut self) -> Written {
        let (offset, length) = (self.random.below(DISK - 700), 1 + self.random.below(700));
        let byte = if self.random.below(5) == 0 { 0 } else { self.random.below(255) as u8 + 1 };
        self.now += self.random.below(MILLISECOND);
        self.put(offset, vec![byte; length as usize])
    }

    fn put(&mut self, offset: u64, data: Vec<u8>) -> Written {
        self.image[offset as usize..offset as usize + data.len()].copy_from_slice(&data);
        self.written.push((self.now, offset, data.clone()));
        (self.now, offset, data)
    }

    fn send(&mut self, written: &[Written]) {
        let records: Vec<Record<'_>> = written
            .iter()
            .map(|(time_ns, offset_bytes, data)| {
                let is_zero = data.iter().all(|byte| *byte == 0);
                Record {
                    change: if is_zero { Change::Zero } else { Change::Write },
                    disk: 0,
                    offset_bytes: *offset_bytes,
                    length_bytes: data.len() as u64,
                    time_ns: *time_ns,
                    data: if is_zero { &[] } else { data },
                }
            })
            .collect();
        let mut batches = Vec::new();
        if self.is_continuous() || self.in_hole {
            let mut batch = Batch::default();
            records.iter().for_each(|record| batch.push(record));
            batches.push(batch);
        } else {
            // A run with points alone: in between there is no state.
            fold(&records, DataMode::Bytes, 500, |batch| batches.push(batch));
        }
        for mut batch in batches {
            self.no += 1;
            let codec = if self.random.below(2) == 0 { Codec::Lz4 } else { Codec::None };
            self.sent.push(Arc::new(packed(&batch.close(self.no, Vec::new()), codec)));
        }
        if self.is_continuous() && !self.in_hole {
            self.instants.extend(written.iter().map(|(time_ns, ..)| (*time_ns, self.no)));
        }
    }

    fn mark(&mut self, kind: Kind) {
        self.no += 1;
        self.sent.push(Arc::new(Entry::mark(self.no, kind, self.now)));
    }

    fn cut(&mut self) {
        self.now += self.random.below(MILLISECOND);
        self.id += 1;
        let (id, cut_ns, after_no) = (self.id, self.now, self.no);
        self.mark(Kind::Point { id, cut_ns, after_no });
        self.instants.push((cut_ns, self.no));
        self.points.insert(id, (cut_ns, self.image.clone()));
    }

    /// Nothing is sent for a while, then all that changed, and guest writes in between.
    fn begin_hole(&mut self) {
        self.in_hole = true;
        for _ in 0..self.random.below(8) {
            self.write();
        }
        self.mark(Kind::ResyncBegin);
    }

    fn resync(&mut self, whole: bool) {
        let mut blocks: Vec<u64> = (0..DISK / 1024).collect();
        if !whole {
            blocks.retain(|_| self.random.below(4) == 0);
        }
        for block in blocks {
            let range = (block * 1024) as usize..(block as usize + 1) * 1024;
            let read = (self.now, block * 1024, self.image[range].to_vec());
            let written = self.write();
            self.send(&[read, written]);
        }
        if whole {
            self.cut();
            (self.in_hole, self.whole_ns) = (false, self.now);
        }
    }

    fn next(&mut self) {
        match self.random.below(20) {
            0 if !self.in_hole => self.begin_hole(),
            1 => {
                // A hole again before the last one ended.
                self.begin_hole();
            }
            _ if self.in_hole => {
                let whole = self.random.below(2) == 0;
                self.resync(whole);
            }
            2 => self.cut(),
            _ => {
                let count = 1 + self.random.below(6);
                let written: Vec<Written> = (0..count).map(|_| self.write()).collect();
                self.send(&written);
                if !self.is_continuous() {
                    self.cut();
                }
            }
        }
    }

    /// What was not sent is lost with the run; the next one begins with the disk as it is.
    fn start_anew(&mut self, held: Held, continuous: bool, next_no: u64) {
        self.runs.push((held.stream_ns, continuous));
        self.sent.retain(|entry| entry.no < next_no);
        self.instants.retain(|(_, no)| *no < next_no);
        self.points.retain(|id, _| *id <= held.last_id);
        // Beyond what the store has it was before this run.
        for (time_ns, ..) in &mut self.written {
            *time_ns = (*time_ns).min(held.stream_ns);
        }
        (self.now, self.no, self.id) = (held.stream_ns, next_no - 1, held.last_id);
        self.in_hole = true;
        self.mark(Kind::ResyncBegin);
    }

    fn state_at(&self, time_ns: Ns) -> Vec<u8> {
        let mut image = vec![0; DISK as usize];
        for (_, offset, data) in self.written.iter().take_while(|(at_ns, ..)| *at_ns <= time_ns) {
            image[*offset as usize..*offset as usize + data.len()].copy_from_slice(data);
        }
        image
    }

    fn run_at(&self, time_ns: Ns) -> String {
        let number = self.runs.iter().rposition(|(from_ns, _)| *from_ns <= time_ns).unwrap();
        format!("run {number}")
    }

    fn bytes_since(&self, time_ns: Ns) -> u64 {
        let young = self.sent.iter().filter(|entry| entry.last_ns >= time_ns);
        young.map(|entry| (80 + entry.body.len()) as u64).sum()
    }
}

fn source(seed: u64) -> Source {
    Source {
        random: Random(seed),
        now: 0,
        no: 0,
        id: 0,
        image: vec![0; DISK as usize],
        written: Vec::new(),
        sent: Vec::new(),
        runs: vec![(0, true)],
        in_hole: true,
        instants: Vec::new(),
        points: BTreeMap::new(),
        whole_ns: 0,
    }
}

/// What lives saw.
#[derive(Debug, Default)]
struct Seen {
    instants: u64,
    refused: u64,
    long_ago: u64,
    folds: u64,
    full: u64,
    merges: u64,
}

struct Life<'a> {
    dir: &'a Path,
    source: Source,
    random: Random,
    durable_no: u64,
    retention_bytes: u64,
    context: String,
    seen: Seen,
}

impl Life<'_> {
    fn newest_ns(&self) -> Ns {
        let durable = self.source.instants.iter().filter(|(_, no)| *no <= self.durable_no);
        durable.map(|(time_ns, _)| *time_ns).max().unwrap_or(0)
    }

    /// Every point is its state, and so are some instants.
    fn look(&mut self) {
        let found = offer(self.dir).unwrap();
        assert!(found.damage.is_none(), "{}: {:?}", self.context, found.damage);
        let out = self.dir.parent().unwrap().join("out");
        for point in found.points() {
            recover(self.dir, Wanted::Point(point.id), &out).unwrap();
            let (cut_ns, state) = &self.source.points[&point.id];
            assert_eq!(*cut_ns, point.cut_ns);
            assert!(std::fs::read(&out).unwrap() == *state, "{}: {point:?}", self.context);
        }
        let offered = found.instants();
        drop(found);
        let newest_ns = self.newest_ns();
        let mut times = vec![Ns::MAX, newest_ns, newest_ns.saturating_sub(KEPT_NS)];
        if let Some((from_ns, to_ns)) = offered {
            times.extend([from_ns, from_ns.saturating_sub(1), to_ns]);
        }
        times.extend((0..4).map(|_| self.random.below(newest_ns + 1)));
        times.extend((0..4).map(|_| newest_ns.saturating_sub(self.random.below(KEPT_NS))));
        for time_ns in times {
            self.look_at(time_ns, newest_ns, &out);
        }
    }

    fn look_at(&mut self, time_ns: Ns, newest_ns: Ns, out: &Path) {
        let context = format!("{}, at {time_ns} of {newest_ns}", self.context);
        let wanted = if time_ns == Ns::MAX { Wanted::Latest } else { Wanted::At(time_ns) };
        let durable = self.source.instants.iter().filter(|(_, no)| *no <= self.durable_no);
        let expected_ns = durable.map(|(at_ns, _)| *at_ns).filter(|at| *at <= time_ns).max();
        let is_old = time_ns + KEPT_NS < newest_ns && time_ns != Ns::MAX;
        match recover(self.dir, wanted, out) {
            Ok(found) => {
                assert!(found.cut_ns <= time_ns, "{context}");
                if !is_old && self.retention_bytes == 0 {
                    assert!(
                        expected_ns.is_none_or(|ns| found.cut_ns >= ns),
                        "{context}: {found:?}"
                    );
                }
                let state = self.source.state_at(found.cut_ns);
                assert!(std::fs::read(out).unwrap() == state, "{context}: {found:?}");
                assert_eq!(found.epoch.run, self.source.run_at(found.cut_ns), "{context}");
                self.seen.instants += 1;
                self.seen.long_ago += u64::from(is_old);
            }
            Err(error) => {
                let told = error.to_string();
                let is_known = self.retention_bytes > 0 || is_old || expected_ns.is_none();
                assert!(
                    is_known && told.contains("expected") || told.contains("no restore point"),
                    "{context}: {told}"
                );
                assert!(expected_ns.is_none() || !told.contains("no restore"), "{context}: {told}");
                self.seen.refused += u64::from(expected_ns.is_some());
            }
        }
    }

    /// All chores are done: what is left is what was promised, and the segment under way.
    fn look_at_size(&self, store: &Store) {
        let slack = 3 * store.segment_bytes + 20_000;
        let from_ns = self.newest_ns().saturating_sub(KEPT_NS);
        if self.source.in_hole || self.source.whole_ns > from_ns || self.source.runs.len() > 1 {
            return;
        }
        let most = match self.retention_bytes {
            0 => self.source.bytes_since(from_ns),
            bytes => bytes,
        };
        let bytes = store.journal_bytes();
        assert!(bytes <= most + slack, "{}: {bytes} bytes of {most}", self.context);
    }

    fn hello(&self, long_term: Option<LongTerm>) -> Hello {
        let number = self.source.runs.len() - 1;
        Hello {
            version: VERSION,
            run: format!("run {number}"),
            disks: vec!["a".into()],
            disk_bytes: vec![DISK],
            acked_no: self.durable_no,
            fresh: false,
            first: false,
            continuous: self.source.is_continuous(),
            early: false,
            retention_ns: KEPT_NS,
            retention_bytes: self.retention_bytes,
            long_term,
            stream: "a disk".into(),
        }
    }

    /// What the store lacks goes to it, some of it at a time.
    fn send(&mut self, store: &mut Store) {
        self.source.next();
        let next_no = store.received_no() + 1;
        let waiting: Vec<_> =
            self.source.sent.iter().filter(|entry| entry.no >= next_no).cloned().collect();
        for entry in waiting {
            if let Err(refused) = store.append(&entry, 0) {
                assert!(matches!(refused, Refusal::Full), "{refused:?}");
                break;
            }
            if self.random.below(8) == 0 {
                break;
            }
        }
        if self.random.below(3) > 0 {
            let is_full = store.sync(0).is_err();
            self.seen.full += u64::from(is_full);
        }
    }

    /// Another run of the source: the store ends where this one's stream was cut.
    fn start_anew(&mut self, store: &mut Store, long_term: Option<LongTerm>) {
        store.sync(0).unwrap_or_default();
        self.durable_no = store.durable_no;
        let number = self.source.runs.len();
        let continuous = number % 3 < 2;
        let hello = Hello {
            run: format!("run {number}"),
            continuous,
            first: true,
            acked_no: 0,
            ..self.hello(long_term)
        };
        let held = store.claim(&hello).unwrap().unwrap();
        self.source.start_anew(held, continuous, self.durable_no + 1);
    }
}

/// A life more; what all of them saw.
fn live(seed: u64, rounds: u64, seen: Seen) -> Seen {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let dir = folder.path().join("store");
    let mut random = Random(seed);
    let retention_bytes = if random.below(3) == 0 { 30_000 } else { 0 };
    let long = LongTerm { every_ns: 50 * MILLISECOND, retention_ns: 4 * KEPT_NS, points: 9 };
    let long_term = (random.below(3) == 0).then_some(long);
    let capacity_bytes = if seed.is_multiple_of(4) { 40_000 } else { 0 };
    let segment_bytes = 4096 << random.below(3);
    let mut life = Life {
        dir: &dir,
        source: source(!seed),
        random,
        durable_no: 0,
        retention_bytes,
        context: String::new(),
        seen,
    };
    let open = |hello: &Hello| {
        let mut store = Store::open(&dir, capacity_bytes, segment_bytes).unwrap();
        store.leave_chores();
        store.claim(hello).unwrap();
        store
    };
    let mut store = open(&life.hello(long_term));
    for round in 0..rounds {
        life.context = format!("seed {seed}, round {round}");
        life.send(&mut store);
        life.durable_no = store.durable_no;
        let first = store.owner.as_ref().unwrap().first_segment;
        let is_killed = work(&mut store, &mut life.random, &mut life.seen.merges);
        let folds = store.owner.as_ref().unwrap().first_segment - first;
        life.seen.folds += folds;
        if !is_killed {
            life.look_at_size(&store);
        }
        if is_killed || life.random.below(12) == 0 {
            kill(&mut life.random, store);
            life.look();
            store = open(&life.hello(long_term));
            assert!(store.received_no() >= life.durable_no, "{}", life.context);
            life.durable_no = store.received_no();
        }
        if life.random.below(60) == 0 && life.durable_no > 0 {
            life.start_anew(&mut store, long_term);
        }
        if round % 10 == 0 {
            life.look();
        }
    }
    life.look();
    life.seen
}

/// What was written and not made durable is torn.
fn kill(random: &mut Random, store: Store) {
    let last = store.segments.last().map(|last| (last.file.clone(), store.durable, store.written));
    drop(store);
    let Some((file, durable, written)) = last else { return };
    if !file.is_merged && written > durable {
        let torn = File::options().write(true).open(&file.path).unwrap();
        torn.set_len(durable + random.below(written - durable + 1)).unwrap();
    }
}

fn killed_anywhere(seeds: std::ops::Range<u64>) {
    let mut all = Seen::default();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        all = live(seed, 250, all);
    }
    let Seen { instants, refused, long_ago, folds, full, merges } = all;
    assert!(instants > count * 200 && refused > count * 20 && folds > count * 10, "{all:?}");
    assert!(long_ago > count && full > 0 && merges > 0, "{all:?}");
}

#[test]
fn killed_anywhere_every_instant_is_the_source_s_and_none_is_given_up_early() {
    killed_anywhere(0..10);
}

#[test]
#[ignore = "takes minutes: run by `make test-all`"]
fn killed_anywhere_in_many_lives_every_instant_is_the_source_s() {
    killed_anywhere(1000..1300);
}
