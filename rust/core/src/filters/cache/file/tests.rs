use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::super::DataMode;
use super::super::super::testing::{EIO, Rig, Row};
use super::*;
use crate::io::flags;

mod crashes;

const DISK: u64 = 4 << 20;
const SECOND: u64 = 1_000_000_000;

fn rig(more: Value) -> Rig {
    let mut params = json!({"capacity": "64KiB", "file": "cache"});
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut rig = Rig::new(&[("cache", params)], DataMode::Bytes, DISK);
    rig.close();
    reached(&rig);
    rig
}

type Log = Vec<(Op, u64, u64)>;

fn reached(rig: &Rig) -> (Log, Log) {
    let mut device = rig.device.lock().unwrap();
    (std::mem::take(&mut device.log), std::mem::take(&mut device.file_log))
}

fn blocks(row: Row) -> (u32, u32) {
    (row.blocks, row.hit_blocks)
}

fn only<T: Clone>(log: &[(Op, u64, u64)], op: Op, of: impl Fn(u64, u64) -> T) -> Vec<T> {
    log.iter().filter(|entry| entry.0 == op).map(|entry| of(entry.1, entry.2)).collect()
}

#[test]
fn a_hit_is_read_from_the_file_alone() {
    let mut rig = rig(json!({}));
    assert_eq!(blocks(rig.one(Op::Write, 8192, 8192)), (2, 0));
    let (disk, file) = reached(&rig);
    assert_eq!(disk, [(Op::Write, 8192, 8192)]);
    assert_eq!(only(&file, Op::Write, |_, length| length), [8192], "frames in a row, one I/O");
    assert_eq!(blocks(rig.one(Op::Read, 9216, 5120)), (2, 2));
    let (disk, file) = reached(&rig);
    assert!(disk.is_empty());
    assert_eq!(only(&file, Op::Read, |_, length| length), [5120]);
    // What a read brings goes into the file after the read is done.
    rig.one(Op::Read, 16_384, 4096);
    rig.settle();
    let (disk, file) = reached(&rig);
    assert_eq!((disk.len(), file.len()), (1, 1));
    assert_eq!(blocks(rig.one(Op::Read, 8192, 12_288)), (3, 3));
    assert!(reached(&rig).0.is_empty());
}

#[test]
fn a_long_read_waits_for_what_does_not_go_into_the_file_behind_it() {
    let mut rig = rig(json!({"capacity": "1MiB"}));
    assert_eq!(blocks(rig.one(Op::Read, 0, 100 * 4096)), (100, 0));
    rig.settle();
    let lengths = only(&reached(&rig).1, Op::Write, |_, length| length / 4096);
    let behind = lengths.iter().filter(|blocks| **blocks == 1).count();
    assert_eq!((behind, lengths.iter().sum::<u64>()), (FILLS as usize, 100), "{lengths:?}");
    assert_eq!(blocks(rig.one(Op::Read, 0, 100 * 4096)), (100, 100));
    assert!(reached(&rig).0.is_empty());
    assert_eq!((rig.gauge("cache_file_errors"), rig.gauge("uncached_blocks")), (0, 0));
}

#[test]
fn a_write_back_flush_makes_the_file_durable_and_leaves_the_disk_alone() {
    let mut rig = rig(json!({"write_policy": "back", "destage_after": "1h"}));
    rig.one(Op::Flush, 0, 0);
    reached(&rig);
    rig.one(Op::Write, 0, 8192);
    assert_eq!(rig.one(Op::Flush, 0, 0).status, OK);
    let (disk, file) = reached(&rig);
    assert!(disk.is_empty(), "{disk:?}");
    let steps: Vec<Op> = file.iter().map(|entry| entry.0).collect();
    assert_eq!(steps, [Op::Write, Op::Flush, Op::Write, Op::Flush], "data, then the map");
    rig.one(Op::Flush, 0, 0);
    assert!(reached(&rig).1.is_empty(), "nothing new");
    let now = SECOND;
    rig.io_with(flags::FUA, now, Op::Write, 0, 4096);
    rig.run();
    let (disk, file) = reached(&rig);
    assert!(disk.is_empty());
    assert_eq!(only(&file, Op::Flush, |_, _| ()).len(), 1, "its record is there already");
    assert_eq!(rig.gauge("dirty_bytes"), 8192);
    rig.close();
    let (disk, _) = reached(&rig);
    assert_eq!(disk, [(Op::Write, 0, 8192), (Op::Flush, 0, 0)], "neighbours leave together");
    assert_eq!(rig.gauge("dirty_bytes"), 0);
}

