//! Filters that do what they do not declare.

use super::*;
use crate::clock::Ns;

/// Stores the writes' bytes turned over, and turns those of reads.
struct Turns;

fn turn(data: &mut [u8]) {
    data.iter_mut().filter(|byte| !matches!(**byte, 0 | 0xff)).for_each(|byte| *byte ^= 0xff);
}

impl Filter for Turns {
    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        let above = cx.io(io);
        if above.op != Op::Write {
            return Answer::Pass;
        }
        let write = Child {
            op: Op::Write,
            offset_bytes: above.offset_bytes,
            length_bytes: above.length_bytes,
            flags: above.flags,
            data: ChildData::Own,
            tag: 0,
        };
        let Some(child) = cx.child(io, write) else { return Answer::Fail(libc::ENOMEM) };
        if let Some((from, to)) = cx.data_pair(io, child) {
            to.copy_from_slice(from);
            turn(to);
        }
        Answer::Defer
    }

    fn io_complete(&mut self, cx: &mut Cx<'_>, io: IoId) -> Up {
        if cx.io(io).op == Op::Read && cx.io(io).status == OK {
            turn(cx.data_mut(io));
        }
        Up::Pass
    }

    fn child_complete(&mut self, cx: &mut Cx<'_>, parent: IoId, child: IoId) {
        let status = cx.io(child).status;
        cx.finish(parent, status);
    }
}

#[test]
fn one_that_transforms_is_not_transparent() {
    assert_eq!(of(|| Box::new(Turns), FORKS), ["transparent"]);
    let declares = Properties { transparent: false, ..FORKS };
    let findings = certify(&|| Ok((Box::new(Turns), declares)), 5, None, None);
    assert_eq!(broken(&findings), [""; 0], "one that says so may");
    let untested: Vec<_> = findings.iter().filter(|f| f.outcome == Outcome::NotTested).collect();
    assert_eq!(untested.iter().map(|f| f.law).collect::<Vec<_>>(), ["transparent", "may_defer"]);
    assert!(untested.iter().all(|finding| !finding.detail.is_empty()), "{untested:?}");
}

#[test]
fn one_that_forks_defers() {
    let hides = Properties { may_defer: false, transparent: false, ..FORKS };
    assert_eq!(of(|| Box::new(Turns), hides), ["may_defer"]);
}

/// Keeps an I/O for a while, on its way down or up.
struct Waits {
    is_up: bool,
    kept: HashMap<u64, IoId>,
}

const WAIT_NS: Ns = 1000;

impl Waits {
    fn keep(&mut self, cx: &mut Cx<'_>, io: IoId) {
        let token = u64::from(io);
        self.kept.insert(token, io);
        cx.timer(cx.now() + WAIT_NS, token);
    }
}

impl Filter for Waits {
    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        if self.is_up {
            return Answer::Pass;
        }
        self.keep(cx, io);
        Answer::Defer
    }

    fn io_complete(&mut self, cx: &mut Cx<'_>, io: IoId) -> Up {
        if !self.is_up {
            return Up::Pass;
        }
        self.keep(cx, io);
        Up::Defer
    }

    fn timer(&mut self, cx: &mut Cx<'_>, token: u64) {
        if let Some(io) = self.kept.remove(&token) {
            let status = cx.io(io).status;
            if self.is_up { cx.finish(io, status) } else { cx.resume(io) }
        }
    }
}

#[test]
fn one_that_holds_defers() {
    for is_up in [false, true] {
        let waits = || -> Box<dyn Filter> { Box::new(Waits { is_up, kept: HashMap::new() }) };
        assert_eq!(of(waits, Properties::TRANSPARENT), ["may_defer"], "up: {is_up}");
        let declares = Properties { may_defer: true, ..Properties::TRANSPARENT };
        assert_eq!(of(waits, declares), [""; 0], "up: {is_up}");
    }
}

/// Answers reads of what was read before and not changed since.
#[derive(Default)]
struct Remembers(HashMap<u64, Vec<u8>>);

const SECTOR: usize = 512;

