//! Long-term points: each is its state, whatever was merged, and wherever the site was killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::merge::merge;
use super::*;
use crate::cdp::entry::{Batch, Change, Codec, Record};
use crate::cdp::fold::Covered;
use crate::cdp::recovery::{Wanted, offer, recover};
use crate::cdp::tcp::packed;
use crate::filters::DataMode;
use crate::filters::testing::Random;

const DISK: u64 = 1 << 15;
const MILLISECOND: Ns = 1_000_000;
const SHORT_NS: Ns = 200 * MILLISECOND;
const LONG: LongTerm =
    LongTerm { every_ns: 100 * MILLISECOND, retention_ns: 2_000 * MILLISECOND, points: 12 };

fn hello(continuous: bool, retention_bytes: u64) -> Hello {
    Hello {
        version: crate::cdp::frame::VERSION,
        run: "a run".into(),
        disks: vec!["a".into(), "b".into()],
        disk_bytes: vec![DISK; 2],
        acked_no: 0,
        fresh: false,
        first: false,
        continuous,
        early: false,
        retention_ns: SHORT_NS,
        retention_bytes,
        long_term: Some(LONG),
        stream: String::new(),
    }
}

/// A source: what it has sent, and the state after each point.
struct Source {
    random: Random,
    now: Ns,
    no: u64,
    id: u64,
    image: [Vec<u8>; 2],
    /// Entries and the images after them, of what may have to be sent again.
    sent: Vec<(Arc<Entry>, [Vec<u8>; 2])>,
    states: BTreeMap<u64, (Ns, [Vec<u8>; 2])>,
}

impl Source {
    fn batch(&mut self) -> Arc<Entry> {
        let mut batch = Batch::default();
        for _ in 0..1 + self.random.below(6) {
            let disk = self.random.below(2) as u16;
            // Half of it overwrites a small part: there is something to merge.
            let reach = if self.random.below(2) == 0 { 4096 } else { DISK - 2048 };
            let (offset, length) = (self.random.below(reach), 1 + self.random.below(2000));
            let data = vec![self.random.below(255) as u8 + 1; length as usize];
            let kind = self.random.below(8);
            let change = [Change::Zero, Change::Discard].get(kind as usize).copied();
            let change = change.unwrap_or(Change::Write);
            let is_write = change == Change::Write;
            let range = &mut self.image[disk as usize][offset as usize..(offset + length) as usize];
            if is_write {
                range.copy_from_slice(&data)
            } else {
                range.fill(0)
            }
            self.now += self.random.below(MILLISECOND);
            batch.push(&Record {
                change,
                disk,
                offset_bytes: offset,
                length_bytes: length,
                time_ns: self.now,
                data: if is_write { &data } else { &[] },
            });
        }
        self.no += 1;
        let codec = if self.random.below(2) == 0 { Codec::Lz4 } else { Codec::None };
        Arc::new(packed(&batch.close(self.no, Vec::new()), codec))
    }

    /// The next entries: some batches and a point that may lie before the last of them.
    fn next(&mut self) {
        let mut states = vec![(self.no, self.image.clone())];
        for _ in 0..1 + self.random.below(3) {
            let entry = if self.random.below(12) == 0 {
                self.no += 1;
                Arc::new(Entry::mark(self.no, Kind::ResyncBegin, self.now))
            } else {
                self.batch()
            };
            states.push((self.no, self.image.clone()));
            self.sent.push((entry, self.image.clone()));
        }
        let back = if self.random.below(3) == 0 { 2 } else { 1 };
        let (after_no, state) = states[states.len() - back].clone();
        self.now += self.random.below(20 * MILLISECOND);
        (self.no, self.id) = (self.no + 1, self.id + 1);
        let point = Kind::Point { id: self.id, cut_ns: self.now, after_no };
        self.sent.push((Arc::new(Entry::mark(self.no, point, self.now)), self.image.clone()));
        self.states.insert(self.id, (self.now, state));
    }
}

