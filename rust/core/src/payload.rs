//! What replayed writes hold, and the check that a read gives it back.
//!
//! Data is made a sector (512 bytes) at a time from (disk, sector, version, seed) alone, so any
//! part of any write can be made again anywhere, at several GB/s, and nothing needs to be kept.
//!
//! A sector: 24 bytes of header, then pseudo-random filler, then zeroes for the compressible
//! share. The header is three little-endian words: a tag (hash of disk, sector, version and
//! seed), the sector number, and version | disk << 32; the last two are masked with hashes of
//! the tag, because plain numbers would compress and so falsify `compressible`. A header whose
//! tag fits its fields says which write of this run left it: that is how a mismatch can name the
//! version it found, and tell a lost write from one that landed in the wrong place.
//!
//! With `dedupe`, a share of the aligned 4 KiB blocks are copies of blocks out of a pool of
//! [`POOL_BLOCKS`], the same for all disks of a run; a block's copy is chosen by the hash of
//! (disk, block, version, seed). Their headers name the pool block instead of the place.
//!
//! Where the trace names the content of its blocks ([`crate::contents`]), a block is made from the
//! number of its content and the seed, whatever disk and place it is written to.

use std::fmt;
use std::sync::Arc;

use crate::formats::content::Content;

/// Data is made and checked in units of this.
pub const SECTOR_BYTES: usize = 512;
/// The unit of `dedupe`, as most storage deduplicates it.
pub const DEDUPE_BLOCK_BYTES: u64 = 4096;
/// Blocks in the pool shared by all disks: 1 MiB, soon all used even by a short trace.
pub const POOL_BLOCKS: u64 = 256;

const HEADER_WORDS: usize = 3;
/// Of a block that others may be copies of.
const SECTORS: u64 = DEDUPE_BLOCK_BYTES / SECTOR_BYTES as u64;
/// `compressible` beyond this would leave no room for the header.
const COMPRESSIBLE_MAX: f64 = 0.95;

/// What a place holds, in four bytes: special codes, then the writes of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(u32);

impl Version {
    /// Nothing is known: never written, discarded, written in part, or by a failed write.
    pub const UNKNOWN: Self = Self(0);
    /// Reads back zero, after write_zeroes.
    pub const ZEROES: Self = Self(1);
    /// Written before the clock started.
    pub const PREFILL: Self = Self(2);
    const FIRST_WRITE: u32 = 3;
    /// The first block content; the numbers of contents follow.
    const FIRST_CONTENT: u32 = 1 << 31;
    /// Contents have numbers below this.
    pub const CONTENTS_MAX: u32 = Self::FIRST_CONTENT - 2;
    /// Marks the header of a block of a known content, whatever wrote it.
    const CONTENT: Self = Self(u32::MAX - 1);
    /// Marks the header of a pool block, whatever wrote it.
    const POOL: Self = Self(u32::MAX);
    const WRITES: u64 = (Self::FIRST_CONTENT - Self::FIRST_WRITE) as u64;

    /// The version of the write with this sequence number in the trace. Numbers come round
    /// after 2.15 billion I/Os: a write that old would no longer be told from its successor.
    #[must_use]
    pub const fn of_write(seq: u64) -> Self {
        Self(Self::FIRST_WRITE + (seq % Self::WRITES) as u32)
    }

    /// What every block of this content holds; `number` is below [`Version::CONTENTS_MAX`].
    #[must_use]
    pub const fn of_content(number: u32) -> Self {
        Self(Self::FIRST_CONTENT + number)
    }

    /// The number of the content, for a version that is one.
    const fn content(self) -> Option<u32> {
        match self.0.checked_sub(Self::FIRST_CONTENT) {
            Some(number) if number < Self::CONTENTS_MAX => Some(number),
            _ => None,
        }
    }

    #[must_use]
    pub const fn code(self) -> u32 {
        self.0
    }

