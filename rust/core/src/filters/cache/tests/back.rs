//! Write-back: what is held back, when it goes, and what a loss of power may take.

use super::*;
use crate::io::flags;

const SECOND: u64 = 1_000_000_000;

fn rig(more: Value) -> Rig {
    let mut params = json!({"capacity": "64KiB", "write_policy": "back"});
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Rig::new(&[("cache", params)], DataMode::Bytes, DISK)
}

#[test]
fn a_write_is_done_when_it_is_in_the_cache_and_neighbours_leave_together() {
    let mut rig = rig(json!({"destage_after": "1ms"}));
    let rows = rig
        .io(0, Op::Write, 0, 8192)
        .io(0, Op::Write, 8192, 4096)
        .io(10, Op::Write, 4096, 512)
        .io(20, Op::Read, 4096, 4096)
        .settle();
    assert!(rows.iter().all(|row| row.response_ns() == 0));
    assert_eq!(
        rows.iter().map(|row| blocks(*row)).collect::<Vec<_>>(),
        [(2, 0), (1, 0), (1, 1), (1, 1)]
    );
    assert_eq!(reached(&rig), [(Op::Write, 0, 12_288)], "once, with what was written over it");
    assert_eq!(["dirty_bytes", "destaged_bytes"].map(|g| rig.gauge(g)), [0, 12_288]);
}

#[test]
fn what_is_dirty_leaves_in_its_time() {
    let mut rig = rig(json!({"destage_after": "1s"}));
    rig.io(0, Op::Write, 0, 4096).run_until(SECOND - 1);
    assert_eq!((reached(&rig).len(), rig.gauge("dirty_bytes")), (0, 4096));
    rig.run_until(SECOND);
    assert_eq!(reached(&rig), [(Op::Write, 0, 4096)]);
    rig.settle();
    assert_eq!(rig.gauge("dirty_bytes"), 0);
}

#[test]
fn a_flush_waits_for_what_was_written_before_it() {
    let mut rig = rig(json!({"destage_after": "1s"}));
    rig.io(0, Op::Write, 0, 4096).io(0, Op::Write, 8192, 4096).io(10, Op::Flush, 0, 0);
    let rows = rig.settle();
    assert!(rows[2].response_ns() > 2000, "two writes, one after the other");
    assert_eq!(reached(&rig), [(Op::Write, 0, 4096), (Op::Write, 8192, 4096), (Op::Flush, 0, 0)]);
    rig.one(Op::Flush, 0, 0);
    assert_eq!(reached(&rig), [(Op::Flush, 0, 0)], "nothing is dirty");
}

#[test]
fn fua_goes_to_the_disk_past_what_is_dirty() {
    let mut rig = rig(json!({"destage_after": "1s"}));
    rig.io(0, Op::Write, 0, 8192).io_with(flags::FUA, 10, Op::Write, 1024, 4096 - 1024);
    rig.run_until(SECOND / 2);
    assert_eq!(reached(&rig), [(Op::Write, 1024, 3072)]);
    assert_eq!(rig.gauge("dirty_bytes"), 8192, "the rest of its block still is");
    rig.io_with(flags::FUA, SECOND / 2, Op::Write, 4096, 4096).run_until(SECOND - 1);
    assert_eq!(rig.gauge("dirty_bytes"), 4096, "nothing of the second block is owed");
    rig.io(SECOND - 1, Op::Read, 0, 8192).settle();
    assert_eq!(rig.one(Op::Read, 0, 8192).hit_blocks, 2);
}

#[test]
fn while_too_much_is_dirty_writes_go_through() {
    let mut rig = rig(json!({"dirty_max": "8KiB", "destage_after": "1s"}));
    let rows = rig
        .io(0, Op::Write, 0, 4096)
        .io(0, Op::Write, 8192, 4096)
        .io(0, Op::Write, 16_384, 4096)
        .io(0, Op::Write, 0, 65_536)
        .settle();
    let at_once: Vec<bool> = rows.iter().map(|row| row.response_ns() == 0).collect();
    assert_eq!(at_once, [true, true, false, false]);
    rig.one(Op::Read, 0, 65_536);
    assert_eq!(rig.unverified_sectors, 0);
}

