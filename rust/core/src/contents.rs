//! What blocks of a trace hold, where the trace says it: digests as numbers, alike on all disks.
//!
//! A trace may name the content of each 4 KiB block of an I/O by a digest. Here a digest becomes
//! a number, in order of first appearance, from which [`crate::payload`] makes the bytes: blocks
//! of one digest hold the same bytes, whichever disk they lie on. The numbers of a write's blocks
//! are kept from when it is read from the trace until it starts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_128;

use crate::int_map::IntMap;
use crate::payload::Version;

/// The unit of content.
pub const CONTENT_BYTES: u64 = 4096;

/// The contents of one I/O's blocks.
#[derive(Debug, Clone)]
struct OfIo {
    /// On the trace's disk.
    offset_bytes: u64,
    numbers: Vec<u32>,
    /// Blocks that have not started yet: a fit map makes several I/Os of one.
    left: usize,
}

#[derive(Debug, Default)]
struct Known {
    /// By digest, or its hash where that is longer.
    numbers: HashMap<u128, u32>,
    /// By the version that the I/O has, or would have if it wrote.
    ios: IntMap<OfIo>,
}

/// Shared by whoever reads the trace and whoever makes data.
#[derive(Debug, Default)]
pub struct Contents {
    known: Mutex<Known>,
    is_used: AtomicBool,
}

impl Contents {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trace had contents so far.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }

    /// The number of a digest; `None` where there are more than can be numbered.
    #[must_use]
    pub fn number(&self, digest: &[u8]) -> Option<u32> {
        let mut known = self.known();
        let next = known.numbers.len() as u32;
        let number = *known.numbers.entry(xxh3_128(digest)).or_insert(next);
        (number < Version::CONTENTS_MAX).then_some(number)
    }

    /// Distinct contents so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known().numbers.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the numbers of an I/O's blocks.
    pub fn keep(&self, version: Version, offset_bytes: u64, numbers: Vec<u32>) {
        self.is_used.store(true, Ordering::Relaxed);
        let left = numbers.len();
        let of = OfIo { offset_bytes, numbers, left };
        self.known().ios.insert(u64::from(version.code()), of);
    }

    /// Takes the numbers of an I/O's blocks out.
    #[must_use]
    pub fn take(&self, version: Version) -> Option<Vec<u32>> {
        self.known().ios.remove(&u64::from(version.code())).map(|of| of.numbers)
    }

    /// The numbers of the blocks of a part of an I/O, by its place on the trace's disk.
    #[must_use]
    pub fn part(&self, version: Version, offset_bytes: u64, length_bytes: u64) -> Option<Vec<u32>> {
        let known = self.known();
        let of = known.ios.get(&u64::from(version.code()))?;
        let first = (offset_bytes.checked_sub(of.offset_bytes)? / CONTENT_BYTES) as usize;
        let end = first + (length_bytes / CONTENT_BYTES) as usize;
        of.numbers.get(first..end).map(<[u32]>::to_vec)
    }

    /// A part of an I/O has started, or never will: when all have, its numbers go.
    pub fn started(&self, version: Version, length_bytes: u64) {
        let mut known = self.known();
        let code = u64::from(version.code());
        let Some(of) = known.ios.get_mut(&code) else { return };
        of.left = of.left.saturating_sub((length_bytes / CONTENT_BYTES) as usize);
        if of.left == 0 {
            known.ios.remove(&code);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_have_numbers_and_parts_of_ios_find_theirs() {
        let contents = Contents::default();
        let numbers: Vec<u32> =
            [b"a", b"b", b"a", b"c"].map(|digest| contents.number(digest).unwrap()).to_vec();
        assert_eq!((numbers.as_slice(), contents.len()), (&[0, 1, 0, 2][..], 3));
        let version = Version::of_write(7);
        contents.keep(version, 8192, numbers);
        assert_eq!(contents.part(version, 8192, 8192), Some(vec![0, 1]));
        assert_eq!(contents.part(version, 16384, 8192), Some(vec![0, 2]));
        assert_eq!(contents.part(version, 16384, 12288), None);
        assert_eq!(contents.part(Version::of_write(8), 8192, 4096), None);
        contents.started(version, 8192);
        assert!(contents.part(version, 16384, 4096).is_some());
        contents.started(version, 8192);
        assert_eq!(contents.take(version), None);
    }
}
