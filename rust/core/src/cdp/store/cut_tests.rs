//! Files of the journal cut exactly where an entry ends, as by a disk that lies or a bad copy.

use std::path::Path;

use super::tests::{DISK, check, fill, hello};
use super::*;
use crate::cdp::recovery::{Wanted, offer, recover};

/// Where each entry of a file begins and the one before ends, and its number.
fn entries(path: &Path) -> Vec<(u64, u64)> {
    let (mut found, mut begin) = (Vec::new(), 0);
    let damage = scan(path, true, |entry, end| {
        found.push((begin, entry.no));
        begin = end;
        Ok(true)
    });
    assert_eq!(damage.unwrap(), None);
    found
}

/// Cuts every file at every entry; how often.
fn cut_everywhere(dir: &Path, states: &std::collections::BTreeMap<u64, Vec<u8>>) -> usize {
    let (files, out) = (segment_files(dir).unwrap().0, dir.parent().unwrap().join("cut.img"));
    let whole: Vec<u64> = offer(dir).unwrap().points().map(|point| point.no).collect();
    assert_eq!(check(dir, states), whole.len());
    let mut cuts = 0;
    for file in &files {
        let bytes = std::fs::read(&file.path).unwrap();
        for (byte, first_gone) in entries(&file.path) {
            let context = format!("{} at byte {byte}", file.path.display());
            std::fs::write(&file.path, &bytes[..byte as usize]).unwrap();
            let found = offer(dir).unwrap();
            assert!(found.damage.is_some(), "{context}");
            let points: Vec<u64> = found.points().map(|point| point.no).collect();
            let kept = whole.iter().take_while(|no| **no < first_gone).count();
            assert_eq!(points, whole[..kept], "{context}: nothing but what was cut is gone");
            drop(found);
            if kept > 0 {
                check(dir, states);
                let latest = recover(dir, Wanted::Latest, &out).unwrap();
                assert!(latest.damage.is_some(), "{context}");
                assert!(std::fs::read(&out).unwrap() == states[&latest.point], "{context}");
            }
            let refused = Store::open(dir, 0, 5_000).err().expect(&context).to_string();
            assert!(refused.contains("start a new one"), "{context}: {refused}");
            cuts += 1;
        }
        std::fs::write(&file.path, bytes).unwrap();
    }
    assert!(offer(dir).unwrap().damage.is_none());
    cuts
}

#[test]
fn a_file_cut_between_two_entries_is_missed_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let mut store = Store::open(&dir, 0, 4_096).unwrap();
    store.claim(&hello(0)).unwrap();
    let states = fill(&mut store, &mut vec![0; DISK], 1, 16);
    assert!(store.segments.len() > 2, "{}", store.segments.len());
    drop(store);
    assert_eq!(cut_everywhere(&dir, &states), 32);
}

#[test]
fn it_is_where_the_oldest_are_in_the_base_or_merged() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let mut store = Store::open(&dir, 0, 20_000).unwrap();
    let long = LongTerm { every_ns: 5_000, retention_ns: 100_000, points: 4 };
    store.claim(&Hello { retention_ns: 4_000, long_term: Some(long), ..hello(0) }).unwrap();
    let states = fill(&mut store, &mut vec![0; DISK], 1, 45);
    let first = store.owner.as_ref().unwrap().first_segment;
    let merged = store.segments.iter().filter(|segment| segment.file.is_merged).count();
    assert!(first > 1 && merged > 1, "from {first}, {merged} merged");
    drop(store);
    assert!(cut_everywhere(&dir, &states) > 15);
}

#[test]
fn a_note_that_is_lost_is_told_and_a_store_without_notes_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let mut store = Store::open(&dir, 0, 5_000).unwrap();
    store.claim(&hello(0)).unwrap();
    let mut image = vec![0; DISK];
    let mut states = fill(&mut store, &mut image, 1, 6);
    drop(store);
    let note = std::fs::read(dir.join("durable")).unwrap();
    for bytes in [&[] as &[u8], &[7; 1024]] {
        std::fs::write(dir.join("durable"), bytes).unwrap();
        let damage = offer(&dir).unwrap().damage.unwrap();
        assert!(damage.what.contains("how far the journal was durable"), "{}", damage.what);
        assert!(Store::open(&dir, 0, 5_000).is_err());
        assert_eq!(check(&dir, &states), 6);
    }
    // One sector torn is what a loss of power leaves: the other one is older.
    let mut torn = note;
    torn[512..528].fill(9);
    std::fs::write(dir.join("durable"), torn).unwrap();
    assert!(offer(&dir).unwrap().damage.is_none());
    // As before there were notes.
    std::fs::remove_file(dir.join("durable")).unwrap();
    let mut owner = read_owner(&dir).unwrap().unwrap();
    (owner.notes_durable, owner.base_no) = (false, None);
    write_owner(&dir, &owner).unwrap();
    assert!(offer(&dir).unwrap().damage.is_none());
    let mut store = Store::open(&dir, 0, 5_000).unwrap();
    store.claim(&hello(0)).unwrap();
    states.extend(fill(&mut store, &mut image, 7, 6));
    assert!(store.owner.as_ref().unwrap().notes_durable);
    drop(store);
    assert!(dir.join("durable").exists());
    assert_eq!(check(&dir, &states), 12);
}
