//! Logs of writes: entries, their flags, and the data that they carry.

use std::path::Path;

use super::{decode, format, lenient, refused};
use crate::formats::Options;
use crate::formats::content::{self, Content};
use crate::formats::dm_log_writes::MAGIC;
use crate::io::{Op, flags};
use crate::payload::{Found, Knobs, Payload, Version};

const SECTOR: usize = 512;

fn sector(words: &[u64], text: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(text);
    bytes.resize(SECTOR, 0);
    bytes
}

fn entry(first: u64, sectors: u64, bits: u64, fill: u8) -> Vec<u8> {
    let mut bytes = sector(&[first, sectors, bits, 0], b"");
    if bits & 4 == 0 {
        bytes.resize(SECTOR + sectors as usize * SECTOR, fill);
    }
    bytes
}

fn log(entries: &[Vec<u8>]) -> Vec<u8> {
    let head = sector(&[MAGIC, 1, entries.len() as u64, SECTOR as u64], b"");
    [head, entries.concat()].concat()
}

fn mixed() -> Vec<u8> {
    log(&[
        entry(8, 2, 0, 0xaa),
        sector(&[0, 0, 8, 4], b"mkfs"),
        entry(0, 0, 1, 0),
        entry(100, 64, 4, 0),
        entry(9, 1, 1 | 2 | 16, 0xbb),
        entry(3, 0, 2, 0),
    ])
}

#[test]
fn entries_become_ios_in_their_order() {
    assert!(format("dm-log-writes").sniff(&mixed()));
    let decoded = decode("dm-log-writes", &[&mixed()], &Options::default()).expect("valid");
    let got: Vec<_> = decoded
        .ios
        .iter()
        .map(|io| (io.time_ns, io.op, io.offset_bytes, io.length_bytes, io.flags))
        .collect();
    let durable = flags::PREFLUSH | flags::FUA | flags::META;
    assert_eq!(
        got,
        [
            (0, Op::Write, 4096, 1024, 0),
            (2_000_000, Op::Flush, 0, 0, 0),
            (3_000_000, Op::Discard, 51_200, 32_768, 0),
            (4_000_000, Op::Write, 4608, 512, durable),
        ]
    );
    assert_eq!(decoded.report.records, 6);
    assert_eq!(decoded.report.dropped, [("mark".to_owned(), 1), ("length of 0".to_owned(), 1)]);
    assert!(decoded.report.warnings.iter().any(|w| w == "mark \"mkfs\" before row 1"));
}

#[test]
fn what_is_behind_the_last_entry_is_not_read() {
    let mut bytes = mixed();
    bytes.extend([0xff; 3 * SECTOR]);
    let decoded = decode("dm-log-writes", &[&bytes], &Options::default()).expect("valid");
    assert_eq!(decoded.ios.len(), 4);
}

#[test]
fn damage_is_told_with_its_byte() {
    let bytes = mixed();
    let cut = refused("dm-log-writes", &bytes[..SECTOR * 3]);
    assert!(cut.contains("ends in entry 1 of 6") && cut.contains("byte"), "{cut}");
    let mut wrong = bytes.clone();
    wrong[SECTOR + 17] = 7;
    assert!(refused("dm-log-writes", &wrong).contains("unknown flags 0x700"));
    let mut far = bytes.clone();
    far[SECTOR..SECTOR + 8].fill(0xff);
    assert!(refused("dm-log-writes", &far).contains("below 2^63"));
    let mut long = bytes.clone();
    long[SECTOR + 12] = 1;
    assert!(refused("dm-log-writes", &long).contains("1 GiB"));
    let mut version = bytes.clone();
    version[8] = 2;
    assert!(refused("dm-log-writes", &version).contains("version 1"));
    let mut odd = bytes.clone();
    odd[24] = 1;
    assert!(refused("dm-log-writes", &odd).contains("sectors of 512"));
    let kept = decode("dm-log-writes", &[&bytes[..SECTOR * 5]], &lenient()).expect("lenient");
    assert_eq!(kept.ios.len(), 1);
    let two = decode("dm-log-writes", &[&bytes, &bytes], &Options::default());
    assert!(two.expect_err("refused").to_string().contains("expected one log"));
}

fn copied(folder: &Path) -> Content {
    let (from, to) = (folder.join("log"), folder.join("content"));
    std::fs::write(&from, mixed()).expect("written");
    assert_eq!(content::copy(&from, &to, false).expect("copied"), (4, 1536));
    Content::open(&to).expect("content")
}

#[test]
fn the_data_of_each_row_is_found_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let content = copied(folder.path());
    assert_eq!(content.rows(), 4);
    let mut buf = [0; 512];
    content.fill(&mut buf, 0, 4096 + 512);
    assert_eq!(buf, [0xaa; 512]);
    content.fill(&mut buf, 3, 4608);
    assert_eq!(buf, [0xbb; 512]);
    assert!(!content.is_lost());
    for (seq, offset) in [(1, 0), (2, 51_200), (3, 4096), (3, 5000), (4, 0)] {
        let content = copied(folder.path());
        content.fill(&mut buf, seq, offset);
        assert!(content.is_lost(), "row {seq}, offset {offset}");
    }
    std::fs::write(folder.path().join("content"), [7; 100]).expect("written");
    let error = Content::open(&folder.path().join("content")).expect_err("damaged");
    assert!(error.to_string().contains("damaged"));
}

#[test]
fn a_payload_takes_the_writes_from_it_and_checks_by_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let payload = Payload::new("d", 1, Knobs::default()).expect("valid");
    let payload = payload.with_content(std::sync::Arc::new(copied(folder.path())));
    let mut buf = [0; 1024];
    payload.fill(&mut buf, 4096, Version::of_write(0));
    assert_eq!(buf, [0xaa; 1024]);
    assert!(payload.check(&buf, 4096, Version::of_write(0)).is_ok());
    buf[700] = 0;
    let wrong = payload.check(&buf, 4096, Version::of_write(0)).expect_err("damaged");
    assert_eq!((wrong.offset_bytes, wrong.found), (4796, Found::Foreign));
    // What is read before it is written is still made.
    payload.fill(&mut buf, 0, Version::PREFILL);
    assert!(payload.check(&buf, 0, Version::PREFILL).is_ok());
}