    /// The write of the trace that it is of.
    const fn seq(self) -> Option<u64> {
        let is_write = self.0 >= Self::FIRST_WRITE && self.0 != u32::MAX;
        if is_write { Some((self.0 - Self::FIRST_WRITE) as u64) } else { None }
    }

    pub(crate) const fn from_code(code: u32) -> Self {
        Self(code)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UNKNOWN => f.write_str("unknown data"),
            Self::ZEROES => f.write_str("zeroes"),
            Self::PREFILL => f.write_str("the prefill"),
            Self::POOL => f.write_str("a block of the dedupe pool"),
            Self::CONTENT => f.write_str("a block of another content"),
            Self(code) => match self.content() {
                Some(number) => write!(f, "content {number}"),
                None => write!(f, "write {}", code - Self::FIRST_WRITE),
            },
        }
    }
}

/// How well the data compresses and deduplicates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Knobs {
    /// Share of the bytes of every 4 KiB block that compress away, 0 to 0.95.
    pub compressible: f64,
    /// Share of the aligned 4 KiB blocks that are copies of other blocks, 0 to 1.
    pub dedupe: f64,
}

impl Default for Knobs {
    fn default() -> Self {
        Self { compressible: 0.0, dedupe: 0.0 }
    }
}

impl Knobs {
    /// # Errors
    /// `Input` when a share is out of its range.
    pub fn check(self) -> crate::error::Result<Self> {
        for (name, value, max) in
            [("compressible", self.compressible, COMPRESSIBLE_MAX), ("dedupe", self.dedupe, 1.0)]
        {
            if !(0.0..=max).contains(&value) {
                return Err(crate::error::Error::input(format!(
                    "{name}: expected a share from 0 to {max} such as 0.5, got {value}"
                )));
            }
        }
        Ok(self)
    }
}

/// What was found in a place where something else was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Data of another version of the same place.
    Version(Version),
    /// Data of this disk, but of another sector.
    ElsewhereOnDisk {
        sector: u64,
        version: Version,
    },
    /// Data that was written to another disk of this run.
    OtherDisk {
        sector: u64,
        version: Version,
    },
    /// The header fits the expectation, the rest of the sector does not.
    Damaged,
    Zeroes,
    /// No header of this run.
    Foreign,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => version.fmt(f),
            Self::ElsewhereOnDisk { sector, version } => {
                write!(f, "{version} of offset {}", sector * SECTOR_BYTES as u64)
            }
            Self::OtherDisk { sector, version } => {
                write!(f, "{version} of offset {} of another disk", sector * SECTOR_BYTES as u64)
            }
            Self::Damaged => f.write_str("the same version, damaged"),
            Self::Zeroes => f.write_str("zeroes"),
            Self::Foreign => f.write_str("data not written by this run"),
        }
    }
}

/// A read that did not give back what was last written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatch {
    /// Of the first differing byte, on the disk.
    pub offset_bytes: u64,
    pub expected: Version,
    pub found: Found,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}: expected {}, found {}", self.offset_bytes, self.expected, self.found)
    }
}

/// The data of one disk in one run.
#[derive(Debug, Clone)]
pub struct Payload {
    disk: u32,
    seed: u64,
    /// Bytes of a sector that do not compress, the header among them.
    random_bytes: usize,
    /// Blocks whose hash is below this are copies; `None` for no dedupe.
    dedupe_below: Option<u64>,
    /// What the trace's writes really wrote, where that is known and wanted.
    content: Option<Arc<Content>>,
}

impl Payload {
    /// # Errors
    /// As [`Knobs::check`].
    pub fn new(disk: &str, seed: u64, knobs: Knobs) -> crate::error::Result<Self> {
        let knobs = knobs.check()?;
        let random = (1.0 - knobs.compressible) * SECTOR_BYTES as f64;
        Ok(Self {
            disk: xxhash_rust::xxh3::xxh3_64(disk.as_bytes()) as u32,
            seed,
            random_bytes: (random.round() as usize).clamp(HEADER_WORDS * 8, SECTOR_BYTES),
            dedupe_below: (knobs.dedupe > 0.0).then_some((knobs.dedupe * u64::MAX as f64) as u64),
            content: None,
        })
    }

