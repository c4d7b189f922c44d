//! Which earlier states are kept. Short-term points, all of them, for a time; after that one point
//! of every interval, the long-term ones, for a longer time. The oldest segment is taken into the
//! base when none of its points is kept, and what lies between two long-term points is merged.
//! Of a continuous stream it is when the next one begins with a state old enough.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use super::merge::{RANGES_MAX, merge};
use super::segment::{SegmentFile, merged_path, scan};
use super::{Images, Segment, Store, StoredPoint, at, write_owner};
use crate::clock::Ns;
use crate::error::{Error, Result};

/// One point of every interval is kept for longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LongTerm {
    pub every_ns: Ns,
    pub retention_ns: Ns,
    /// So many at most.
    pub points: u64,
}

/// What a point is kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Term {
    Short,
    Long,
}

impl LongTerm {
    /// A point that follows one cut at `before`: the first of its interval is a long-term point.
    #[must_use]
    pub const fn term(self, before: Option<Ns>, cut_ns: Ns) -> Term {
        let every = if self.every_ns > 0 { self.every_ns } else { 1 };
        match before {
            Some(before) if before / every >= cut_ns / every => Term::Short,
            _ => Term::Long,
        }
    }
}

/// Says which points are long-term ones. `base_ns`: when the newest one in the base was cut.
pub fn name_terms(points: &mut [StoredPoint], long: Option<LongTerm>, base_ns: Option<Ns>) {
    let mut before = base_ns;
    for point in points.iter_mut().filter(|point| !point.is_anchor) {
        point.term = long.map_or(Term::Short, |long| long.term(before, point.cut_ns));
        before = Some(point.cut_ns);
    }
}

/// Work that retention asks for. It is done without the store, which goes on taking entries.
#[derive(Debug)]
pub enum Chore {
    /// The oldest segment goes into the base.
    Fold { file: SegmentFile, base: PathBuf, disks: usize },
    /// Segments become one, with the long-term point at their end.
    Merge { files: Vec<SegmentFile>, point: StoredPoint, to: PathBuf, bytes: u64 },
}

impl Chore {
    /// Does the work; whether it was done before `goes_on` said no. Doing it again is no harm.
    ///
    /// # Errors
    /// What is read is damaged, or there is no room.
    pub fn run(&mut self, goes_on: &mut dyn FnMut() -> bool) -> Result<bool> {
        match self {
            Self::Fold { file, base, disks } => {
                let mut bases = Images::open(base, *disks)?;
                let mut all = true;
                let damage = scan(&file.path, false, |entry, _| {
                    all = goes_on();
                    if all {
                        bases.apply(entry)?;
                    }
                    Ok(all)
                })?;
                if let Some(damage) = damage {
                    return Err(Error::failed(format!("byte {}: {}", damage.byte, damage.what))
                        .with("file", file.path.display()));
                }
                bases.sync()?;
                Ok(all && goes_on())
            }
            Self::Merge { files, point, to, bytes } => {
                let aside = aside(to);
                let done = merge(files, *point, &aside, RANGES_MAX, goes_on);
                if !matches!(done, Ok(Some(_))) {
                    let _ = std::fs::remove_file(&aside);
                }
                *bytes = done?.unwrap_or(0);
                Ok(*bytes > 0)
            }
        }
    }

    /// For the site's log.
    #[must_use]
    pub fn told(&self, files_bytes: u64) -> Option<String> {
        match self {
            Self::Fold { .. } => None,
            Self::Merge { files, point, bytes, .. } => Some(format!(
                "merged {} of the journal up to long-term point {}: {files_bytes} bytes became \
                 {bytes}",
                if files.len() == 1 {
                    "a file".to_owned()
                } else {
                    format!("{} files", files.len())
                },
                point.id
            )),
        }
    }
}

