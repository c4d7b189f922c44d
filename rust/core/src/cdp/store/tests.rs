//! A store on disk: what recovery gives is what was appended, with retention and after crashes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::cdp::entry::{Batch, Change, Record};
use crate::cdp::frame::digest;
use crate::cdp::recovery::{Wanted, offer, recover};

pub(super) const DISK: usize = 1 << 16;

pub(super) fn hello(retention_bytes: u64) -> Hello {
    Hello {
        version: 3,
        run: "a run".into(),
        disks: vec!["disk".into()],
        disk_bytes: vec![DISK as u64],
        acked_no: 0,
        fresh: false,
        first: false,
        continuous: false,
        early: false,
        retention_ns: 0,
        retention_bytes,
        long_term: None,
        stream: String::new(),
    }
}

/// Appends `rounds` batches with a point after each; the states by point.
pub(super) fn fill(
    store: &mut Store,
    image: &mut [u8],
    from: u64,
    rounds: u64,
) -> BTreeMap<u64, Vec<u8>> {
    let mut states = BTreeMap::new();
    for id in from..from + rounds {
        let mut batch = Batch::default();
        for i in 0..5 {
            let offset = ((id * 7919 + i * 104_729) % (DISK as u64 - 4096)) as usize;
            let data = vec![(id * 5 + i) as u8 | 1; 1 + (id as usize * 37 + i as usize) % 4000];
            let change = if i == 4 { Change::Zero } else { Change::Write };
            let range = &mut image[offset..offset + data.len()];
            if change == Change::Write {
                range.copy_from_slice(&data)
            } else {
                range.fill(0)
            }
            batch.push(&Record {
                change,
                disk: 0,
                offset_bytes: offset as u64,
                length_bytes: data.len() as u64,
                time_ns: id * 1000 + i,
                data: if change == Change::Write { &data } else { &[] },
            });
        }
        let no = store.received_no() + 1;
        store.append(&Arc::new(batch.close(no, Vec::new())), 0).unwrap();
        let point = Kind::Point { id, cut_ns: id * 1000 + 500, after_no: no };
        store.append(&Arc::new(Entry::mark(no + 1, point, id * 1000 + 500)), 0).unwrap();
        store.sync(0).unwrap();
        states.insert(id, image.to_vec());
    }
    states
}

pub(super) fn check(dir: &Path, states: &BTreeMap<u64, Vec<u8>>) -> usize {
    let points: Vec<_> = offer(dir).unwrap().points().copied().collect();
    let out = dir.parent().unwrap().join("out.img");
    for point in &points {
        recover(dir, Wanted::Point(point.id), &out).unwrap();
        assert!(std::fs::read(&out).unwrap() == states[&point.id], "point {}", point.id);
    }
    points.len()
}

#[test]
fn every_kept_point_is_its_state_with_retention_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let mut image = vec![0; DISK];
    let mut store = Store::open(&dir, 0, 20_000).unwrap();
    store.claim(&hello(100_000)).unwrap();
    let mut states = fill(&mut store, &mut image, 1, 60);
    assert!(store.journal_bytes() < 200_000);
    let kept = check(&dir, &states);
    assert!((5..60).contains(&kept), "{kept}");
    assert_eq!(offer(&dir).unwrap().points().last().unwrap().id, 60);
    drop(store);
    let mut store = Store::open(&dir, 0, 20_000).unwrap();
    store.claim(&hello(100_000)).unwrap();
    assert_eq!(store.received_no(), 120);
    states.extend(fill(&mut store, &mut image, 61, 20));
    assert!(check(&dir, &states) >= 5);
    let error = Store::open(&dir, 0, 20_000).err().unwrap();
    assert!(error.to_string().contains("in use"), "{error}");
    let other = Hello { run: "another".into(), ..hello(0) };
    assert!(store.claim(&other).unwrap_err().to_string().contains("holds the replica of run"));
}

