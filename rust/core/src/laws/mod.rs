//! The laws that every filter keeps, whoever made it, tested in virtual time over a hostile device.
//!
//! Each law has a name, and a filter that breaks one is told so by that name, with what was seen.
//! The device is `sim` with a volatile write cache, faults and losses of power.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::Serialize;

use self::bed::{Bed, DISK_BYTES, LENT, Plan};
use self::probes::{Count, Probe, Refuse};
use crate::backends::sim::faults::Faults;
use crate::backends::sim::platter::{self, Platter, SharedPlatter, mix};
use crate::backends::sim::{Sim, SimModel};
use crate::backends::store::Place;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::filters::{DataMode, Filter, Properties, Setting};
use crate::hop::{self, Placement, Where};
use crate::io::{Op, flags};

pub(crate) mod bed;
mod below;
mod declared;
mod errors;
mod probes;
mod server;
#[cfg(test)]
mod tests;
mod tokens;

pub use self::server::certify_server;

/// Builds the filter under test, as often as it is asked to.
pub type Build<'a> = &'a dyn Fn() -> Result<(Box<dyn Filter>, Properties)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Held,
    Broken,
    NotTested,
}

/// What came of one law.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub law: &'static str,
    pub says: &'static str,
    pub outcome: Outcome,
    /// What was seen, or why it was not tested.
    pub detail: String,
}

/// What was wrong, if anything was.
type Seen = Result<Option<String>>;
type Test = fn(&Subject<'_>) -> Seen;

struct Subject<'a> {
    build: Build<'a>,
    seed: u64,
    /// Where the filter runs, if not in the chain itself.
    placement: Option<Where>,
    /// Of the forty crashes, each so-manieth.
    crash_step: usize,
}

/// THE list: name, what it says, its test.
const LAWS: &[(&str, &str, Test)] = &[
    ("read_after_write", "a read returns what was last written there", read_after_write),
    ("unaligned_edges", "so it does for single sectors at any offset", unaligned_edges),
    (
        "discard_then_zeroes",
        "a discarded range can be read and written again, and write_zeroes reads as zeros",
        discard_then_zeroes,
    ),
    ("short_io", "a device that takes I/Os in parts changes nothing", short_io),
    (
        "errors_pass_up",
        "an error from below reaches the guest unchanged, and the guest is told of no other",
        errors::errors_pass_up,
    ),
    (
        "completion_scope",
        "every I/O that passed down comes back up once, and below a failure nothing is told",
        completion_scope,
    ),
    (
        "flush_durability",
        "what was acknowledged before a flush outlives a crash after it",
        flush_durability,
    ),
    ("fua_durability", "a write with FUA outlives a crash after it", fua_durability),
    (
        "crash_at_any_point",
        "after a crash, torn writes included, every sector holds a version that it may hold",
        crash_at_any_point,
    ),
    ("determinism", "the same run gives the same rows and the same bytes", determinism),
    (
        "transparent",
        "where it declares so, a reader below sees what was written above",
        declared::transparent,
    ),
    ("may_answer", "it answers an I/O by itself only where it declares so", declared::may_answer),
    ("may_defer", "it holds an I/O only where it declares so", declared::may_defer),
    (
        "reorders",
        "writes come below in the order in which they came, unless it declares otherwise",
        below::reorders,
    ),
    (
        "changes_length",
        "what is written below lies where it was written above, unless it declares otherwise",
        below::changes_length,
    ),
    ("unit_bytes", "what it does below for an I/O stays within the I/O's units", below::unit_bytes),
    (
        "children_per_io",
        "it has no more I/Os of its own open for one I/O than it declares",
        declared::children_per_io,
    ),
    (
        "background_ios",
        "it has no more I/Os of its own open in the background than it declares",
        declared::background_ios,
    ),
    (
        "persists",
        "after a clean end the disk has everything, unless it declares that it keeps data itself",
        below::persists,
    ),
    (
        "contract",
        "it asks for nothing that the interface forbids, and raises no exception",
        declared::contract,
    ),
];

/// Every law by name, with what it says, in the order in which they are tested.
#[must_use]
pub fn names() -> Vec<(&'static str, &'static str)> {
    LAWS.iter().map(|(law, says, _)| (*law, *says)).collect()
}

/// Tests the filter where its policy places it, or in the chain itself: against every law, or
/// against the one of that name.
#[must_use]
pub fn certify(
    build: Build<'_>,
    seed: u64,
    placement: Option<Where>,
    only: Option<&str>,
) -> Vec<Finding> {
    certify_by(&Subject { build, seed, placement, crash_step: 1 }, only)
}