fn source(seed: u64) -> Source {
    Source {
        random: Random(seed),
        now: 0,
        no: 0,
        id: 0,
        image: [vec![0; DISK as usize], vec![0; DISK as usize]],
        sent: Vec::new(),
        states: BTreeMap::new(),
    }
}

/// What the source was told is durable, and has been promised for so long.
fn check(dir: &Path, source: &Source, durable_no: u64, bounded: bool, context: &str) -> usize {
    let found = offer(dir).unwrap();
    assert!(found.damage.is_none(), "{context}: {:?}", found.damage);
    let out = dir.parent().unwrap().join("out");
    let _ = std::fs::remove_dir_all(&out);
    for point in found.points() {
        let (cut_ns, state) = &source.states[&point.id];
        recover(dir, Wanted::Point(point.id), &out).unwrap();
        for (name, image) in ["0-a.img", "1-b.img"].iter().zip(state) {
            let got = std::fs::read(out.join(name)).unwrap();
            assert!(got == *image, "{context}: point {} ({name})", point.id);
        }
        assert_eq!(*cut_ns, point.cut_ns);
    }
    // At a long-term point the store is durable by itself.
    let durable_no = found.points().last().map_or(durable_no, |last| last.no.max(durable_no));
    let ids: Vec<u64> = found.points().map(|point| point.id).collect();
    let durable: Vec<(u64, Ns)> = source
        .sent
        .iter()
        .filter(|(entry, _)| entry.no <= durable_no)
        .filter_map(|(entry, _)| match entry.kind {
            Kind::Point { id, cut_ns, .. } => Some((id, cut_ns)),
            _ => None,
        })
        .collect();
    let newest_ns = durable.last().map_or(0, |(_, cut_ns)| *cut_ns);
    let mut before = None;
    let mut long = Vec::new();
    for (id, cut_ns) in durable {
        if LONG.term(before, cut_ns) == Term::Long {
            long.push((id, cut_ns));
        }
        before = Some(cut_ns);
        let is_young = cut_ns + SHORT_NS >= newest_ns;
        assert!(bounded || !is_young || ids.contains(&id), "{context}: point {id} is lost");
    }
    let young = long.iter().filter(|(_, cut_ns)| cut_ns + LONG.retention_ns >= newest_ns);
    for (id, _) in young.rev().take(LONG.points as usize) {
        assert!(bounded || ids.contains(id), "{context}: long-term point {id} is lost");
    }
    ids.len()
}

/// Does all chores; whether the site was killed meanwhile, after so many entries of one or after
/// it.
pub(super) fn work(store: &mut Store, random: &mut Random, merges: &mut u64) -> bool {
    while let Some(mut chore) = store.next_chore() {
        let mut left = if random.below(6) == 0 { random.below(12) } else { u64::MAX };
        assert!(store.begin(&chore).unwrap());
        let done = chore.run(&mut || {
            left = left.saturating_sub(1);
            left > 0
        });
        if !done.unwrap() {
            return true;
        }
        if random.below(8) == 0 {
            if let Chore::Merge { to, .. } = &chore
                && random.below(2) == 0
            {
                // Renamed, and killed before what that replaces was removed.
                std::fs::rename(retention::aside(to), to).unwrap();
            }
            return true;
        }
        assert!(store.finish(&chore).unwrap());
        *merges += u64::from(matches!(chore, Chore::Merge { .. }));
    }
    false
}

