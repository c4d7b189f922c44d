//! Filters that do other things below themselves than they declare.

use super::super::bed::DISK_BYTES;
use super::*;
use crate::clock::Ns;

const TRANSPARENT: Properties = Properties::TRANSPARENT;
const DEFERS: Properties = Properties { may_defer: true, ..TRANSPARENT };

/// Holds every third write for a while, and lets others pass it.
#[derive(Default)]
struct Overtakes {
    writes: u64,
    held: HashMap<u64, IoId>,
}

const WAIT_NS: Ns = 100_000;

impl Filter for Overtakes {
    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        self.writes += u64::from(cx.io(io).op == Op::Write);
        if cx.io(io).op != Op::Write || !self.writes.is_multiple_of(3) {
            return Answer::Pass;
        }
        self.held.insert(self.writes, io);
        cx.timer(cx.now() + WAIT_NS, self.writes);
        Answer::Defer
    }

    fn timer(&mut self, cx: &mut Cx<'_>, token: u64) {
        if let Some(io) = self.held.remove(&token) {
            cx.resume(io);
        }
    }
}

#[test]
fn one_whose_writes_overtake_each_other_is_found() {
    let make = || -> Box<dyn Filter> { Box::new(Overtakes::default()) };
    assert_eq!(of(make, DEFERS), ["reorders"]);
    assert_eq!(of(make, Properties { reorders: true, ..DEFERS }), [""; 0]);
}

/// Reads whole blocks for the reads of parts.
struct Rounds;

const BLOCK: u64 = 4096;

impl Filter for Rounds {
    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        let above = cx.io(io);
        if above.op != Op::Read {
            return Answer::Pass;
        }
        let start = above.offset_bytes / BLOCK * BLOCK;
        let end = (above.offset_bytes + above.length_bytes).next_multiple_of(BLOCK);
        let read = Child {
            op: Op::Read,
            offset_bytes: start,
            length_bytes: end - start,
            flags: 0,
            data: ChildData::Own,
            tag: above.offset_bytes - start,
        };
        cx.child(io, read).map_or(Answer::Fail(libc::ENOMEM), |_| Answer::Defer)
    }

    fn child_complete(&mut self, cx: &mut Cx<'_>, parent: IoId, child: IoId) {
        let (from, status) = (cx.io(child).tag as usize, cx.io(child).status);
        if let Some((block, asked)) = cx.data_pair(child, parent) {
            asked.copy_from_slice(&block[from..from + asked.len()]);
        }
        cx.finish(parent, status);
    }
}

#[test]
fn one_that_does_more_below_than_its_units_is_found() {
    assert_eq!(of(|| Box::new(Rounds), FORKS), ["unit_bytes"]);
    assert_eq!(of(|| Box::new(Rounds), Properties { unit_bytes: BLOCK, ..FORKS }), [""; 0]);
}

/// Keeps a journal behind the end of the disk.
struct Journals;

impl Filter for Journals {
    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        if cx.io(io).op == Op::Write {
            let entry = Child {
                op: Op::Write,
                offset_bytes: DISK_BYTES + BLOCK,
                length_bytes: BLOCK,
                flags: 0,
                data: ChildData::Own,
                tag: 0,
            };
            if let Some(entry) = cx.background(entry) {
                cx.data_mut(entry).fill(0xee);
            }
        }
        Answer::Pass
    }
}

#[test]
fn one_that_writes_elsewhere_is_found() {
    let keeps = Properties { background_ios: 64, ..TRANSPARENT };
    assert_eq!(of(|| Box::new(Journals), keeps), ["changes_length"]);
    let declares = Properties { changes_length: true, ..keeps };
    let findings = certify(&|| Ok((Box::new(Journals), declares)), 5, None, None);
    assert_eq!(broken(&findings), [""; 0]);
    let untested = findings.iter().filter(|f| f.outcome == Outcome::NotTested).map(|f| f.law);
    assert_eq!(untested.collect::<Vec<_>>(), ["changes_length", "unit_bytes"]);
}

/// A filter that is not told of the end.
struct Surprised(Box<dyn Filter>);

impl Filter for Surprised {
    fn open(&mut self, slots: usize) {
        self.0.open(slots);
    }

    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        self.0.io_start(cx, io)
    }

    fn io_complete(&mut self, cx: &mut Cx<'_>, io: IoId) -> Up {
        self.0.io_complete(cx, io)
    }

    fn child_complete(&mut self, cx: &mut Cx<'_>, parent: IoId, child: IoId) {
        self.0.child_complete(cx, parent, child);
    }

    fn timer(&mut self, cx: &mut Cx<'_>, token: u64) {
        self.0.timer(cx, token);
    }
}

#[test]
fn one_that_keeps_data_at_a_run_s_end_is_found() {
    let params = json!({
        "capacity": "256KiB", "block": "512B", "write_policy": "back", "destage_after": "1h",
    });
    let kind = find("cache").unwrap();
    let build = || (kind.build)(&params, &setting(5)).unwrap();
    assert_eq!(broken(&certify(&|| Ok(build()), 5, None, None)), [""; 0]);
    let surprised = || -> Result<(Box<dyn Filter>, Properties)> {
        let (filter, properties) = build();
        Ok((Box::new(Surprised(filter)), properties))
    };
    assert_eq!(broken(&certify(&surprised, 5, None, None)), ["changes_length", "persists"]);
}
