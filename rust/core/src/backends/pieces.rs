//! Pieces of zeroed memory, all of one size, out of large maps.
//!
//! Small pieces lie in huge pages where the kernel has them: an I/O goes to a random place of a
//! model, and with pages of 4 KiB to look up where that is takes longer than to write it.

use std::alloc::{Layout, handle_alloc_error};

/// A huge page, and what is reserved at a time. Nothing is backed before it is touched.
const HUGE_BYTES: usize = 2 << 20;
const MAP_BYTES: usize = 32 << 20;
/// Of larger pieces most is never touched: a huge page for each would be a waste.
const SMALL_BYTES: usize = 64 << 10;

/// The pieces. Those that are taken are known by their numbers.
pub struct Pieces {
    piece_bytes: usize,
    maps: Vec<Map>,
    taken: usize,
    free: Vec<u32>,
}

impl Pieces {
    /// Of `piece_bytes`, a power of two up to 32 MiB.
    #[must_use]
    pub const fn new(piece_bytes: usize) -> Self {
        assert!(piece_bytes <= MAP_BYTES);
        Self { piece_bytes, maps: Vec::new(), taken: 0, free: Vec::new() }
    }

    /// A piece of zeroes.
    pub fn take(&mut self) -> u32 {
        if let Some(number) = self.free.pop() {
            self.at_mut(number).fill(0);
            return number;
        }
        let number = self.taken;
        if number * self.piece_bytes / MAP_BYTES == self.maps.len() {
            self.maps.push(Map::new(self.piece_bytes <= SMALL_BYTES));
        }
        self.taken += 1;
        number as u32
    }

    /// The piece will be another's.
    pub fn give_back(&mut self, number: u32) {
        self.free.push(number);
    }

    #[inline]
    #[must_use]
    pub fn at(&self, number: u32) -> &[u8] {
        let (map, from) = self.place(number);
        // SAFETY: `place` gives a piece inside of a map that lives as long as `self`, which is
        // borrowed; maps hold zeroes from the start.
        unsafe { std::slice::from_raw_parts(self.maps[map].start.add(from), self.piece_bytes) }
    }

    #[inline]
    pub fn at_mut(&mut self, number: u32) -> &mut [u8] {
        let (map, from) = self.place(number);
        // SAFETY: as in `at`; pieces do not overlap, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.maps[map].start.add(from), self.piece_bytes) }
    }

    #[inline]
    fn place(&self, number: u32) -> (usize, usize) {
        let at = number as usize * self.piece_bytes;
        debug_assert!((number as usize) < self.taken);
        (at / MAP_BYTES, at % MAP_BYTES)
    }
}

/// An anonymous map, aligned to huge pages.
struct Map {
    start: *mut u8,
    whole: *mut libc::c_void,
}

impl Map {
    fn new(huge: bool) -> Self {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let bytes = MAP_BYTES + HUGE_BYTES;
        // SAFETY: an anonymous map at no fixed address touches nothing that exists.
        let whole = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0) };
        if whole == libc::MAP_FAILED {
            handle_alloc_error(Layout::new::<[u8; MAP_BYTES]>());
        }
        let gap = whole.align_offset(HUGE_BYTES);
        // SAFETY: the gap is smaller than a huge page, by which the map is larger.
        let start = unsafe { whole.cast::<u8>().add(gap) };
        if huge {
            // SAFETY: advice about the map; a kernel that does not take it changes nothing.
            unsafe { libc::madvise(start.cast(), MAP_BYTES, libc::MADV_HUGEPAGE) };
        }
        Self { start, whole }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the map is ours and nothing borrows it any more.
        unsafe { libc::munmap(self.whole, MAP_BYTES + HUGE_BYTES) };
    }
}

// SAFETY: the map is only reached through its `Pieces`.
unsafe impl Send for Map {}
// SAFETY: as above; a shared borrow only reads.
unsafe impl Sync for Map {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zeroes_apart_and_zeroes_again() {
        for bytes in [16 << 10, 1 << 20] {
            let mut pieces = Pieces::new(bytes);
            let count = 2 * MAP_BYTES / bytes + 1;
            let taken: Vec<u32> = (0..count).map(|_| pieces.take()).collect();
            for number in &taken {
                assert!(pieces.at(*number).iter().all(|byte| *byte == 0));
                pieces.at_mut(*number).fill(*number as u8 | 1);
            }
            for number in &taken {
                assert!(pieces.at(*number).iter().all(|byte| *byte == *number as u8 | 1));
            }
            pieces.give_back(taken[1]);
            assert_eq!(pieces.take(), taken[1]);
            assert!(pieces.at(taken[1]).iter().all(|byte| *byte == 0));
        }
    }
}
