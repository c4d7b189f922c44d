//! Which blocks were touched: footprint, overwrites, working set per window.
//!
//! Blocks are held in bitmaps of 64 (one cache line a bitmap set), so memory follows the
//! footprint (a bit more than a byte a block where it is dense, 100 bytes a block where every
//! block stands alone), never the length of the trace; and a large I/O costs one step for 64
//! blocks.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use serde::Serialize;

/// Widths of the working-set windows: 10 s, 1 min, 10 min, 1 h. They tile time from the first I/O.
pub const WINDOWS_NS: [i64; 4] =
    [10_000_000_000, 60_000_000_000, 600_000_000_000, 3_600_000_000_000];

/// Spreads a key over 64 bits: the finaliser of MurmurHash3 (public domain, Austin Appleby).
#[must_use]
#[inline]
pub fn spread(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// Hashes the `u64` keys of the block tables; nothing else is ever a key.
#[derive(Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = spread(self.0 ^ u64::from(byte));
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = spread(key);
    }
}

pub type KeyMap<V> = HashMap<u64, V, BuildHasherDefault<KeyHasher>>;

/// 64 neighbouring blocks of a disk: one bit each.
#[derive(Debug, Clone, Default)]
struct Chunk {
    read: u64,
    written: u64,
    /// Blocks touched in the window `epoch` of each width.
    recent: [u64; 4],
    epoch: [u32; 4],
}

#[derive(Debug, Clone, Default)]
struct Window {
    epoch: u32,
    blocks: u64,
    closed_sum: u64,
    closed_max: u64,
}

/// Blocks touched by one disk, or by all (keys then carry the disk).
#[derive(Debug, Clone, Default)]
pub struct Blocks {
    index: KeyMap<u32>,
    chunks: Vec<Chunk>,
    windows: [Window; 4],
    requests: Requests,
}

/// Block requests: an I/O of 12 KiB at block 4 KiB is three. Discards and flushes are none.
#[derive(Debug, Clone, Copy, Default, Serialize, PartialEq, Eq)]
pub struct Requests {
    pub read: u64,
    pub written: u64,
    /// Written where this trace had written before.
    pub overwritten: u64,
    /// Read where this trace had written before.
    pub read_after_write: u64,
}

/// Working set: distinct blocks touched in each complete window of a width.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct WorkingSet {
    pub window_s: f64,
    pub windows: u64,
    pub mean_bytes: f64,
    pub max_bytes: u64,
}

/// Distinct blocks over the whole trace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unique {
    pub blocks: u64,
    pub read: u64,
    pub written: u64,
}

impl Blocks {
    /// Counts the touch of blocks `first..=last` at `time_ns` (since the first I/O). `key_base`
    /// is added to chunk numbers to tell disks apart.
    pub fn touch(&mut self, key_base: u64, first: u64, last: u64, is_write: bool, time_ns: i64) {
        let epochs = WINDOWS_NS.map(|width| (time_ns / width) as u32);
        for (window, epoch) in self.windows.iter_mut().zip(epochs) {
            window.advance(epoch);
        }
        for chunk in first >> 6..=last >> 6 {
            let low = first.max(chunk << 6) & 63;
            let high = last.min((chunk << 6) | 63) & 63;
            let mask = (u64::MAX >> (63 - high)) & (u64::MAX << low);
            self.touch_chunk(key_base + chunk, mask, is_write, epochs);
        }
    }

    #[inline]
    fn touch_chunk(&mut self, key: u64, mask: u64, is_write: bool, epochs: [u32; 4]) {
        let next = self.chunks.len() as u32;
        let at = *self.index.entry(key).or_insert(next);
        if at == next {
            self.chunks.push(Chunk::default());
        }
        let chunk = &mut self.chunks[at as usize];
        let blocks = u64::from(mask.count_ones());
        let known = u64::from((chunk.written & mask).count_ones());
        if is_write {
            self.requests.written += blocks;
            self.requests.overwritten += known;
            chunk.written |= mask;
        } else {
            self.requests.read += blocks;
            self.requests.read_after_write += known;
            chunk.read |= mask;
        }
        for (i, epoch) in epochs.into_iter().enumerate() {
            if chunk.epoch[i] != epoch {
                chunk.epoch[i] = epoch;
                chunk.recent[i] = 0;
            }
            self.windows[i].blocks += u64::from((mask & !chunk.recent[i]).count_ones());
            chunk.recent[i] |= mask;
        }
    }

