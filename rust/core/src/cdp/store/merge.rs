//! Merging: the journal up to a long-term point as one file. Of what was written several times
//! since the long-term point before it, only the last is kept, and no point in between.
//!
//! The new file is written aside. Its name tells which segments it stands for, so that renaming it
//! replaces all of them at once; what a crash leaves of them is removed at the next start.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::segment::{SegmentFile, unpack};
use super::{StoredPoint, at};
use crate::cdp::entry::{Batch, Change, Codec, Entry, HEADER_BYTES, Kind, Record};
use crate::cdp::fold::Covered;
use crate::cdp::tcp::packed;
use crate::error::{Error, Result};
use crate::filters::DataMode;

/// An entry of a merged file is closed at this size.
const ENTRY_BYTES: u64 = 1 << 20;
/// Ranges that a merge holds at a time: some 40 MiB.
pub const RANGES_MAX: usize = 1 << 20;

/// A segment that is read entry by entry.
struct Source<'a> {
    file: File,
    path: &'a Path,
    /// Where each entry begins.
    places: Vec<u64>,
}

impl<'a> Source<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let file = File::open(path).map_err(at(path))?;
        let size = file.metadata().map_err(at(path))?.len();
        let (mut source, mut byte) = (Self { file, path, places: Vec::new() }, 0);
        while byte < size {
            let (_, bytes, _) = source.head(byte)?;
            source.places.push(byte);
            byte += (HEADER_BYTES + bytes) as u64;
        }
        Ok(source)
    }

    /// An entry without its body, the bytes of that, and its checksum.
    fn head(&self, byte: u64) -> Result<(Entry, usize, u64)> {
        let mut head = [0; HEADER_BYTES];
        self.file.read_exact_at(&mut head, byte).map_err(at(self.path))?;
        Entry::from_header(&head).map_err(|e| {
            Error::failed(format!("byte {byte}: {e}")).with("file", self.path.display())
        })
    }

    fn read(&self, byte: u64) -> Result<Entry> {
        let (mut entry, bytes, hash) = self.head(byte)?;
        entry.body.resize(bytes, 0);
        let body = self.file.read_exact_at(&mut entry.body, byte + HEADER_BYTES as u64);
        body.map_err(at(self.path))?;
        if !Entry::body_fits(&entry.body, hash) {
            let no = entry.no;
            return Err(Error::failed(format!("the checksum of entry {no} does not fit"))
                .with("file", self.path.display()));
        }
        Ok(entry)
    }
}

/// A place in the disks' space.
type Place = (u16, u64);

/// What has been taken already of the part of the space that is under way, which ends where there
/// is no room for more of it.
struct Part {
    from: Place,
    to: Option<Place>,
    covered: BTreeMap<u16, Covered>,
    ranges: usize,
}

impl Part {
    const fn starting(from: Place) -> Self {
        Self { from, to: None, covered: BTreeMap::new(), ranges: 0 }
    }

    /// What of a record lies within.
    fn clip(&self, record: &Record<'_>) -> Option<(u64, u64)> {
        let (mut from, mut to) = (record.offset_bytes, record.offset_bytes + record.length_bytes);
        if record.disk <= self.from.0 {
            from = if record.disk < self.from.0 { to } else { from.max(self.from.1) };
        }
        if let Some((disk, end)) = self.to.filter(|(disk, _)| record.disk >= *disk) {
            to = if record.disk > disk { from } else { to.min(end) };
        }
        (from < to).then_some((from, to))
    }

    /// Takes a range, and gives what of it is new.
    fn add(&mut self, disk: u16, (from, to): (u64, u64), fresh: impl FnMut(u64, u64)) {
        let covered = self.covered.entry(disk).or_default();
        let before = covered.len();
        covered.add(from, to, fresh);
        self.ranges = self.ranges + covered.len() - before;
    }

    /// Gives up its upper half.
    fn shrink(&mut self) {
        let mut skip = self.ranges / 2;
        let mut to = None;
        for (disk, covered) in &self.covered {
            match covered.start_of(skip) {
                Some(start) => {
                    to = Some((*disk, start));
                    break;
                }
                None => skip -= covered.len(),
            }
        }
        let Some((disk, start)) = to else { return };
        self.to = to;
        let mut above = self.covered.split_off(&disk);
        if let Some(mut covered) = above.remove(&disk) {
            covered.cut_at(start);
            self.covered.insert(disk, covered);
        }
        self.ranges = self.covered.values().map(Covered::len).sum();
    }
}

/// The file under way.
struct Merged<'a> {
    out: BufWriter<File>,
    path: &'a Path,
    point: StoredPoint,
    codec: Codec,
    part: Part,
    /// What is taken is not kept: the part was too large, and its end is looked for.
    looks: bool,
    ranges_max: usize,
    batch: Batch,
    bytes: u64,
}