    /// Writes have what they had when the trace was taken; the rest is made as ever.
    #[must_use]
    pub fn with_content(mut self, content: Arc<Content>) -> Self {
        self.content = Some(content);
        self
    }

    /// Some of the trace's content could not be read: what was filled is worthless.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.content.as_ref().is_some_and(|content| content.is_lost())
    }

    fn taken(&self, version: Version) -> Option<(&Content, u64)> {
        self.content.as_deref().zip(version.seq())
    }

    /// Fills `buf` with what `version` holds from `offset_bytes` on; both may be unaligned.
    pub fn fill(&self, buf: &mut [u8], offset_bytes: u64, version: Version) {
        if version == Version::ZEROES {
            buf.fill(0);
            return;
        }
        if let Some((content, seq)) = self.taken(version) {
            content.fill(buf, seq, offset_bytes);
            return;
        }
        let mut scratch = [0; SECTOR_BYTES];
        for_each_sector(offset_bytes, buf.len(), |sector, skip, range| {
            let part = &mut buf[range];
            match <&mut [u8; SECTOR_BYTES]>::try_from(&mut *part) {
                Ok(whole) => self.make_sector(whole, sector, version),
                Err(_) => {
                    self.make_sector(&mut scratch, sector, version);
                    part.copy_from_slice(&scratch[skip..skip + part.len()]);
                }
            }
            None::<()>
        });
    }

    /// Whether `buf`, read at `offset_bytes`, is what `version` left there.
    ///
    /// # Errors
    /// The first mismatch, and what seems to be there instead.
    pub fn check(&self, buf: &[u8], offset_bytes: u64, version: Version) -> Result<(), Mismatch> {
        if let Some((content, seq)) = self.taken(version) {
            return check_content(content, buf, seq, offset_bytes, version);
        }
        let mut expected = [0; SECTOR_BYTES];
        let mismatch = for_each_sector(offset_bytes, buf.len(), |sector, skip, range| {
            if version != Version::ZEROES {
                self.make_sector(&mut expected, sector, version);
            }
            let (part, expected) = (&buf[range.clone()], &expected[skip..skip + range.len()]);
            if part == expected {
                return None;
            }
            let at = part.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(0);
            Some(Mismatch {
                offset_bytes: sector * SECTOR_BYTES as u64 + (skip + at) as u64,
                expected: version,
                found: self.identify(part, sector, skip, version),
            })
        });
        mismatch.map_or(Ok(()), Err)
    }

    /// One sector as (disk, sector, version, seed) make it.
    #[inline]
    fn make_sector(&self, out: &mut [u8; SECTOR_BYTES], sector: u64, version: Version) {
        match self.shared_sector(sector, version) {
            Some((shared, mark)) => self.fill_sector(out, 0, shared, mark),
            None => self.fill_sector(out, self.disk, sector, version),
        }
    }

    /// What this is a copy of, if it is one: a sector of a known content or of the pool, and the
    /// mark of which.
    #[inline]
    fn shared_sector(&self, sector: u64, version: Version) -> Option<(u64, Version)> {
        if let Some(number) = version.content() {
            return Some((u64::from(number) * SECTORS + sector % SECTORS, Version::CONTENT));
        }
        let below = self.dedupe_below?;
        let place = mix(u64::from(self.disk) << 32 | u64::from(version.0), self.seed);
        let hash = mix(place, sector / SECTORS);
        let pool_sector = || mix(hash, self.seed) % POOL_BLOCKS * SECTORS + sector % SECTORS;
        (hash <= below).then(|| (pool_sector(), Version::POOL))
    }

    #[inline]
    fn fill_sector(&self, out: &mut [u8; SECTOR_BYTES], disk: u32, sector: u64, version: Version) {
        let tag = self.tag(disk, sector, version);
        let fields = u64::from(version.0) | u64::from(disk) << 32;
        let header = [tag, sector ^ mix(tag, 1), fields ^ mix(tag, 2)];
        let words = self.random_bytes.div_ceil(8);
        let (random, zeroes) = out.split_at_mut(words * 8);
        for (to, word) in random.chunks_exact_mut(8).zip(header) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let mut counter = tag;
        for to in random[HEADER_WORDS * 8..].chunks_exact_mut(8) {
            counter = counter.wrapping_add(0xa076_1d64_78bd_642f);
            to.copy_from_slice(&mix(counter, 0xe703_7ed1_a0b4_28db).to_le_bytes());
        }
        random[self.random_bytes..].fill(0);
        zeroes.fill(0);
    }

    #[inline]
    fn tag(&self, disk: u32, sector: u64, version: Version) -> u64 {
        mix(mix(self.seed ^ u64::from(disk), sector), u64::from(version.0) ^ self.seed)
    }

    /// Who wrote `part`, the bytes of sector `at` from `skip` on.
    fn identify(&self, part: &[u8], at: u64, skip: usize, expected: Version) -> Found {
        if part.iter().all(|b| *b == 0) {
            return Found::Zeroes;
        }
        let Some(header) = part.get(..HEADER_WORDS * 8).filter(|_| skip == 0) else {
            return Found::Foreign;
        };
        let word = |i: usize| u64::from_le_bytes(std::array::from_fn(|b| header[8 * i + b]));
        let tag = word(0);
        let (sector, fields) = (word(1) ^ mix(tag, 1), word(2) ^ mix(tag, 2));
        let (version, disk) = (Version(fields as u32), (fields >> 32) as u32);
        if self.tag(disk, sector, version) != tag {
            return Found::Foreign;
        }
        if matches!(version, Version::POOL | Version::CONTENT) {
            return match self.shared_sector(at, expected) == Some((sector, version)) {
                true => Found::Damaged,
                false => Found::Version(version),
            };
        }
        if disk != self.disk {
            return Found::OtherDisk { sector, version };
        }
        if sector != at {
            return Found::ElsewhereOnDisk { sector, version };
        }
        if version == expected { Found::Damaged } else { Found::Version(version) }
    }
}