#[test]
fn an_evicted_block_is_read_from_where_it_waits() {
    let mut rig = rig(json!({"capacity": "8KiB", "dirty_max": "8KiB", "destage_after": "10s"}));
    rig.one(Op::Write, 0, 4096);
    rig.device.lock().unwrap().fail = Some((Op::Write, 0..DISK));
    for block in 1..3 {
        let now = block * 10;
        rig.io(now, Op::Read, block * 40_960, 4096);
    }
    // The disk refuses it: it has to stay, evicted or not.
    rig.run_until(SECOND / 20);
    let now = SECOND / 20;
    rig.io(now, Op::Read, 0, 4096).run_until(now + 1000);
    rig.device.lock().unwrap().fail = None;
    rig.settle();
    assert_eq!(rig.unverified_sectors, 16, "only what was never written");
    assert_eq!(&rig.device.lock().unwrap().image[..1], &[1], "and got to the disk in the end");
}

#[test]
fn a_failed_destage_is_told_to_flushes_and_tried_again() {
    let mut rig = rig(json!({"destage_after": "1s"}));
    rig.device.lock().unwrap().fail = Some((Op::Write, 0..4096));
    rig.io(0, Op::Write, 0, 8192).io(10, Op::Flush, 0, 0).run_until(SECOND / 20);
    rig.device.lock().unwrap().fail = None;
    rig.io(SECOND / 2, Op::Flush, 0, 0);
    let rows = rig.settle();
    assert_eq!(rows.iter().map(|row| row.status).collect::<Vec<_>>(), [OK, EIO, OK]);
    assert_eq!(rig.gauge("dirty_bytes"), 0);
}

#[test]
fn a_clean_stop_leaves_all_on_the_disk_and_reads_prove_it() {
    let mut rig = rig(json!({"destage_after": "1h"})).with_power_loss();
    rig.io(0, Op::Write, 0, 8192).io(0, Op::WriteZeroes, 16_384, 4096).run_until(SECOND);
    assert!(reached(&rig).is_empty());
    rig.close();
    assert_eq!(reached(&rig), [(Op::Write, 0, 8192), (Op::Write, 16_384, 4096), (Op::Flush, 0, 0)]);
    rig.io(2 * SECOND, Op::Read, 0, 8192).run_until(3 * SECOND);
    assert_eq!(reached(&rig), [(Op::Read, 0, 8192)], "read from the disk");
    let image = rig.lose_power(1);
    assert!(image[..8192].iter().step_by(8).all(|byte| *byte == 1) && image[16_384] == 0);
}

#[test]
fn a_discard_takes_dirty_data_with_it() {
    let mut rig = rig(json!({"destage_after": "1s"}));
    rig.io(0, Op::Write, 0, 16_384).io(10, Op::Discard, 2048, 8192).run_until(SECOND / 2);
    assert_eq!((rig.gauge("dirty_bytes"), rig.gauge("cached_bytes")), (12_288, 12_288));
    rig.settle();
    assert_eq!(
        reached(&rig),
        [(Op::Discard, 2048, 8192), (Op::Write, 0, 4096), (Op::Write, 8192, 8192)]
    );
}

#[test]
fn parameters_that_contradict_each_other_are_named() {
    let errors = |params: Value| -> Vec<(String, String)> {
        let built = (find("cache").unwrap().build)(&params, &setting(DataMode::Bytes));
        built.err().unwrap().into_iter().map(|e| (e.path, e.message)).collect()
    };
    let got = errors(json!({"capacity": "1MiB", "dirty_max": "1KiB", "destage_after": "1s"}));
    let paths: Vec<&str> = got.iter().map(|(path, _)| &path[..]).collect();
    assert_eq!(paths, ["dirty_max", "dirty_max", "destage_after"]);
    let got = errors(json!({
        "capacity": "1MiB", "dedup": true, "write_policy": "back", "read_ahead": "64KiB"
    }));
    assert_eq!(got.len(), 2);
}

