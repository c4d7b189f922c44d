//! vscsiStats records of both versions.

use super::{decode, format, lenient, refused};
use crate::formats::Options;
use crate::io::Op;
use crate::trace::NO_LATENCY;

fn v1(opcode: u16, sector: u64, bytes: u32, us: u64) -> Vec<u8> {
    let mut r = Vec::new();
    r.extend(7u32.to_le_bytes());
    r.extend(bytes.to_le_bytes());
    r.extend(1u32.to_le_bytes());
    r.extend(opcode.to_le_bytes());
    r.extend(0x0100u16.to_le_bytes());
    r.extend(sector.to_le_bytes());
    r.extend(us.to_le_bytes());
    r
}

fn v2(opcode: u16, sector: u64, bytes: u32, us: u64, response_us: u64) -> Vec<u8> {
    let mut r = Vec::new();
    r.extend(opcode.to_le_bytes());
    r.extend(0x0200u16.to_le_bytes());
    r.extend(7u32.to_le_bytes());
    r.extend(bytes.to_le_bytes());
    r.extend(1u32.to_le_bytes());
    r.extend(sector.to_le_bytes());
    r.extend(us.to_le_bytes());
    r.extend(response_us.to_le_bytes());
    r
}

#[test]
fn both_versions_are_read() {
    let first = [
        v1(42, 10, 4096, 5),
        v1(0x0a, 20, 512, 7),
        v1(0x35, 0, 0, 8),
        v1(0x12, 0, 96, 9),
        v1(40, 30, 8192, 9),
    ]
    .concat();
    assert!(format("vscsi").sniff(&first));
    let decoded = decode("vscsi", &[&first], &Options::default()).expect("valid");
    let got: Vec<_> = decoded
        .ios
        .iter()
        .map(|io| (io.time_ns, io.op, io.offset_bytes, io.length_bytes, io.latency_ns))
        .collect();
    assert_eq!(
        got,
        [
            (5_000, Op::Write, 5120, 4096, NO_LATENCY),
            (7_000, Op::Write, 10_240, 512, NO_LATENCY),
            (8_000, Op::Flush, 0, 0, NO_LATENCY),
            (9_000, Op::Read, 15_360, 8192, NO_LATENCY),
        ]
    );
    assert_eq!(decoded.report.dropped, [("SCSI opcode 0x12".to_owned(), 1)]);
    assert_eq!(decoded.disks, ["vscsi"]);

    let second = [v2(0x88, 10, 4096, 5, 250), v2(0x8a, 20, 512, 7, 1)].concat();
    let decoded = decode("vscsi", &[&second], &Options::default()).expect("valid");
    assert_eq!(decoded.ios[0].latency_ns, 250_000);
    assert_eq!((decoded.ios[1].op, decoded.ios[1].offset_bytes), (Op::Write, 10_240));
}

#[test]
fn damage_is_placed_or_skipped() {
    let mut bytes = [v1(42, 1, 512, 1), v1(40, 2, 512, 2), v1(40, 3, 512, 3)].concat();
    assert!(refused("vscsi", &bytes[..80]).starts_with("file0: byte 64: the last record"));
    bytes[64 + 15] = 9;
    let message = refused("vscsi", &bytes);
    assert_eq!(message, "file0: byte 64: expected a record of version 1, got 9");
    let decoded = decode("vscsi", &[&bytes], &lenient()).expect("lenient");
    assert_eq!(decoded.ios.len(), 2);
    assert_eq!(decoded.report.dropped, [("broken record".to_owned(), 1)]);
    assert!(refused("vscsi", &[0; 100]).contains("version 1 or 2"));
}

#[test]
fn records_behind_bytes_too_many_or_too_few_are_found_again() {
    let first = |i: u64| v1(40, i, 512, i);
    let second = |i: u64| v2(0x88, i, 512, i, 1);
    for records in [(0..40).map(first).collect::<Vec<_>>(), (0..40).map(second).collect()] {
        let (before, behind) = (records[..20].concat(), records[20..].concat());
        for bytes in
            [[&before[..], &[0xee; 24], &behind].concat(), [&before, &behind[9..]].concat()]
        {
            let decoded = decode("vscsi", &[&bytes], &lenient()).expect("lenient");
            assert_eq!(decoded.report.dropped, [("broken record".to_owned(), 1)]);
            assert!(decoded.ios.len() >= 38, "{} I/Os", decoded.ios.len());
            assert!(decoded.ios.is_sorted_by_key(|io| io.offset_bytes));
            assert_eq!(decoded.ios.last().map(|io| io.offset_bytes), Some(39 * 512));
            assert!(decoded.report.warnings.iter().any(|w| w.contains("bytes skipped")));
        }
    }
}
