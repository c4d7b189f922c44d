//! Whether an image is exactly what the source had acknowledged at a point: every write that
//! completed by then is replayed into a map of versions, and each byte of the image compared with
//! the data that its version stands for.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::base_sums::sector_sum;
use crate::error::{Error, Result};
use crate::formats::content::Content;
use crate::int_map::IntMap;
use crate::io::Op;
use crate::payload::{Knobs, Payload, Version};
use crate::version_map::VersionMap;

const SECTOR: u64 = 512;
const CHUNK: u64 = 1 << 20;

/// The state of one disk as the run's rows tell it.
pub struct Expected {
    payload: Payload,
    map: VersionMap,
    /// Sectors that any write touched: of those alone something may be unknown.
    touched: VersionMap,
    /// Digests of the sectors that held something before the first write; the first one counts.
    base: IntMap<u64>,
}

/// How an image compares.
#[derive(Debug, Default, serde::Serialize)]
pub struct Compared {
    pub verified_bytes: u64,
    /// Of sectors written in part, or discarded: their content is not known from the rows.
    pub unverified_bytes: u64,
    /// The first difference: where, and what was expected and found.
    pub mismatch: Option<String>,
}

impl Expected {
    /// `content` is the file of what the trace's writes wrote, if they were replayed with that.
    ///
    /// # Errors
    /// `Input` for knobs out of range, or a file that is no such content.
    pub fn new(disk: &str, seed: u64, knobs: Knobs, content: Option<&Path>) -> Result<Self> {
        let made = Payload::new(disk, seed, knobs)?;
        Ok(Self {
            payload: match content {
                Some(path) => made.with_content(Arc::new(Content::open(path)?)),
                None => made,
            },
            map: VersionMap::new(SECTOR),
            touched: VersionMap::new(SECTOR),
            base: IntMap::default(),
        })
    }

    /// What a sector held before the first write.
    pub fn add_base(&mut self, sector: u64, sum: u64) {
        self.base.entry(sector).or_insert(sum);
    }

    /// The next completed I/O, in the order of completion.
    pub fn add(&mut self, op: Op, offset_bytes: u64, length_bytes: u64, seq: u64) {
        match op {
            Op::Write => {
                self.map.record_write(offset_bytes, length_bytes, Version::of_write(seq));
            }
            Op::WriteZeroes => self.map.record_zeroes(offset_bytes, length_bytes),
            Op::Discard => self.map.forget(offset_bytes, length_bytes),
            Op::Read | Op::Flush => return,
        }
        let from = offset_bytes / SECTOR * SECTOR;
        let to = (offset_bytes + length_bytes).next_multiple_of(SECTOR);
        self.touched.record_zeroes(from, to - from);
    }

    /// Compares the whole image. What no write touched holds what it held before, or the prefill.
    ///
    /// # Errors
    /// The image cannot be read.
    pub fn compare(&self, image: &Path) -> Result<Compared> {
        let unreadable = |e: std::io::Error| {
            Error::failed("cannot read the image").with("file", image.display()).caused_by(e)
        };
        let file = File::open(image).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        let reach = self.map.known_ranges().map(|r| r.offset_bytes + r.length_bytes).max();
        let end = size.max(reach.unwrap_or(0));
        let mut found = Compared::default();
        let mut buffer = vec![0; CHUNK as usize];
        let mut at = 0;
        while at < end && found.mismatch.is_none() {
            let length = CHUNK.min(end - at);
            let buffer = &mut buffer[..length as usize];
            buffer.fill(0);
            // Past its end an image reads as zeroes.
            let there = length.min(size.saturating_sub(at)) as usize;
            file.read_exact_at(&mut buffer[..there], at).map_err(unreadable)?;
            let outcome = self.map.verify_read(&self.payload, at, buffer);
            found.verified_bytes += outcome.verified_bytes;
            found.mismatch = outcome.mismatch.map(|mismatch| mismatch.to_string());
            if found.mismatch.is_none() && outcome.unverified_bytes > 0 {
                self.compare_unknown(at, buffer, &mut found);
            }
            at += length;
        }
        if self.payload.is_lost() {
            return Err(Error::failed("the content of the trace cannot be read any more"));
        }
        Ok(found)
    }

    fn compare_unknown(&self, from: u64, buffer: &[u8], found: &mut Compared) {
        for (i, data) in buffer.chunks(SECTOR as usize).enumerate() {
            let at = from + i as u64 * SECTOR;
            if self.map.version_at(at) != Version::UNKNOWN {
                continue;
            }
            if self.touched.version_at(at) != Version::UNKNOWN {
                found.unverified_bytes += data.len() as u64;
                continue;
            }
            if let Some(sum) = self.base.get(&(at / SECTOR)) {
                if sector_sum(data) != *sum {
                    let words = "expected what the disk held before the trace, found other data";
                    found.mismatch = Some(format!("offset {at}: {words}"));
                    return;
                }
                found.verified_bytes += data.len() as u64;
                continue;
            }
            let zero = data.iter().all(|byte| *byte == 0);
            if !zero && let Err(other) = self.payload.check(data, at, Version::PREFILL) {
                let words = format!("offset {at}: expected nothing written, found {}", other.found);
                found.mismatch = Some(words);
                return;
            }
            found.verified_bytes += data.len() as u64;
        }
    }
}