impl Filter for Remembers {
    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        let (op, at, length) = (cx.io(io).op, cx.io(io).offset_bytes, cx.io(io).length_bytes);
        let sectors = (at..at + length).step_by(SECTOR);
        if op.modifies() {
            sectors.for_each(|sector| drop(self.0.remove(&sector)));
            return Answer::Pass;
        }
        if op != Op::Read || !sectors.clone().all(|sector| self.0.contains_key(&sector)) {
            return Answer::Pass;
        }
        for (to, sector) in cx.data_mut(io).chunks_mut(SECTOR).zip(sectors) {
            to.copy_from_slice(&self.0[&sector]);
        }
        Answer::Complete
    }

    fn io_complete(&mut self, cx: &mut Cx<'_>, io: IoId) -> Up {
        if cx.io(io).op == Op::Read && cx.io(io).status == OK {
            let sectors = (cx.io(io).offset_bytes..).step_by(SECTOR);
            let data = cx.data(io).chunks(SECTOR).map(<[u8]>::to_vec);
            self.0.extend(sectors.zip(data));
        }
        Up::Pass
    }
}

#[test]
fn one_that_answers_is_found() {
    let make = || -> Box<dyn Filter> { Box::new(Remembers::default()) };
    assert_eq!(of(make, Properties::TRANSPARENT), ["may_answer"]);
    assert_eq!(of(make, Properties { may_answer: true, ..Properties::TRANSPARENT }), [""; 0]);
}

/// Tells of a misuse, as the engine does of a library's, or of an exception, as of Python's.
struct Errs(&'static str, &'static str);

impl Filter for Errs {
    fn io_start(&mut self, _cx: &mut Cx<'_>, _io: IoId) -> Answer {
        Answer::Pass
    }

    fn io_complete(&mut self, cx: &mut Cx<'_>, io: IoId) -> Up {
        if cx.io(io).status == libc::EIO {
            cx.event(self.0, self.1.to_owned());
        }
        Up::Pass
    }
}

#[test]
fn a_misuse_and_an_exception_break_the_contract() {
    let laws = of(|| Box::new(Errs("misuse", "{}")), Properties::TRANSPARENT);
    assert_eq!(laws, ["errors_pass_up", "contract"]);
    let laws = of(|| Box::new(Errs("error", r#"{"traceback": ""}"#)), Properties::TRANSPARENT);
    assert_eq!(laws, ["errors_pass_up", "contract"]);
    let laws = of(|| Box::new(Errs("error", r#"{"disk": 3}"#)), Properties::TRANSPARENT);
    assert_eq!(laws, [""; 0], "a filter's own word for what failed below");
}

/// Reads the two halves of what is read at once, and looks ahead behind them.
struct Splits;

impl Filter for Splits {
    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        let above = cx.io(io);
        let (at, half) = (above.offset_bytes, above.length_bytes / 1024 * 512);
        if above.op != Op::Read || half == 0 {
            return Answer::Pass;
        }
        let rest = above.length_bytes - half;
        let read = |offset_bytes, length_bytes, data| Child {
            op: Op::Read,
            offset_bytes,
            length_bytes,
            flags: 0,
            data,
            tag: 0,
        };
        // A run that has slots for what is declared alone would refuse the second.
        let first = cx.child(io, read(at, half, ChildData::Share { from_bytes: 0 }));
        let second = cx.child(io, read(at + half, rest, ChildData::Share { from_bytes: half }));
        cx.background(read(0, 512, ChildData::Own));
        if first.or(second).is_none() { Answer::Fail(libc::ENOMEM) } else { Answer::Defer }
    }

    fn child_complete(&mut self, cx: &mut Cx<'_>, parent: IoId, _child: IoId) {
        if parent != NONE && cx.io(parent).open_children == 0 {
            cx.finish(parent, OK);
        }
    }
}

#[test]
fn more_ios_of_its_own_than_declared_are_found() {
    let of_both = |children_per_io, background_ios| {
        let declared = Properties { children_per_io, background_ios, ..FORKS };
        let found = certify(&|| Ok((Box::new(Splits), declared)), 5, None, None);
        found.into_iter().filter(|f| f.law == "children_per_io" || f.law == "background_ios")
    };
    let told = |children, background| -> Vec<(Outcome, String)> {
        of_both(children, background).map(|found| (found.outcome, found.detail)).collect()
    };
    let held = (Outcome::Held, String::new());
    // Nothing bounds how far it looks ahead.
    assert_eq!(told(2, 1024), [held.clone(), held.clone()]);
    let found = told(1, 8);
    let (children, background) = (&found[0], &found[1]);
    assert_eq!(children.0, Outcome::Broken);
    let words = "it had 2 I/Os of its own open at one time for one I/O, with children_per_io = 1";
    assert!(children.1.starts_with(words), "{children:?}");
    assert_eq!(background.0, Outcome::Broken);
    assert!(background.1.contains("in the background, with background_ios = 8 declared"));
}
