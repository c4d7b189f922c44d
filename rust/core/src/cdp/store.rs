//! A replica on disk: base images, and a journal of redo entries with restore points after them.
//!
//! ```text
//! DIR/store.json             whose replica this is
//! DIR/durable                how far the journal was durable
//! DIR/journal/N.seg          entries as they came: header, body, header, body ...
//! DIR/journal/N.from-M.seg   in place of segments M to N: the last version of what they changed
//! DIR/base/K.img             disk K as all segments before the first one left it (sparse)
//! DIR/scratch/K.img          what the journal changed of disk K, while a source compares
//! ```
//!
//! A state is the base and the journal up to a point: recovery copies the one and applies the
//! other. Retention takes the oldest segment into the base once no point before its end is kept;
//! doing that twice gives the same base, so a crash in the middle is made good at the next start.
//! A continuous stream may be cut at the start of any segment: [`marks`].
//! A segment ends at a long-term point, so that what lies between two of them can be merged.
//! Every entry carries checksums of its header and body.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{Entry, Kind};
use super::frame::{Ask, Held, Hello};
use super::vault::{Refusal, Vault};
use crate::clock::Ns;
use crate::error::{Error, Result};

#[cfg(test)]
mod continuous_tests;
#[cfg(test)]
mod cut_tests;
mod durable;
mod images;
mod marks;
mod merge;
#[cfg(test)]
mod merge_tests;
mod owner;
mod retention;
mod scratch;
mod segment;
#[cfg(test)]
mod tests;

pub use durable::{Durable, lacks};
pub use images::{Images, copy_sparse};
pub use marks::Marks;
pub use owner::{Epoch, Owner, adopt, read_owner};
use owner::{put_owner, write_owner};
pub use retention::{Chore, LongTerm, Term, lock_for_reading, name_terms};
use segment::scan;
pub use segment::{Damage, SegmentFile, segment_files, segment_path, unpack, walk};

/// A segment is closed at this size, at the next point.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// Appended entries are written out at least this often.
const BUFFER_BYTES: usize = 4 << 20;

/// A restore point in the journal, or an anchor: where recovery may begin as at a point, and
/// which is none that anybody cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct StoredPoint {
    pub id: u64,
    pub cut_ns: Ns,
    pub after_no: u64,
    pub no: u64,
    pub segment: u64,
    #[serde(rename = "kind")]
    pub term: Term,
    #[serde(skip)]
    pub is_anchor: bool,
}

#[derive(Debug, Clone)]
struct Segment {
    file: SegmentFile,
    bytes: u64,
    last_no: u64,
}

impl StoredPoint {
    /// The point that an entry of a segment is, if it is one.
    #[must_use]
    pub const fn of(entry: &Entry, segment: u64) -> Option<Self> {
        let Kind::Point { id, cut_ns, after_no } = entry.kind else { return None };
        let (no, term) = (entry.no, Term::Short);
        Some(Self { id, cut_ns, after_no, no, segment, term, is_anchor: false })
    }
}

/// A store open for appending. One process at a time has it.
pub struct Store {
    dir: PathBuf,
    pub owner: Option<Owner>,
    segments: Vec<Segment>,
    points: Vec<StoredPoint>,
    fresh: Vec<StoredPoint>,
    /// After the last entry, and after the last durable one.
    marks: Marks,
    durable_marks: Marks,
    /// The last segment, and what of it is on disk and good.
    file: Option<File>,
    written: u64,
    durable: u64,
    note: Option<durable::Note>,
    buffer: Vec<u8>,
    received_no: u64,
    durable_no: u64,
    /// Bytes that the journal may take, 0 for what the disk has.
    capacity_bytes: u64,
    segment_bytes: u64,
    retention: (Ns, u64),
    /// Retention is done by somebody who asks for its chores.
    leaves_chores: bool,
    newest_ns: Ns,
    /// The latest time in the journal.
    end_ns: Ns,
    /// Where digests are read from, while a source compares.
    compared: Option<scratch::Compared>,
    _lock: File,
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |e| Error::failed("the store").with("file", path.display()).caused_by(e)
}

