//! Merging: the journal up to a long-term point as one file. Of what was written several times
//! since the long-term point before it, only the last is kept, and no point in between.
//!
//! The new file is written aside. Its name tells which segments it stands for, so that renaming it
//! replaces all of them at once; what a crash leaves of them is removed at the next start.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
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

/// Where an entry lies in its file.
struct Place {
    byte: u64,
    /// Without a body.
    entry: Entry,
    bytes: usize,
    hash: u64,
}

/// The entries of a file, without their bodies.
fn index(file: &File, path: &Path) -> Result<Vec<Place>> {
    let size = file.metadata().map_err(at(path))?.len();
    let (mut places, mut byte) = (Vec::new(), 0);
    while byte < size {
        let mut head = [0; HEADER_BYTES];
        file.read_exact_at(&mut head, byte).map_err(at(path))?;
        let (entry, bytes, hash) = Entry::from_header(&head)
            .map_err(|e| Error::failed(format!("byte {byte}: {e}")).with("file", path.display()))?;
        places.push(Place { byte, entry, bytes, hash });
        byte += (HEADER_BYTES + bytes) as u64;
    }
    Ok(places)
}

fn read(file: &File, path: &Path, place: &Place) -> Result<Entry> {
    let mut entry = place.entry.clone();
    entry.body.resize(place.bytes, 0);
    file.read_exact_at(&mut entry.body, place.byte + HEADER_BYTES as u64).map_err(at(path))?;
    if !Entry::body_fits(&entry.body, place.hash) {
        let no = entry.no;
        return Err(Error::failed(format!("the checksum of entry {no} does not fit"))
            .with("file", path.display()));
    }
    Ok(entry)
}

/// The file under way.
struct Merged<'a> {
    out: BufWriter<File>,
    path: &'a Path,
    point: StoredPoint,
    codec: Codec,
    covered: BTreeMap<u16, Covered>,
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
            let (from, to) = (record.offset_bytes, record.offset_bytes + record.length_bytes);
            let (batch, time_ns) = (&mut self.batch, self.point.cut_ns);
            self.covered.entry(record.disk).or_default().add(from, to, |a, b| {
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
            if self.batch.real_bytes >= ENTRY_BYTES {
                self.close_batch()?;
            }
        }
        Ok(())
    }
}

/// Writes segments that end with a long-term point as one file, `aside`; its bytes. None when
/// `goes_on` said no, with half of the file there.
///
/// # Errors
/// A segment is damaged or cannot be read, or the file not be written.
pub fn merge(
    files: &[SegmentFile],
    point: StoredPoint,
    aside: &Path,
    goes_on: &mut dyn FnMut() -> bool,
) -> Result<Option<u64>> {
    let out = BufWriter::with_capacity(1 << 20, File::create(aside).map_err(at(aside))?);
    let mut merged = Merged {
        out,
        path: aside,
        point,
        codec: Codec::None,
        covered: BTreeMap::new(),
        batch: Batch::default(),
        bytes: 0,
    };
    // Backwards: what is there already is newer.
    let mut later = Vec::new();
    for segment in files.iter().rev() {
        let file = File::open(&segment.path).map_err(at(&segment.path))?;
        for place in index(&file, &segment.path)?.iter().rev() {
            if !goes_on() {
                return Ok(None);
            }
            let is_later = place.entry.no > point.after_no;
            let is_point = matches!(place.entry.kind, Kind::Point { .. });
            if is_later && !is_point {
                // Behind the state of this point: the next one needs it.
                later.push(read(&file, &segment.path, place)?);
            } else if place.entry.kind == Kind::Batch {
                merged.take(read(&file, &segment.path, place)?)?;
            }
        }
    }
    merged.close_batch()?;
    for entry in later.iter().rev() {
        merged.write(entry)?;
    }
    let kind = Kind::Point { id: point.id, cut_ns: point.cut_ns, after_no: point.after_no };
    merged.write(&Entry::mark(point.no, kind, point.cut_ns))?;
    let Merged { out, bytes, .. } = merged;
    let file = out.into_inner().map_err(|e| at(aside)(e.into_error()))?;
    file.sync_all().map_err(at(aside))?;
    Ok(goes_on().then_some(bytes))
}
