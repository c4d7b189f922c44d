//! What the writes of a trace wrote: a file beside the trace, which a replay takes its data from.
//!
//! The data of the writes lies end to end in the order of the trace's rows. Behind it is an index
//! of three little-endian u64 a row (where its data begins, or all ones for none; its offset on the
//! disk; its length), and behind that the number of rows and a magic number.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::dm_log_writes::Log;
use super::input::Input;
use crate::error::{Error, Result};
use crate::io::Op;

const MAGIC: u64 = u64::from_le_bytes(*b"vaiodata");
const NO_DATA: u64 = u64::MAX;
const ENTRY_BYTES: u64 = 24;
const FOOTER_BYTES: u64 = 16;

/// Copies the data of a log's writes; returns how many rows there are, and bytes of data.
///
/// # Errors
/// `Input` where the log is damaged, `Failed` where the file cannot be written.
pub fn copy(log: &Path, to: &Path, skip_bad: bool) -> Result<(u64, u64)> {
    let failed = |e: std::io::Error| {
        Error::failed("cannot be written").with("file", to.display()).caused_by(e)
    };
    let mut log = Log::open(Input::open(log, &Arc::default())?, skip_bad)?;
    let mut file = BufWriter::with_capacity(1 << 20, File::create(to).map_err(failed)?);
    let mut index: Vec<u64> = Vec::new();
    let mut at = 0;
    while let Some(entry) = log.next_entry()? {
        let Some(io) = entry.io else {
            log.data(&entry, &mut |_| Ok(()))?;
            continue;
        };
        let has_data = io.op == Op::Write;
        let start = if has_data { at } else { NO_DATA };
        index.extend([start, io.offset_bytes as u64, io.length_bytes as u64]);
        log.data(&entry, &mut |piece| {
            at += piece.len() as u64;
            file.write_all(piece).map_err(failed)
        })?;
    }
    let rows = index.len() as u64 / 3;
    for word in index.into_iter().chain([rows, MAGIC]) {
        file.write_all(&word.to_le_bytes()).map_err(failed)?;
    }
    file.into_inner().map_err(|e| failed(e.into_error()))?.sync_all().map_err(failed)?;
    Ok((rows, at))
}

/// The data of a trace's writes, read where it lies.
#[derive(Debug)]
pub struct Content {
    file: File,
    rows: u64,
    index_at: u64,
    is_lost: AtomicBool,
}

impl Content {
    /// # Errors
    /// `Input` where it is no such file.
    pub fn open(path: &Path) -> Result<Self> {
        let wrong = |what: &str| Error::input(what.to_owned()).with("file", path.display());
        let file = File::open(path)
            .map_err(|e| wrong("the content of the trace cannot be read").caused_by(e))?;
        let size = file.metadata().map_err(|e| wrong("cannot be read").caused_by(e))?.len();
        let mut footer = [0; FOOTER_BYTES as usize];
        let damaged = || wrong("expected the content of a trace, found another or a damaged file");
        let footer_at = size.checked_sub(FOOTER_BYTES).ok_or_else(damaged)?;
        file.read_exact_at(&mut footer, footer_at).map_err(|_| damaged())?;
        let [rows, magic] = words(&footer);
        let index = rows.checked_mul(ENTRY_BYTES);
        let index_at = index.and_then(|bytes| footer_at.checked_sub(bytes)).ok_or_else(damaged)?;
        if magic != MAGIC {
            return Err(damaged());
        }
        Ok(Self { file, rows, index_at, is_lost: AtomicBool::new(false) })
    }

    /// Rows of the trace that it belongs to.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Some data could not be read: what was filled with it is worthless.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.is_lost.load(Relaxed)
    }

    /// Fills `buf` with what row `seq` wrote from `offset_bytes` on.
    pub fn fill(&self, buf: &mut [u8], seq: u64, offset_bytes: u64) {
        if self.read(buf, seq, offset_bytes).is_none() {
            buf.fill(0);
            self.is_lost.store(true, Relaxed);
        }
    }

    fn read(&self, buf: &mut [u8], seq: u64, offset_bytes: u64) -> Option<()> {
        if seq >= self.rows {
            return None;
        }
        let mut entry = [0; ENTRY_BYTES as usize];
        self.file.read_exact_at(&mut entry, self.index_at + seq * ENTRY_BYTES).ok()?;
        let [start, offset, length] = words(&entry);
        let skip = offset_bytes.checked_sub(offset)?;
        if start == NO_DATA || skip + buf.len() as u64 > length {
            return None;
        }
        self.file.read_exact_at(buf, start + skip).ok()
    }
}

fn words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    std::array::from_fn(|i| u64::from_le_bytes(std::array::from_fn(|b| bytes[8 * i + b])))
}
