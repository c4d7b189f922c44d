//! The binary layouts: both versions, both byte orders, everything a record can carry.

use super::{Decoded, decode, drain, format, inputs, lenient, refused};
use crate::formats::blkevent::category::{
    AHEAD, DISCARD, FLUSH, FUA, META, NOTIFY, SYNC, WRITE, WRITE_ZEROES,
};
use crate::formats::{EventKind, Options};
use crate::io::{Op, flags};
use crate::trace::{NO_LATENCY, TraceIo};
use proptest::prelude::*;

pub const Q: u64 = 1;
pub const R: u64 = 6;
pub const D: u64 = 7;
pub const C: u64 = 8;
const CGROUP: u64 = 0x100;
pub const SDA: u32 = 8 << 20;
const READ: u32 = 1;

/// A layout: version and byte order.
#[derive(Debug, Clone, Copy)]
pub struct As {
    pub version: u32,
    pub big_endian: bool,
}

pub const PLAIN: As = As { version: 7, big_endian: false };
const ALL: [As; 4] = [
    PLAIN,
    As { version: 7, big_endian: true },
    As { version: 8, big_endian: false },
    As { version: 8, big_endian: true },
];

#[derive(Debug, Clone)]
pub struct Rec {
    pub time: u64,
    pub action: u64,
    pub category: u32,
    pub sector: u64,
    pub bytes: u32,
    pub pid: u32,
    pub device: u32,
    pub error: u16,
    pub pdu: Vec<u8>,
}

/// A record of `sda` in whose tail nothing is out of the ordinary.
pub fn rec(time: u64, action: u64, category: u32, sector: u64, bytes: u32) -> Rec {
    let pdu = Vec::new();
    Rec { time, action, category, sector, bytes, pid: 42, device: SDA, error: 0, pdu }
}

/// The bytes of records, field by field as in the kernel's header.
pub fn file(layout: As, records: &[Rec]) -> Vec<u8> {
    let mut out = Vec::new();
    for r in records {
        let mut put = |value: u64, bytes: usize| {
            let le = value.to_le_bytes();
            if layout.big_endian {
                out.extend(le[..bytes].iter().rev());
            } else {
                out.extend(&le[..bytes]);
            }
        };
        put(u64::from(0x6561_7400 | layout.version), 4);
        put(1, 4);
        put(r.time, 8);
        put(r.sector, 8);
        put(r.bytes.into(), 4);
        let action = r.action | u64::from(r.category) << 16;
        if layout.version == 8 {
            put(r.pid.into(), 4);
            put(action, 8);
        } else {
            put(action, 4);
            put(r.pid.into(), 4);
        }
        put(r.device.into(), 4);
        put(3, 4);
        put(r.error.into(), 2);
        put(r.pdu.len() as u64, 2);
        if layout.version == 8 {
            put(0, 8);
            put(0, 4);
        }
        out.extend(&r.pdu);
    }
    out
}

pub fn read(records: &[Rec]) -> Decoded {
    decode("blktrace", &[&file(PLAIN, records)], &Options::default()).expect("valid")
}

/// One of each, with service times of 1, 2, 3, ... us.
fn everything() -> Vec<Rec> {
    let mut note = rec(u64::MAX, 1, NOTIFY, 0, 0);
    note.pdu = vec![9; 8];
    let mut text = rec(5, CGROUP | 2, NOTIFY, 0, 0);
    text.pdu = b"\x07etafio job 1 started".to_vec();
    let mut remap = rec(10, 15, READ, 8, 4096);
    remap.pdu = [&(8u32 << 20 | 1).to_be_bytes()[..], &SDA.to_be_bytes(), &[0; 8]].concat();
    let mut cgroup = rec(20, CGROUP | Q, READ | AHEAD, 8, 4096);
    cgroup.pdu = vec![1; 8];
    let mut failed = rec(60 + 3_000, C, WRITE | SYNC | META, 64, 512);
    failed.error = 5;
    vec![
        note,
        text,
        remap,
        cgroup,
        rec(25, 4, READ | AHEAD, 8, 4096),
        rec(30, D, READ | AHEAD, 8, 4096),
        rec(40, Q, WRITE | SYNC | META, 64, 512),
        rec(60, D, WRITE | SYNC | META, 64, 512),
        rec(70, Q, WRITE | FLUSH | FUA, 128, 8192),
        rec(80, D, WRITE | FUA, 128, 8192),
        rec(90, Q, WRITE | DISCARD, 1 << 30, 1 << 20),
        rec(95, D, WRITE | DISCARD, 1 << 30, 1 << 20),
        rec(30 + 1_000, C, READ | AHEAD, 8, 4096),
        rec(80 + 2_000, C, WRITE | FUA, 128, 8192),
        failed,
        rec(95 + 4_000, C, WRITE | DISCARD, 1 << 30, 1 << 20),
    ]
}