/// As `check`, by what the trace's write `seq` wrote.
fn check_content(
    content: &Content,
    buf: &[u8],
    seq: u64,
    offset_bytes: u64,
    version: Version,
) -> Result<(), Mismatch> {
    let mut expected = [0; DEDUPE_BLOCK_BYTES as usize];
    for (part, at) in buf.chunks(expected.len()).zip((offset_bytes..).step_by(expected.len())) {
        let expected = &mut expected[..part.len()];
        content.fill(expected, seq, at);
        if let Some(i) = part.iter().zip(&*expected).position(|(a, b)| a != b) {
            let found = match part.iter().all(|byte| *byte == 0) {
                true => Found::Zeroes,
                false => Found::Foreign,
            };
            return Err(Mismatch { offset_bytes: at + i as u64, expected: version, found });
        }
    }
    Ok(())
}

/// Walks the sectors under a range: sector number, bytes of it to skip, range within the buffer.
/// Stops at the first `Some`.
#[inline]
fn for_each_sector<T>(
    offset_bytes: u64,
    len: usize,
    mut visit: impl FnMut(u64, usize, std::ops::Range<usize>) -> Option<T>,
) -> Option<T> {
    let mut sector = offset_bytes / SECTOR_BYTES as u64;
    let mut skip = (offset_bytes % SECTOR_BYTES as u64) as usize;
    let mut at = 0;
    while at < len {
        let end = len.min(at + SECTOR_BYTES - skip);
        if let Some(found) = visit(sector, skip, at..end) {
            return Some(found);
        }
        (sector, skip, at) = (sector + 1, 0, end);
    }
    None
}

/// One multiplication with both halves of the product folded (as in wyhash and its kin): every
/// bit of the result depends on every bit of the arguments, and eight bytes cost one multiply.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xd6e8_feb8_6659_fd93);
    (product as u64) ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests;