#[test]
fn a_torn_end_is_cut_off_wherever_it_was_torn() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let mut image = vec![0; DISK];
    let mut store = Store::open(&dir, 0, SEGMENT_BYTES).unwrap();
    store.claim(&hello(0)).unwrap();
    let states = fill(&mut store, &mut image, 1, 4);
    drop(store);
    let path = segment_path(&dir, 1);
    let whole = std::fs::read(&path).unwrap();
    // Nobody was told yet that any of it is durable.
    let forget = || {
        std::fs::remove_file(dir.join("durable")).unwrap();
        durable::Note::open(&dir).unwrap();
    };
    for cut in (0..whole.len()).step_by(997) {
        forget();
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(offer(&dir).unwrap().damage.is_none(), "{cut}");
        let store = Store::open(&dir, 0, SEGMENT_BYTES).unwrap();
        drop(store);
        let offered = offer(&dir).unwrap();
        assert!(offered.damage.is_none(), "{cut}");
        check(&dir, &states);
    }
    // Damage with good entries after it is no torn end: appending would hide it.
    let mut damaged = whole;
    damaged[100] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let error = Store::open(&dir, 0, SEGMENT_BYTES).err().unwrap().to_string();
    assert!(error.contains("checksum") && error.contains("byte 0"), "{error}");
}

#[test]
fn a_segment_that_is_missing_ends_what_is_offered() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let mut store = Store::open(&dir, 0, 5_000).unwrap();
    store.claim(&hello(0)).unwrap();
    let states = fill(&mut store, &mut vec![0; DISK], 1, 30);
    let files: Vec<_> = store.segments.iter().map(|segment| segment.file.clone()).collect();
    assert!(files.len() > 3);
    drop(store);
    for gone in &files[..files.len() - 1] {
        let bytes = std::fs::read(&gone.path).unwrap();
        std::fs::remove_file(&gone.path).unwrap();
        let offered = offer(&dir).unwrap();
        assert!(offered.damage.as_ref().unwrap().what.contains("is missing"));
        assert!(offered.points().all(|point| point.segment < gone.number));
        if offered.points().next().is_some() {
            check(&dir, &states);
        }
        let refused = Store::open(&dir, 0, 5_000).err().unwrap().to_string();
        let missing = format!("the journal's segment {} is missing", gone.number);
        assert!(refused.contains(&missing), "{refused}");
        std::fs::write(&gone.path, bytes).unwrap();
    }
    assert_eq!(check(&dir, &states), 30);
}

/// Batches of one write each to the same place, and no point but the first.
fn fill_continuously(store: &mut Store, writes: u64) {
    let point = Kind::Point { id: 1, cut_ns: 0, after_no: 0 };
    store.append(&Arc::new(Entry::mark(1, point, 0)), 0).unwrap();
    for no in 2..2 + writes {
        let mut batch = Batch::default();
        let (time_ns, data) = (no * 1_000, vec![no as u8; 1_000]);
        batch.push(&Record {
            change: Change::Write,
            disk: 0,
            offset_bytes: 0,
            length_bytes: data.len() as u64,
            time_ns,
            data: &data,
        });
        store.append(&Arc::new(batch.close(no, Vec::new())), 0).unwrap();
        store.sync(0).unwrap();
    }
}

#[test]
fn continuous_recovery_stops_at_damage_and_tells_the_time_it_has_reached() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, out) = (folder.path().join("store"), folder.path().join("out.img"));
    let mut store = Store::open(&dir, 0, 5_000).unwrap();
    store.claim(&Hello { continuous: true, ..hello(0) }).unwrap();
    fill_continuously(&mut store, 40);
    let path = store.segments[3].file.path.clone();
    drop(store);
    let state = |wanted| {
        let found = recover(&dir, wanted, &out).unwrap();
        (found.cut_ns, std::fs::read(&out).unwrap()[0], found.damage)
    };
    assert_eq!(state(Wanted::Latest), (41_000, 41, None));
    assert_eq!(state(Wanted::At(30_500)), (30_500, 30, None));
    let mut bytes = std::fs::read(&path).unwrap();
    let first = Entry::from_header(bytes.first_chunk().unwrap()).unwrap().0;
    let place = bytes.len() / 2;
    bytes[place] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    for wanted in [Wanted::Latest, Wanted::At(40_000)] {
        let (cut_ns, byte, damage) = state(wanted);
        assert!(damage.unwrap().contains("checksum"));
        assert!(cut_ns >= first.last_ns && cut_ns < 30_000, "{cut_ns}");
        assert_eq!(u64::from(byte) * 1_000, cut_ns);
    }
}