impl Store {
    /// Opens a store, or makes one; the end of the journal that a crash tore is cut off.
    ///
    /// # Errors
    /// `Input` when the folder is no store, is in use, or its journal is damaged before its end.
    pub fn open(dir: &Path, capacity_bytes: u64, segment_bytes: u64) -> Result<Self> {
        let path = dir.join("store.json");
        if dir.is_dir() && !path.exists() {
            let used = std::fs::read_dir(dir).map_err(at(dir))?.flatten();
            if !used.into_iter().all(|entry| is_of_an_unborn(&entry)) {
                return Err(Error::input("expected an empty folder or a replica store")
                    .with("file", dir.display()));
            }
        }
        std::fs::create_dir_all(dir.join("journal")).map_err(at(dir))?;
        std::fs::create_dir_all(dir.join("base")).map_err(at(dir))?;
        let lock = lock(dir)?;
        let mut store = Self {
            owner: read_owner(dir)?,
            dir: dir.to_owned(),
            segments: Vec::new(),
            points: Vec::new(),
            fresh: Vec::new(),
            marks: Marks::default(),
            durable_marks: Marks::default(),
            file: None,
            written: 0,
            durable: 0,
            note: None,
            buffer: Vec::new(),
            received_no: 0,
            durable_no: 0,
            capacity_bytes,
            segment_bytes: segment_bytes.max(4096),
            retention: (0, 0),
            leaves_chores: false,
            newest_ns: 0,
            end_ns: 0,
            compared: None,
            _lock: lock,
        };
        store.forget_scratch()?;
        if store.owner.is_none() {
            // A folder made for a source that never came.
            return Ok(store);
        }
        store.load()?;
        Ok(store)
    }

