use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::find;
use super::super::testing::{EIO, Rig, Row, setting};
use super::*;
use crate::eviction::{self, Index};
use crate::filters::DataMode;
use crate::io::OK;

mod back;
mod content;

const DISK: u64 = 4 << 20;

fn rig(capacity: u64, block: u64, mode: DataMode) -> Rig {
    let params = json!({"capacity": capacity, "block": block});
    Rig::new(&[("cache", params)], mode, DISK)
}

fn reached(rig: &Rig) -> Vec<(Op, u64, u64)> {
    std::mem::take(&mut rig.device.lock().unwrap().log)
}

fn blocks(row: Row) -> (u32, u32) {
    (row.blocks, row.hit_blocks)
}

#[test]
fn a_hit_never_reaches_the_device() {
    for mode in [DataMode::Bytes, DataMode::Tokens, DataMode::Nothing] {
        let mut rig = rig(64 << 10, 4096, mode);
        assert_eq!(blocks(rig.one(Op::Write, 8192, 8192)), (2, 0));
        assert_eq!(reached(&rig), [(Op::Write, 8192, 8192)]);
        let hit = rig.one(Op::Read, 8192, 8192);
        assert_eq!((blocks(hit), hit.response_ns()), ((2, 2), 0));
        // Parts of cached blocks, and blocks that a read brought.
        assert_eq!(blocks(rig.one(Op::Read, 9216, 512)), (1, 1));
        assert!(reached(&rig).is_empty());
        assert_eq!(blocks(rig.one(Op::Read, 0, 8192)), (2, 0));
        assert_eq!(reached(&rig), [(Op::Read, 0, 8192)], "passed on as it is");
        assert_eq!(blocks(rig.one(Op::Read, 0, 16_384)), (4, 4));
        assert!(reached(&rig).is_empty());
        let gauges = ["cached_bytes", "cache_requests", "cache_hits"].map(|g| rig.gauge(g));
        assert_eq!(gauges, [16_384, 11, 7]);
    }
}

#[test]
fn only_what_is_missing_is_fetched() {
    let mut rig = rig(1 << 20, 4096, DataMode::Bytes);
    rig.one(Op::Write, 0, 65_536);
    let mut cold = Rig::new(&[("cache", json!({"capacity": "1MiB"}))], DataMode::Bytes, DISK);
    cold.one(Op::WriteZeroes, 0, 65_536);
    cold.reopen();
    for at in [8192, 12_288, 32_768] {
        cold.one(Op::Read, at, 4096);
    }
    reached(&cold);
    let row = cold.one(Op::Read, 512, 65_536 - 1024);
    assert_eq!(blocks(row), (16, 3));
    let mut fetched = reached(&cold);
    fetched.sort_by_key(|(_, at, _)| *at);
    assert_eq!(
        fetched,
        [
            (Op::Read, 0, 4096),
            (Op::Read, 4096, 4096),
            (Op::Read, 16_384, 16_384),
            (Op::Read, 36_864, 24_576),
            (Op::Read, 61_440, 4096),
        ]
    );
    assert_eq!(blocks(cold.one(Op::Read, 0, 65_536)), (16, 16));
}

#[test]
fn a_hit_on_a_block_on_its_way_waits_and_is_a_hit() {
    let mut rig = rig(64 << 10, 4096, DataMode::Bytes);
    rig.one(Op::Write, 0, 16_384);
    rig.reopen();
    reached(&rig);
    let now = 1_000_000;
    rig.io(now, Op::Read, 0, 8192).io(now, Op::Read, 4096, 4096).io(now, Op::Read, 4096, 8192);
    let rows = rig.run();
    assert_eq!(rows.iter().map(|r| blocks(*r)).collect::<Vec<_>>(), [(2, 0), (1, 1), (2, 1)]);
    assert_eq!(reached(&rig), [(Op::Read, 0, 8192), (Op::Read, 8192, 4096)]);
    assert_eq!(rows[1].complete_ns, rows[0].complete_ns);
    assert!(rows[1].response_ns() > 0);
}

#[test]
fn a_write_in_part_fetches_the_rest_of_its_block() {
    let mut rig = rig(64 << 10, 4096, DataMode::Bytes);
    rig.one(Op::Write, 0, 16_384);
    rig.reopen();
    reached(&rig);
    assert_eq!(blocks(rig.one(Op::Write, 512, 1024)), (1, 0));
    let mut log = reached(&rig);
    log.sort_by_key(|(op, ..)| *op as u8);
    assert_eq!(log, [(Op::Read, 0, 4096), (Op::Write, 512, 1024)]);
    assert_eq!(blocks(rig.one(Op::Read, 0, 4096)), (1, 1));
    // Into a cached block: nothing to fetch, and both versions are there.
    assert_eq!(blocks(rig.one(Op::Write, 2048, 512)), (1, 1));
    assert_eq!(blocks(rig.one(Op::WriteZeroes, 3072, 512)), (1, 1));
    assert_eq!(blocks(rig.one(Op::Read, 0, 4096)), (1, 1));
    assert_eq!(reached(&rig).len(), 2);
    assert_eq!(rig.unverified_sectors, 0);
}

