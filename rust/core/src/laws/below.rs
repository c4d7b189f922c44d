//! What a filter does below itself: in which order, where and how much, and what it leaves there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::bed::{Bed, DISK_BYTES, Plan};
use super::probes::{Look, Shared, seen};
use super::tokens::{sectors, written_by};
use super::{EVERYTHING, READS_AND_WRITES, Seen, Subject, fresh, model, no_faults, plan};
use crate::backends::sim::Sim;
use crate::backends::sim::platter::{self, Platter};
use crate::backends::store::Place;
use crate::clock::Clock;
use crate::error::Result;
use crate::filters::{DataMode, Filter, Properties, SECTOR_BYTES};
use crate::int_map::IntMap;
use crate::io::{OK, Op};
use crate::slab::{Io, NONE};

type Layer = (Box<dyn Filter>, Properties);

/// Runs the I/Os through the filter and what looks on beside it, and lets it write back.
fn run(subject: &Subject<'_>, above: Option<Layer>, below: Layer, ios: &[Plan]) -> Result<Bed> {
    let mut chain: Vec<Layer> = above.into_iter().collect();
    chain.extend(subject.built()?);
    chain.push(below);
    let device = Box::new(Sim::on(model(subject.seed, no_faults()), fresh()));
    let mut bed = Bed::new(chain, device, Clock::Virtual(0), false)?;
    (bed.verifies, bed.may_fail) = (false, true);
    bed.run(ios, u64::MAX >> 1)?;
    bed.close()?;
    Ok(bed)
}

fn unit_of(subject: &Subject<'_>) -> Result<u64> {
    Ok((subject.build)()?.1.unit_bytes.max(1))
}

/// In which order changes come above, and which of them have come below.
#[derive(Default)]
struct Order {
    above: IntMap<u64>,
    below: BTreeSet<u64>,
    /// Of those below the one that came last above.
    latest: Option<u64>,
    wrong: Option<(u64, u64)>,
}

impl Order {
    fn comes_below(&mut self, seqs: impl Iterator<Item = u64>) {
        let mut new: Vec<u64> = seqs.filter(|seq| self.above.contains_key(seq)).collect();
        new.retain(|seq| self.below.insert(*seq));
        let place = |seq: &u64| self.above[seq];
        if let (Some(first), Some(latest)) = (new.iter().copied().min_by_key(place), self.latest)
            && place(&first) < place(&latest)
        {
            self.wrong.get_or_insert((first, latest));
        }
        self.latest = new.into_iter().chain(self.latest).max_by_key(place);
    }
}

/// Of an I/O that the filter has for itself its data tell which writes it carries.
pub fn reorders(subject: &Subject<'_>) -> Seen {
    let order: Shared<Order> = Arc::default();
    let (of_above, of_below) = (Arc::clone(&order), Arc::clone(&order));
    let above = Look::built(move |cx, id| {
        let (io, mut order) = (cx.io(id), seen(&of_above));
        if io.op.modifies() {
            let place = order.above.len() as u64;
            order.above.insert(io.seq, place);
        }
    });
    let below = Look::built(move |cx, id| {
        let (io, mut order) = (cx.io(id), seen(&of_below));
        if !io.op.modifies() {
            return;
        }
        if io.root != NONE && order.above.contains_key(&io.seq) {
            order.comes_below(std::iter::once(io.seq));
        } else if io.op == Op::Write {
            order.comes_below(written_by(cx.data(id)));
        }
    });
    let ios = plan(subject.seed ^ 11, 1000, 512, EVERYTHING);
    let bed = run(subject, Some(above), below, &ios)?;
    let wrong = seen(&order).wrong.map(|(late, early)| {
        let name = |seq: u64| format!("{} {seq}", ios[seq as usize].op.name());
        format!("{} came below after {}, which had come after it", name(late), name(early))
    });
    Ok(bed.wrong.or(wrong))
}

/// Runs of few I/Os each, so that most of the disk is left alone.
const SPARSE: u64 = 8;
const SPARSE_IOS: u64 = 20;

