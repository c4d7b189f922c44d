//! The text formats: blkparse, fio's iologs, CSV and the presets.

use super::{Decoded, decode, format, lenient, refused};
use crate::formats::{EventKind, FORMATS, Options};
use crate::io::{Op, flags};
use crate::trace::{NO_LATENCY, NO_STREAM};

fn read(name: &str, text: &str) -> Decoded {
    decode(name, &[text.as_bytes()], &Options::default()).expect("valid")
}

fn csv(columns: &str, text: &str) -> Decoded {
    let options = Options { columns: Some(columns.to_owned()), ..Options::default() };
    decode("csv", &[text.as_bytes()], &options).expect("valid")
}

/// Time, disk, operation, offset, length, latency.
type Short<'a> = (i64, &'a str, Op, i64, i64, i64);

fn short(decoded: &Decoded) -> Vec<Short<'_>> {
    let row = |io: &crate::trace::TraceIo| {
        let disk = decoded.disks[io.disk as usize].as_str();
        (io.time_ns, disk, io.op, io.offset_bytes, io.length_bytes, io.latency_ns)
    };
    decoded.ios.iter().map(row).collect()
}

/// The format that claims a head.
fn sniffed(head: &str) -> Option<&'static str> {
    FORMATS.iter().find(|f| f.sniff(head.as_bytes())).map(|f| f.name())
}

const BLKPARSE: &str = "\
  8,0    3        0     0.000000000     0  m   N cfq tail [x] say 1
  8,0    3        1     0.000000000   697  A  WS 223490 + 8 <- (8,1) 221442
  8,0    3        2     0.000000500   697  Q  WS 223490 + 8 [kjour nald]
  8,0    3        3     0.000001000   697  G  WS 223490 + 8 [kjournald]
  8,0    3        4     0.000001100   697  P   N [kjournald]
  8,0    3        5     0.000002000   697  D  WS 223490 + 8 (1500) [kjournald]
  8,0    1        6     0.000002500   700  Q FWFS 64 + 16 [(null)]
  8,0    1        7     0.000002600   700  Q FWS [(null)]
  8,0    1        8     0.000002700   700  Q  DS 4096 + 2048 [fstrim]
  8,0    1        9     0.000002800    54  D  FN [kworker]
  8,0    1       10     0.000003000   700  D   R 36 (12 00 00 00 24 00) [smartd]
  8,0    3       11     0.000005000     0  C  WS 223490 + 8 [0]
  8,0    1       12     0.000006000     0  C  FN 0 [0]
  8,0    1       13     0.000006800     0  C  WS 0 [0]
  8,0    1       14     0.000007000   700  X   R 8 / 16 [dd]
  8,0    1       15     0.000008000   700 UT   N [dd] 1
CPU0 (sda):
 Reads Queued:           0,        0KiB\t Writes Queued:           1,        4KiB

Total (sda):
 IO unplugs:             0        \t Timer unplugs:           0

Throughput (R/W): 0KiB/s / 0KiB/s
Events (sda): 15 entries
Skips: 0 forward (0 -   0.0%)
";

#[test]
fn blkparse_text() {
    assert_eq!(sniffed(BLKPARSE), Some("blkparse"));
    let decoded = read("blkparse", BLKPARSE);
    assert_eq!(
        short(&decoded),
        [
            (500, "8,0", Op::Write, 223_490 * 512, 4096, 3_000),
            (2_500, "8,0", Op::Write, 32_768, 8192, NO_LATENCY),
            (2_600, "8,0", Op::Flush, 0, 0, 4_000),
            (2_700, "8,0", Op::Discard, 4096 * 512, 1 << 20, NO_LATENCY),
        ]
    );
    let preflush_fua = flags::PREFLUSH | flags::FUA | flags::SYNC;
    assert_eq!(decoded.ios[1].flags, preflush_fua);
    let options = Options { event: EventKind::Issue, ..Options::default() };
    let issues = decode("blkparse", &[BLKPARSE.as_bytes()], &options).expect("valid");
    let ops: Vec<Op> = issues.ios.iter().map(|io| io.op).collect();
    assert_eq!(ops, [Op::Write, Op::Flush]);
    assert_eq!(issues.report.dropped, [("passthrough command".to_owned(), 1)]);
}

#[test]
fn blkparse_refuses_what_is_neither_event_nor_summary() {
    let broken = BLKPARSE.replace("0.000002000   697  D", "0.0000020x0   697  D");
    let message = refused("blkparse", broken.as_bytes());
    assert!(message.starts_with("file0: row 6: expected an event in blkparse's"), "{message}");
    let decoded = decode("blkparse", &[broken.as_bytes()], &lenient()).expect("lenient");
    assert_eq!(decoded.report.dropped, [("broken row".to_owned(), 1)]);
    assert!(refused("blkparse", b"hello\n").contains("row 1"));
}

