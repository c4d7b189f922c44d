//! What follows from what a filter declares of itself.

use super::bed::{Bed, DISK_BYTES};
use super::probes::{Tracer, Trail, Trails, seen};
use super::{EVERYTHING, Seen, Subject, fresh, model, no_faults, plan};
use crate::backends::sim::Sim;
use crate::backends::sim::faults::Faults;
use crate::backends::sim::platter;
use crate::backends::store::Place;
use crate::clock::{Clock, Ns};
use crate::error::Result;
use crate::filters::Properties;
use crate::io::OK;
use crate::pipeline::Most;

/// One I/O after the other, so that none that comes lets another go on by chance.
const GAP_NS: Ns = 50_000;

/// Why a law says nothing of a filter that declares this, if it does not.
pub fn untested(law: &str, declared: &Properties) -> Option<&'static str> {
    match law {
        "transparent" if !declared.transparent => {
            Some("it does not declare that a reader below sees what was written")
        }
        "may_answer" if declared.may_answer => Some("it declares that it may"),
        "may_defer" if declared.may_defer => Some("it declares that it may"),
        "reorders" if declared.reorders => Some("it declares that it may"),
        "changes_length" | "unit_bytes" if declared.changes_length => {
            Some("it declares that what it writes below is laid out otherwise")
        }
        _ => None,
    }
}

/// What is below at any time is what was acknowledged above.
pub fn transparent(subject: &Subject<'_>) -> Seen {
    let platter = fresh();
    let mut bed = subject.bed(model(subject.seed, no_faults()), &platter, true)?;
    bed.may_fail = true;
    bed.run(&plan(subject.seed ^ 8, 1000, 512, EVERYTHING), u64::MAX >> 1)?;
    let mut image = vec![0; DISK_BYTES as usize];
    let place = Place { disk: 0, offset_bytes: 0, length_bytes: DISK_BYTES };
    platter::lock(&platter).seen().read(place, &mut image);
    Ok(bed.wrong.take().or_else(|| bed.missing_in(&image)))
}

pub fn may_answer(subject: &Subject<'_>) -> Seen {
    let is_answered =
        |trail: &Trail| trail.status == OK && trail.below_ns.is_none() && !trail.is_forked;
    trace(subject, is_answered, "was answered, and nothing below was asked for it")
}

pub fn may_defer(subject: &Subject<'_>) -> Seen {
    let is_deferred = |trail: &Trail| {
        let kept = match trail.below_ns {
            Some((down, up)) => down > trail.above_ns || trail.end_ns > up,
            None => trail.end_ns > trail.above_ns,
        };
        kept || trail.is_forked
    };
    trace(subject, is_deferred, "was held, over time or for an I/O of the filter's own")
}

/// The first I/O with such a trail through the filter, and in words what is wrong with it.
fn trace(subject: &Subject<'_>, is_wrong: impl Fn(&Trail) -> bool, words: &str) -> Seen {
    let trails = Trails::default();
    let mut chain = vec![Tracer::built(&trails, true)];
    chain.extend(subject.built()?);
    chain.push(Tracer::built(&trails, false));
    let device = Box::new(Sim::on(model(subject.seed, no_faults()), fresh()));
    let mut bed = Bed::new(chain, device, Clock::Virtual(0), false)?;
    (bed.verifies, bed.may_fail) = (false, true);
    let mut ios = plan(subject.seed ^ 9, 800, 4096, EVERYTHING);
    for (io, at_ns) in ios.iter_mut().zip((0..).step_by(GAP_NS as usize)) {
        io.at_ns = at_ns;
    }
    bed.run(&ios, u64::MAX >> 1)?;
    if bed.wrong.is_some() {
        return Ok(bed.wrong);
    }
    let trails = seen(&trails);
    let first = bed.rows.iter().filter(|row| trails.get(&row.seq).is_some_and(&is_wrong));
    let first = first.min_by_key(|row| row.seq);
    Ok(first.map(|row| format!("{} {} {words}", row.op.name(), row.seq)))
}

/// A run has slots for what is declared: what is beyond is refused there, or missing elsewhere.
pub fn children_per_io(subject: &Subject<'_>) -> Seen {
    let declared = (subject.build)()?.1.children_per_io;
    Ok(beyond("children_per_io", declared, crowded(subject)?.children, " for one I/O"))
}

pub fn background_ios(subject: &Subject<'_>) -> Seen {
    let declared = (subject.build)()?.1.background_ios;
    Ok(beyond("background_ios", declared, crowded(subject)?.background, " in the background"))
}

fn beyond(property: &str, declared: u32, most: u32, what: &str) -> Option<String> {
    (most > declared).then(|| {
        format!(
            "it had {most} I/Os of its own open at one time{what}, with {property} = {declared} \
             declared"
        )
    })
}

/// The most I/Os of its own, as many others at once as there can be, over a device that is quick,
/// slow or fails. What else goes wrong is another law's business.
fn crowded(subject: &Subject<'_>) -> Result<Most> {
    let slow = Faults { spike_rate: 0.3, spike_ns: 20_000_000, ..no_faults() };
    let failing = Faults { error_rate: 0.1, short_rate: 0.2, ..slow };
    let mut most = Most::default();
    for (faults, unit) in [(no_faults(), 4096), (slow, 4096), (slow, 512), (failing, 512)] {
        let mut bed = subject.bed(model(subject.seed, faults), &fresh(), false)?;
        (bed.verifies, bed.may_fail) = (false, true);
        let mut ios = plan(subject.seed ^ 16 ^ unit, 600, unit, EVERYTHING);
        ios.iter_mut().for_each(|io| io.at_ns = 0);
        bed.run(&ios, u64::MAX >> 1)?;
        bed.close()?;
        most.children = most.children.max(bed.most().children);
        most.background = most.background.max(bed.most().background);
    }
    Ok(most)
}

/// Its calls are those that the interface allows, whatever happens to it.
pub fn contract(subject: &Subject<'_>) -> Seen {
    let rates = Faults { error_rate: 0.05, short_rate: 0.2, spike_rate: 0.05, ..no_faults() };
    for (faults, unit) in [(no_faults(), 4096), (rates, 512)] {
        let platter = fresh();
        let mut bed = subject.bed(model(subject.seed, faults), &platter, false)?;
        (bed.verifies, bed.may_fail) = (false, true);
        bed.run(&plan(subject.seed ^ 10, 800, unit, EVERYTHING), u64::MAX >> 1)?;
        bed.close()?;
        if bed.wrong.is_some() {
            return Ok(bed.wrong);
        }
    }
    Ok(None)
}