fn any_op(action: u8) -> (Op, u32) {
    match action {
        0..4 => (Op::Read, 0),
        4..8 => (Op::Write, 0),
        8 => (Op::Write, flags::FUA),
        9 => (Op::Write, flags::PREFLUSH),
        10 => (Op::WriteZeroes, 0),
        11 => (Op::Discard, 0),
        _ => (Op::Flush, 0),
    }
}

fn plan(rig: &mut Rig, ios: &[(u64, u64, u8, u64)]) -> u64 {
    let mut at = 0;
    for &(place, length, action, gap) in ios {
        let (op, flags) = any_op(action);
        at += gap;
        let (offset, length) = if op == Op::Flush { (0, 0) } else { (place * 1536, length * 512) };
        rig.io_with(flags, at, op, offset, length);
    }
    at
}

fn any_params() -> impl Strategy<Value = Value> {
    let write_policy = prop_oneof![Just("through"), Just("around"), Just("back"), Just("back")];
    let block = prop_oneof![Just(512u64), Just(4096), Just(16_384)];
    let after = prop_oneof![Just("0s"), Just("50us"), Just("10ms")];
    let ahead = prop_oneof![Just(0u64), Just(8192), Just(65_536)];
    let names: Vec<&str> = eviction::POLICIES.iter().map(|policy| policy.name).collect();
    let name = proptest::sample::select(names);
    (write_policy, block, 1u64..24, 1u64..24, after, ahead, name).prop_map(
        |(write_policy, block, capacity, dirty, after, ahead, name)| {
            let mut params = json!({
                "capacity": capacity * block, "block": block, "write_policy": write_policy,
                "read_ahead": ahead, "eviction": name,
            });
            if write_policy == "back" {
                params["dirty_max"] = json!(dirty.min(capacity) * block);
                params["destage_after"] = json!(after);
            }
            params
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// All write policies and eviction policies, read-ahead too: no read gives back what is not
    /// the last write's (the rig checks each), also where the disk fails; and after a clean stop
    /// the disk holds all of it.
    #[test]
    fn no_read_is_stale(
        ios in proptest::collection::vec((0u64..50, 1u64..30, 0u8..13, 0u64..6000), 1..150),
        params in any_params(),
        mode in prop_oneof![Just(DataMode::Bytes), Just(DataMode::Tokens)],
        fail in proptest::option::of((any::<bool>(), 0u64..70, 1u64..20)),
    ) {
        let mut rig = Rig::new(&[("cache", params)], mode, DISK);
        rig.device.lock().unwrap().fail = fail.map(|(read, at, length)| {
            (if read { Op::Read } else { Op::Write }, at * 1024..(at + length) * 1024)
        });
        let end = plan(&mut rig, &ios);
        rig.run_until(end + 100_000);
        rig.device.lock().unwrap().fail = None;
        for row in rig.settle() {
            prop_assert!(row.status == OK || fail.is_some());
        }
        rig.close();
        for block in 0..100 {
            prop_assert_eq!(rig.one(Op::Read, block * 4096, 4096).status, OK);
        }
    }

    /// The power goes at any moment: what a flush or FUA covered is on the disk.
    #[test]
    fn what_was_flushed_survives(
        ios in proptest::collection::vec((0u64..50, 1u64..30, 0u8..14, 0u64..6000), 1..120),
        params in any_params(),
        moment in 0.0..1.1f64,
        seed in any::<u64>(),
    ) {
        let mut rig = Rig::new(&[("cache", params)], DataMode::Tokens, DISK).with_power_loss();
        let end = plan(&mut rig, &ios);
        rig.run_until((end as f64 * moment) as u64);
        rig.lose_power(seed);
    }
}
