//! Image files that entries are applied to: a store's base, or what is being recovered.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::at;
use crate::cdp::entry::{Change, Entry, Kind};
use crate::clock::Ns;
use crate::error::{Error, Result};
use crate::filters::DataMode;

/// Image files of a group's disks.
pub struct Images(Vec<File>);

impl Images {
    /// # Errors
    /// A file cannot be made or opened.
    pub fn open(folder: &Path, disks: usize) -> Result<Self> {
        let mut files = Vec::new();
        for disk in 0..disks {
            let path = folder.join(format!("{disk}.img"));
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            files.push(options.open(&path).map_err(at(&path))?);
        }
        Ok(Self(files))
    }

    #[must_use]
    pub const fn of(files: Vec<File>) -> Self {
        Self(files)
    }

    /// Applies an unpacked entry.
    ///
    /// # Errors
    /// It holds what is no record, of a disk that is none, or an image cannot be written.
    pub fn apply(&mut self, entry: &Entry) -> Result<()> {
        self.apply_until(entry, Ns::MAX).map(|_| ())
    }

    /// Applies the records of an entry up to a time; whether all were.
    ///
    /// # Errors
    /// As `apply`.
    pub fn apply_until(&mut self, entry: &Entry, until_ns: Ns) -> Result<bool> {
        if entry.kind != Kind::Batch {
            return Ok(true);
        }
        for record in entry.records(DataMode::Bytes) {
            let record = record?;
            if record.time_ns > until_ns {
                return Ok(false);
            }
            let Some(file) = self.0.get(record.disk as usize) else {
                return Err(Error::failed(format!("entry {}: no disk {}", entry.no, record.disk)));
            };
            let end = record.offset_bytes + record.length_bytes;
            let done = match record.change {
                Change::Write => file.write_all_at(record.data, record.offset_bytes),
                Change::Zero | Change::Discard => zero(file, record.offset_bytes, end),
            };
            done.map_err(|e| Error::failed("cannot write an image").caused_by(e))?;
        }
        Ok(true)
    }

    /// Reads a range; what lies past the end of an image is zeroes.
    ///
    /// # Errors
    /// There is no such disk, or it cannot be read.
    pub fn read(&self, disk: u16, offset_bytes: u64, data: &mut [u8]) -> Result<()> {
        let unreadable = |e| Error::failed("cannot read an image").caused_by(e);
        let Some(file) = self.0.get(disk as usize) else {
            return Err(Error::failed(format!("no disk {disk}")));
        };
        let size = file.metadata().map_err(unreadable)?.len();
        let there = size.saturating_sub(offset_bytes).min(data.len() as u64) as usize;
        file.read_exact_at(&mut data[..there], offset_bytes).map_err(unreadable)?;
        data[there..].fill(0);
        Ok(())
    }

    /// # Errors
    /// The device refuses.
    pub fn sync(&self) -> Result<()> {
        for file in &self.0 {
            file.sync_all().map_err(|e| Error::failed("cannot write an image").caused_by(e))?;
        }
        Ok(())
    }
}

/// A copy, holes and all; an empty image where there is nothing to copy.
///
/// # Errors
/// What is there cannot be read, or the copy not be written.
pub fn copy_sparse(from: &Path, to: &Path) -> Result<File> {
    let mut out = File::options();
    let out = out.read(true).write(true).create(true).truncate(true).open(to);
    let out = out.map_err(at(to))?;
    let Ok(mut base) = File::open(from) else { return Ok(out) };
    let size = base.metadata().map_err(at(from))?.len();
    out.set_len(size).map_err(at(to))?;
    let (mut buffer, mut offset) = (vec![0; 1 << 20], 0);
    while offset < size {
        let some = base.read(&mut buffer).map_err(at(from))?;
        if some == 0 {
            break;
        }
        // What is zero stays a hole.
        if buffer[..some].iter().any(|byte| *byte != 0) {
            out.write_all_at(&buffer[..some], offset).map_err(at(to))?;
        }
        offset += some as u64;
    }
    (&out).flush().map_err(at(to))?;
    Ok(out)
}

/// A hole where there was data; the file reaches `end` afterwards.
fn zero(file: &File, offset: u64, end: u64) -> std::io::Result<()> {
    let size = file.metadata()?.len();
    if offset < size {
        let length = (end.min(size) - offset) as libc::off_t;
        // SAFETY: an open descriptor and numbers.
        let done = unsafe {
            libc::fallocate(
                file.as_raw_fd(),
                libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
                offset as libc::off_t,
                length,
            )
        };
        if done != 0 {
            let zeroes = vec![0; 1 << 16];
            let (mut at, until) = (offset, end.min(size));
            while at < until {
                let some = (until - at).min(1 << 16);
                file.write_all_at(&zeroes[..some as usize], at)?;
                at += some;
            }
        }
    }
    if end > size {
        file.set_len(end)?;
    }
    Ok(())
}
