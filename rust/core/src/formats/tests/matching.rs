//! Which completion belongs to which bio: merges, splits, requeues, flushes, stacked devices.

use super::blktrace::{C, D, Q, R, Rec, SDA, read, rec};
use crate::formats::blkevent::category::{FLUSH, PASSTHROUGH, SYNC, WRITE, ZONE_MANAGEMENT};
use crate::io::{Op, flags};
use crate::trace::NO_LATENCY;

const X: u64 = 13;
const M: u64 = 2;
const KIB: u32 = 1024;

fn latencies(records: &[Rec]) -> Vec<i64> {
    read(records).ios.iter().map(|io| io.latency_ns).collect()
}

#[test]
fn merged_bios_have_the_service_time_of_their_request() {
    // In front, behind, and another write nearby that is not part of it.
    let records = [
        rec(10, Q, WRITE, 16, 4 * KIB),
        rec(11, Q, WRITE, 24, 4 * KIB),
        rec(12, M, WRITE, 24, 4 * KIB),
        rec(13, Q, WRITE, 8, 4 * KIB),
        rec(14, Q, WRITE, 32, 4 * KIB),
        rec(20, D, WRITE, 8, 12 * KIB),
        rec(30, D, WRITE, 32, 4 * KIB),
        rec(70, C, WRITE, 8, 12 * KIB),
        rec(90, C, WRITE, 32, 4 * KIB),
    ];
    assert_eq!(latencies(&records), [50, 50, 50, 60]);
}

#[test]
fn a_split_bio_lasts_from_first_issue_to_last_completion() {
    let mut split = rec(11, X, WRITE, 0, 8 * KIB);
    split.pdu = 16u64.to_be_bytes().to_vec();
    let records = [
        rec(10, Q, WRITE, 0, 12 * KIB),
        split,
        rec(20, D, WRITE, 0, 8 * KIB),
        rec(25, D, WRITE, 16, 4 * KIB),
        rec(40, C, WRITE, 16, 4 * KIB),
        rec(80, C, WRITE, 0, 8 * KIB),
    ];
    assert_eq!(latencies(&records), [60]);
}

#[test]
fn the_last_issue_counts_after_a_requeue() {
    let requeued = [
        rec(10, Q, WRITE, 0, 4 * KIB),
        rec(11, Q, WRITE, 8, 4 * KIB),
        rec(20, D, WRITE, 0, 8 * KIB),
        rec(30, R, WRITE, 0, 8 * KIB),
        rec(40, D, WRITE, 0, 8 * KIB),
        rec(45, C, WRITE, 0, 8 * KIB),
    ];
    assert_eq!(latencies(&requeued), [5, 5]);
    let untraced: Vec<Rec> = requeued.into_iter().filter(|r| r.action != R).collect();
    assert_eq!(latencies(&untraced), [5, 5]);
}

#[test]
fn a_request_may_complete_in_parts() {
    let records = [
        rec(10, Q, 1, 0, 4 * KIB),
        rec(11, Q, 1, 8, 8 * KIB),
        rec(20, D, 1, 0, 12 * KIB),
        rec(30, C, 1, 0, 8 * KIB),
        rec(50, C, 1, 16, 4 * KIB),
    ];
    assert_eq!(latencies(&records), [10, 30]);
}

#[test]
fn equal_requests_in_flight_complete_in_their_order() {
    let records = [
        rec(10, Q, 1, 8, 4 * KIB),
        rec(11, Q, 1, 8, 4 * KIB),
        rec(12, Q, WRITE, 8, 4 * KIB),
        rec(20, D, 1, 8, 4 * KIB),
        rec(21, D, WRITE, 8, 4 * KIB),
        rec(30, D, 1, 8, 4 * KIB),
        rec(40, C, 1, 8, 4 * KIB),
        rec(60, C, 1, 8, 4 * KIB),
        rec(99, C, WRITE, 8, 4 * KIB),
    ];
    assert_eq!(latencies(&records), [20, 30, 78]);
}

#[test]
fn a_capture_that_starts_or_ends_in_mid_flight_lacks_those_latencies() {
    let records = [
        rec(1, C, 1, 800, 4 * KIB),
        rec(2, D, 1, 900, 4 * KIB),
        rec(3, C, 1, 900, 4 * KIB),
        rec(10, Q, 1, 8, 4 * KIB),
        rec(11, Q, 1, 16, 4 * KIB),
        rec(12, D, 1, 8, 4 * KIB),
        rec(13, D, 1, 16, 4 * KIB),
        rec(14, C, 1, 16, 4 * KIB),
    ];
    let decoded = read(&records);
    let latencies: Vec<i64> = decoded.ios.iter().map(|io| io.latency_ns).collect();
    assert_eq!(latencies, [NO_LATENCY, 1]);
    let warnings = decoded.report.warnings.join("\n");
    assert!(warnings.contains("1 I/Os have no completion"), "{warnings}");
}

