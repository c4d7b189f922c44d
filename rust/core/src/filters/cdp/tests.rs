//! The filter over a device of its own in virtual time.

use serde_json::{Value, json};

use super::super::DataMode;
use super::super::testing::Rig;
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
