//! The filter over a device of its own in virtual time.

use serde_json::{Value, json};

use super::super::testing::{Rig, setting};
use super::super::{DataMode, Filter, Properties};
use super::{Cdp, settings};
use crate::cdp::frame::Frame;
use crate::cdp::link::{Link, LinkEvent};
use crate::cdp::model::Model;
use crate::cdp::vault::Counts;
use crate::clock::Ns;
use crate::io::Op;

const SECOND: u64 = 1_000_000_000;

fn rig(params: Value) -> Rig {
    let mut rig = Rig::new(&[("cdp", params)], DataMode::Tokens, 1 << 26);
    // The first opening is for the prefill, of which nothing is told.
    rig.reopen();
    rig
}

fn details(rig: &mut Rig, kind: &str) -> Vec<Value> {
    let events = rig.take_events();
    let of_kind = events.iter().filter(|event| event.kind == kind);
    of_kind.map(|event| serde_json::from_str(&event.detail).unwrap()).collect()
}

/// An outage while 1 MB/s are written: 4 MB that memory has no room for.
fn outage(degrade: &str, fails: bool, mode: DataMode) -> (Rig, Vec<Value>) {
    let params = json!({
        "rpo": "2s", "batch": "16KiB", "bitmap_block": "4KiB", "degrade": degrade,
        "link": {
            "bandwidth": "80Mbit/s", "rtt": "2ms",
            "faults": [{"kind": "outage", "at": "1s", "for": "4s"}],
        },
        "journal": {"memory": "600KiB", "spill": "16MiB"}, "backpressure": "100ms",
    });
    let mut rig = Rig::new(&[("cdp", params)], mode, 1 << 24);
    rig.reopen();
    rig.device.lock().unwrap().own_fails = fails;
    for i in 0..2560 {
        rig.io(i * 4_000_000, Op::Write, (i * 7919) % 4096 * 4096, 4096);
    }
    rig.run();
    rig.close();
    let events: Vec<Value> = rig
        .take_events()
        .iter()
        .map(|event| {
            let mut detail: Value = serde_json::from_str(&event.detail).unwrap();
            detail["kind"] = event.kind.into();
            detail
        })
        .collect();
    (rig, events)
}

fn count(events: &[Value], kind: &str) -> usize {
    events.iter().filter(|event| event["kind"] == kind).count()
}

#[test]
fn what_memory_has_no_room_for_spills_and_comes_back() {
    for mode in [DataMode::Tokens, DataMode::Bytes] {
        let (rig, events) = outage("bitmap", false, mode);
        assert_eq!(count(&events, "hole"), 0, "{events:?}");
        assert!(count(&events, "restore_point") >= 10);
        let spilled = rig.device.lock().unwrap().own[&1].len();
        assert!(spilled > mode.size(2 << 20), "{spilled}");
        let totals = events.iter().find(|event| event["kind"] == "replication_totals").unwrap();
        assert!(totals["source"]["spilled_bytes"].as_u64().unwrap() > 2 << 20);
    }
}

#[test]
fn where_the_spill_file_has_no_room_the_next_step_follows() {
    let (_, events) = outage("bitmap", true, DataMode::Bytes);
    assert_eq!(count(&events, "hole"), 1);
    assert!(count(&events, "fault") >= 1);
    let (_, events) = outage("spill-backpressure-bitmap", true, DataMode::Bytes);
    let modes: Vec<&str> = events
        .iter()
        .filter(|event| event["kind"] == "mode")
        .map(|event| event["mode"].as_str().unwrap())
        .collect();
    assert_eq!(modes[..2], ["backpressure", "bitmap"], "{modes:?}");
    assert_eq!(modes.last(), Some(&"normal"));
}

