//! A file of the journal: entries one after the other, each with its checksums.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Owner, SEGMENT_BYTES, at};
use crate::cdp::entry::{Codec, Entry, HEADER_BYTES, Kind};
use crate::error::{Error, Result};

/// Where a segment stops making sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub segment: PathBuf,
    pub byte: u64,
    pub what: String,
    /// Something is missing here that is no torn end.
    pub is_gap: bool,
}

#[must_use]
pub fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join("journal").join(format!("{number:08}.seg"))
}

/// Where the segments from `first` to `number` lie as one, merged; `after_no` is the entry that
/// they follow, where that is known.
#[must_use]
pub fn merged_path(dir: &Path, first: u64, number: u64, after_no: Option<u64>) -> PathBuf {
    let after = after_no.map_or(String::new(), |no| format!(".after-{no}"));
    dir.join("journal").join(format!("{number:08}.from-{first:08}{after}.seg"))
}

/// A file of the journal, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFile {
    /// The segments it stands for: one, or those that were merged into it.
    pub first: u64,
    pub number: u64,
    pub is_merged: bool,
    /// Of what was merged, the entry before: its own have not one number each.
    after_no: Option<u64>,
    pub path: PathBuf,
}

impl SegmentFile {
    pub(super) fn of(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".seg")?;
        let Some((number, first)) = name.split_once(".from-") else {
            return Some(Self::plain(name.parse().ok()?, path));
        };
        let number = number.parse().ok()?;
        let (first, after_no) = match first.split_once(".after-") {
            Some((first, after)) => (first.parse().ok()?, Some(after.parse().ok()?)),
            None => (first.parse().ok()?, None),
        };
        Some(Self { first, number, is_merged: true, after_no, path })
    }

    /// A segment as it came.
    pub(super) const fn plain(number: u64, path: PathBuf) -> Self {
        Self { first: number, number, is_merged: false, after_no: None, path }
    }

    /// All that it holds is in a merged one.
    fn is_in(&self, other: &Self) -> bool {
        other.is_merged
            && other.path != self.path
            && (other.first..=other.number).contains(&self.number)
            && other.first <= self.first
    }
}

/// The journal's files in their order, and those that a merge has replaced and a crash has left.
///
/// # Errors
/// The folder cannot be read.
pub fn segment_files(dir: &Path) -> Result<(Vec<SegmentFile>, Vec<SegmentFile>)> {
    let folder = dir.join("journal");
    let names = std::fs::read_dir(&folder).map_err(at(&folder))?.flatten();
    let mut all: Vec<SegmentFile> = names.filter_map(|name| SegmentFile::of(name.path())).collect();
    all.sort_unstable_by_key(|file| (file.number, file.is_merged));
    let merged: Vec<SegmentFile> = all.iter().filter(|file| file.is_merged).cloned().collect();
    Ok(all.into_iter().partition(|file| !merged.iter().any(|other| file.is_in(other))))
}

/// Reads a segment's entries with the byte after each; `take` says whether to go on. Without
/// `bodies` needed they are still read: their checksums tell whether they are good.
///
/// # Errors
/// The file cannot be read, or `take` failed. Damage is no error: it is given back.
pub fn scan(
    path: &Path,
    bare: bool,
    mut take: impl FnMut(&Entry, u64) -> Result<bool>,
) -> Result<Option<Damage>> {
    let file = File::open(path).map_err(at(path))?;
    let size = file.metadata().map_err(at(path))?.len();
    let mut reader = std::io::BufReader::with_capacity(1 << 20, file);
    let mut byte = 0;
    let damage = |byte: u64, what: &str| {
        let (segment, what) = (path.to_owned(), what.to_owned());
        Ok(Some(Damage { segment, byte, what, is_gap: false }))
    };
    while byte < size {
        let mut head = [0; HEADER_BYTES];
        if size - byte < HEADER_BYTES as u64 {
            return damage(byte, "the last entry is cut short");
        }
        reader.read_exact(&mut head).map_err(at(path))?;
        let Ok((mut entry, bytes, hash)) = Entry::from_header(&head) else {
            return damage(byte, "a damaged header");
        };
        let end = byte + (HEADER_BYTES + bytes) as u64;
        if end > size {
            return damage(byte, "the last entry is cut short");
        }
        entry.body.resize(bytes, 0);
        reader.read_exact(&mut entry.body).map_err(at(path))?;
        if !Entry::body_fits(&entry.body, hash) {
            return damage(byte, &format!("the checksum of entry {} does not fit", entry.no));
        }
        if !bare {
            unpack(&mut entry)?;
        }
        if !take(&entry, end)? {
            return Ok(None);
        }
        byte = end;
    }
    Ok(None)
}