/// At the end the places that were written below are those that were written above.
pub fn changes_length(subject: &Subject<'_>) -> Seen {
    let unit = unit_of(subject)?;
    let persists = (subject.build)()?.1.persists;
    let writes = |op: Op| matches!(op, Op::Write | Op::WriteZeroes);
    for round in 0..SPARSE {
        let below: Shared<BTreeSet<u64>> = Arc::default();
        let of_look = Arc::clone(&below);
        let look = Look::built(move |cx, id| {
            let io = cx.io(id);
            if writes(io.op) {
                seen(&of_look).extend(sectors(&plan_of(io)));
            }
        });
        let ios = plan(subject.seed ^ 12 ^ (round << 8), SPARSE_IOS, 512, READS_AND_WRITES);
        let bed = run(subject, None, look, &ios)?;
        if bed.wrong.is_some() {
            return Ok(bed.wrong);
        }
        let done = bed.rows.iter().filter(|row| row.status == OK && writes(row.op));
        let above: BTreeSet<u64> = done.flat_map(|row| sectors(&ios[row.seq as usize])).collect();
        let below = seen(&below);
        // One that keeps data for the next run may not have brought them to the disk in this one.
        if let Some(sector) = above.difference(&below).next().filter(|_| !persists) {
            return Ok(Some(format!("sector {sector} was written above, and not below")));
        }
        let units =
            |sector: u64| sector * SECTOR_BYTES / unit..=((sector + 1) * SECTOR_BYTES - 1) / unit;
        let asked: BTreeSet<u64> = above.iter().flat_map(|sector| units(*sector)).collect();
        let strange = below.iter().find(|sector| units(**sector).any(|at| !asked.contains(&at)));
        if let Some(sector) = strange {
            return Ok(Some(format!(
                "sector {sector} was written below, and above nothing in its {unit} bytes"
            )));
        }
    }
    Ok(None)
}

fn plan_of(io: &Io) -> Plan {
    let Io { op, offset_bytes, length_bytes, flags, .. } = *io;
    Plan { at_ns: 0, op, offset_bytes, length_bytes, flags }
}

/// The I/Os of others wait for no more than the units of an I/O: beyond them they are in danger.
pub fn unit_bytes(subject: &Subject<'_>) -> Seen {
    let unit = unit_of(subject)?;
    let wrong: Shared<Option<String>> = Arc::default();
    let of_look = Arc::clone(&wrong);
    let look = Look::built(move |cx, id| {
        let io = cx.io(id);
        if io.root == NONE || io.root == id || io.op == Op::Flush {
            return;
        }
        // What a flush takes along is not its own.
        let asked = cx.io(io.root);
        let (start, end) = (asked.offset_bytes, asked.offset_bytes + asked.length_bytes);
        let (start, end) = (start / unit * unit, end.next_multiple_of(unit));
        let is_within = start <= io.offset_bytes && io.offset_bytes + io.length_bytes <= end;
        if asked.op != Op::Flush && !is_within {
            seen(&of_look).get_or_insert_with(|| {
                format!(
                    "for {} {} of {} bytes at {} it did a {} of {} bytes at {} below, with units \
                     of {unit} declared",
                    asked.op.name(),
                    asked.seq,
                    asked.length_bytes,
                    asked.offset_bytes,
                    io.op.name(),
                    io.length_bytes,
                    io.offset_bytes,
                )
            });
        }
    });
    let bed = run(subject, None, look, &plan(subject.seed ^ 13, 800, 512, EVERYTHING))?;
    let wrong = seen(&wrong).take();
    Ok(bed.wrong.or(wrong))
}

/// A run ends, and another one begins with what there is then.
pub fn persists(subject: &Subject<'_>) -> Seen {
    let persists = (subject.build)()?.1.persists;
    let platter = fresh();
    let mut bed = subject.bed(model(subject.seed, no_faults()), &platter, true)?;
    bed.may_fail = true;
    let everything = plan(subject.seed ^ 14, 1000, 512, READS_AND_WRITES);
    bed.run(&everything, u64::MAX >> 1)?;
    // No flush comes after these: the end alone is what they are written for.
    let last = plan(subject.seed ^ 15, SPARSE_IOS, 512, &[(Op::Write, 0), (Op::WriteZeroes, 0)]);
    bed.run(&last, u64::MAX >> 1)?;
    bed.close()?;
    if bed.wrong.is_some() {
        return Ok(bed.wrong);
    }
    let known = bed.into_known();
    // Devices of its own are blank, unless it declares that it needs them.
    let platter = if persists { platter } else { Arc::new(Mutex::new(disk_of(&platter))) };
    let mut bed = subject.bed(model(subject.seed ^ 1, no_faults()), &platter, false)?;
    bed.expect(known);
    bed.may_fail = true;
    bed.read_all()?;
    Ok(bed.wrong.map(|words| format!("in a run after a clean end: {words}")))
}

/// A device that holds what the guest's disk holds, and nothing else.
fn disk_of(platter: &platter::SharedPlatter) -> Platter {
    let mut image = vec![0; DISK_BYTES as usize];
    let place = Place { disk: 0, offset_bytes: 0, length_bytes: DISK_BYTES };
    platter::lock(platter).seen().read(place, &mut image);
    let mut disk = Platter::new(DataMode::Bytes, true);
    disk.put(place, &image);
    disk
}