#[test]
fn a_damaged_record_is_found_and_its_blocks_are_sent_again() {
    let params = json!({
        "rpo": "2s", "batch": "16KiB",
        "link": {
            "bandwidth": "80Mbit/s",
            "faults": [{"kind": "outage", "at": "0s", "for": "3s"}],
        },
        "journal": {"memory": "400KiB", "spill": "16MiB"},
    });
    let mut rig = Rig::new(&[("cdp", params)], DataMode::Bytes, 1 << 24);
    rig.reopen();
    for i in 0..500 {
        rig.io(i * 4_000_000, Op::Write, i * 4096, 4096);
    }
    rig.run();
    for byte in rig.device.lock().unwrap().own.get_mut(&1).unwrap().iter_mut().skip(200).step_by(99)
    {
        *byte ^= 1;
    }
    rig.close();
    let holes = details(&mut rig, "hole");
    assert_eq!(holes[0]["reason"], "spill file damaged", "{holes:?}");
    assert!(holes[0]["resync_bytes"].as_u64().unwrap() >= 1 << 20);
}

#[test]
fn a_point_is_recoverable_when_its_bytes_have_arrived() {
    let mut rig = rig(json!({
        "rpo": "2s", "link": {"bandwidth": "1MB/s", "rtt": "20ms"}, "batch": "4KiB"
    }));
    // 400 kB in the first tenth of a second: 0.4 s of the line.
    for i in 0..100 {
        rig.io(i * 1_000_000, Op::Write, i * 4096, 4096);
    }
    rig.io(4 * SECOND, Op::Read, 0, 4096);
    rig.run();
    rig.close();
    let points = details(&mut rig, "restore_point");
    let cuts: Vec<u64> = points.iter().map(|p| p["cut_ns"].as_u64().unwrap()).collect();
    assert_eq!(cuts[..4], [SECOND, 2 * SECOND, 3 * SECOND, 4 * SECOND]);
    // The end of the run has a point of its own.
    assert_eq!(cuts.len(), 5);
    // Nothing was left to send at its cut: the mark alone travels.
    let late = points[0]["recoverable_ns"].as_u64().unwrap() - SECOND;
    assert!((10_000_000..10_200_000).contains(&late), "{late}");
    let bytes = points[0]["bytes"].as_u64().unwrap();
    assert!((409_600..412_000).contains(&bytes), "{bytes}");
}

/// A link whose second connection never gets anywhere, and whose third reaches a silent site.
struct Silent {
    model: Model<Counts>,
    connects: u32,
    told: Vec<LinkEvent>,
}

impl Link for Silent {
    fn connect(&mut self, now: Ns) {
        self.connects += 1;
        if self.connects != 2 {
            self.model.connect(now);
        }
    }
    fn reset(&mut self, now: Ns, why: &str) {
        if self.connects == 2 {
            self.told.push(LinkEvent::Down(why.to_owned()));
        }
        self.model.reset(now, why);
    }
    fn send(&mut self, now: Ns, frame: Frame) {
        if self.connects != 3 {
            self.model.send(now, frame);
        }
    }
    fn wants(&self, now: Ns) -> bool {
        self.model.wants(now)
    }
    fn poll(&mut self, now: Ns, out: &mut Vec<LinkEvent>) {
        out.append(&mut self.told);
        self.model.poll(now, out);
    }
    fn next_event_ns(&self) -> Option<Ns> {
        if self.told.is_empty() { self.model.next_event_ns() } else { Some(0) }
    }
    fn wants_at_ns(&self) -> Option<Ns> {
        self.model.wants_at_ns()
    }
    fn shape(&mut self, on: bool, now: Ns) {
        self.model.shape(on, now);
    }
}

