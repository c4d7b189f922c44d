//! What a disk should hold: makes the data of writes and checks that of reads.

use std::sync::Arc;

use crate::error::Result;
use crate::filters::{DataMode, SECTOR_BYTES, TOKEN_BYTES};
use crate::formats::content::Content;
use crate::io::Op;
use crate::payload::{Found, Knobs, Mismatch, Payload, Version};
use crate::version_map::{KnownRange, Outcome, VersionMap};

/// The oracle of one disk.
pub struct Oracle {
    mode: DataMode,
    payload: Payload,
    /// None when nothing is verified: versions are then not kept.
    map: Option<VersionMap>,
}

impl Oracle {
    /// # Errors
    /// `Input` for knobs out of range.
    pub fn new(
        disk: &str,
        seed: u64,
        knobs: Knobs,
        mode: DataMode,
        granule_bytes: Option<u64>,
    ) -> Result<Self> {
        Ok(Self {
            mode,
            payload: Payload::new(disk, seed, knobs)?,
            map: granule_bytes.map(|bytes| VersionMap::new(bytes.max(SECTOR_BYTES))),
        })
    }

    /// Writes take their data from what the trace's writes wrote.
    #[must_use]
    pub fn with_content(mut self, content: Option<&Arc<Content>>) -> Self {
        if let Some(content) = content {
            self.payload = self.payload.with_content(Arc::clone(content));
        }
        self
    }

    /// Some of the trace's content could not be read.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.payload.is_lost()
    }

    #[must_use]
    pub const fn verifies(&self) -> bool {
        self.map.is_some()
    }

    /// The data of a write.
    pub fn fill(&self, data: &mut [u8], offset_bytes: u64, version: Version) {
        match self.mode {
            DataMode::Bytes => self.payload.fill(data, offset_bytes, version),
            DataMode::Tokens => {
                for token in data.chunks_exact_mut(TOKEN_BYTES) {
                    token.copy_from_slice(&u64::from(version.code()).to_le_bytes());
                }
            }
            DataMode::Nothing => {}
        }
    }

    /// An I/O starts that changes the range. Overlapping ones must not be in flight.
    pub fn starts(&mut self, op: Op, offset_bytes: u64, length_bytes: u64, version: Version) {
        let Some(map) = &mut self.map else { return };
        match op {
            Op::Write => map.record_write(offset_bytes, length_bytes, version),
            Op::WriteZeroes => map.record_zeroes(offset_bytes, length_bytes),
            Op::Discard => map.forget(offset_bytes, length_bytes),
            Op::Read | Op::Flush => {}
        }
    }

    /// Nobody can know what the range holds: a failed write, or two that overlapped.
    pub fn forget(&mut self, offset_bytes: u64, length_bytes: u64) {
        if let Some(map) = &mut self.map {
            map.forget(offset_bytes, length_bytes);
        }
    }

    /// Checks what a read of `length_bytes` gave.
    #[must_use]
    pub fn check(&self, offset_bytes: u64, length_bytes: u64, data: &[u8]) -> Outcome {
        match (&self.map, self.mode) {
            (Some(map), DataMode::Bytes) => map.verify_read(&self.payload, offset_bytes, data),
            (Some(map), DataMode::Tokens) => check_tokens(map, offset_bytes, length_bytes, data),
            _ => Outcome { unverified_bytes: length_bytes, ..Outcome::default() },
        }
    }

    /// Everything whose version is known, for the sweep.
    #[must_use]
    pub fn known_ranges(&self) -> Vec<KnownRange> {
        self.map.iter().flat_map(VersionMap::known_ranges).collect()
    }
}

fn check_tokens(map: &VersionMap, offset: u64, length: u64, data: &[u8]) -> Outcome {
    let mut outcome = Outcome::default();
    let first = offset - offset % SECTOR_BYTES;
    for (i, token) in data.chunks_exact(TOKEN_BYTES).enumerate() {
        let sector = first + i as u64 * SECTOR_BYTES;
        let bytes = (sector + SECTOR_BYTES).min(offset + length) - sector.max(offset);
        let expected = map.version_at(sector);
        let mut found = [0; TOKEN_BYTES];
        found.copy_from_slice(token);
        let found = u64::from_le_bytes(found);
        let zeroes = expected == Version::ZEROES && found == 0;
        if expected == Version::UNKNOWN {
            outcome.unverified_bytes += bytes;
        } else if zeroes || found == u64::from(expected.code()) {
            outcome.verified_bytes += bytes;
        } else {
            let found = match u32::try_from(found) {
                Ok(0) => Found::Zeroes,
                Ok(code) => Found::Version(Version::from_code(code)),
                Err(_) => Found::Foreign,
            };
            outcome.mismatch = Some(Mismatch { offset_bytes: sector, expected, found });
            break;
        }
    }
    outcome
}
