//! What a disk should hold: makes the data of writes and checks that of reads.

use std::sync::Arc;

use crate::contents::{CONTENT_BYTES, Contents};
use crate::error::Result;
use crate::filters::{DataMode, SECTOR_BYTES, TOKEN_BYTES};
use crate::formats::content::Content;
use crate::int_map::IntMap;
use crate::io::Op;
use crate::payload::{Found, Knobs, Mismatch, Payload, Version};
use crate::version_map::{KnownRange, Outcome, VersionMap};

/// The oracle of one disk.
pub struct Oracle {
    mode: DataMode,
    payload: Payload,
    /// None when nothing is verified: versions are then not kept.
    map: Option<VersionMap>,
    /// Where the trace has them.
    contents: Option<Arc<Contents>>,
    /// By block of 4 KiB: its content at the start.
    at_start: IntMap<u32>,
}

/// The place of a part of an I/O, on the trace's disk and on the target.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub trace_offset_bytes: u64,
    pub offset_bytes: u64,
    pub length_bytes: u64,
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
            contents: None,
            at_start: IntMap::default(),
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

    /// Data follow the trace's contents; `at_start` are those of the prefill.
    #[must_use]
    pub fn with_contents(mut self, contents: Arc<Contents>, at_start: IntMap<u32>) -> Self {
        self.contents = Some(contents);
        self.at_start = at_start;
        self
    }

    /// The parts of a write that hold different versions because the trace names their contents;
    /// empty where it names none.
    fn parts(&self, at: Place, version: Version) -> Vec<(u64, u64, Version)> {
        let Some(contents) = &self.contents else { return Vec::new() };
        let end = at.offset_bytes + at.length_bytes;
        let mut parts = Vec::new();
        if version == Version::PREFILL {
            let mut from = at.offset_bytes;
            while from < end {
                let block = from / CONTENT_BYTES;
                let to = end.min((block + 1) * CONTENT_BYTES);
                let number = self.at_start.get(&block).copied();
                parts.push((from, to - from, number.map_or(version, Version::of_content)));
                from = to;
            }
        } else if let Some(numbers) = contents.part(version, at.trace_offset_bytes, at.length_bytes)
        {
            for (i, number) in numbers.into_iter().enumerate() {
                let from = at.offset_bytes + i as u64 * CONTENT_BYTES;
                parts.push((from, CONTENT_BYTES, Version::of_content(number)));
            }
        }
        parts
    }

    #[must_use]
    pub const fn verifies(&self) -> bool {
        self.map.is_some()
    }

    /// The data of a write.
    pub fn fill(&self, data: &mut [u8], at: Place, version: Version) {
        let parts = self.parts(at, version);
        if parts.is_empty() {
            return self.fill_part(data, at.offset_bytes, version);
        }
        for (from, length, version) in parts {
            let skip = self.mode.size(from - at.offset_bytes);
            let part = &mut data[skip..skip + self.mode.size(length)];
            self.fill_part(part, from, version);
        }
    }

    fn fill_part(&self, data: &mut [u8], offset_bytes: u64, version: Version) {
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
    pub fn starts(&mut self, op: Op, at: Place, version: Version) {
        let parts = if op == Op::Write { self.parts(at, version) } else { Vec::new() };
        let Place { offset_bytes, length_bytes, .. } = at;
        let Some(map) = &mut self.map else { return };
        match op {
            Op::Write if !parts.is_empty() => {
                for (from, length, version) in parts {
                    map.record_write(from, length, version);
                }
            }
            Op::Write => map.record_write(offset_bytes, length_bytes, version),
            Op::WriteZeroes => map.record_zeroes(offset_bytes, length_bytes),
            Op::Discard => map.forget(offset_bytes, length_bytes),
            Op::Read | Op::Flush => {}
        }
    }

    /// A part of a write has started, or never will: its contents are not asked for again.
    pub fn over(&self, length_bytes: u64, version: Version) {
        if let Some(contents) = &self.contents {
            contents.started(version, length_bytes);
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
