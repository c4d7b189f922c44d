//! The filter over a device of its own in virtual time.

use serde_json::{Value, json};

use super::super::DataMode;
use super::super::testing::Rig;
use crate::io::Op;

const SECOND: u64 = 1_000_000_000;

#[test]
fn what_a_failed_sync_has_not_brought_comes_with_the_next() {
    let params = json!({"every": "1s", "link": {"bandwidth": "80Mbit/s"}});
    let mut rig = Rig::new(&[("snapshot", params)], DataMode::Tokens, 1 << 20);
    rig.reopen();
    rig.io(SECOND / 2, Op::Write, 0, 4096);
    rig.io(SECOND / 2, Op::Write, 65_536, 4096);
    rig.device.lock().unwrap().fail = Some((Op::Read, 0..4096));
    rig.run_until(SECOND * 5 / 4);
    rig.device.lock().unwrap().fail = None;
    // What is written after the cut that failed goes with what it left.
    rig.io(SECOND * 3 / 2, Op::Write, 131_072, 4096);
    rig.io(SECOND * 5 / 2, Op::Read, 0, 4096);
    rig.run();
    rig.close();
    let told: Vec<(&str, Value)> = rig
        .take_events()
        .iter()
        .filter(|event| ["fault", "restore_point"].contains(&event.kind))
        .map(|event| (event.kind, serde_json::from_str(&event.detail).unwrap()))
        .collect();
    assert_eq!(told[0].0, "fault", "{told:?}");
    let (kind, point) = &told[1];
    assert_eq!(
        (*kind, &point["cut_ns"], &point["bytes"]),
        ("restore_point", &json!(2 * SECOND), &json!(3 * 4096)),
        "{told:?}"
    );
}
