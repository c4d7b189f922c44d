//! How far a journal was durable, noted beside it, so that what it loses later is missed: a file
//! cut where an entry ends reads as one that ends there.
//!
//! `DIR/durable` has two sectors that are written in turn, each with the number of an entry and a
//! checksum. The note is written when what it says is true already, and is not waited for but when
//! a segment begins: after a loss of power it may say less than was durable, and never more.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::segment::{Damage, SegmentFile, good_entry_after, segment_path};
use super::{Owner, at};
use crate::error::Result;

const SECTOR_BYTES: u64 = 512;
const SLOT_BYTES: usize = 16;

fn path(dir: &Path) -> PathBuf {
    dir.join("durable")
}

/// The note of a store that is open.
pub struct Note {
    file: File,
    turn: u64,
}

impl Note {
    /// The note that is there, or a new one of a journal that holds nothing yet.
    pub fn open(dir: &Path) -> std::io::Result<Self> {
        let path = path(dir);
        let known = if path.exists() { read(dir)? } else { None };
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path)?;
        // Its place on the disk is taken once: later a full disk is no reason to fail.
        let (mut note, no) = (Self { file, turn: 0 }, known.unwrap_or(0));
        note.put(no)?;
        note.put(no)?;
        note.file.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(note)
    }

    /// Notes that everything up to an entry is durable.
    pub fn put(&mut self, no: u64) -> std::io::Result<()> {
        self.turn ^= 1;
        self.file.write_all_at(&slot(no), self.turn * SECTOR_BYTES)
    }

    /// Waits for the disk.
    pub fn sync(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }
}

fn slot(no: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(&no.to_le_bytes());
    slot[8..].copy_from_slice(&xxhash_rust::xxh3::xxh3_64(&no.to_le_bytes()).to_le_bytes());
    slot
}

/// The higher of what the two sectors say; a torn one says nothing.
fn read(dir: &Path) -> std::io::Result<Option<u64>> {
    let bytes = std::fs::read(path(dir))?;
    let one = |at: usize| {
        let found = bytes.get(at..at + SLOT_BYTES)?;
        let no = u64::from_le_bytes(*found.first_chunk()?);
        (found == slot(no)).then_some(no)
    };
    Ok(one(0).max(one(SECTOR_BYTES as usize)))
}

/// What is known of how far a journal was durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// The store is of before there were notes.
    Unsaid,
    Lost,
    Up(u64),
}

impl Durable {
    /// Read it before the journal, which may be growing.
    #[must_use]
    pub fn of(dir: &Path, owner: &Owner) -> Self {
        match read(dir) {
            _ if !owner.notes_durable => Self::Unsaid,
            Ok(Some(no)) => Self::Up(no),
            Ok(None) | Err(_) => Self::Lost,
        }
    }
}

/// What a journal lacks whose files were walked up to entry `last_no`, and to damage if there was
/// any. The unfinished end that a crash leaves is none: nobody was told that it is there.
///
/// # Errors
/// A file cannot be read.
pub fn lacks(
    dir: &Path,
    files: &[SegmentFile],
    owner: &Owner,
    durable: Durable,
    last_no: u64,
    damage: Option<Damage>,
) -> Result<Option<Damage>> {
    let last = files.last();
    let is_short = matches!(durable, Durable::Up(no) if no > last_no);
    if let Some(damage) = damage {
        let is_last = last.is_some_and(|file| file.path == damage.segment);
        let is_torn = is_last && !damage.is_gap && !is_short;
        let is_torn = is_torn && !good_entry_after(&damage.segment, damage.byte)?;
        return Ok((!is_torn).then_some(damage));
    }
    let missing = |segment: PathBuf, byte: u64, what: String| {
        Ok(Some(Damage { segment, byte, what, is_gap: true }))
    };
    let number = last.map_or_else(|| owner.first_segment.max(1) - 1, |file| file.number);
    if number < owner.newest_segment {
        let lost = segment_path(dir, number + 1);
        return missing(lost, 0, format!("the journal's segment {} is missing", number + 1));
    }
    match (durable, last) {
        (Durable::Up(no), Some(last)) if is_short => {
            let byte = std::fs::metadata(&last.path).map_err(at(&last.path))?.len();
            let which = if no == last_no + 1 {
                format!("entry {no} of the journal is")
            } else {
                format!("entries {} to {no} of the journal are", last_no + 1)
            };
            missing(last.path.clone(), byte, format!("{which} missing, which had been durable"))
        }
        (Durable::Lost, _) => {
            missing(path(dir), 0, "what tells how far the journal was durable is missing".into())
        }
        _ => Ok(None),
    }
}
