//! What lies where in a cache file, and what of it can be trusted.
//!
//! ```text
//! 0      header: one sector, in a page of its own
//! 4096   map: a record for each frame, 31 to a sector
//! ...    frames: the data of one block each
//! ```
//!
//! All numbers are little-endian. A sector is the unit that a device writes whole or not at all;
//! header and map sectors carry a checksum of their own, so that no crash can damage a record that
//! was there before. A map sector belongs to one life of the file (`run`): those of an earlier life
//! count as empty.

use xxhash_rust::xxh3::xxh3_64;

pub const PAGE_BYTES: u64 = 4096;
pub const SECTOR: usize = 512;
const SECTORS: usize = PAGE_BYTES as usize / SECTOR;
const RECORDS: usize = 31;
/// Frames whose records are in one page of the map.
pub const PER_PAGE: u32 = (SECTORS * RECORDS) as u32;
const MAGIC: &[u8; 8] = b"vbcache\n";
const VERSION: u64 = 1;

/// The first sector: what the rest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// A number for this life of the file.
    pub run: u64,
    pub block: u64,
    pub frames: u64,
    /// Which disks it is a cache of, and how large they were in all.
    pub target: u64,
    pub target_bytes: u64,
    /// The run that wrote to it last: this life's, and the one before.
    pub writer: u64,
    pub writer_before: u64,
    /// There may be records in the map: of a write-back cache that is set up.
    pub has_map: bool,
}

/// What the first sector says.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing was ever written there.
    Blank,
    Ours(Header),
    /// Why it must be left alone.
    Other(String),
}

impl Header {
    const WORDS: usize = 10;

    pub fn encode(&self, out: &mut [u8]) {
        out.fill(0);
        out[..8].copy_from_slice(MAGIC);
        let words = [
            VERSION,
            self.run,
            self.block,
            self.frames,
            self.target,
            self.target_bytes,
            u64::from(self.has_map),
            self.writer,
            self.writer_before,
        ];
        for (i, word) in words.into_iter().enumerate() {
            put(out, 1 + i, word);
        }
        let sum = xxh3_64(&out[..8 * Self::WORDS]);
        put(out, Self::WORDS, sum);
    }

    pub fn decode(sector: &[u8]) -> Found {
        if sector.iter().all(|byte| *byte == 0) {
            return Found::Blank;
        }
        if &sector[..8] != MAGIC {
            let what = "expected a cache file or a new name, found something else";
            return Found::Other(what.to_owned());
        }
        let version = get(sector, 1);
        if version != VERSION {
            return Found::Other(format!(
                "expected version {VERSION} of its layout, found {version}: use the release that \
                 made it, or remove the file if what it holds may go"
            ));
        }
        let (block, frames) = (get(sector, 3), get(sector, 4));
        let is_sane = block.is_power_of_two() && frames > 0 && frames < 1 << 32;
        if get(sector, Self::WORDS) != xxh3_64(&sector[..8 * Self::WORDS]) || !is_sane {
            let what = "its header is damaged, so nobody can tell what it held for the disk; \
                        remove the file if that may go";
            return Found::Other(what.to_owned());
        }
        Found::Ours(Self {
            run: get(sector, 2),
            block,
            frames,
            target: get(sector, 5),
            target_bytes: get(sector, 6),
            has_map: get(sector, 7) != 0,
            writer: get(sector, 8),
            writer_before: get(sector, 9),
        })
    }

    pub fn pages(&self) -> u32 {
        (self.frames as u32).div_ceil(PER_PAGE)
    }

    /// Where the map ends and the frames begin: aligned to a block.
    pub fn data_from_bytes(&self) -> u64 {
        (PAGE_BYTES * (1 + u64::from(self.pages()))).next_multiple_of(self.block.max(PAGE_BYTES))
    }

    pub fn frame_at_bytes(&self, frame: u32) -> u64 {
        self.data_from_bytes() + u64::from(frame) * self.block
    }

    pub fn size_bytes(&self) -> u64 {
        self.frame_at_bytes(0) + self.frames * self.block
    }
}

/// A frame that holds what the disk lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub key: u64,
    /// The commit that made it, from 1: of two records of one block the later counts.
    pub commit: u64,
    pub frame: u32,
}