#[test]
fn a_journal_that_lost_its_end_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let mut store = Store::open(&dir, 0, 20_000).unwrap();
    store.claim(&hello(0)).unwrap();
    let states = fill(&mut store, &mut vec![0; DISK], 1, 40);
    drop(store);
    assert!(offer(&dir).unwrap().damage.is_none());
    let files = segment_files(&dir).unwrap().0;
    assert!(files.len() > 3);
    for lost in [1, 3, files.len()] {
        let first = files.len() - lost;
        for file in &files[first..] {
            let _ = std::fs::remove_file(&file.path);
        }
        let damage = offer(&dir).unwrap().damage.unwrap();
        assert_eq!(damage.what, format!("the journal's segment {} is missing", first + 1));
        check(&dir, &states);
        // What comes next would be taken for what followed.
        let refused = Store::open(&dir, 0, 20_000).err().unwrap().to_string();
        assert!(refused.contains("start a new one"), "{refused}");
    }
}

#[test]
fn a_full_store_keeps_what_it_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let mut store = Store::open(&dir, 30_000, SEGMENT_BYTES).unwrap();
    store.claim(&hello(0)).unwrap();
    let states = fill(&mut store, &mut vec![0; DISK], 1, 2);
    let mut batch = Batch::default();
    let data = vec![1; 40_000];
    let record = Record {
        change: Change::Write,
        disk: 0,
        offset_bytes: 0,
        length_bytes: 40_000,
        time_ns: 9000,
        data: &data,
    };
    batch.push(&record);
    store.append(&Arc::new(batch.close(5, Vec::new())), 0).unwrap();
    assert!(matches!(store.sync(0), Err(Refusal::Full)));
    assert_eq!(store.received_no(), 4);
    assert_eq!(check(&dir, &states), 2);
}

#[test]
fn a_store_whose_source_never_came_opens_again_and_a_folder_of_somebody_s_does_not() {
    let kept = tempfile::tempdir().unwrap();
    let folder = kept.path();
    for _ in 0..2 {
        assert!(Store::open(folder, 0, 1 << 20).unwrap().owner.is_none());
    }
    std::fs::write(folder.join("journal/letter.txt"), "dear").unwrap();
    let refused = Store::open(folder, 0, 1 << 20).err().unwrap().to_string();
    assert!(refused.contains("expected an empty folder or a replica store"), "{refused}");
}

#[test]
fn what_a_resynchronisation_compares_with_has_all_that_came_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let mut store = Store::open(&dir, 0, 5_000).unwrap();
    store.claim(&hello(0)).unwrap();
    let mut image = vec![0; DISK];
    let ask = Ask { disk: 0, offset_bytes: 0, length_bytes: DISK as u64, block_bytes: 4096 };
    let right = |image: &[u8]| -> Vec<u128> { image.chunks(4096).map(digest).collect() };
    fill(&mut store, &mut image, 1, 8);
    let mark = |store: &mut Store| {
        let no = store.received_no() + 1;
        store.append(&Arc::new(Entry::mark(no, Kind::ResyncBegin, 0)), 0).unwrap();
    };
    mark(&mut store);
    let before = store.sums(ask).unwrap();
    assert_eq!(before, right(&image));
    // A batch of the resynchronisation itself, and another hole: what was told is old.
    let mut batch = Batch::default();
    batch.push(&Record {
        change: Change::Write,
        disk: 0,
        offset_bytes: 100,
        length_bytes: 9,
        time_ns: 0,
        data: b"something",
    });
    image[100..109].copy_from_slice(b"something");
    let no = store.received_no() + 1;
    store.append(&Arc::new(batch.close(no, Vec::new())), 0).unwrap();
    assert_eq!(store.sums(ask).unwrap(), before, "of one state until the next begins");
    mark(&mut store);
    assert_eq!(store.sums(ask).unwrap(), right(&image));
    assert_ne!(right(&image), before);
    // Retention moves segments into the base meanwhile.
    drop(store);
    let mut store = Store::open(&dir, 0, 5_000).unwrap();
    store.claim(&hello(0)).unwrap();
    assert_eq!(store.sums(ask).unwrap(), right(&image));
    let mut chore = store.fold(&store.segments[0].clone()).unwrap();
    assert!(store.begin(&chore).unwrap());
    assert!(chore.run(&mut || true).unwrap() && store.finish(&chore).unwrap());
    assert_eq!(store.sums(ask).unwrap(), right(&image));
}
