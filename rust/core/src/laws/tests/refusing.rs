//! Filters that refuse I/Os which nothing below fails.

use super::*;
use crate::io::Status;
use crate::slab::Io;

/// Fails the I/Os that it picks.
struct Refuses(fn(&Io) -> bool, Status);

impl Filter for Refuses {
    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        if self.0(cx.io(io)) { Answer::Fail(self.1) } else { Answer::Pass }
    }
}

fn refusing(which: fn(&Io) -> bool, status: Status) -> Vec<Finding> {
    let build = || -> Result<(Box<dyn Filter>, Properties)> {
        Ok((Box::new(Refuses(which, status)), Properties::TRANSPARENT))
    };
    certify(&build, 5, None, None)
}

fn laws(which: fn(&Io) -> bool, status: Status) -> Vec<&'static str> {
    broken(&refusing(which, status))
}

const OF_DATA: [&str; 8] = [
    "read_after_write",
    "unaligned_edges",
    "discard_then_zeroes",
    "short_io",
    "errors_pass_up",
    "flush_durability",
    "fua_durability",
    "crash_at_any_point",
];

#[test]
fn refused_discards_are_found() {
    let found = refusing(|io| io.op == Op::Discard, libc::EIO);
    assert_eq!(broken(&found), ["discard_then_zeroes", "errors_pass_up"]);
    assert!(found[2].detail.contains("failed with 5 while nothing below it failed"), "{found:?}");
    assert!(found[4].detail.contains("of a discard, and nothing below had failed"), "{found:?}");
}

#[test]
fn refused_ios_off_the_blocks_are_found() {
    let found = laws(|io| (io.offset_bytes | io.length_bytes) % 4096 != 0, libc::EIO);
    assert_eq!(found, ["unaligned_edges", "discard_then_zeroes", "crash_at_any_point"]);
}

#[test]
fn one_that_refuses_everything_keeps_no_law_of_data() {
    assert_eq!(laws(|_| true, libc::EIO), OF_DATA);
}

#[test]
fn refused_writes_are_found() {
    assert_eq!(laws(|io| io.op == Op::Write, libc::EIO), OF_DATA);
}

#[test]
fn refused_zeroes_are_found() {
    let found = refusing(|io| io.op == Op::WriteZeroes, libc::EOPNOTSUPP);
    assert_eq!(
        broken(&found),
        [
            "read_after_write",
            "unaligned_edges",
            "discard_then_zeroes",
            "short_io",
            "errors_pass_up",
            "crash_at_any_point",
        ]
    );
    assert!(found[4].detail.contains("nothing below had failed"), "{found:?}");
}

/// Fails the next I/O once something has failed below.
#[derive(Default)]
struct Panics(bool);

impl Filter for Panics {
    fn io_start(&mut self, _cx: &mut Cx<'_>, _io: IoId) -> Answer {
        if std::mem::take(&mut self.0) { Answer::Fail(libc::EIO) } else { Answer::Pass }
    }

    fn io_complete(&mut self, cx: &mut Cx<'_>, io: IoId) -> Up {
        self.0 |= cx.io(io).status == libc::EIO;
        Up::Pass
    }
}

#[test]
fn an_error_that_is_told_of_another_io_is_found() {
    let build = || -> Result<(Box<dyn Filter>, Properties)> {
        Ok((Box::new(Panics::default()), Properties::TRANSPARENT))
    };
    let found = certify(&build, 5, None, None);
    assert_eq!(broken(&found), ["errors_pass_up"]);
    assert!(found[4].detail.contains("nothing of it had failed below"), "{found:?}");
}
