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

const MS: u64 = SECOND / 1_000;

/// Cut, when recoverable and bytes of the points over a link of 1 MB/s, ms: 500 kB are written at
/// 0.5 s, one block at 5.5 s.
fn points(link: &Value) -> Vec<[u64; 3]> {
    let params = json!({"every": "1s", "link": link});
    let mut rig = Rig::new(&[("snapshot", params)], DataMode::Tokens, 1 << 20);
    rig.reopen();
    for i in 0..125 {
        rig.io(SECOND / 2, Op::Write, i * 4096, 4096);
    }
    rig.io(SECOND * 11 / 2, Op::Write, 0, 4096);
    rig.io(SECOND * 19 / 2, Op::Read, 0, 4096);
    rig.run();
    rig.close();
    let points = rig.take_events().into_iter().filter(|event| event.kind == "restore_point");
    points
        .map(|event| {
            let detail: Value = serde_json::from_str(&event.detail).unwrap();
            let of = |key: &str| detail[key].as_u64().unwrap();
            [of("cut_ns") / MS, of("recoverable_ns") / MS, of("bytes")]
        })
        .collect()
}

#[test]
fn a_transfer_takes_as_much_longer_as_nothing_passes() {
    let link = |faults: Value| json!({"bandwidth": "8Mbit/s", "rtt": "20ms", "faults": faults});
    let undisturbed = points(&link(json!([])));
    // From 1 s on 512 kB in 512 ms, and half a round trip; reads take a little.
    let [cut, recoverable, bytes] = undisturbed[0];
    assert_eq!((cut, bytes), (1_000, 125 * 4096));
    assert!((1_522..1_530).contains(&recoverable), "{recoverable}");
    let late = |faults: Value| {
        let [cut, late, bytes] = points(&link(faults))[0];
        assert_eq!((cut, bytes), (1_000, 125 * 4096));
        late - recoverable
    };
    let outage = json!({"kind": "outage", "at": "1200ms", "for": "3s"});
    assert_eq!(late(json!([outage])), 3_000);
    // Away before, and over again.
    assert_eq!(late(json!([{"kind": "outage", "at": "100ms", "for": "300ms"}])), 0);
    // Half the bandwidth for the last 312 ms or so of it.
    let slower = late(json!([{"kind": "bandwidth", "at": "1200ms", "bandwidth": "4Mbit/s"}]));
    assert!((310..320).contains(&slower), "{slower}");
    assert_eq!(late(json!([{"kind": "rtt", "at": "1200ms", "rtt": "220ms"}])), 100);
    // It goes on where it was: after 100 ms, three round trips, and what was on its way.
    let again = late(json!([{"kind": "reset", "at": "1200ms"}]));
    assert_eq!(again, 100 + 3 * 20 + 10);
    let restart = late(json!([{"kind": "restart", "at": "1200ms", "for": "1s"}]));
    assert_eq!(restart, 1_000 + 3 * 20 + 10);
}

#[test]
fn a_snapshot_with_nothing_to_send_is_a_point_when_it_is_heard_of() {
    let outage = json!({"kind": "outage", "at": "3500ms", "for": "1800ms"});
    let link = json!({"bandwidth": "8Mbit/s", "faults": [outage]});
    let idle: Vec<[u64; 2]> =
        points(&link)[1..].iter().map(|[cut, heard, _]| [*cut, *heard]).collect();
    // That of 4 s is heard of at 5.3 s, and that of 5 s is cut then.
    let expected = [[2_000, 2_000], [3_000, 3_000], [4_000, 5_300], [5_300, 5_300]];
    assert_eq!(idle[..4], expected, "{idle:?}");
    assert_eq!(idle[4][0], 6_000);
    // A write meanwhile goes with the next, which waits for its end.
    let outage = json!({"kind": "outage", "at": "4800ms", "for": "2s"});
    let link = json!({"bandwidth": "8Mbit/s", "faults": [outage]});
    let of: Vec<[u64; 3]> = points(&link).into_iter().filter(|[cut, ..]| *cut >= 5_000).collect();
    assert_eq!(of[0], [5_000, 6_800, 0], "{of:?}");
    assert_eq!([of[1][0], of[1][2]], [6_800, 4096], "{of:?}");
}

#[test]
fn a_fault_that_lacks_something_is_named() {
    let link = json!({"bandwidth": "8Mbit/s", "faults": [{"kind": "outage", "at": "1s"}]});
    let params = json!({"every": "1s", "link": link});
    let setting = super::super::testing::setting(DataMode::Tokens);
    let refused = super::build(&params, &setting).err().unwrap();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].path, "link.faults[0].for");
}