#[test]
fn every_layout_gives_the_same() {
    let io = |time_ns, op, offset_bytes, length_bytes, latency_ns, flags| TraceIo {
        time_ns,
        disk: 0,
        op,
        offset_bytes,
        length_bytes,
        latency_ns,
        flags,
        stream: 42,
    };
    let wanted = [
        io(20, Op::Read, 4096, 4096, 1_000, flags::READAHEAD),
        io(40, Op::Write, 32_768, 512, 3_000, flags::SYNC | flags::META),
        io(70, Op::Write, 65_536, 8192, 2_000, flags::PREFLUSH | flags::FUA),
        io(90, Op::Discard, 1 << 39, 1 << 20, 4_000, 0),
    ];
    for layout in ALL {
        let bytes = file(layout, &everything());
        assert!(format("blktrace").sniff(&bytes));
        let decoded = decode("blktrace", &[&bytes], &Options::default()).expect("valid");
        assert_eq!(decoded.ios, wanted, "{layout:?}");
        assert_eq!(decoded.disks, ["8,0"]);
        assert_eq!(decoded.report.records, 16);
        assert_eq!(decoded.report.warnings, ["1 I/Os completed with an error"]);
        // Batches of one row, and reads of one byte, change nothing.
        let source = format("blktrace").open(inputs(&[&bytes]), &Options::default());
        assert_eq!(drain(source.expect("opened"), 1).expect("valid").ios, wanted);
    }
}

#[test]
fn version_8_alone_knows_write_zeroes() {
    let records = [rec(1, Q, WRITE | WRITE_ZEROES, 8, 4096)];
    let v8 = As { version: 8, big_endian: true };
    let decoded = decode("blktrace", &[&file(v8, &records)], &Options::default()).expect("valid");
    assert_eq!(decoded.ios[0].op, Op::WriteZeroes);
}

#[test]
fn files_of_cpus_are_merged_by_time() {
    let cpu0 = file(PLAIN, &[rec(10, Q, READ, 8, 4096), rec(40, Q, READ, 16, 4096)]);
    let cpu1 = file(PLAIN, &[rec(20, D, READ, 8, 4096), rec(70, C, READ, 16, 4096)]);
    let cpu2 = file(PLAIN, &[rec(30, C, READ, 8, 4096), rec(50, D, READ, 16, 4096)]);
    for files in [[&cpu0[..], &cpu1, &[], &cpu2], [&cpu2[..], &[], &cpu1, &cpu0]] {
        let decoded = decode("blktrace", &files, &Options::default()).expect("valid");
        let latencies: Vec<i64> = decoded.ios.iter().map(|io| io.latency_ns).collect();
        assert_eq!(latencies, [10, 20]);
        assert!(decoded.report.warnings.is_empty());
    }
    // Files of CPUs that somebody has put one behind the other are in no order.
    let joined = decode("blktrace", &[&[&cpu0[..], &cpu1, &cpu2].concat()], &Options::default());
    let warnings = joined.expect("valid").report.warnings;
    assert!(warnings.iter().any(|w| w.contains("2 events are earlier")), "{warnings:?}");
}

#[test]
fn issues_count_requests_and_a_requeued_one_once() {
    let mut records = everything();
    records.push(rec(6_000, D, WRITE, 8, 4096));
    records.push(rec(6_100, R, WRITE, 8, 4096));
    records.push(rec(6_200, D, WRITE, 8, 4096));
    records.push(rec(6_250, C, WRITE, 8, 4096));
    let options = Options { event: EventKind::Issue, ..Options::default() };
    let ios = decode("blktrace", &[&file(PLAIN, &records)], &options).expect("valid").ios;
    let times: Vec<(i64, i64)> = ios.iter().map(|io| (io.time_ns, io.latency_ns)).collect();
    assert_eq!(times, [(30, 1_000), (60, 3_000), (80, 2_000), (95, 4_000), (6_000, 50)]);
}

