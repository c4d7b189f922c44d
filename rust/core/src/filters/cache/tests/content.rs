//! The content-based cache: one copy of what several addresses hold.

use super::*;

fn rig(capacity: u64) -> Rig {
    let params = json!({"capacity": capacity * 4096, "dedup": true});
    Rig::new(&[("cache", params)], DataMode::Bytes, DISK)
}

#[test]
fn what_several_addresses_hold_takes_one_place() {
    let mut rig = rig(4);
    // Eight blocks of zeroes, and as many addresses that read them.
    rig.one(Op::WriteZeroes, 0, 32_768);
    rig.reopen();
    for block in 0..8 {
        assert_eq!(blocks(rig.one(Op::Read, block * 4096, 4096)), (1, 0), "not known before");
    }
    let gauges = ["cached_bytes", "logical_bytes", "shared_blocks"].map(|g| rig.gauge(g));
    assert_eq!(gauges, [4096, 32_768, 7]);
    assert_eq!(blocks(rig.one(Op::Read, 0, 32_768)), (8, 8));
    // One address is given other content: the others keep theirs.
    rig.one(Op::Write, 4096, 4096);
    let gauges = ["cached_bytes", "logical_bytes"].map(|g| rig.gauge(g));
    assert_eq!(gauges, [8192, 32_768]);
    assert_eq!(blocks(rig.one(Op::Read, 0, 32_768)), (8, 8));
    rig.one(Op::Discard, 0, 4096);
    assert_eq!(rig.gauge("logical_bytes"), 28_672);
    assert_eq!(blocks(rig.one(Op::Read, 0, 4096)), (1, 0));
}

#[test]
fn content_that_another_address_brings_back_hits_where_it_was_known() {
    let mut rig = rig(1);
    rig.one(Op::WriteZeroes, 0, 8192);
    rig.one(Op::Write, 8192, 4096);
    assert_eq!(rig.gauge("logical_bytes"), 4096, "the zeroes are evicted");
    assert_eq!(rig.one(Op::Read, 0, 4096).hit_blocks, 0);
    assert_eq!(rig.one(Op::Read, 4096, 4096).hit_blocks, 1, "brought by the other address");
}

#[test]
fn a_write_in_part_makes_other_content() {
    let mut rig = rig(8);
    rig.one(Op::WriteZeroes, 0, 8192);
    assert_eq!(blocks(rig.one(Op::Write, 512, 512)), (1, 1));
    assert_eq!(blocks(rig.one(Op::WriteZeroes, 4096, 512)), (1, 1));
    assert_eq!(blocks(rig.one(Op::Read, 0, 8192)), (2, 2));
    assert_eq!(rig.gauge("cached_bytes"), 8192);
    // Of a block that is not here, nothing is known after it.
    rig.reopen();
    assert_eq!(blocks(rig.one(Op::Write, 512, 512)), (1, 0));
    assert_eq!(blocks(rig.one(Op::Read, 0, 4096)), (1, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// Reads are right, and the count of what the copies stand for is that of a plain search.
    #[test]
    fn reads_are_right_and_addresses_are_counted(
        plan in proptest::collection::vec((0u64..40, 1u64..30, 0u8..12), 1..150),
        capacity in 1u64..20,
        together in any::<bool>(),
        fail in proptest::option::of((any::<bool>(), 0u64..70, 1u64..20)),
    ) {
        let mut rig = rig(capacity);
        rig.device.lock().unwrap().fail = fail.map(|(read, at, length)| {
            (if read { Op::Read } else { Op::Write }, at * 1024..(at + length) * 1024)
        });
        for (i, (place, length, action)) in (0..).zip(plan) {
            let op = match action {
                0..5 => Op::Read,
                5..7 => Op::Write,
                7..10 => Op::WriteZeroes,
                10 => Op::Discard,
                _ => Op::Flush,
            };
            let (offset, length) =
                if op == Op::Flush { (0, 0) } else { (place * 1536, length * 512) };
            if together {
                rig.io(i * 2000, op, offset, length);
            } else {
                rig.one(op, offset, length);
            }
        }
        rig.run();
        prop_assert!(rig.gauge("cached_bytes") as u64 <= capacity * 4096);
        prop_assert!(rig.gauge("logical_bytes") >= 0);
        // Every address that hits now was counted, and no other.
        let logical = rig.gauge("logical_bytes");
        rig.device.lock().unwrap().fail = Some((Op::Read, 0..DISK));
        let hits: u32 = (0..40).map(|b| rig.one(Op::Read, b * 4096, 4096).hit_blocks).sum();
        prop_assert_eq!(i64::from(hits) * 4096, logical);
    }
}