#[test]
fn the_age_of_the_oldest_dirty_data_is_told() {
    let mut rig = rig(json!({"write_policy": "back", "destage_after": "1s"}));
    let at = 10 * SECOND;
    rig.io(at, Op::Write, 0, 4096).io(at + SECOND / 2, Op::Write, 8192, 4096);
    rig.io(at + SECOND * 3 / 4, Op::Read, 0, 4096).run_until(at + SECOND * 4 / 5);
    assert_eq!(rig.gauge("dirty_oldest_ns") as u64, SECOND * 3 / 4);
    rig.run_until(at + SECOND * 5 / 4);
    assert_eq!(rig.gauge("dirty_oldest_ns") as u64, SECOND / 2, "the first has left");
    rig.settle();
    assert_eq!(rig.gauge("dirty_oldest_ns"), 0);
}

#[test]
fn a_full_file_makes_it_write_through_and_read_past() {
    for write_policy in ["through", "back"] {
        let mut rig = rig(json!({"write_policy": write_policy}));
        rig.one(Op::Write, 0, 4096);
        rig.settle();
        reached(&rig);
        let full = Some((Op::Write, 0..u64::MAX, libc::ENOSPC));
        rig.device.lock().unwrap().file_fail = full;
        let at = 10 * SECOND;
        rig.io(at, Op::Write, 8192, 4096).io(at + 10_000_000, Op::Write, 16_384, 4096);
        rig.run_until(at + 20_000_000);
        rig.io(at + 30_000_000, Op::Read, 8192, 4096).run_until(at + 40_000_000);
        assert!(rig.take_rows().iter().all(|row| row.status == OK), "{write_policy}");
        let (disk, file) = reached(&rig);
        let writes = only(&disk, Op::Write, |at, _| at);
        assert_eq!(writes, [8192, 16_384], "{write_policy}: to the disk at once");
        assert_eq!(only(&disk, Op::Read, |at, _| at), [8192], "{write_policy}: uncached");
        assert_eq!(only(&file, Op::Write, |_, _| ()).len(), 1, "tried once, then at rest");
        assert_eq!(rig.gauge("cache_file_errors"), 1);
        assert!(rig.gauge("uncached_blocks") >= 2);
        assert_eq!(rig.gauge_or_zero("dirty_bytes"), 0);
        let told = rig.take_events();
        let failed: Vec<_> = told.iter().filter(|e| e.kind == "cache_file_failed").collect();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].detail, "{\"errno\": 28, \"op\": \"write\"}");
        // There is room again: the cache goes on.
        rig.device.lock().unwrap().file_fail = None;
        rig.io(at + 2 * SECOND, Op::Write, 8192, 4096).settle();
        assert_eq!(blocks(rig.one(Op::Read, 8192, 4096)), (1, 1));
        assert_eq!(rig.unverified_sectors, 0);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_read_past_if_the_disk_has_it() {
    let mut rig = rig(json!({"write_policy": "back", "destage_after": "10s"}));
    rig.one(Op::Write, 0, 4096);
    rig.one(Op::Read, 8192, 4096);
    rig.io(SECOND, Op::Flush, 0, 0).run_until(2 * SECOND);
    rig.take_rows();
    rig.device.lock().unwrap().file_fail = Some((Op::Read, 0..u64::MAX, libc::EIO));
    rig.io(2 * SECOND, Op::Read, 8192, 4096).run_until(3 * SECOND);
    assert_eq!(rig.take_rows()[0].status, OK);
    rig.io(3 * SECOND, Op::Read, 0, 4096).run_until(4 * SECOND);
    assert_eq!(rig.take_rows()[0].status, libc::EIO, "nobody else has it");
    rig.device.lock().unwrap().file_fail = None;
    rig.io(4 * SECOND, Op::Read, 0, 4096).settle();
    assert_eq!(rig.unverified_sectors, 16, "only what was never written, twice");
}

