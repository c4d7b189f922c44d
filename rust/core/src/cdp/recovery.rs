//! Recovery: an image of a replica store at one of its points.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::entry::Kind;
use super::store::{
    Damage, Durable, Epoch, Images, Marks, Owner, SegmentFile, StoredPoint, Term, copy_sparse,
    lacks, lock_for_reading, name_terms, read_owner, segment_files, walk,
};
use crate::clock::{Ns, monotonic_ns};
use crate::error::{Error, Result};

/// Which state is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Point(u64),
    /// The newest state at this time since the run's start.
    At(Ns),
    Latest,
}

/// What a store offers.
#[derive(Debug)]
pub struct Offer {
    pub owner: Owner,
    /// With anchors among them.
    points: Vec<StoredPoint>,
    /// The newest state of a continuous stream.
    newest_ns: Option<Ns>,
    pub journal_bytes: u64,
    /// The journal is good only up to here.
    pub damage: Option<Damage>,
    files: Vec<SegmentFile>,
    /// The site removes none of the files meanwhile.
    _lock: File,
}

impl Offer {
    /// The restore points.
    pub fn points(&self) -> impl DoubleEndedIterator<Item = &StoredPoint> {
        self.points.iter().filter(|point| !point.is_anchor)
    }

    /// From when to when every instant is on offer, but those in holes.
    #[must_use]
    pub fn instants(&self) -> Option<(Ns, Ns)> {
        let from = self.points.iter().find(|point| self.goes_on_after(point))?;
        Some((from.cut_ns, self.newest_ns?.max(from.cut_ns)))
    }

    /// Every instant after a point is one, too: unless what follows was merged into the next.
    fn goes_on_after(&self, point: &StoredPoint) -> bool {
        let next = self.files.iter().find(|file| file.number > point.segment);
        let ends = self.files.iter().any(|file| file.is_merged && file.number == point.segment);
        self.owner.is_continuous_at(point.no) && !(ends && next.is_some_and(|next| next.is_merged))
    }
}

/// What was recovered.
#[derive(Debug, serde::Serialize)]
pub struct Recovered {
    pub point: u64,
    pub kind: Term,
    pub cut_ns: Ns,
    /// Not the point's state, but one of a continuous stream after it.
    pub is_instant: bool,
    /// Time from the request until the image could be used.
    pub rto_ns: u64,
    pub applied_entries: u64,
    pub applied_bytes: u64,
    /// By disk.
    pub images: Vec<String>,
    /// The run whose state it is, and its start in the stream's time.
    pub epoch: Epoch,
    /// Where the journal is damaged, if it is: states after that are lost.
    pub damage: Option<String>,
}

/// Lists a store's points, as far as its journal is good.
///
/// # Errors
/// `Input` when the folder is no store.
pub fn offer(dir: &Path) -> Result<Offer> {
    let none = || {
        let within = dir.join("store").join("store.json").is_file();
        let hint = if within { ": that lies in the folder `store` of it" } else { "" };
        Error::input(format!("expected a replica store (there is no store.json{hint})"))
            .with("file", dir.display())
    };
    if read_owner(dir)?.is_none() {
        return Err(none());
    }
    let lock = lock_for_reading(dir)?;
    let owner = read_owner(dir)?.ok_or_else(none)?;
    let durable = Durable::of(dir, &owner);
    let (mut files, _) = segment_files(dir)?;
    files.retain(|file| file.number >= owner.first_segment);
    let (mut points, mut journal_bytes) = (Vec::new(), 0);
    let (mut marks, mut newest_ns) = (Marks::at_base(&owner), None);
    let mut last_no = owner.base_no.unwrap_or(0);
    let damage = walk(&files, &owner, true, |file, entry, _| {
        last_no = entry.no;
        if file.number >= owner.first_offered {
            points.extend(marks.pass(&owner, file, entry));
            // What was merged is no state before its end.
            let is_state = !file.is_merged || matches!(entry.kind, Kind::Point { .. });
            if is_state && owner.is_continuous_at(entry.no) {
                newest_ns = newest_ns.max(marks.state_ns());
            }
        }
        journal_bytes += entry.body.len() as u64;
        Ok(true)
    })?;
    name_terms(&mut points, owner.long_term, owner.base_ns);
    let damage = lacks(dir, &files, &owner, durable, last_no, damage)?;
    Ok(Offer { owner, points, newest_ns, journal_bytes, damage, files, _lock: lock })
}

/// Writes the images of a state: `out` is a file for one disk, a folder for several. They are
/// written aside and renamed.
///
/// # Errors
/// `Input` when there is no such point, or it lies behind damage.
pub fn recover(dir: &Path, wanted: Wanted, out: &Path) -> Result<Recovered> {
    let began_ns = monotonic_ns();
    let found = offer(dir)?;
    let (point, until_ns) = choose(&found, wanted, dir)?;
    let paths = image_paths(&found.owner.disks, out)?;
    let asides: Vec<PathBuf> = paths.iter().map(|path| aside(path)).collect();
    let done = write(dir, &found, &point, until_ns, &asides);
    let applied = match done {
        Ok(applied) => applied,
        Err(error) => {
            for path in &asides {
                let _ = std::fs::remove_file(path);
            }
            return Err(error);
        }
    };
    for (from, to) in asides.iter().zip(&paths) {
        std::fs::rename(from, to).map_err(|e| at(to, e))?;
    }
    Ok(Recovered {
        point: point.id,
        kind: point.term,
        cut_ns: until_ns.map_or(point.cut_ns, |_| point.cut_ns.max(applied.end_ns)),
        is_instant: until_ns.is_some(),
        rto_ns: monotonic_ns() - began_ns,
        applied_entries: applied.entries,
        applied_bytes: applied.bytes,
        images: paths.iter().map(|path| path.display().to_string()).collect(),
        epoch: found.owner.epoch_of(point.no),
        damage: found.damage.as_ref().map(told),
    })
}

