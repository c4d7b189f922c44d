use std::collections::HashMap;

use serde_json::json;

use super::*;
use crate::filters::{Answer, Child, ChildData, Cx, Up, find};
use crate::io::OK;
use crate::slab::{IoId, NONE};

mod below;
mod refusing;
mod undeclared;

fn broken(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().filter(|f| f.outcome == Outcome::Broken).map(|f| f.law).collect()
}

/// The laws that a filter breaks.
fn of(make: impl Fn() -> Box<dyn Filter>, properties: Properties) -> Vec<&'static str> {
    broken(&certify(&|| Ok((make(), properties)), 5, None, None))
}

const FORKS: Properties =
    Properties { may_defer: true, children_per_io: 1, ..Properties::TRANSPARENT };

#[test]
fn every_filter_of_ours_keeps_every_law() {
    // Every instance needs the same key, as after a crash.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), (0..64).collect::<Vec<u8>>()).unwrap();
    let key = format!("file:{}", file.path().display());
    for (name, params) in [
        ("pass", json!({})),
        ("delay", json!({"read": "100us", "write": "200us"})),
        ("throttle", json!({"iops": 2000, "bandwidth": "64MiB/s"})),
        ("crypt", json!({"key": key})),
        ("cache", json!({"capacity": "64KiB", "block": "4KiB"})),
    ] {
        let kind = find(name).unwrap();
        let build = || Ok((kind.build)(&params, &setting(3)).unwrap());
        for placement in [None, Some(Where::Thread), Some(Where::Process)] {
            // Elsewhere every crash takes a thread or a process; what it is about is the same.
            let crash_step = if placement.is_some() { 5 } else { 1 };
            let subject = Subject { build: &build, seed: 3, placement, crash_step };
            for finding in certify_by(&subject, None) {
                let expected = match (finding.law, name) {
                    ("transparent", "crypt") | ("may_answer", "cache") | ("reorders", "delay") => {
                        Outcome::NotTested
                    }
                    ("may_defer", name) if name != "pass" => Outcome::NotTested,
                    _ => Outcome::Held,
                };
                assert_eq!(finding.outcome, expected, "{name}, {placement:?}: {finding:?}");
            }
        }
    }
}

/// Acknowledges every ninth write and drops it.
struct Loses(u64);

impl Filter for Loses {
    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        self.0 += u64::from(cx.io(io).op == Op::Write);
        if cx.io(io).op == Op::Write && self.0.is_multiple_of(9) {
            Answer::Complete
        } else {
            Answer::Pass
        }
    }
}

#[test]
fn a_lost_write_is_found() {
    let laws = of(|| Box::new(Loses(0)), Properties::TRANSPARENT);
    assert!(laws.contains(&"read_after_write") && laws.contains(&"flush_durability"), "{laws:?}");
}

/// Answers a flush before the device has done it.
struct EarlyFlush;

impl Filter for EarlyFlush {
    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        if cx.io(io).op != Op::Flush {
            return Answer::Pass;
        }
        let flush = Child {
            op: Op::Flush,
            offset_bytes: 0,
            length_bytes: 0,
            flags: 0,
            data: ChildData::Own,
            tag: 0,
        };
        cx.background(flush);
        Answer::Complete
    }
}

#[test]
fn a_flush_acknowledged_too_early_is_found() {
    let properties = Properties { background_ios: 64, ..Properties::TRANSPARENT };
    let laws = of(|| Box::new(EarlyFlush), properties);
    assert!(laws.contains(&"flush_durability"), "{laws:?}");
    assert!(!laws.contains(&"read_after_write") && !laws.contains(&"fua_durability"), "{laws:?}");
}

/// Hands writes on without FUA.
struct DropsFua;

impl Filter for DropsFua {
    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        let above = cx.io(io);
        if above.op != Op::Write {
            return Answer::Pass;
        }
        let child = Child {
            op: Op::Write,
            offset_bytes: above.offset_bytes,
            length_bytes: above.length_bytes,
            flags: 0,
            data: ChildData::Share { from_bytes: 0 },
            tag: 0,
        };
        match cx.child(io, child) {
            Some(_) => Answer::Defer,
            None => Answer::Fail(libc::ENOMEM),
        }
    }

    fn child_complete(&mut self, cx: &mut Cx<'_>, parent: IoId, child: IoId) {
        let status = cx.io(child).status;
        if parent != NONE {
            cx.finish(parent, status);
        }
    }
}

#[test]
fn dropped_fua_is_found() {
    let laws = of(|| Box::new(DropsFua), FORKS);
    assert!(laws.contains(&"fua_durability") && !laws.contains(&"flush_durability"), "{laws:?}");
    assert!(!laws.contains(&"read_after_write"), "{laws:?}");
}

/// Answers with what was first written to a place.
#[derive(Default)]
struct Stale(HashMap<(u64, u64), Vec<u8>>);

impl Filter for Stale {
    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        let (at, length) = (cx.io(io).offset_bytes, cx.io(io).length_bytes);
        if cx.io(io).op == Op::Write {
            self.0.entry((at, length)).or_insert_with(|| cx.data(io).to_vec());
        }
        Answer::Pass
    }

    fn io_complete(&mut self, cx: &mut Cx<'_>, io: IoId) -> Up {
        let place = (cx.io(io).offset_bytes, cx.io(io).length_bytes);
        if cx.io(io).op == Op::Read
            && let Some(data) = self.0.get(&place)
        {
            cx.data_mut(io).copy_from_slice(data);
        }
        Up::Pass
    }
}

#[test]
fn stale_data_is_found() {
    let laws = of(|| Box::new(Stale::default()), Properties::TRANSPARENT);
    assert!(laws.contains(&"read_after_write"), "{laws:?}");
    assert!(!laws.contains(&"completion_scope"), "{laws:?}");
}

/// Tells the guest that all is well.
struct Soothes;

impl Filter for Soothes {
    fn io_start(&mut self, _cx: &mut Cx<'_>, _io: IoId) -> Answer {
        Answer::Pass
    }

    fn io_complete(&mut self, cx: &mut Cx<'_>, io: IoId) -> Up {
        if cx.io(io).status == OK {
            return Up::Pass;
        }
        cx.finish(io, OK);
        Up::Defer
    }
}

#[test]
fn a_swallowed_error_is_found() {
    let laws = of(|| Box::new(Soothes), Properties { may_defer: true, ..Properties::TRANSPARENT });
    assert_eq!(laws, ["errors_pass_up"], "an error is no other law's business");
}

/// Never lets go of one I/O, and panics on another.
struct Holds(u64);

impl Filter for Holds {
    fn io_start(&mut self, _cx: &mut Cx<'_>, _io: IoId) -> Answer {
        self.0 += 1;
        assert!(self.0 < 900, "enough");
        if self.0 == 700 { Answer::Defer } else { Answer::Pass }
    }
}

#[test]
fn an_io_that_is_kept_and_a_panic_are_told() {
    let build = || -> Result<(Box<dyn Filter>, Properties)> {
        Ok((Box::new(Holds(0)), Properties { may_defer: true, ..Properties::TRANSPARENT }))
    };
    let findings = certify(&build, 5, None, None);
    let told: Vec<&str> = findings.iter().map(|f| f.detail.as_str()).collect();
    assert!(told.iter().any(|words| words.contains("never came back")), "{told:?}");
    assert!(told.iter().any(|words| words.contains("it panicked: enough")), "{told:?}");
}