#[test]
fn damage_is_placed_or_skipped() {
    let good = file(PLAIN, &everything());
    let cut = &good[..good.len() - 5];
    let last = good.len() - 48;
    let message = refused("blktrace", cut);
    assert!(message.starts_with(&format!("file0: byte {last}: ")), "{message}");
    assert!(message.contains("cut short"), "{message}");
    let decoded = decode("blktrace", &[cut], &lenient()).expect("lenient");
    assert_eq!(decoded.ios[3].latency_ns, NO_LATENCY, "its completion was cut");
    assert_eq!(decoded.report.dropped, [("damaged records".to_owned(), 1)]);

    let mut broken = good.clone();
    let queued = file(PLAIN, &everything()[..3]).len();
    broken[queued..queued + 4].fill(0xee);
    let message = refused("blktrace", &broken);
    assert!(
        message.starts_with(&format!("file0: byte {queued}: expected a blktrace")),
        "{message}"
    );
    let decoded = decode("blktrace", &[&broken], &lenient()).expect("lenient");
    assert_eq!(decoded.ios.len(), 3, "the record that was hit is the read's Q");
    assert_eq!(decoded.report.dropped, [("damaged records".to_owned(), 1)]);
    assert!(decoded.report.warnings.iter().any(|w| w.contains("56 bytes")), "{decoded:?}");
    assert!(refused("blktrace", b"not a trace at all").contains("byte 0"));
}

#[test]
fn a_damaged_length_costs_its_record_alone() {
    let records = everything();
    let whole = decode("blktrace", &[&file(PLAIN, &records)], &lenient()).expect("valid");
    // The fifth, which says nothing of an I/O, claims two others and a part of a third.
    let mut broken = file(PLAIN, &records);
    let length = file(PLAIN, &records[..4]).len() + 46;
    broken[length..length + 2].copy_from_slice(&100u16.to_le_bytes());
    let decoded = decode("blktrace", &[&broken], &lenient()).expect("lenient");
    assert_eq!(decoded.ios, whole.ios);
    assert_eq!(decoded.report.dropped, [("damaged records".to_owned(), 1)]);
    assert!(decoded.report.warnings.iter().any(|w| w.contains("48 bytes")), "{decoded:?}");
}

proptest! {
    /// Queued, issued and completed one by one, on several disks and CPUs, out comes what went in.
    #[test]
    fn generated_ios_come_back(
        ios in prop::collection::vec(
            (0u64..1000, any::<bool>(), 0u64..1 << 40, 1u32..256, 1u64..900, 0u32..3, 0usize..3),
            1..60,
        ),
        layout in 0usize..4,
    ) {
        let mut cpus = [Vec::new(), Vec::new(), Vec::new()];
        let mut wanted = Vec::new();
        for (i, &(gap, write, sector, sectors, served, minor, cpu)) in ios.iter().enumerate() {
            let start = i as u64 * 2_000 + gap;
            let category = if write { WRITE } else { READ };
            for (at, action) in [(start, Q), (start + 5, D), (start + 5 + served, C)] {
                let mut record = rec(at, action, category, sector, sectors * 512);
                record.device = SDA | minor;
                cpus[cpu].push(record);
            }
            let op = if write { Op::Write } else { Op::Read };
            let offset = (sector * 512) as i64;
            let disk = format!("8,{minor}");
            wanted.push((start as i64, disk, op, offset, i64::from(sectors) * 512, served as i64));
        }
        let files: Vec<Vec<u8>> = cpus.iter().map(|records| file(ALL[layout], records)).collect();
        let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        let decoded = decode("blktrace", &files, &Options::default()).expect("valid");
        let got: Vec<_> = decoded.ios.iter().map(|io| {
            let disk = decoded.disks[io.disk as usize].clone();
            (io.time_ns, disk, io.op, io.offset_bytes, io.length_bytes, io.latency_ns)
        }).collect();
        prop_assert_eq!(got, wanted);
    }
}