#[test]
fn discards_drop_whole_blocks_and_flushes_are_no_requests() {
    let mut rig = rig(64 << 10, 4096, DataMode::Bytes);
    rig.one(Op::Write, 0, 16_384);
    let row = rig.one(Op::Discard, 2048, 8192);
    assert_eq!(blocks(row), (0, 0));
    assert_eq!(blocks(rig.one(Op::Flush, 0, 0)), (0, 0));
    let hits: Vec<u32> =
        (0..4).map(|block| rig.one(Op::Read, block * 4096, 4096).hit_blocks).collect();
    assert_eq!(hits, [1, 0, 1, 1]);
    rig.one(Op::Discard, 0, DISK);
    assert_eq!(rig.gauge("cached_bytes"), 0);
    assert_eq!(rig.one(Op::Read, 8192, 4096).hit_blocks, 0);
}

#[test]
fn a_discard_of_a_huge_disk_forgets_what_is_cached_of_it() {
    for write_policy in ["through", "back"] {
        let params = json!({"capacity": "64KiB", "write_policy": write_policy});
        let mut rig = Rig::new(&[("cache", params)], DataMode::Bytes, DISK);
        for block in [9, 3, 7, 1] {
            rig.one(Op::Write, block * 4096, 4096);
        }
        // From the second half of the first block on; the device ends before, which it says.
        let discarded = rig.one(Op::Discard, 4096 + 2048, 4 << 30);
        assert_eq!(discarded.status, EIO);
        assert_eq!(rig.gauge("cached_bytes"), 4096);
        let dirty = if write_policy == "back" { 4096 } else { 0 };
        assert_eq!(rig.gauge_or_zero("dirty_bytes"), dirty);
        let hits = [1, 3, 7, 9].map(|block| rig.one(Op::Read, block * 4096, 4096).hit_blocks);
        assert_eq!(hits, [1, 0, 0, 0]);
    }
}

#[test]
fn what_fails_is_not_cached_and_errors_pass_up() {
    let mut rig = rig(64 << 10, 4096, DataMode::Bytes);
    rig.one(Op::Write, 0, 16_384);
    rig.reopen();
    let fail = |rig: &Rig, op| rig.device.lock().unwrap().fail = op;
    fail(&rig, Some((Op::Read, 4096..8192)));
    for (at, length) in [(0, 16_384), (512, 8192)] {
        assert_eq!(rig.one(Op::Read, at, length).status, EIO);
    }
    // The block fails, but the part that was asked for can be read.
    fail(&rig, Some((Op::Read, 4096..4608)));
    assert_eq!(rig.one(Op::Read, 5120, 512).status, OK);
    fail(&rig, None);
    assert_eq!(rig.one(Op::Read, 4096, 4096).hit_blocks, 0, "nothing of it was cached");
    assert_eq!(rig.one(Op::Read, 4096, 4096).hit_blocks, 1);
    fail(&rig, Some((Op::Write, 0..DISK)));
    assert_eq!(rig.one(Op::Write, 4096, 4096).status, EIO);
    assert_eq!(rig.one(Op::Write, 8704, 512).status, EIO);
    fail(&rig, None);
    assert_eq!(rig.one(Op::Read, 4096, 8192).hit_blocks, 0, "old data are not trusted");
}

#[test]
fn a_read_that_gives_up_tells_who_waits() {
    let mut rig = rig(1 << 20, 4096, DataMode::Bytes);
    rig.one(Op::Write, 0, 40 * 4096);
    rig.reopen();
    // Every second block is there: more fetches than go at one time, and the first one fails.
    for block in 0..20 {
        rig.one(Op::Read, (2 * block + 1) * 4096, 4096);
    }
    rig.device.lock().unwrap().fail = Some((Op::Read, 0..4096));
    let now = 1_000_000_000;
    rig.io(now, Op::Read, 0, 40 * 4096).io(now, Op::Read, 38 * 4096, 4096);
    let rows = rig.run();
    assert_eq!((rows[0].status, blocks(rows[0])), (EIO, (40, 20)));
    assert_eq!((rows[1].status, blocks(rows[1])), (OK, (1, 1)));
}