#[test]
fn a_connection_that_never_answers_is_given_up() {
    let params = json!({
        "rpo": "2s", "link": {
            "bandwidth": "80Mbit/s", "rtt": "2ms", "timeout": "3s",
            "faults": [{"kind": "reset", "at": "1s"}],
        },
    });
    let settings = settings::read(&params, &setting(DataMode::Tokens)).unwrap();
    let model = Model::new(settings.line.clone(), Counts::default());
    let link = Silent { model, connects: 0, told: Vec::new() };
    let properties = Properties { child_bytes: 1 << 20, ..Properties::TRANSPARENT };
    let chain: Vec<(Box<dyn Filter>, _)> =
        vec![(Box::new(Cdp::new(settings, Box::new(link))), properties)];
    let mut rig = Rig::of(chain, DataMode::Tokens, 1 << 24);
    rig.reopen();
    for i in 0..300 {
        rig.io(i * SECOND / 10, Op::Write, i * 4096, 4096);
    }
    rig.run();
    rig.close();
    let events = rig.take_events();
    let of = |kind: &str| -> Vec<Value> {
        let of_kind = events.iter().filter(|event| event.kind == kind);
        of_kind.map(|event| serde_json::from_str(&event.detail).unwrap()).collect()
    };
    let last = of("restore_point").pop().unwrap();
    assert!(last["cut_ns"].as_u64().unwrap() > 29 * SECOND, "{last}");
    // 3 s for the second connection, twice that for the third, and the pauses before each.
    let late = of("restore_point").iter().find(|p| p["cut_ns"] == 2 * SECOND).unwrap().clone();
    let recoverable = late["recoverable_ns"].as_u64().unwrap();
    assert!((10 * SECOND..11 * SECOND).contains(&recoverable), "{late}");
    assert!(of("hole").is_empty());
}

#[test]
fn what_is_told_as_sent_was_sent() {
    for folding in [false, true] {
        let params = json!({
            "rpo": "2s", "link": {"bandwidth": "8MB/s"}, "folding": folding,
            "initial_sync": "before",
        });
        let mut rig = Rig::new(&[("cdp", params)], DataMode::Bytes, 1 << 20);
        // What the disk held before goes out before the trace starts.
        rig.io(0, Op::Write, 1 << 19, 1 << 18);
        rig.run();
        rig.close();
        rig.reopen();
        for i in 0..1000 {
            rig.io(SECOND + i * 4_000_000, Op::Write, i % 8 * 4096, 4096);
        }
        rig.run();
        rig.close();
        let events = rig.take_events();
        let of = |kind: &str| -> Vec<Value> {
            let some = events.iter().filter(|event| event.kind == kind);
            some.map(|event| serde_json::from_str(&event.detail).unwrap()).collect()
        };
        let points: u64 =
            of("restore_point").iter().map(|point| point["bytes"].as_u64().unwrap()).sum();
        let written = if folding { 8 * of("restore_point").len() as u64 } else { 1000 } * 4096;
        assert!((written * 9 / 10..written * 21 / 20).contains(&points), "{points} of {written}");
        let totals = of("replication_totals").pop().unwrap();
        let sent = totals["link"]["sent_bytes"].as_u64().unwrap();
        assert!((points..points * 21 / 20).contains(&sent), "{sent} for {points}");
    }
}

#[test]
fn a_line_that_becomes_longer_or_faster_is_used_to_the_full() {
    let after = json!([
        {"kind": "rtt", "at": "1s", "rtt": "200ms"},
        {"kind": "bandwidth", "at": "1s", "bandwidth": "40MB/s"},
    ]);
    let params = json!({
        "rpo": "2s", "batch": "16KiB", "drain": "1h",
        "link": {"bandwidth": "8MB/s", "rtt": "1ms", "faults": after},
    });
    let mut rig = rig(params);
    // 30 MB/s, of which the first second leaves 22 MB.
    for i in 0..2400 {
        rig.io(i * SECOND / 480, Op::Write, i % 512 * 65536, 65536);
    }
    rig.run();
    rig.close();
    let last = details(&mut rig, "restore_point").pop().unwrap();
    let late = last["recoverable_ns"].as_u64().unwrap() - last["cut_ns"].as_u64().unwrap();
    assert!(late < SECOND, "{last}");
}