/// A store of one source that is killed again and again, in the middle of its chores too.
fn live(seed: u64, rounds: u64) -> (usize, u64) {
    // In memory: a kill loses nothing that was written, and thousands of syncs cost nothing there.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let dir = folder.path().join("store");
    let mut random = Random(seed);
    let bounded = random.below(4) == 0;
    let hello = hello(random.below(2) == 0, if bounded { 60_000 } else { 0 });
    let segment_bytes = 4096 << random.below(4);
    let mut source = source(!seed);
    let open = || {
        let mut store = Store::open(&dir, 0, segment_bytes).unwrap();
        store.leave_chores();
        store.claim(&hello).unwrap();
        store
    };
    let (mut store, mut durable_no, mut merges) = (open(), 0, 0);
    for round in 0..rounds {
        let context = format!("seed {seed}, round {round}");
        source.next();
        let next_no = store.received_no() + 1;
        let waiting = source.sent.iter().filter(|(entry, _)| entry.no >= next_no);
        for (entry, _) in waiting {
            store.append(entry, 0).unwrap();
            if random.below(4) == 0 {
                break;
            }
        }
        if random.below(3) > 0 {
            store.sync(0).unwrap();
            durable_no = store.received_no();
        }
        let is_killed = work(&mut store, &mut random, &mut merges) || random.below(12) == 0;
        if is_killed {
            if random.below(2) == 0 && segment_files(&dir).unwrap().0.len() > 1 {
                check(&dir, &source, durable_no, bounded, &context);
            }
            drop(store);
            store = open();
            assert!(store.received_no() >= durable_no, "{context}");
        }
        if round % 25 == 0 {
            check(&dir, &source, durable_no, bounded, &context);
        }
    }
    store.sync(0).unwrap();
    let kept = check(&dir, &source, store.received_no(), bounded, &format!("seed {seed}, end"));
    (kept, merges)
}

fn killed_anywhere(seeds: std::ops::Range<u64>) {
    let (mut kept, mut merges) = (0, 0);
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let (some, times) = live(seed, 200);
        kept += some as u64;
        merges += times;
    }
    assert!(kept > count * 20 && merges > count * 8, "{kept} points, {merges} merges");
}

#[test]
fn killed_anywhere_every_promised_point_is_its_state() {
    killed_anywhere(0..8);
}

#[test]
#[ignore = "takes minutes: run by `make test-all`"]
fn killed_anywhere_in_many_lives_every_promised_point_is_its_state() {
    killed_anywhere(1000..1150);
}

#[test]
fn between_long_term_points_only_the_last_versions_stay() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let mut store = Store::open(&dir, 0, 1 << 20).unwrap();
    store.claim(&hello(true, 0)).unwrap();
    let mut states = BTreeMap::new();
    for id in 1..=200u64 {
        let (no, now) = (id * 2, id * 10 * MILLISECOND);
        let mut batch = Batch::default();
        let data = vec![id as u8; 4096];
        batch.push(&Record {
            change: Change::Write,
            disk: 0,
            offset_bytes: id % 3 * 4096,
            length_bytes: 4096,
            time_ns: now - 1,
            data: &data,
        });
        store.append(&Arc::new(batch.close(no - 1, Vec::new())), 0).unwrap();
        let point = Kind::Point { id, cut_ns: now, after_no: no - 1 };
        store.append(&Arc::new(Entry::mark(no, point, now)), 0).unwrap();
        store.sync(0).unwrap();
        states.insert(id, now);
    }
    let found = offer(&dir).unwrap();
    let of = |term: Term| found.points().filter(|p| p.term == term).map(|p| p.id).collect();
    let (long, short): (Vec<u64>, Vec<u64>) = (of(Term::Long), of(Term::Short));
    // The first of every 100 ms: those of 2 s are 20, of which 12 are kept.
    assert_eq!(long, (0..12).map(|i| 90 + i * 10).collect::<Vec<_>>(), "{long:?}");
    // All of the last 200 ms, and what of the interval around its start is not merged yet.
    assert!(short.contains(&181) && short[0] >= 171, "{short:?}");
    let merged: Vec<_> = found_files(&dir).into_iter().filter(|file| file.is_merged).collect();
    assert!(merged.len() >= 5, "{merged:?}");
    for file in merged {
        // Three blocks of the ten that were written.
        let bytes = std::fs::metadata(&file.path).unwrap().len();
        assert!((3 * 4096..3 * 4096 + 400).contains(&bytes), "{bytes}");
    }
    // Between merged points there is nothing: an earlier time is the point before it.
    let out = folder.path().join("out");
    let at = recover(&dir, Wanted::At(115 * 10 * MILLISECOND), &out).unwrap();
    assert_eq!((at.point, at.cut_ns, at.kind), (110, states[&110], Term::Long));
    let at = recover(&dir, Wanted::At(199 * 10 * MILLISECOND + 5), &out).unwrap();
    assert_eq!((at.point, at.cut_ns), (199, 199 * 10 * MILLISECOND + 5));
}