#[test]
fn flushes_are_served_by_the_flush_request_before_their_completion() {
    // As the kernel does it: several bios wait, one flush request serves them; a write with
    // preflush and FUA runs as flush, write, flush, and completes a second time without bytes.
    let bio = WRITE | FLUSH | SYNC;
    let records = [
        rec(10, Q, bio, 0, 0),
        rec(11, Q, bio, 0, 0),
        rec(20, D, 1 | FLUSH, 0, 0),
        rec(25, Q, bio, 0, 0),
        rec(26, Q, bio, 64, 4 * KIB),
        rec(50, C, 1 | FLUSH, 0, 0),
        rec(51, C, WRITE | SYNC, 0, 0),
        rec(52, C, WRITE | SYNC, 0, 0),
        rec(60, D, 1 | FLUSH, 0, 0),
        rec(80, C, 1 | FLUSH, 0, 0),
        rec(81, C, WRITE | SYNC, 0, 0),
        rec(82, D, WRITE | SYNC, 64, 4 * KIB),
        rec(90, C, WRITE | SYNC, 64, 4 * KIB),
        rec(91, D, 1 | FLUSH, 0, 0),
        rec(95, C, 1 | FLUSH, 0, 0),
        rec(96, C, WRITE | SYNC, 64, 0),
    ];
    let decoded = read(&records);
    let got: Vec<_> =
        decoded.ios.iter().map(|io| (io.op, io.length_bytes, io.latency_ns)).collect();
    assert_eq!(
        got,
        [(Op::Flush, 0, 31), (Op::Flush, 0, 32), (Op::Flush, 0, 21), (Op::Write, 4096, 8)]
    );
    assert_eq!(decoded.ios[0].flags, flags::SYNC);
    assert_eq!(decoded.ios[3].flags, flags::SYNC | flags::PREFLUSH);
}

#[test]
fn stacked_devices_are_disks_of_their_own_with_a_warning() {
    let mapper = 253 << 20;
    let upper = |mut r: Rec| {
        r.device = mapper;
        r
    };
    let mut remap = rec(11, 15, 1, 2056, 4 * KIB);
    remap.pdu = [&mapper.to_be_bytes()[..], &SDA.to_be_bytes(), &[0; 8]].concat();
    let decoded = read(&[
        upper(rec(10, Q, 1, 8, 4 * KIB)),
        remap,
        rec(12, Q, 1, 2056, 4 * KIB),
        rec(20, D, 1, 2056, 4 * KIB),
        rec(70, C, 1, 2056, 4 * KIB),
        upper(rec(75, C, 1, 8, 4 * KIB)),
        upper(rec(80, Q, WRITE | FLUSH, 0, 0)),
        upper(rec(99, C, WRITE | FLUSH, 0, 0)),
    ]);
    let got: Vec<_> = decoded.ios.iter().map(|io| (io.disk, io.latency_ns)).collect();
    assert_eq!(got, [(0, 65), (1, 50), (0, 19)], "without issues, from Q to C");
    assert_eq!(decoded.disks, ["253,0", "8,0"]);
    assert!(decoded.report.warnings[0].contains("disk 253,0 lies on another"));
}

#[test]
fn what_has_no_place_is_counted() {
    let decoded = read(&[
        rec(10, Q, 1 | PASSTHROUGH, 0, 96),
        rec(11, Q, ZONE_MANAGEMENT & !(ZONE_MANAGEMENT << 1), 0, 0),
        rec(12, Q, 1, 8, 0),
        rec(13, Q, 1, u64::MAX - 8, 512),
        rec(14, Q, 1, 8, 512),
        rec(15, D, 1 | PASSTHROUGH, 0, 96),
    ]);
    assert_eq!(decoded.ios.len(), 1);
    let reasons: Vec<&str> = decoded.report.dropped.iter().map(|(r, _)| r.as_str()).collect();
    assert_eq!(
        reasons,
        ["passthrough command", "no data and no flush", "beyond 2^63 bytes"],
        "zone management does not fit in version 7's category"
    );
}

#[test]
fn an_io_that_never_completes_does_not_hold_the_others_back() {
    let mut records = vec![rec(0, Q, 1, 1 << 20, 4 * KIB)];
    let many = 300_000u64;
    for i in 0..many {
        let at = 10 + i * 10;
        records.push(rec(at, Q, 1, 8, 4 * KIB));
        records.push(rec(at + 1, D, 1, 8, 4 * KIB));
        records.push(rec(at + 4, C, 1, 8, 4 * KIB));
    }
    let decoded = read(&records);
    assert_eq!(decoded.ios.len() as u64, many + 1);
    assert_eq!(decoded.ios[0].latency_ns, NO_LATENCY);
    assert!(decoded.ios[1..].iter().all(|io| io.latency_ns == 3));
}
