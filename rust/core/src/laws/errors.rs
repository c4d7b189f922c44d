//! What the guest is told of what failed below: that, and nothing else.

use std::sync::{Arc, Mutex};

use super::bed::{Bed, Plan, Row};
use super::probes::{Count, Failure, Refuse, Witness, seen};
use super::{READS_AND_WRITES, Seen, Subject, fresh, model, no_faults, plan};
use crate::backends::sim::Sim;
use crate::backends::sim::faults::Faults;
use crate::clock::Clock;
use crate::filters::Filter;
use crate::io::{OK, Op, Status};

/// What the layer below fails with: what no filter would come by itself.
const REFUSAL: Status = libc::ENOSPC;

/// Each operation by itself over a layer that refuses it, then a device that fails now and then.
pub fn errors_pass_up(subject: &Subject<'_>) -> Seen {
    for op in [Op::Read, Op::Write, Op::Flush, Op::WriteZeroes, Op::Discard] {
        if let Some(words) = refused(subject, op)? {
            return Ok(Some(words));
        }
    }
    now_and_then(subject)
}

fn refused(subject: &Subject<'_>, op: Op) -> Seen {
    let refused = Count::shared();
    let mut chain = subject.built()?;
    chain.push(Refuse::built(op, REFUSAL, &refused));
    let device = Box::new(Sim::on(model(subject.seed, no_faults()), fresh()));
    let mut bed = Bed::new(chain, device, Clock::Virtual(0), false)?;
    bed.may_fail = true;
    let length = if op == Op::Flush { 0 } else { 4096 };
    let mut status = bed.one(op, 0, length)?;
    if status == OK && op.modifies() {
        // Taken in to be written later: the flush has to tell.
        status = bed.one(Op::Flush, 0, 0)?;
    }
    let name = op.name();
    Ok(match (refused.read().0 > 0, status) {
        (true, REFUSAL) => bed.wrong,
        (true, _) => Some(format!(
            "the layer below failed a {name} with ENOSPC ({REFUSAL}), the guest was told {status}"
        )),
        // A filter may ask for something else in its place: zeros by writes.
        (false, OK) => bed.wrong,
        (false, _) => {
            Some(format!("the guest was told {status} of a {name}, and nothing below had failed"))
        }
    })
}

fn now_and_then(subject: &Subject<'_>) -> Seen {
    let (filter, properties) = (subject.build)()?;
    // Where what fails cannot be seen from the chain, or is elsewhere than the guest asked, any
    // error that the device may have failed with is taken for its own.
    let is_blurred = properties.changes_length || !filter.auxiliaries().is_empty();
    drop::<Box<dyn Filter>>(filter);
    let failures = Arc::new(Mutex::new(Vec::new()));
    let mut chain = subject.built()?;
    chain.push(Witness::built(&failures));
    let faults = Faults { error_rate: 0.1, ..no_faults() };
    let device = Box::new(Sim::on(model(subject.seed, faults), fresh()));
    let mut bed = Bed::new(chain, device, Clock::Virtual(0), false)?;
    bed.may_fail = true;
    let mut ops = READS_AND_WRITES.to_vec();
    ops.push((Op::Discard, 0));
    let ios = plan(subject.seed ^ 4, 1500, 4096, &ops);
    bed.run(&ios, u64::MAX >> 1)?;
    if bed.wrong.is_some() {
        return Ok(bed.wrong);
    }
    let failures = seen(&failures);
    let told = bed.rows.iter().filter(|row| row.status != OK);
    let other = told.filter_map(|row| {
        let io = &ios[row.seq as usize];
        let what = format!("{} {}", row.op.name(), row.seq);
        let is_known = |f: &&Failure| f.at_ns <= row.complete_ns && f.status == row.status;
        let is_blurred = is_blurred && row.status == libc::EIO;
        if is_blurred || failures.iter().filter(is_known).any(|f| explains(f, row, io)) {
            return None;
        }
        let own = failures.iter().find(|f| f.seq == Some(row.seq));
        Some(match own {
            Some(own) => {
                format!("{} from below became {} for the guest, of {what}", own.status, row.status)
            }
            None => format!(
                "the guest was told {} of {what}, and nothing of it had failed below",
                row.status
            ),
        })
    });
    Ok(other.into_iter().next())
}

/// Whether this failure may be why the guest's I/O failed: it was done for it, or it is a flush,
/// which tells of what was done before; or it came while the guest waited, in the background or for
/// an I/O with some of the same sectors.
fn explains(failure: &Failure, row: &Row, io: &Plan) -> bool {
    if failure.seq == Some(row.seq) || row.op == Op::Flush {
        return true;
    }
    let end = failure.offset_bytes + failure.length_bytes;
    let overlaps =
        failure.offset_bytes < io.offset_bytes + io.length_bytes && io.offset_bytes < end;
    failure.at_ns > row.submit_ns && (failure.seq.is_none() || overlaps)
}