    #[must_use]
    pub fn requests(&self) -> Requests {
        self.requests
    }

    #[must_use]
    pub fn unique(&self) -> Unique {
        self.chunks.iter().fold(Unique::default(), |sum, chunk| Unique {
            blocks: sum.blocks + u64::from((chunk.read | chunk.written).count_ones()),
            read: sum.read + u64::from(chunk.read.count_ones()),
            written: sum.written + u64::from(chunk.written.count_ones()),
        })
    }

    /// One entry a window width of which the trace holds at least one complete window. Windows
    /// without I/O count as empty.
    #[must_use]
    pub fn working_sets(&self, duration_ns: i64, block_bytes: u64) -> Vec<WorkingSet> {
        let mut found = Vec::new();
        for (window, width) in self.windows.iter().zip(WINDOWS_NS) {
            let complete = (duration_ns / width) as u64;
            if complete == 0 {
                continue;
            }
            // A disk that fell silent early leaves its last window open, though it is complete.
            let open = if u64::from(window.epoch) < complete { window.blocks } else { 0 };
            let sum = window.closed_sum + open;
            found.push(WorkingSet {
                window_s: width as f64 / 1e9,
                windows: complete,
                mean_bytes: (sum * block_bytes) as f64 / complete as f64,
                max_bytes: window.closed_max.max(open) * block_bytes,
            });
        }
        found
    }
}

impl Window {
    #[inline]
    fn advance(&mut self, epoch: u32) {
        if self.epoch != epoch {
            self.closed_sum += self.blocks;
            self.closed_max = self.closed_max.max(self.blocks);
            self.epoch = epoch;
            self.blocks = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn agrees_with_plain_sets() {
        let mut blocks = Blocks::default();
        let (mut read, mut written) = (HashSet::new(), HashSet::new());
        let (mut overwritten, mut read_after_write) = (0, 0);
        let mut window: HashSet<(i64, u64)> = HashSet::new();
        let mut x = 7_u64;
        let mut time = 0_i64;
        for _ in 0..20_000 {
            x = spread(x + 1);
            let (first, length, is_write) = (x % 5000, x >> 20 & 0x7f, x >> 40 & 1 == 1);
            time += (x >> 50) as i64 * 1_000_000;
            blocks.touch(0, first, first + length, is_write, time);
            for block in first..=first + length {
                window.insert((time / WINDOWS_NS[1], block));
                if is_write {
                    overwritten += u64::from(!written.insert(block));
                } else {
                    read_after_write += u64::from(written.contains(&block));
                    read.insert(block);
                }
            }
        }
        let unique = blocks.unique();
        assert_eq!(unique.blocks, read.union(&written).count() as u64);
        assert_eq!((unique.read, unique.written), (read.len() as u64, written.len() as u64));
        assert_eq!(blocks.requests().overwritten, overwritten);
        assert_eq!(blocks.requests().read_after_write, read_after_write);

        let complete = time / WINDOWS_NS[1];
        let of_complete = window.iter().filter(|(w, _)| *w < complete).count() as f64;
        let minute = &blocks.working_sets(time, 1)[1];
        assert_eq!(minute.windows, complete as u64);
        assert!((minute.mean_bytes - of_complete / complete as f64).abs() < 1e-9);
    }

    #[test]
    fn a_gap_counts_as_empty_windows_and_the_open_window_is_left_out() {
        let mut blocks = Blocks::default();
        blocks.touch(0, 0, 9, false, 0);
        blocks.touch(0, 0, 0, false, 35_000_000_000);
        let sets = blocks.working_sets(35_000_000_000, 4096);
        assert_eq!(sets.len(), 1);
        assert_eq!((sets[0].windows, sets[0].max_bytes), (3, 40_960));
        assert!((sets[0].mean_bytes - 40_960.0 / 3.0).abs() < 1e-9);
        let longer = &blocks.working_sets(41_000_000_000, 4096)[0];
        assert_eq!(longer.windows, 4);
        assert!((longer.mean_bytes - 45_056.0 / 4.0).abs() < 1e-9);
    }
}