/// Reads the entries of a journal's files in their order, each with its file and the byte after it,
/// up to where they stop making sense: damage, or a gap. `take` says whether to go on.
///
/// # Errors
/// As `scan`.
pub fn walk(
    files: &[SegmentFile],
    owner: &Owner,
    bare: bool,
    mut take: impl FnMut(&SegmentFile, &Entry, u64) -> Result<bool>,
) -> Result<Option<Damage>> {
    // Segments are numbered from 1.
    let (mut next_segment, mut last_no) = (owner.first_segment.max(1), owner.base_no);
    let gap = |file: &SegmentFile, byte: u64, what: String| {
        Some(Damage { segment: file.path.clone(), byte, what, is_gap: true })
    };
    for file in files {
        if file.first != next_segment {
            return Ok(gap(file, 0, format!("the journal's segment {next_segment} is missing")));
        }
        next_segment = file.number + 1;
        let is_after = |last: u64| file.after_no.is_none_or(|no| no == last);
        if let Some(last) = last_no.filter(|last| !is_after(*last)) {
            return Ok(gap(file, 0, format!("entry {} of the journal is missing", last + 1)));
        }
        let (mut goes_on, mut missing, mut byte) = (true, None, 0);
        let mut is_whole = !file.is_merged;
        let damage = scan(&file.path, bare, |entry, end| {
            // What was merged has the number of its point, all of it, and none of the others.
            let follows = last_no
                .is_none_or(|last| entry.no == last + 1 || file.is_merged && entry.no >= last);
            if follows {
                (last_no, byte) = (Some(entry.no), end);
                is_whole |= matches!(entry.kind, Kind::Point { .. });
                goes_on = take(file, entry, end)?;
            } else {
                missing = last_no;
            }
            Ok(goes_on && follows)
        })?;
        if let Some(last) = missing {
            return Ok(gap(file, byte, format!("entry {} of the journal is missing", last + 1)));
        }
        if damage.is_some() || !goes_on {
            return Ok(damage);
        }
        if !is_whole {
            return Ok(gap(file, byte, "the end of what was merged is missing".into()));
        }
    }
    Ok(None)
}

/// Whether any whole entry starts after `byte`: then the damage there is no torn end.
pub(super) fn good_entry_after(path: &Path, byte: u64) -> Result<bool> {
    let mut file = File::open(path).map_err(at(path))?;
    file.seek(SeekFrom::Start(byte + 1)).map_err(at(path))?;
    let mut rest = Vec::new();
    file.take(2 * SEGMENT_BYTES).read_to_end(&mut rest).map_err(at(path))?;
    Ok(rest.windows(HEADER_BYTES).any(|window| {
        window.first_chunk::<HEADER_BYTES>().is_some_and(|head| Entry::from_header(head).is_ok())
    }))
}

/// Undoes an entry's compression.
///
/// # Errors
/// `Failed` when the body does not give what it announced.
pub fn unpack(entry: &mut Entry) -> Result<()> {
    let size = entry.raw_bytes as usize;
    let unpacked = match entry.codec {
        Codec::None => return Ok(()),
        Codec::Lz4 => lz4_flex::block::decompress(&entry.body, size).ok(),
        Codec::Zstd => zstd::bulk::decompress(&entry.body, size).ok(),
    };
    match unpacked {
        Some(body) if body.len() == size => {
            entry.body = body;
            entry.codec = Codec::None;
            Ok(())
        }
        _ => Err(Error::failed(format!("entry {} does not unpack", entry.no))),
    }
}