/// What blkparse prints at the end where the capture holds passthrough commands.
#[test]
fn blkparse_counts_of_passthrough_commands_are_summary() {
    let text = format!(
        "{BLKPARSE} PC Reads Queued:        1,        0KiB\t PC Writes Queued:        0\n \
         PC Read Disp.:          1,        0KiB\n\ndiscarded traces containing low-level device \
         driver specific data (only available in binary output)\n"
    );
    assert_eq!(read("blkparse", &text).ios, read("blkparse", BLKPARSE).ios);
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_row() {
    let columns = "time=0:us,op=1:R/W,offset=2:bytes,length=3:bytes";
    assert_eq!(short(&csv(columns, "\u{feff}5,R,0,512\n6,W,512,512\n")).len(), 2);
    let iolog = "\u{feff}fio version 3 iolog\n5 x read 0 512\n";
    assert_eq!(short(&read("fio-iolog", iolog)), [(5_000, "x", Op::Read, 0, 512, NO_LATENCY)]);
}

#[test]
fn iolog_version_3() {
    let text = "fio version 3 iolog\n5 /d/a add\n7 /d/a open\n10 /d/a read 4096 8192\n\
        25 /d/b write 0 512\n20 /d/a trim 0 4096\n30 /d/a datasync\n31 /d/a read 0 0\n\
        32 /d/a close\n";
    assert_eq!(sniffed(text), Some("fio-iolog"));
    let decoded = read("fio-iolog", text);
    assert_eq!(
        short(&decoded),
        [
            (10_000, "/d/a", Op::Read, 4096, 8192, NO_LATENCY),
            (25_000, "/d/b", Op::Write, 0, 512, NO_LATENCY),
            (25_000, "/d/a", Op::Discard, 0, 4096, NO_LATENCY),
            (30_000, "/d/a", Op::Flush, 0, 0, NO_LATENCY),
        ]
    );
    assert_eq!(decoded.report.warnings, ["1 times went back: taken as no delay"]);
    assert_eq!(decoded.report.dropped, [("length of 0".to_owned(), 1)]);
}

#[test]
fn iolog_version_2_waits_are_milliseconds_since_the_start() {
    let text = "fio version 2 iolog\r\n/d add\r\n/d open\r\n/d read 0 4096\r\n/d wait 3 0\r\n\
        /d write 4096 4096\r\n/d sync 0 0\r\n/d wait 5\r\n/d read 8192 512";
    let times: Vec<_> = read("fio-iolog", text).ios.iter().map(|io| (io.time_ns, io.op)).collect();
    assert_eq!(
        times,
        [(0, Op::Read), (3_000_000, Op::Write), (3_000_000, Op::Flush), (5_000_000, Op::Read)]
    );
}

#[test]
fn iolog_mistakes_are_placed() {
    assert!(refused("fio-iolog", b"fio version 1 iolog\n").starts_with("file0: row 1: expected"));
    let text = b"fio version 3 iolog\n1 /d read 0 512\n2 /d read x 512\n3 /d read 0 512\n";
    let message = refused("fio-iolog", text);
    assert!(message.starts_with("file0: row 3: expected an offset in bytes"), "{message}");
    let decoded = decode("fio-iolog", &[text], &lenient()).expect("lenient");
    assert_eq!((decoded.ios.len(), decoded.report.dropped[0].1), (2, 1));
    let huge = b"fio version 3 iolog\n18446744073709551615 /d read 0 512\n";
    assert!(refused("fio-iolog", huge).contains("timestamp"));
}

#[test]
fn csv_with_canonical_names_needs_no_options() {
    let text = "op,latency_ns,time_ns,length_bytes,offset_bytes,disk,flags,stream\n\
        write,,1000000000000000001,4096,0,a,3,9\nread,77,1000000000000000009,512,1024,b,0,\n\
        flush,,1000000000000000010,0,0,a,0,\nread,5,1000000000000000011,0,0,a,0,\n\n# the end\n";
    assert_eq!(sniffed(text), Some("csv"));
    let decoded = read("csv", text);
    assert_eq!(
        short(&decoded),
        [
            (0, "a", Op::Write, 0, 4096, NO_LATENCY),
            (8, "b", Op::Read, 1024, 512, 77),
            (9, "a", Op::Flush, 0, 0, NO_LATENCY),
        ]
    );
    assert_eq!((decoded.ios[0].flags, decoded.ios[0].stream), (3, 9));
    assert_eq!(decoded.ios[1].stream, NO_STREAM);
    assert!(refused("csv", b"a,b,c\n1,2,3\n").contains("--columns"));
}

#[test]
fn csv_columns_by_place_and_by_name() {
    let decoded = csv(
        "time=Start:s,op=Kind:1/0,offset=LBA:sectors,length=4:KiB,disk=0+1,latency=-1:us",
        "host;dev;Start;Kind;Len;LBA;resp\nh;1;10.000000001;0;4;8;1.5\n\
         \"h;i\";2;9.5;1;8;0x10;-\n",
    );
    assert_eq!(
        short(&decoded),
        [
            (0, "h_1", Op::Write, 4096, 4096, 1_500),
            (-500_000_001, "h;i_2", Op::Read, 8192, 8192, NO_LATENCY),
        ]
    );
}

#[test]
fn csv_broken_rows_are_placed() {
    let text = "0,R,0,512\n1,W,512,512\n2,?,0,512\n3,R\n4,R,0,512\n";
    let columns = Some("time=0:us,op=1:R/W,offset=2:bytes,length=3:bytes".to_owned());
    let strict = Options { columns: columns.clone(), ..Options::default() };
    let error = decode("csv", &[text.as_bytes()], &strict).expect_err("row 3").to_string();
    assert_eq!(error, "file0: row 3: op: expected a code of an operation, got \"?\"");
    let error = refused("msr", b"128166372003061629,hm\n");
    assert_eq!(error, "file0: row 1: expected a column for op (number 3, from 0), got 2 columns");
    let options = Options { columns, skip_bad: true, ..Options::default() };
    let decoded = decode("csv", &[text.as_bytes()], &options).expect("lenient");
    assert_eq!((decoded.ios.len(), decoded.report.records), (3, 5));
    assert_eq!(decoded.report.dropped, [("broken row".to_owned(), 2)]);
    let missing = Options {
        columns: Some("time=t:us,op=1:R/W,offset=2:bytes,length=3:bytes".to_owned()),
        ..Options::default()
    };
    let error = decode("csv", &[text.as_bytes()], &missing).expect_err("no header").to_string();
    assert!(error.contains("row 1: expected a header with column \"t\""), "{error}");
}

fn check_presets(cases: &[(&str, &str, [Short<'_>; 2])]) {
    for (name, text, wanted) in cases {
        assert_eq!(sniffed(text), Some(*name));
        assert_eq!(short(&read(name, text)), wanted, "{name}");
    }
}

#[test]
fn presets_with_response_times_or_words_are_recognised_and_read() {
    let ali = "3,R,126703644672,4096,1577808000000626\n4,W,8192,512,1577808000000627\n";
    check_presets(&[
        (
            "msr",
            "128166385295514663,hm,0,Write,9056014336,2048,2833\n\
             128166385295514878,hm,1,Read,512,512,0\n",
            [
                (0, "hm_0", Op::Write, 9_056_014_336, 2048, 283_300),
                (21_500, "hm_1", Op::Read, 512, 512, 0),
            ],
        ),
        (
            "systor17",
            "Timestamp,Response,IOType,LUN,Offset,Size\n\
             1456095145.133076001,0.000806000,R,0,899056122368,131072\n\
             1456095145.126285000,,W,3,512,1024\n",
            [
                (0, "0", Op::Read, 899_056_122_368, 131_072, 806_000),
                (-6_791_001, "3", Op::Write, 512, 1024, NO_LATENCY),
            ],
        ),
        (
            "alibaba",
            ali,
            [
                (0, "3", Op::Read, 126_703_644_672, 4096, NO_LATENCY),
                (1_000, "4", Op::Write, 8192, 512, NO_LATENCY),
            ],
        ),
        (
            "spc",
            "0,303567,3584,w,0.000000\n1, 5,512,R, 0.026214,7,x\n",
            [
                (0, "0", Op::Write, 303_567 * 512, 3584, NO_LATENCY),
                (26_214_000, "1", Op::Read, 2560, 512, NO_LATENCY),
            ],
        ),
    ]);
    assert!(format("msr").open(super::inputs(&[b"\0\0"]), &Options::default()).is_err());
}

#[test]
fn presets_of_numbers_are_recognised_and_read() {
    let md5 = "0123456789abcdef0123456789ABCDEF";
    let fiu = format!("89 4892 nf sd 904265560 8 W 6 1 {md5}\n99 4892 nfsd 8 16 R 6 0 {md5}\n");
    check_presets(&[
        (
            "tencent",
            "1538323200,8,16,1,1058\n1538323199,1,8,0,1063\n",
            [
                (0, "1058", Op::Write, 4096, 8192, NO_LATENCY),
                (-1_000_000_000, "1063", Op::Read, 512, 4096, NO_LATENCY),
            ],
        ),
        (
            "fiu",
            &fiu,
            [
                (0, "6_1", Op::Write, 904_265_560 * 512, 4096, NO_LATENCY),
                (10, "6_0", Op::Read, 4096, 8192, NO_LATENCY),
            ],
        ),
        (
            "disksim",
            "0.5 0 8 16 1\n1.000001 1 0 8 0\n",
            [
                (0, "0", Op::Read, 4096, 8192, NO_LATENCY),
                (500_001, "1", Op::Write, 0, 4096, NO_LATENCY),
            ],
        ),
        (
            "mqsim",
            "938513000 4 264719034 16 0\n938828000 3 8 16 1\n",
            [
                (0, "4", Op::Write, 264_719_034 * 512, 8192, NO_LATENCY),
                (315_000, "3", Op::Read, 4096, 8192, NO_LATENCY),
            ],
        ),
    ]);
}

#[test]
fn what_is_no_trace_is_not_recognised() {
    for text in ["", "\n", "hello world\n", "a,b,c,d,e\n", "1,2,3\n", "{\"a\": 1}\n", "\u{0}\u{0}"]
    {
        assert_eq!(sniffed(text), None, "{text:?}");
    }
}
