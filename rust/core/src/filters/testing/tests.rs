//! The walked example of CONTRIBUTING.md does what it says.

use serde_json::{Value, json};

use super::{Rig, setting, stall};
use crate::filters::{Built, DataMode};
use crate::io::{OK, Op};

fn built(params: Value) -> Built {
    (stall::KIND.build)(&params, &setting(DataMode::Bytes))
}

#[test]
fn writes_past_the_budget_fail_and_reads_go_on() {
    let chain = built(json!({"budget": "8KiB"})).expect("valid");
    let mut rig = Rig::of(vec![chain], DataMode::Bytes, 1 << 20);
    let writes: Vec<_> = (0..3).map(|i| rig.one(Op::Write, i * 4096, 4096).status).collect();
    assert_eq!(writes, [OK, OK, libc::ENOSPC]);
    assert_eq!(rig.one(Op::Read, 0, 4096).status, OK);
}

#[test]
fn its_faults_are_named() {
    for (params, path) in [(json!({}), "budget"), (json!({"budget": "lots"}), "budget")] {
        assert_eq!(built(params).err().expect("a fault")[0].path, path);
    }
}