#[test]
fn a_disk_that_ends_inside_a_block_is_served() {
    let params = json!({"capacity": "1MiB", "block": "64KiB"});
    let mut rig = Rig::new(&[("cache", params)], DataMode::Bytes, 100 << 10);
    let row = rig.one(Op::Write, 96 << 10, 4096);
    assert_eq!((row.status, blocks(row)), (OK, (1, 0)));
    assert_eq!(rig.one(Op::Read, 96 << 10, 4096).status, OK);
    assert_eq!(rig.unverified_sectors, 0);
}

#[test]
fn wrong_parameters_are_all_named() {
    let errors = |params: Value| -> Vec<(String, String)> {
        let built = (find("cache").unwrap().build)(&params, &setting(DataMode::Bytes));
        built.err().unwrap().into_iter().map(|e| (e.path, e.message)).collect()
    };
    let got = errors(json!({"capacity": "lots", "write_policy": "off", "fast": true}));
    assert_eq!(
        got.iter().find(|(path, _)| path == "capacity").unwrap().1,
        "expected a size such as \"512MiB\", got \"lots\""
    );
    assert_eq!(got.len(), 3);
    let got = errors(json!({"block": 1000, "eviction": "best"}));
    assert_eq!(got[0].1, "expected a power of two from 512 to 1MiB, got 1000 bytes");
    assert_eq!(got[1].1, "missing: expected a size such as \"512MiB\"");
    assert_eq!(got[2].1, format!("expected one of {}, got \"best\"", eviction::names()));
    let got = errors(json!({"capacity": "1KiB"}));
    assert!(got[0].1.starts_with("expected 1 to 2147483632 blocks of 4096 bytes, got 1024"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    /// Any mix of overlapping I/Os over a device that reorders: reads give back what was written
    /// (the rig checks each).
    #[test]
    fn what_is_written_is_read(
        plan in proptest::collection::vec((0u64..50, 1u64..30, 0u8..12, 0u64..6000), 1..150),
        capacity in 1u64..24,
        block in prop_oneof![Just(512u64), Just(4096), Just(16_384)],
        mode in prop_oneof![Just(DataMode::Bytes), Just(DataMode::Tokens)],
        below in any::<bool>(),
        fail in proptest::option::of((0u64..70, 1u64..20)),
    ) {
        let params = json!({"capacity": capacity * block, "block": block});
        let delay = json!({"read": {"distribution": "uniform", "min": "0s", "max": "20us"}});
        let chain = [("cache", params), ("delay", delay)];
        let mut rig = Rig::new(&chain[..if below { 2 } else { 1 }], mode, DISK);
        // Reads that fail, over and over, in a part of the disk: they are told so, nobody waits
        // for ever for what they were to bring, and what is given back is right all the same.
        rig.device.lock().unwrap().fail =
            fail.map(|(at, length)| (Op::Read, at * 1024..(at + length) * 1024));
        let mut at = 0;
        for (place, length, action, gap) in plan {
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
            rig.io(at, op, offset, length);
        }
        for row in rig.run() {
            prop_assert!(row.status == OK || fail.is_some() && row.op == Op::Read);
        }
    }

    /// One I/O at a time, so that every count is that of the policy alone, whichever it is.
    #[test]
    fn hits_are_those_of_the_policy(
        plan in proptest::collection::vec((0u64..50, 1u64..30, 0u8..11), 1..100),
        capacity in 1u64..24,
        kind in 0..eviction::POLICIES.len(),
        write_policy in prop_oneof![Just("through"), Just("back"), Just("around")],
    ) {
        let kind = &eviction::POLICIES[kind];
        let params = json!({
            "capacity": capacity * 4096, "eviction": kind.name, "write_policy": write_policy,
        });
        let mut rig = Rig::new(&[("cache", params)], DataMode::Tokens, DISK);
        let seed = setting(DataMode::Tokens).seed;
        let mut policy = (kind.build)(capacity as usize, Index::hashed(), seed);
        let mut now = 0;
        for (place, length, action) in plan {
            let (from, to) = (place * 1536, place * 1536 + length * 512);
            let op = [Op::Read, Op::Write, Op::WriteZeroes, Op::Discard][action as usize / 3];
            now += 1_000_000;
            rig.io(now, op, from, to - from).run_until(now + 900_000);
            let row = rig.take_rows()[0];
            let mut hits = 0;
            if op == Op::Discard {
                for block in from.div_ceil(4096)..to / 4096 {
                    policy.remove(block);
                }
            } else {
                for b in from / 4096..to.div_ceil(4096) {
                    if write_policy == "around" && op != Op::Read && policy.resident(b).is_none() {
                        continue;
                    }
                    hits += u32::from(matches!(policy.access(b), Access::Hit(_)));
                }
            }
            prop_assert_eq!(row.hit_blocks, hits);
        }
    }
}