    fn load(&mut self) -> Result<()> {
        let Some(owner) = self.owner.clone() else { return Ok(()) };
        let (first, first_offered) = (owner.first_segment, owner.first_offered);
        let durable = Durable::of(&self.dir, &owner);
        let (files, replaced) = segment_files(&self.dir)?;
        // Taken into the base or merged; only their removal was missed.
        let (files, folded): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| file.number >= first);
        for file in replaced.into_iter().chain(folded) {
            std::fs::remove_file(&file.path).map_err(at(&file.path))?;
        }
        retention::forget_partial(&self.dir)?;
        let empty = |file: &SegmentFile| Segment { file: file.clone(), bytes: 0, last_no: 0 };
        self.segments = files.iter().map(empty).collect();
        let (segments, points) = (&mut self.segments, &mut self.points);
        let (end_ns, received_no) = (&mut self.end_ns, &mut self.received_no);
        let (mut at_segment, mut marks) = (0, Marks::at_base(&owner));
        let damage = walk(&files, &owner, true, |file, entry, end| {
            while segments[at_segment].file.number != file.number {
                at_segment += 1;
                segments[at_segment].last_no = *received_no;
            }
            (segments[at_segment].bytes, segments[at_segment].last_no) = (end, entry.no);
            (*end_ns, *received_no) = ((*end_ns).max(entry.last_ns), entry.no);
            if file.number >= first_offered {
                points.extend(marks.pass(&owner, file, entry));
            }
            Ok(true)
        })?;
        for segment in &mut segments[at_segment..] {
            segment.last_no = segment.last_no.max(*received_no);
        }
        // A torn end is what a crash leaves; what lacks otherwise would be hidden by what follows.
        if let Some(lacked) = lacks(&self.dir, &files, &owner, durable, self.received_no, damage)? {
            return Err(Error::input(format!(
                "byte {}: {}: recover from this store what is before it, and start a new one",
                lacked.byte, lacked.what
            ))
            .with("file", lacked.segment.display()));
        }
        name_terms(&mut self.points, owner.long_term, owner.base_ns);
        self.durable_no = self.received_no;
        (self.marks, self.durable_marks) = (marks, marks);
        self.note_newest();
        // What was merged is whole, and goes on in a file of its own.
        if let Some(last) = self.segments.last().filter(|last| !last.file.is_merged) {
            let path = &last.file.path;
            let file = OpenOptions::new().write(true).open(path).map_err(at(path))?;
            file.set_len(last.bytes).and_then(|()| file.sync_data()).map_err(at(path))?;
            (self.file, self.written, self.durable) = (Some(file), last.bytes, last.bytes);
        }
        if owner.notes_durable {
            self.note = Some(durable::Note::open(&self.dir).map_err(at(&self.dir))?);
        }
        Ok(())
    }

    /// The restore points that recovery offers.
    pub fn points(&self) -> impl Iterator<Item = &StoredPoint> {
        self.points.iter().filter(|point| !point.is_anchor)
    }

    /// What the age of others is counted from: the newest point, and of a continuous stream the
    /// newest state.
    fn note_newest(&mut self) {
        let point_ns = self.points().last().map(|point| point.cut_ns);
        let is_continuous =
            self.owner.as_ref().is_some_and(|owner| owner.is_continuous_at(self.durable_no));
        let state_ns = self.marks.state_ns().filter(|_| is_continuous);
        self.newest_ns = self.newest_ns.max(point_ns.max(state_ns).unwrap_or(0));
    }

    #[must_use]
    pub fn journal_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The last entry is a long-term point.
    fn ends_long_term(&self) -> bool {
        let last = self.fresh.last().or(self.points.last());
        last.is_some_and(|point| point.no == self.received_no && point.term == Term::Long)
    }

    fn roll(&mut self) -> Result<(), Refusal> {
        let number = self.segments.last().map_or(1, |last| last.file.number + 1);
        let path = segment_path(&self.dir, number);
        let file = match self.new_segment(number, &path) {
            Ok(file) => file,
            Err(e) => {
                // Nothing is in it yet, and the next attempt makes it anew.
                let _ = std::fs::remove_file(&path);
                return Err(self.fall_back(e));
            }
        };
        let name = SegmentFile::plain(number, path);
        self.segments.push(Segment { file: name, bytes: 0, last_no: self.received_no });
        (self.file, self.written, self.durable) = (Some(file), 0, 0);
        Ok(())
    }

    /// An empty segment, of which the store knows that it is there.
    fn new_segment(&mut self, number: u64, path: &Path) -> std::io::Result<File> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        File::open(self.dir.join("journal")).and_then(|dir| dir.sync_all())?;
        let note = match self.note.take() {
            Some(note) => note,
            None => durable::Note::open(&self.dir)?,
        };
        let note = self.note.insert(note);
        note.put(self.durable_no)?;
        note.sync()?;
        if let Some(owner) = &mut self.owner {
            let known = (owner.newest_segment, owner.notes_durable);
            (owner.newest_segment, owner.notes_durable) = (number, true);
            put_owner(&self.dir, owner)
                .inspect_err(|_| (owner.newest_segment, owner.notes_durable) = known)?;
        }
        Ok(file)
    }

    fn write_out(&mut self) -> Result<(), Refusal> {
        let Some(file) = &self.file else { return Ok(()) };
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = self.capacity_bytes > 0
            && self.journal_bytes() + self.buffer.len() as u64 > self.capacity_bytes;
        let written = if full {
            Err(std::io::Error::from(ErrorKind::StorageFull))
        } else {
            file.write_all_at(&self.buffer, self.written)
        };
        match written {
            Ok(()) => {
                self.written += self.buffer.len() as u64;
                if let Some(last) = self.segments.last_mut() {
                    last.bytes = self.written;
                }
                self.buffer.clear();
                Ok(())
            }
            Err(e) => Err(self.fall_back(e)),
        }
    }

    /// What is not durable is given up, for the source to send again.
    fn fall_back(&mut self, e: std::io::Error) -> Refusal {
        self.buffer.clear();
        self.fresh.clear();
        self.marks = self.durable_marks;
        self.received_no = self.durable_no;
        self.written = self.durable;
        let cut = self.file.as_ref().map_or(Ok(()), |file| file.set_len(self.durable));
        if let Some(last) = self.segments.last_mut() {
            last.bytes = self.durable;
            last.last_no = self.durable_no;
        }
        let full = matches!(
            e.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
        );
        if full && cut.is_ok() { Refusal::Full } else { Refusal::Broken(at(&self.dir)(e)) }
    }

    /// An entry that was appended may be a point, or have an anchor before it.
    fn note_points(&mut self, entry: &Entry) {
        let (Some(owner), Some(last)) = (&self.owner, self.segments.last()) else { return };
        let since = self.fresh.len();
        self.fresh.extend(self.marks.pass(owner, &last.file, entry));
        let (known, new) = self.fresh.split_at_mut(since);
        if !new.is_empty() {
            let mut before = known.iter().rev().chain(self.points.iter().rev());
            let before = before.find(|point| !point.is_anchor).map(|point| point.cut_ns);
            name_terms(new, owner.long_term, before.or(owner.base_ns));
        }
    }
}