impl Merged<'_> {
    fn write(&mut self, entry: &Entry) -> Result<()> {
        let head = self.out.write_all(&entry.header());
        head.and_then(|()| self.out.write_all(&entry.body)).map_err(at(self.path))?;
        self.bytes += (HEADER_BYTES + entry.body.len()) as u64;
        Ok(())
    }

    /// All batches have the number that the point lies after, and the time of its cut: in between
    /// the file is no state that ever was.
    fn close_batch(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let entry = self.batch.close(self.point.after_no, Vec::new());
        self.write(&packed(&entry, self.codec))
    }

    /// Takes what later entries leave of this one.
    fn take(&mut self, mut entry: Entry) -> Result<()> {
        if self.codec == Codec::None {
            self.codec = entry.codec;
        }
        unpack(&mut entry)?;
        let records: Vec<Record<'_>> = entry.records(DataMode::Bytes).collect::<Result<_>>()?;
        for record in records.iter().rev() {
            let Some(range) = self.part.clip(record) else { continue };
            let (batch, time_ns, looks) = (&mut self.batch, self.point.cut_ns, self.looks);
            self.part.add(record.disk, range, |a, b| {
                if looks {
                    return;
                }
                let from = record.offset_bytes;
                let range = (a - from) as usize..(b - from) as usize;
                let data = if record.change == Change::Write { &record.data[range] } else { &[] };
                batch.push(&Record {
                    offset_bytes: a,
                    length_bytes: b - a,
                    time_ns,
                    data,
                    ..*record
                });
            });
            if self.part.ranges > self.ranges_max {
                self.part.shrink();
                self.looks = true;
            }
            if self.batch.real_bytes >= ENTRY_BYTES {
                self.close_batch()?;
            }
        }
        Ok(())
    }

    /// Forgets what was written since `bytes`.
    fn rewind(&mut self, bytes: u64) -> Result<()> {
        self.batch = Batch::default();
        self.bytes = bytes;
        self.out.seek(SeekFrom::Start(bytes)).map_err(at(self.path))?;
        self.out.get_ref().set_len(bytes).map_err(at(self.path))
    }

    /// Goes through the segments once, newest entry first: what is there already is newer. False
    /// when `goes_on` said no.
    fn pass(&mut self, files: &[SegmentFile], goes_on: &mut dyn FnMut() -> bool) -> Result<bool> {
        for file in files.iter().rev() {
            let source = Source::open(&file.path)?;
            for byte in source.places.iter().rev() {
                if !goes_on() {
                    return Ok(false);
                }
                let (head, ..) = source.head(*byte)?;
                if head.kind == Kind::Batch && head.no <= self.point.after_no {
                    self.take(source.read(*byte)?)?;
                }
            }
        }
        Ok(true)
    }

    /// One part of the space after the other, each as large as there is room for.
    fn parts(&mut self, files: &[SegmentFile], goes_on: &mut dyn FnMut() -> bool) -> Result<bool> {
        loop {
            let begin = self.bytes;
            if !self.pass(files, goes_on)? {
                return Ok(false);
            }
            if self.looks {
                self.rewind(begin)?;
                self.looks = false;
                let (from, to) = (self.part.from, self.part.to);
                self.part = Part { to, ..Part::starting(from) };
                continue;
            }
            self.close_batch()?;
            let Some(to) = self.part.to else { return Ok(true) };
            self.part = Part::starting(to);
        }
    }
}

/// Writes segments that end with a long-term point as one file, `aside`; its bytes. None when
/// `goes_on` said no, with half of the file there. Of what has been taken `ranges_max` (2 or more)
/// ranges are held at a time: where there are more, the segments are read again for the rest.
///
/// # Errors
/// A segment is damaged or cannot be read, or the file not be written.
pub fn merge(
    files: &[SegmentFile],
    point: StoredPoint,
    aside: &Path,
    ranges_max: usize,
    goes_on: &mut dyn FnMut() -> bool,
) -> Result<Option<u64>> {
    let out = BufWriter::with_capacity(1 << 20, File::create(aside).map_err(at(aside))?);
    let mut merged = Merged {
        out,
        path: aside,
        point,
        codec: Codec::None,
        part: Part::starting((0, 0)),
        looks: false,
        ranges_max,
        batch: Batch::default(),
        bytes: 0,
    };
    if !merged.parts(files, goes_on)? {
        return Ok(None);
    }
    for file in files {
        let source = Source::open(&file.path)?;
        for byte in &source.places {
            let (head, ..) = source.head(*byte)?;
            // Behind the state of this point: the next one needs it.
            if head.no > point.after_no && !matches!(head.kind, Kind::Point { .. }) {
                merged.write(&source.read(*byte)?)?;
            }
        }
    }
    let kind = Kind::Point { id: point.id, cut_ns: point.cut_ns, after_no: point.after_no };
    merged.write(&Entry::mark(point.no, kind, point.cut_ns))?;
    let Merged { out, bytes, .. } = merged;
    let file = out.into_inner().map_err(|e| at(aside)(e.into_error()))?;
    file.sync_all().map_err(at(aside))?;
    Ok(goes_on().then_some(bytes))
}