#[test]
fn a_discard_of_a_whole_disk_forgets_what_is_cached() {
    for write_policy in ["through", "back"] {
        let params = json!({"capacity": "64KiB", "file": "cache", "write_policy": write_policy});
        let disk = 4 << 30;
        let mut rig = Rig::new(&[("cache", params)], DataMode::Bytes, DISK);
        rig.one(Op::Write, 0, 16_384);
        // The device ends before; that is for it to say.
        assert_eq!(rig.one(Op::Discard, 0, disk).status, EIO);
        assert_eq!(rig.gauge("cached_bytes"), 0);
        assert_eq!(rig.gauge_or_zero("dirty_bytes"), 0);
        assert_eq!(blocks(rig.one(Op::Read, 4096, 4096)), (1, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// Any mix of overlapping I/Os over devices that reorder and fail: reads give back what was
    /// written (the rig checks each).
    #[test]
    fn what_is_written_is_read(
        plan in proptest::collection::vec(
            (0u64..50, 1u64..30, 0u8..12, 0u64..6000, any::<bool>()), 1..150,
        ),
        capacity in 1u64..24,
        block in prop_oneof![Just(4096u64), Just(16_384)],
        write_policy in prop_oneof![Just("through"), Just("back"), Just("around")],
        after in prop_oneof![Just("0s"), Just("20us"), Just("1h")],
        eviction in 0..crate::eviction::POLICIES.len(),
        fail in proptest::option::of((0u64..70, 1u64..20, any::<bool>(), any::<bool>())),
    ) {
        let mut params = json!({
            "capacity": capacity * block, "block": block, "file": "cache",
            "write_policy": write_policy, "eviction": crate::eviction::POLICIES[eviction].name,
        });
        if write_policy == "back" {
            params["destage_after"] = json!(after);
        }
        let mut rig = Rig::new(&[("cache", params)], DataMode::Bytes, DISK);
        rig.close();
        if let Some((at, length, is_read, is_file)) = fail {
            let mut device = rig.device.lock().unwrap();
            let op = if is_read { Op::Read } else { Op::Write };
            let range = at * 1024..(at + length) * 1024;
            if is_file {
                device.file_fail = Some((op, range, libc::ENOSPC));
            } else {
                device.fail = Some((Op::Read, range));
            }
        }
        let mut at = 10 * SECOND;
        for (place, length, action, gap, is_fua) in plan {
            let op = match action {
                0..5 => Op::Read,
                5..9 => Op::Write,
                9 => Op::WriteZeroes,
                10 => Op::Discard,
                _ => Op::Flush,
            };
            at += gap;
            let (offset, length) = match op {
                Op::Flush => (0, 0),
                _ => (place * 1536, length * 512),
            };
            let flags = if is_fua && op == Op::Write { flags::FUA } else { 0 };
            rig.io_with(flags, at, op, offset, length);
        }
        rig.run_until(at + SECOND / 20);
        for row in rig.take_rows() {
            prop_assert!(row.status == OK || fail.is_some());
        }
        let mut device = rig.device.lock().unwrap();
        (device.fail, device.file_fail) = (None, None);
        drop(device);
        rig.close();
        // After a clean stop the disk has it all.
        rig.io(at + 100 * SECOND, Op::Read, 0, 64 << 10).run_until(at + 200 * SECOND);
        prop_assert_eq!(rig.take_rows().len(), 1);
        prop_assert_eq!(rig.gauge_or_zero("dirty_bytes"), 0);
    }

    /// One I/O at a time, so that every count is that of the policy alone, whichever it is.
    #[test]
    fn hits_are_those_of_the_policy(
        plan in proptest::collection::vec((0u64..50, 1u64..30, 0u8..11), 1..100),
        capacity in 1u64..24,
        kind in 0..crate::eviction::POLICIES.len(),
        write_policy in prop_oneof![Just("through"), Just("back"), Just("around")],
    ) {
        let kind = &crate::eviction::POLICIES[kind];
        let params = json!({
            "capacity": capacity * 4096, "eviction": kind.name, "write_policy": write_policy,
            "file": "cache",
        });
        let mut on_file = Rig::new(&[("cache", params.clone())], DataMode::Bytes, DISK);
        let mut params = params;
        params.as_object_mut().unwrap().remove("file");
        let mut in_memory = Rig::new(&[("cache", params)], DataMode::Bytes, DISK);
        let mut now = 0;
        for (place, length, action) in plan {
            let op = [Op::Read, Op::Write, Op::WriteZeroes, Op::Discard][action as usize / 3];
            now += 10_000_000;
            let rows = [&mut on_file, &mut in_memory].map(|rig| {
                rig.io(now, op, place * 1536, length * 512).run_until(now + 9_000_000);
                blocks(rig.take_rows()[0])
            });
            prop_assert_eq!(rows[0], rows[1]);
        }
    }
}