fn certify_by(subject: &Subject<'_>, only: Option<&str>) -> Vec<Finding> {
    // One that cannot be built is told so by every law.
    let built = catch_unwind(AssertUnwindSafe(|| (subject.build)()));
    let properties = built.ok().and_then(Result::ok).map(|(_, properties)| properties);
    LAWS.iter()
        .filter(|(law, ..)| only.is_none_or(|only| only == *law))
        .map(|(law, says, test)| {
            if let Some(why) = properties.and_then(|declared| declared::untested(law, &declared)) {
                let (outcome, detail) = (Outcome::NotTested, why.to_owned());
                return Finding { law, says, outcome, detail };
            }
            // A filter that panics has broken the law that it was tested for.
            let seen = catch_unwind(AssertUnwindSafe(|| test(subject)));
            let wrong = match seen {
                Ok(Ok(wrong)) => wrong,
                Ok(Err(error)) => Some(error.to_string()),
                Err(panic) => Some(format!("it panicked: {}", words_of(&*panic))),
            };
            let outcome = if wrong.is_some() { Outcome::Broken } else { Outcome::Held };
            Finding { law, says, outcome, detail: wrong.unwrap_or_default() }
        })
        .collect()
}

/// What a filter under test is built with.
#[must_use]
pub fn setting(seed: u64) -> Setting {
    Setting {
        disk: "disk".to_owned(),
        disks: vec!["disk".to_owned()],
        disk_index: 0,
        local_index: 0,
        layer: 0,
        disk_bytes: vec![DISK_BYTES],
        extents: Vec::new(),
        disk_ids: Vec::new(),
        disk_writers: Vec::new(),
        writer: 0,
        is_virtual: true,
        seed,
        data: DataMode::Bytes,
        longest_bytes: 64 << 10,
        run: "certify".to_owned(),
    }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// A callback that takes longer has hung.
const HANG_NS: u64 = 10_000_000_000;

impl Subject<'_> {
    /// The filter's layers in a chain.
    fn built(&self) -> Result<Vec<(Box<dyn Filter>, Properties)>> {
        let (filter, properties) = (self.build)()?;
        let Some(placement) = self.placement else { return Ok(vec![(filter, properties)]) };
        hop::check(&properties)?;
        let placement = Placement { placement, spin_ns: 0, hang_ns: HANG_NS };
        let (stand_in, mark) = hop::layers(placement, filter, None, LENT);
        let inside = Properties::TRANSPARENT;
        Ok(vec![(Box::new(stand_in), properties), (Box::new(mark), inside)])
    }

    fn bed(&self, model: SimModel, platter: &SharedPlatter, is_blank: bool) -> Result<Bed> {
        let built = self.built()?;
        let device = Box::new(Sim::on(model, Arc::clone(platter)));
        // Through a filter that transforms data, zeros of the device are not zeros.
        let is_blank = is_blank && built.iter().all(|(_, properties)| properties.transparent);
        Bed::new(built, device, Clock::Virtual(0), is_blank)
    }

    fn mixed(&self, model: SimModel, plan: &[Plan]) -> Seen {
        let platter = fresh();
        let mut bed = self.bed(model, &platter, true)?;
        bed.run(plan, u64::MAX >> 1)?;
        bed.read_all()?;
        bed.close()?;
        Ok(bed.wrong)
    }
}

fn fresh() -> SharedPlatter {
    Platter::shared(DataMode::Bytes, true)
}

fn model(seed: u64, faults: Faults) -> SimModel {
    SimModel { write_cache: true, seed, faults, ..SimModel::default() }
}

/// I/Os drawn from `ops`, in bursts, at multiples of `unit` bytes.
fn plan(seed: u64, ios: u64, unit: u64, ops: &[(Op, u32)]) -> Vec<Plan> {
    let units = DISK_BYTES / unit;
    (0..ios)
        .map(|i| {
            let draw = |what: u64| mix(mix(seed ^ what) ^ i);
            let (op, flags) = ops[(draw(1) % ops.len() as u64) as usize];
            let length = (1 + draw(2) % 16).min(units);
            let offset = draw(3) % (units - length + 1);
            let (offset, length) = if op == Op::Flush { (0, 0) } else { (offset, length) };
            Plan {
                at_ns: i / 4 * 40_000,
                op,
                offset_bytes: offset * unit,
                length_bytes: length * unit,
                flags,
            }
        })
        .collect()
}

const EVERYTHING: &[(Op, u32)] = &[
    (Op::Read, 0),
    (Op::Read, 0),
    (Op::Write, 0),
    (Op::Write, 0),
    (Op::Write, flags::FUA),
    (Op::WriteZeroes, 0),
    (Op::Flush, 0),
    (Op::Discard, 0),
];

/// Without discards, after which nobody knows what is there.
const READS_AND_WRITES: &[(Op, u32)] = EVERYTHING.split_at(EVERYTHING.len() - 1).0;

fn read_after_write(subject: &Subject<'_>) -> Seen {
    let calm = model(subject.seed, Faults::default());
    subject.mixed(calm, &plan(subject.seed, 2000, 4096, READS_AND_WRITES))
}

fn unaligned_edges(subject: &Subject<'_>) -> Seen {
    let calm = model(subject.seed, Faults::default());
    subject.mixed(calm, &plan(subject.seed ^ 1, 2000, 512, READS_AND_WRITES))
}