/// Where a page of the map lies.
pub const fn page_at_bytes(page: u32) -> u64 {
    PAGE_BYTES * (1 + page as u64)
}

/// Makes a page of the map; `record` tells key and commit of a frame that has a record.
pub fn encode_page(
    out: &mut [u8],
    run: u64,
    page: u32,
    record: impl Fn(u32) -> Option<(u64, u64)>,
) {
    out.fill(0);
    let mut frame = page * PER_PAGE;
    for sector in out.chunks_exact_mut(SECTOR) {
        put(sector, 1, run);
        for i in 0..RECORDS {
            if let Some((key, commit)) = record(frame) {
                put(sector, 2 + 2 * i, key);
                put(sector, 3 + 2 * i, commit);
            }
            frame += 1;
        }
        let sum = xxh3_64(&sector[8..]);
        put(sector, 0, sum);
    }
}

/// The records of a page, and how many of its sectors are damaged.
pub fn decode_page(bytes: &[u8], run: u64, page: u32, out: &mut Vec<Record>) -> u32 {
    let mut damaged = 0;
    for (at, sector) in bytes.chunks_exact(SECTOR).enumerate() {
        if sector.iter().all(|byte| *byte == 0) {
            continue;
        }
        if get(sector, 0) != xxh3_64(&sector[8..]) {
            damaged += 1;
            continue;
        }
        if get(sector, 1) != run {
            continue;
        }
        let first = page * PER_PAGE + (at * RECORDS) as u32;
        for i in 0..RECORDS {
            let (key, commit) = (get(sector, 2 + 2 * i), get(sector, 3 + 2 * i));
            if commit > 0 {
                out.push(Record { key, commit, frame: first + i as u32 });
            }
        }
    }
    damaged
}

fn put(bytes: &mut [u8], word: usize, value: u64) {
    bytes[8 * word..8 * word + 8].copy_from_slice(&value.to_le_bytes());
}

fn get(bytes: &[u8], word: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[8 * word..8 * word + 8]);
    u64::from_le_bytes(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        run: 7,
        block: 4096,
        frames: 1000,
        target: 3,
        target_bytes: 1 << 20,
        writer: 8,
        writer_before: 9,
        has_map: true,
    };

    #[test]
    fn a_header_is_trusted_whole_or_not_at_all() {
        let mut sector = [0; SECTOR];
        assert_eq!(Header::decode(&sector), Found::Blank);
        HEADER.encode(&mut sector);
        assert_eq!(Header::decode(&sector), Found::Ours(HEADER));
        for at in 0..8 * (Header::WORDS + 1) {
            let mut torn = sector;
            torn[at] ^= 1;
            assert!(matches!(Header::decode(&torn), Found::Other(_)), "byte {at}");
        }
        assert_eq!(HEADER.data_from_bytes(), 4096 * 6);
        assert_eq!(HEADER.size_bytes(), 4096 * 1006);
    }

    #[test]
    fn records_outlive_what_happens_to_other_sectors_and_lives() {
        let mut page = vec![0; PAGE_BYTES as usize];
        let first = PER_PAGE;
        let record = |frame: u32| frame.is_multiple_of(40).then_some((u64::from(frame) * 3, 9));
        encode_page(&mut page, 7, 1, record);
        let decode = |page: &[u8], run| {
            let mut out = Vec::new();
            let damaged = decode_page(page, run, 1, &mut out);
            (damaged, out)
        };
        let all: Vec<u32> = (first..2 * PER_PAGE).filter(|f| f.is_multiple_of(40)).collect();
        let (damaged, found) = decode(&page, 7);
        assert_eq!(damaged, 0);
        assert_eq!(found.iter().map(|r| r.frame).collect::<Vec<_>>(), all);
        assert!(found.iter().all(|r| r.key == u64::from(r.frame) * 3 && r.commit == 9));
        assert_eq!(decode(&page, 8), (0, Vec::new()), "of another life");
        page[5 * SECTOR + 100] ^= 1;
        let (damaged, found) = decode(&page, 7);
        assert_eq!(damaged, 1);
        let lost = first + 5 * 31..first + 6 * 31;
        assert!(found.iter().all(|r| !lost.contains(&r.frame)));
        page[5 * SECTOR..6 * SECTOR].fill(0);
        assert_eq!(decode(&page, 7).0, 0, "never written");
    }
}