fn found_files(dir: &Path) -> Vec<SegmentFile> {
    segment_files(dir).unwrap().0
}

/// Both disks as the batches of a file leave them; nothing in it may be there twice.
fn image_of(path: &Path) -> [Vec<u8>; 2] {
    let mut image = [vec![0; DISK as usize], vec![0; DISK as usize]];
    let mut covered = [Covered::default(), Covered::default()];
    let damage = scan(path, false, |entry, _| {
        for record in entry.records(DataMode::Bytes) {
            let record = record?;
            let (from, to) = (record.offset_bytes, record.offset_bytes + record.length_bytes);
            let mut fresh_bytes = 0;
            covered[record.disk as usize].add(from, to, |a, b| fresh_bytes += b - a);
            assert_eq!(fresh_bytes, record.length_bytes, "twice");
            let range = &mut image[record.disk as usize][from as usize..to as usize];
            if record.change == Change::Write {
                range.copy_from_slice(record.data);
            } else {
                range.fill(0);
            }
        }
        Ok(true)
    });
    assert_eq!(damage.unwrap(), None);
    image
}

fn after(entry: &Entry) -> u64 {
    let Kind::Point { after_no, .. } = entry.kind else { return 0 };
    after_no
}

#[test]
fn whatever_a_merge_may_hold_it_gives_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, aside) = (folder.path().join("store"), folder.path().join("merged.seg"));
    let mut store = Store::open(&dir, 0, 8192).unwrap();
    store.leave_chores();
    store.claim(&hello(false, 0)).unwrap();
    let mut source = source(5);
    // The point lies after all of it: nothing is left for the next one.
    while source.id < 40 || source.sent.last().is_none_or(|(last, _)| after(last) + 1 != last.no) {
        source.next();
    }
    for (entry, _) in &source.sent {
        store.append(entry, 0).unwrap();
        store.sync(0).unwrap();
    }
    let files = found_files(&dir);
    let point = *store.points().last().unwrap();
    assert!(files.len() > 3);
    let mut sizes = Vec::new();
    for ranges_max in [usize::MAX, 50, 9, 2] {
        let bytes = merge(&files, point, &aside, ranges_max, &mut || true).unwrap().unwrap();
        assert_eq!(std::fs::metadata(&aside).unwrap().len(), bytes);
        assert!(image_of(&aside) == source.image, "{ranges_max}");
        sizes.push(bytes);
    }
    assert!(sizes.is_sorted() && sizes[3] > sizes[0], "each part ends an entry: {sizes:?}");
    let (mut asked, mut left) = (0, 100);
    let stopped = merge(&files, point, &aside, 9, &mut || {
        (asked, left) = (asked + 1, left - 1);
        left > 0
    });
    assert_eq!((stopped.unwrap(), asked), (None, 100));
}

#[test]
fn a_recovery_under_way_keeps_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let mut store = Store::open(&dir, 0, 4096).unwrap();
    store.leave_chores();
    store.claim(&hello(false, 0)).unwrap();
    let mut source = source(1);
    for _ in 0..100 {
        source.next();
    }
    for (entry, _) in &source.sent {
        store.append(entry, 0).unwrap();
    }
    store.sync(0).unwrap();
    let reading = offer(&dir).unwrap();
    let mut chore = store.next_chore().unwrap();
    assert!(!store.begin(&chore).unwrap(), "it must wait");
    drop(reading);
    assert!(store.begin(&chore).unwrap());
    let reading = offer(&dir).unwrap();
    assert!(chore.run(&mut || true).unwrap());
    assert!(!store.finish(&chore).unwrap(), "it must wait");
    drop(reading);
    assert!(store.finish(&chore).unwrap());
}