pub(super) fn aside(to: &std::path::Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Removes what a merge left that was not done.
pub(super) fn forget_partial(dir: &std::path::Path) -> Result<()> {
    let folder = dir.join("journal");
    for entry in std::fs::read_dir(&folder).map_err(at(&folder))?.flatten() {
        if entry.file_name().to_string_lossy().ends_with(".seg.partial") {
            std::fs::remove_file(entry.path()).map_err(at(&folder))?;
        }
    }
    Ok(())
}

/// Keeps the files of a journal where they are for a recovery that reads them; shared with other
/// recoveries, and gone with the file.
///
/// # Errors
/// The folder cannot be opened.
pub fn lock_for_reading(dir: &std::path::Path) -> Result<File> {
    let folder = dir.join("journal");
    let file = File::open(&folder).map_err(at(&folder))?;
    // SAFETY: a valid descriptor. Where nothing can be locked nothing is: a recovery may then fail.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH) };
    Ok(file)
}

impl Store {
    /// Retention is somebody else's to do, by chores: it does not hold up a source.
    pub const fn leave_chores(&mut self) {
        self.leaves_chores = true;
    }

    /// What retention asks for now, if anything.
    #[must_use]
    pub fn next_chore(&self) -> Option<Chore> {
        let (_, bytes) = self.retention;
        let (_, closed) = self.segments.split_last()?;
        let oldest = closed.first()?;
        let owner = self.owner.as_ref()?;
        if oldest.file.number < owner.first_offered {
            // Begun already.
            let (file, base) = (oldest.file.clone(), self.dir.join("base"));
            return Some(Chore::Fold { file, base, disks: owner.disks.len() });
        }
        if self.retention.0 > 0 && !self.is_needed(oldest) {
            return self.fold(oldest);
        }
        if let Some(chore) = self.merge_of(closed, false) {
            return Some(chore);
        }
        if bytes > 0 && self.journal_bytes() > bytes {
            return self.merge_of(closed, true).or_else(|| self.fold(oldest));
        }
        None
    }

    fn points_of(&self, segment: &Segment) -> &[StoredPoint] {
        let number = segment.file.number;
        let from = self.points.partition_point(|point| point.segment < number);
        let to = self.points.partition_point(|point| point.segment <= number);
        &self.points[from..to]
    }

    fn is_kept(&self, point: &StoredPoint) -> bool {
        let (age_ns, _) = self.retention;
        age_ns == 0 || point.cut_ns + age_ns >= self.newest_ns || self.is_kept_long(point)
    }

    /// Some of the states that a segment offers are kept. Instants of a continuous stream are when
    /// the oldest of them all that has to be on offer lies before the next point.
    fn is_needed(&self, segment: &Segment) -> bool {
        if self.points_of(segment).iter().any(|point| self.is_kept(point)) {
            return true;
        }
        let is_after = |point: &&StoredPoint| point.segment > segment.file.number;
        self.has_instants()
            && !self.points.iter().find(is_after).is_some_and(|next| self.is_old(next.cut_ns))
    }

    fn has_instants(&self) -> bool {
        self.owner.as_ref().is_some_and(super::Owner::is_continuous_somewhere)
    }

    /// No state before this time has to be on offer.
    const fn is_old(&self, time_ns: Ns) -> bool {
        let (age_ns, _) = self.retention;
        age_ns > 0 && time_ns + age_ns <= self.newest_ns
    }

    fn is_kept_long(&self, point: &StoredPoint) -> bool {
        let Some(long) = self.owner.as_ref().and_then(|owner| owner.long_term) else {
            return false;
        };
        let is_long = |point: &&StoredPoint| point.term == Term::Long;
        let newer = self.points.iter().rev().take_while(|newer| newer.no > point.no);
        point.term == Term::Long
            && point.cut_ns + long.retention_ns >= self.newest_ns
            && newer.filter(is_long).count() < long.points as usize
    }

    /// A point of a later segment must remain, and none may lie before the new base's end.
    pub(super) fn fold(&self, oldest: &Segment) -> Option<Chore> {
        let number = oldest.file.number;
        let mut later = self.points.iter().filter(|point| point.segment > number).peekable();
        later.peek()?;
        if later.any(|point| point.after_no < oldest.last_no) {
            return None;
        }
        let disks = self.owner.as_ref()?.disks.len();
        Some(Chore::Fold { file: oldest.file.clone(), base: self.dir.join("base"), disks })
    }

    /// The first segments that end with a long-term point and hold others that are not kept.
    /// `early`: there is no room for the short-term points among them.
    fn merge_of(&self, closed: &[Segment], early: bool) -> Option<Chore> {
        let mut from = 0;
        for (i, segment) in closed.iter().enumerate() {
            let Some(end) = self.points_of(segment).last().copied() else { continue };
            if end.no != segment.last_no || !self.is_kept_long(&end) {
                continue;
            }
            let within = &closed[from..=i];
            let base_no = || self.owner.as_ref().and_then(|owner| owner.base_no);
            let before = from.checked_sub(1).map_or_else(base_no, |i| Some(closed[i].last_no));
            from = i + 1;
            if within.len() == 1 && segment.file.is_merged {
                continue;
            }
            let goes = |point: &StoredPoint| {
                point.no == end.no || !self.is_kept(point) || early && !self.is_kept_long(point)
            };
            let is_early = self.has_instants() && !early && !self.is_old(end.cut_ns);
            if is_early || !within.iter().flat_map(|each| self.points_of(each)).all(goes) {
                return None;
            }
            let files: Vec<SegmentFile> = within.iter().map(|each| each.file.clone()).collect();
            let to = merged_path(&self.dir, files[0].first, segment.file.number, before);
            return Some(Chore::Merge { files, point: end, to, bytes: 0 });
        }
        None
    }

    /// None where a recovery reads the files: they stay as they are until it has ended.
    fn lock_for_change(&self) -> Result<Option<File>> {
        let folder = self.dir.join("journal");
        let lock = File::open(&folder).map_err(at(&folder))?;
        // SAFETY: a valid descriptor; the lock ends with it.
        let taken = unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0;
        let error = std::io::Error::last_os_error();
        // Where nothing can be locked nobody reads under a lock.
        Ok((taken || error.kind() != std::io::ErrorKind::WouldBlock).then_some(lock))
    }

    /// Before a chore is run; false while a recovery reads the files: later, then. A base that is
    /// half of what it will be is not the state before any point of what is taken into it: from
    /// here on they are offered no more.
    ///
    /// # Errors
    /// It cannot be noted.
    pub fn begin(&mut self, chore: &Chore) -> Result<bool> {
        let (Chore::Fold { file, .. }, Some(mut owner)) = (chore, self.owner.clone()) else {
            return Ok(true);
        };
        let Some(_lock) = self.lock_for_change()? else { return Ok(false) };
        let last = self.points().filter(|point| point.segment <= file.number).last();
        (owner.base_ns, owner.base_id) = match last {
            Some(point) => (Some(point.cut_ns), point.id),
            None => (owner.base_ns, owner.base_id),
        };
        let number = file.number + 1;
        let next = self.points.iter().find(|point| point.is_anchor && point.segment == number);
        owner.base_state_ns = next.map(|anchor| anchor.cut_ns);
        owner.first_offered = number;
        write_owner(&self.dir, &owner)?;
        self.owner = Some(owner);
        self.points.retain(|point| point.segment > file.number);
        Ok(true)
    }

    /// Takes over what a chore has made; false while a recovery reads the files: later, then.
    ///
    /// # Errors
    /// The files cannot be replaced.
    pub fn finish(&mut self, chore: &Chore) -> Result<bool> {
        let Some(lock) = self.lock_for_change()? else { return Ok(false) };
        match chore {
            Chore::Fold { file, .. } => self.folded(file)?,
            Chore::Merge { files, point, to, bytes } => {
                std::fs::rename(aside(to), to).map_err(at(to))?;
                lock.sync_all().map_err(at(to))?;
                self.merged(files, *point, to, *bytes)?;
            }
        }
        Ok(true)
    }

    fn folded(&mut self, file: &SegmentFile) -> Result<()> {
        let Some(mut owner) = self.owner.clone() else { return Ok(()) };
        owner.first_segment = file.number + 1;
        let last = self.segments.iter().find(|segment| segment.file.number == file.number);
        owner.base_no = last.map(|segment| segment.last_no);
        write_owner(&self.dir, &owner)?;
        self.owner = Some(owner);
        std::fs::remove_file(&file.path).map_err(at(&file.path))?;
        self.segments.retain(|segment| segment.file.number > file.number);
        Ok(())
    }

    fn merged(
        &mut self,
        files: &[SegmentFile],
        point: StoredPoint,
        to: &std::path::Path,
        bytes: u64,
    ) -> Result<()> {
        let (first, number) = (files[0].first, point.segment);
        let range = first..=number;
        self.points.retain(|each| each.no == point.no || !range.contains(&each.segment));
        let Some(at_index) = self.segments.iter().position(|each| each.file.number >= first) else {
            return Ok(());
        };
        let Some(file) = SegmentFile::of(to.to_owned()) else { return Ok(()) };
        self.segments.retain(|each| !range.contains(&each.file.number));
        self.segments.insert(at_index, Segment { file, bytes, last_no: point.no });
        for file in files.iter().filter(|file| file.path != to) {
            std::fs::remove_file(&file.path).map_err(at(&file.path))?;
        }
        Ok(())
    }

    /// Does one chore at once, where nobody else does.
    pub(super) fn retain(&mut self) -> Result<()> {
        if self.leaves_chores {
            return Ok(());
        }
        while let Some(mut chore) = self.next_chore() {
            if !self.begin(&chore)? || !chore.run(&mut || true)? || !self.finish(&chore)? {
                break;
            }
        }
        Ok(())
    }

    /// What files of a chore take.
    #[must_use]
    pub fn bytes_of(&self, chore: &Chore) -> u64 {
        let files = match chore {
            Chore::Fold { file, .. } => std::slice::from_ref(file),
            Chore::Merge { files, .. } => files,
        };
        let of = |segment: &&Segment| files.iter().any(|file| file.number == segment.file.number);
        self.segments.iter().filter(of).map(|segment| segment.bytes).sum()
    }
}