impl Vault for Store {
    fn append(&mut self, entry: &Arc<Entry>, now: Ns) -> Result<(), Refusal> {
        if self.ends_long_term() && self.file.is_some() {
            // What was merged ends with its point: the file has to, too.
            self.sync(now)?;
        }
        let at_point = self.received_no == self.durable_no
            && (self.written + self.buffer.len() as u64 >= self.segment_bytes
                || self.ends_long_term());
        if self.file.is_none() || at_point {
            self.roll()?;
        }
        if entry.kind == Kind::ResyncBegin {
            self.begin_comparing(entry.no).map_err(Refusal::Broken)?;
        }
        self.buffer.extend_from_slice(&entry.header());
        self.buffer.extend_from_slice(&entry.body);
        self.received_no = entry.no;
        self.end_ns = self.end_ns.max(entry.last_ns);
        self.note_points(entry);
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_out()?;
        }
        Ok(())
    }

    fn sync(&mut self, _now: Ns) -> Result<(), Refusal> {
        if self.received_no == self.durable_no {
            return Ok(());
        }
        self.write_out()?;
        if let Some(Err(e)) = self.file.as_ref().map(File::sync_data) {
            return Err(self.fall_back(e));
        }
        self.durable = self.written;
        self.durable_no = self.received_no;
        if let Some(note) = &mut self.note {
            // Where it fails it says less than is true, which is no reason to refuse data.
            let _ = note.put(self.durable_no);
        }
        if let Some(last) = self.segments.last_mut() {
            last.last_no = self.durable_no;
        }
        self.durable_marks = self.marks;
        let is_offered = !self.fresh.is_empty();
        if self.fresh.iter().any(|point| !point.is_anchor) {
            // A point follows when everything has been compared.
            self.forget_scratch().map_err(Refusal::Broken)?;
        }
        self.points.append(&mut self.fresh);
        self.note_newest();
        if is_offered {
            self.retain().map_err(Refusal::Broken)?;
        }
        Ok(())
    }

    fn received_no(&self) -> u64 {
        self.received_no
    }

    fn join(&mut self, hello: &Hello) -> Result<Option<Held>> {
        self.claim(hello)
    }

    fn sums(&mut self, ask: Ask) -> Result<Vec<u128>> {
        self.digests(ask)
    }
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(at(&path))?;
    // SAFETY: a valid descriptor; the lock ends with it.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        return Err(Error::input("the store is in use by another site").with("file", dir.display()));
    }
    Ok(file)
}

/// What a store holds before its first source has come, or whose site was killed just then.
fn is_of_an_unborn(entry: &std::fs::DirEntry) -> bool {
    match entry.file_name().to_str() {
        Some("lock" | "store.json.partial") => true,
        Some("journal" | "base" | "scratch") => {
            std::fs::read_dir(entry.path()).is_ok_and(|mut within| within.next().is_none())
        }
        _ => false,
    }
}