fn discard_then_zeroes(subject: &Subject<'_>) -> Seen {
    let calm = model(subject.seed, Faults::default());
    let ops = [(Op::Read, 0), (Op::Write, 0), (Op::Discard, 0), (Op::WriteZeroes, 0)];
    subject.mixed(calm, &plan(subject.seed ^ 2, 1500, 512, &ops))
}

fn short_io(subject: &Subject<'_>) -> Seen {
    let faults = Faults { short_rate: 0.5, spike_rate: 0.05, spike_ns: 5_000_000, ..no_faults() };
    let device = model(subject.seed, faults);
    let platter = fresh();
    let mut bed = subject.bed(device, &platter, true)?;
    bed.run(&plan(subject.seed ^ 3, 1000, 4096, READS_AND_WRITES), u64::MAX >> 1)?;
    Ok(bed.wrong)
}

fn no_faults() -> Faults {
    Faults::default()
}

fn completion_scope(subject: &Subject<'_>) -> Seen {
    let (above, below, beneath) = (Count::shared(), Count::shared(), Count::shared());
    let mut chain = vec![Probe::built(&above)];
    chain.extend(subject.built()?);
    chain.extend([
        Probe::built(&below),
        Refuse::built(Op::WriteZeroes, libc::ENOSPC, &Count::shared()),
        Probe::built(&beneath),
    ]);
    let device = Box::new(Sim::on(model(subject.seed, no_faults()), fresh()));
    let mut bed = Bed::new(chain, device, Clock::Virtual(0), false)?;
    (bed.verifies, bed.may_fail) = (false, true);
    bed.run(&plan(subject.seed ^ 5, 1000, 4096, READS_AND_WRITES), u64::MAX >> 1)?;
    bed.close()?;
    if bed.wrong.is_some() {
        return Ok(bed.wrong);
    }
    for (name, count) in [("above", &above), ("below", &below), ("beneath", &beneath)] {
        let (down, up) = count.read();
        if down != up {
            return Ok(Some(format!("{down} I/Os went down {name} it, {up} came up")));
        }
    }
    let (saw, _) = above.read();
    let asked = bed.rows.len() as u64;
    Ok((saw != asked).then(|| format!("of {asked} I/Os the filter above was told of {saw}")))
}

/// Crashes after more and more completions; what must have survived is read by a new instance.
fn crashes(subject: &Subject<'_>, ops: &[(Op, u32)], torn: bool, unit: u64) -> Seen {
    let rounds = 40;
    let whole = plan(subject.seed ^ 6, 320, unit, ops);
    for round in (0..rounds).step_by(subject.crash_step) {
        let seed = mix(subject.seed ^ round);
        let platter = fresh();
        let mut bed = subject.bed(model(seed, no_faults()), &platter, true)?;
        bed.run(&whole, 4 + round * 8)?;
        if bed.wrong.is_some() {
            return Ok(bed.wrong);
        }
        let memory = bed.into_memory();
        platter::lock(&platter).crash(seed, torn);
        let mut bed = subject.bed(model(seed ^ 1, no_faults()), &platter, false)?;
        bed.after_crash(memory);
        bed.read_all()?;
        if let Some(words) = bed.wrong {
            let after = 4 + round * 8;
            return Ok(Some(format!("after a crash behind {after} completions: {words}")));
        }
    }
    Ok(None)
}

fn flush_durability(subject: &Subject<'_>) -> Seen {
    let ops = [(Op::Write, 0), (Op::Write, 0), (Op::Write, 0), (Op::Flush, 0)];
    crashes(subject, &ops, false, 4096)
}

fn fua_durability(subject: &Subject<'_>) -> Seen {
    crashes(subject, &[(Op::Write, 0), (Op::Write, flags::FUA)], false, 4096)
}

fn crash_at_any_point(subject: &Subject<'_>) -> Seen {
    crashes(subject, READS_AND_WRITES, true, 512)
}

fn determinism(subject: &Subject<'_>) -> Seen {
    let once = || -> Result<(Vec<bed::Row>, Vec<u8>)> {
        let platter = fresh();
        let mut bed = subject.bed(model(subject.seed, no_faults()), &platter, true)?;
        // The rows have what failed.
        (bed.verifies, bed.may_fail) = (false, true);
        bed.run(&plan(subject.seed ^ 7, 800, 4096, READS_AND_WRITES), u64::MAX >> 1)?;
        bed.close()?;
        if let Some(words) = bed.wrong {
            return Err(Error::failed(words));
        }
        let mut image = vec![0; DISK_BYTES as usize];
        let place = Place { disk: 0, offset_bytes: 0, length_bytes: DISK_BYTES };
        platter::lock(&platter).seen().read(place, &mut image);
        Ok((bed.rows, image))
    };
    let (first, second) = (once()?, once()?);
    let same_rows = first.0 == second.0;
    Ok((first != second).then(|| {
        let what = if same_rows { "bytes on the device" } else { "rows" };
        format!("two runs of one seed gave different {what}")
    }))
}