fn told(damage: &Damage) -> String {
    format!("{}: byte {}: {}", damage.segment.display(), damage.byte, damage.what)
}

fn at(path: &Path, e: std::io::Error) -> Error {
    Error::failed("cannot write an image").with("file", path.display()).caused_by(e)
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// The point to start from, and for continuous replication the time to go on to.
fn choose(found: &Offer, wanted: Wanted, dir: &Path) -> Result<(StoredPoint, Option<Ns>)> {
    let named = |error: Error| Err(error.with("file", dir.display()));
    let (Some(first), Some(last)) = (found.points.first(), found.points.last()) else {
        let why = found.damage.as_ref().map_or(String::new(), |d| format!(" ({})", told(d)));
        return named(Error::input(format!("the store holds no restore point{why}")));
    };
    match wanted {
        Wanted::Latest => Ok((*last, found.goes_on_after(last).then_some(Ns::MAX))),
        Wanted::Point(id) => match found.points().find(|point| point.id == id) {
            Some(point) => Ok((*point, None)),
            None => named(Error::input(no_such_point(found, id))),
        },
        Wanted::At(time_ns) => {
            match found.points.iter().rev().find(|point| point.cut_ns <= time_ns) {
                Some(point) => Ok((*point, found.goes_on_after(point).then_some(time_ns))),
                None => named(Error::input(format!(
                    "--at: expected {}ns or later, of which the oldest state on offer is, got \
                     {time_ns}ns",
                    first.cut_ns
                ))),
            }
        }
    }
}

fn no_such_point(found: &Offer, id: u64) -> String {
    let damage = found.damage.as_ref().map_or(String::new(), |damage| {
        format!("; the journal is damaged ({}), recovery stops there", told(damage))
    });
    let instants = found.instants().map_or(String::new(), |(from_ns, _)| {
        format!("; every instant from {from_ns}ns on is there (--at), but those in holes")
    });
    let expected = match (found.points().next(), found.points().next_back()) {
        (Some(first), Some(last)) => {
            let count = found.points().count();
            format!("expected one of {count} points, {} to {}", first.id, last.id)
        }
        _ => "expected no point: none is kept any more".to_owned(),
    };
    format!("--point: {expected}, got {id}{damage}{instants}")
}

/// A disk's name as a file's.
fn image_paths(disks: &[String], out: &Path) -> Result<Vec<PathBuf>> {
    if let [_] = disks {
        return Ok(vec![out.to_owned()]);
    }
    std::fs::create_dir_all(out).map_err(|e| at(out, e))?;
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name = |(i, disk): (usize, &String)| {
        out.join(format!("{i}-{}.img", disk.chars().map(safe).collect::<String>()))
    };
    Ok(disks.iter().enumerate().map(name).collect())
}

/// What was taken from the journal.
#[derive(Default)]
struct Applied {
    entries: u64,
    bytes: u64,
    /// The time of the state.
    end_ns: Ns,
}

fn write(
    dir: &Path,
    found: &Offer,
    point: &StoredPoint,
    until_ns: Option<Ns>,
    asides: &[PathBuf],
) -> Result<Applied> {
    let mut files = Vec::new();
    for (disk, path) in asides.iter().enumerate() {
        let file = copy_sparse(&dir.join("base").join(format!("{disk}.img")), path)?;
        let size = file.metadata().map_err(|e| at(path, e))?.len();
        let whole = found.owner.disk_bytes.get(disk).copied().unwrap_or(0);
        file.set_len(size.max(whole)).map_err(|e| at(path, e))?;
        files.push(file);
    }
    let (mut images, mut done) = (Images::of(files), Applied::default());
    // It ends before damage, wherever that is: the offer ends there, too.
    walk(&found.files, &found.owner, false, |_, entry, _| {
        let within = entry.no <= point.after_no;
        let until_ns = match until_ns {
            _ if within => Ns::MAX,
            Some(_) if entry.kind == Kind::ResyncBegin => return Ok(false),
            Some(until_ns) if entry.first_ns > until_ns => {
                // Nothing happened in between.
                done.end_ns = until_ns;
                return Ok(false);
            }
            Some(until_ns) => until_ns,
            None => return Ok(false),
        };
        done.entries += 1;
        done.bytes += entry.body.len() as u64;
        let whole = images.apply_until(entry, until_ns)?;
        // Where the time asked for lies within it, the state is that of this time.
        done.end_ns = if whole { entry.last_ns } else { until_ns };
        Ok(whole)
    })?;
    images.sync()?;
    Ok(done)
}
