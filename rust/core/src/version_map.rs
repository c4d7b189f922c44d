//! Which version of its data each place of a disk should hold, and the check of reads by it.
//!
//! Sparse: a chunk of 1 MiB of disk takes memory (8 KiB at granules of 512 bytes) once something
//! in it is known, and gives it back when all of it is forgotten. What is not known is not
//! checked, and counted as unverified: places never written, discarded, written in part of a
//! granule, or by writes that failed or overlapped another in flight.

use std::ops::Range;

use crate::int_map::IntMap;
use crate::payload::{Mismatch, Payload, SECTOR_BYTES, Version};

const CHUNK_BYTES: u64 = 1 << 20;

/// The expected content of one disk.
pub struct VersionMap {
    granule_bytes: u64,
    /// Keyed by offset / 1 MiB; a granule each, as [`Version::code`].
    chunks: IntMap<Box<[u32]>>,
}

/// What checking one read found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    pub verified_bytes: u64,
    /// Bytes of places of which nothing is known.
    pub unverified_bytes: u64,
    /// The first mismatch; what lies behind it counts as neither.
    pub mismatch: Option<Mismatch>,
}

/// A stretch of one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownRange {
    pub offset_bytes: u64,
    pub length_bytes: u64,
    pub version: Version,
}

impl VersionMap {
    /// `granule_bytes`: what the trace's offsets and lengths are all multiples of, a power of
    /// two from 512 to 1 MiB. Larger granules take less memory.
    ///
    /// # Panics
    /// When `granule_bytes` is none of these.
    #[must_use]
    pub fn new(granule_bytes: u64) -> Self {
        assert!(
            granule_bytes.is_power_of_two()
                && (SECTOR_BYTES as u64..=CHUNK_BYTES).contains(&granule_bytes),
            "granules of {granule_bytes} bytes: expected a power of two from 512 to 1 MiB"
        );
        Self { granule_bytes, chunks: IntMap::default() }
    }

    /// The range now holds what the write (or prefill) `version` left. Granules that it covers
    /// in part hold two versions from now on and become unknown, unless they held this one.
    pub fn record_write(&mut self, offset_bytes: u64, length_bytes: u64, version: Version) {
        if length_bytes == 0 {
            return;
        }
        let granule = self.granule_bytes;
        let end = offset_bytes + length_bytes;
        let first_whole = offset_bytes.next_multiple_of(granule);
        let last_whole = end - end % granule;
        if first_whole > last_whole {
            self.cover_in_part(offset_bytes, version);
            return;
        }
        if offset_bytes < first_whole {
            self.cover_in_part(offset_bytes, version);
        }
        if last_whole < end {
            self.cover_in_part(last_whole, version);
        }
        let per_chunk = (CHUNK_BYTES / granule) as usize;
        for (chunk, range) in by_chunk(granule, first_whole, last_whole) {
            let codes =
                self.chunks.entry(chunk).or_insert_with(|| vec![0; per_chunk].into_boxed_slice());
            codes[range].fill(version.code());
        }
    }

    fn cover_in_part(&mut self, offset_bytes: u64, version: Version) {
        if self.run_at(offset_bytes, offset_bytes + 1).0 != version {
            self.forget(offset_bytes, 1);
        }
    }

    /// The range now reads back zero.
    pub fn record_zeroes(&mut self, offset_bytes: u64, length_bytes: u64) {
        self.record_write(offset_bytes, length_bytes, Version::ZEROES);
    }

    /// Nothing is known any more of all granules that the range touches.
    pub fn forget(&mut self, offset_bytes: u64, length_bytes: u64) {
        if length_bytes == 0 {
            return;
        }
        let granule = self.granule_bytes;
        let first = offset_bytes - offset_bytes % granule;
        let end = (offset_bytes + length_bytes).next_multiple_of(granule);
        for (chunk, range) in by_chunk(granule, first, end) {
            let Some(codes) = self.chunks.get_mut(&chunk) else { continue };
            codes[range].fill(Version::UNKNOWN.code());
            if codes.iter().all(|code| *code == Version::UNKNOWN.code()) {
                self.chunks.remove(&chunk);
            }
        }
    }

    /// Checks what a read returned. Call it before recording a later write.
    #[must_use]
    pub fn verify_read(&self, payload: &Payload, offset_bytes: u64, buf: &[u8]) -> Outcome {
        let mut outcome = Outcome::default();
        let end = offset_bytes + buf.len() as u64;
        let mut at = offset_bytes;
        while at < end {
            let (version, until) = self.run_at(at, end);
            if version == Version::UNKNOWN {
                outcome.unverified_bytes += until - at;
            } else {
                let part = &buf[(at - offset_bytes) as usize..(until - offset_bytes) as usize];
                if let Err(mismatch) = payload.check(part, at, version) {
                    outcome.verified_bytes += mismatch.offset_bytes - at;
                    outcome.mismatch = Some(mismatch);
                    return outcome;
                }
                outcome.verified_bytes += until - at;
            }
            at = until;
        }
        outcome
    }

    /// All that is known, in order of offset, neighbours of one version as one range: what the
    /// sweep at the end of a run reads back.
    pub fn known_ranges(&self) -> impl Iterator<Item = KnownRange> + '_ {
        let mut chunks: Vec<u64> = self.chunks.keys().copied().collect();
        chunks.sort_unstable();
        let runs = chunks.into_iter().flat_map(|chunk| self.runs_of_chunk(chunk));
        MergeNeighbours { runs, pending: None }
    }

    /// Memory taken, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.chunks.len() * (CHUNK_BYTES / self.granule_bytes) as usize * size_of::<u32>()
            + self.chunks.capacity() * size_of::<(u64, Box<[u32]>)>()
    }

    /// What the granule at `offset_bytes` should hold.
    #[must_use]
    pub fn version_at(&self, offset_bytes: u64) -> Version {
        self.run_at(offset_bytes, offset_bytes + 1).0
    }

    /// The version at `at`, and where it or its chunk ends, at most `end`.
    fn run_at(&self, at: u64, end: u64) -> (Version, u64) {
        let chunk = at / CHUNK_BYTES;
        let chunk_begin = chunk * CHUNK_BYTES;
        let Some(codes) = self.chunks.get(&chunk) else {
            return (Version::UNKNOWN, end.min(chunk_begin + CHUNK_BYTES));
        };
        let granule = ((at - chunk_begin) / self.granule_bytes) as usize;
        let code = codes[granule];
        let last = codes.len().min((end - chunk_begin).div_ceil(self.granule_bytes) as usize);
        let same = codes[granule..last].iter().take_while(|c| **c == code).count();
        let until = chunk_begin + (granule + same) as u64 * self.granule_bytes;
        (Version::from_code(code), end.min(until))
    }

    fn runs_of_chunk(&self, chunk: u64) -> impl Iterator<Item = KnownRange> + '_ {
        let end = (chunk + 1) * CHUNK_BYTES;
        let mut at = chunk * CHUNK_BYTES;
        std::iter::from_fn(move || {
            while at < end {
                let (version, until) = self.run_at(at, end);
                let range = KnownRange { offset_bytes: at, length_bytes: until - at, version };
                at = until;
                if version != Version::UNKNOWN {
                    return Some(range);
                }
            }
            None
        })
    }
}

/// The chunks under `first..end` (multiples of `granule`), each with its granules in the range.
fn by_chunk(granule: u64, first: u64, end: u64) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut at = first;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let chunk = at / CHUNK_BYTES;
        let begin = chunk * CHUNK_BYTES;
        let until = end.min(begin + CHUNK_BYTES);
        let range = ((at - begin) / granule) as usize..((until - begin) / granule) as usize;
        at = until;
        Some((chunk, range))
    })
}

struct MergeNeighbours<I> {
    runs: I,
    pending: Option<KnownRange>,
}

impl<I: Iterator<Item = KnownRange>> Iterator for MergeNeighbours<I> {
    type Item = KnownRange;

    fn next(&mut self) -> Option<KnownRange> {
        loop {
            match (self.pending.take(), self.runs.next()) {
                (Some(mut old), Some(new))
                    if old.version == new.version
                        && old.offset_bytes + old.length_bytes == new.offset_bytes =>
                {
                    old.length_bytes += new.length_bytes;
                    self.pending = Some(old);
                }
                (Some(old), new) => {
                    self.pending = new;
                    return Some(old);
                }
                (None, Some(new)) => self.pending = Some(new),
                (None, None) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::payload::Knobs;

    const DISK_BYTES: usize = 3 << 20;

    #[derive(Debug, Clone)]
    enum Step {
        Write(usize, usize),
        Zeroes(usize, usize),
        Forget(usize, usize),
        Read(usize, usize),
        /// A byte of the disk changes behind the map's back, then all is read.
        Corrupt(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Ranges of 256-byte steps, so that some are unaligned to every granule size, gathered
        // around the border of two chunks so that they meet each other.
        let place = (0usize..200, 0usize..120).prop_map(|(at, len)| {
            let at = (1 << 20) - 100 * 256 + at * 256;
            (at, (len * 256).min(DISK_BYTES - at))
        });
        let far = (0..DISK_BYTES / 256, 0usize..9000)
            .prop_map(|(at, len)| (at * 256, (len * 256).min(DISK_BYTES - at * 256)));
        let place = prop_oneof![4 => place, 1 => far];
        let step = prop_oneof![
            4 => place.clone().prop_map(|(at, len)| Step::Write(at, len)),
            1 => place.clone().prop_map(|(at, len)| Step::Zeroes(at, len)),
            1 => place.clone().prop_map(|(at, len)| Step::Forget(at, len)),
            3 => place.prop_map(|(at, len)| Step::Read(at, len)),
            1 => (0..DISK_BYTES).prop_map(Step::Corrupt),
        ];
        proptest::collection::vec(step, 1..40)
    }

    /// The obvious version: the disk's bytes, and what wrote each of them.
    struct Model {
        disk: Vec<u8>,
        wrote: Vec<Version>,
        granule: usize,
    }

    impl Model {
        fn set(&mut self, at: usize, len: usize, version: Version) {
            self.wrote[at..at + len].fill(version);
            // Granules of two versions are unknown, and stay so until written whole.
            for granule in [at, (at + len).saturating_sub(1)] {
                let begin = granule / self.granule * self.granule;
                let granule = &mut self.wrote[begin..begin + self.granule];
                if len > 0 && granule.iter().any(|v| *v != granule[0]) {
                    granule.fill(Version::UNKNOWN);
                }
            }
        }

        fn forget(&mut self, at: usize, len: usize) {
            if len > 0 {
                let begin = at / self.granule * self.granule;
                let end = (at + len).next_multiple_of(self.granule);
                self.wrote[begin..end].fill(Version::UNKNOWN);
            }
        }

        fn expect(&self, payload: &Payload, at: usize, len: usize) -> Outcome {
            let mut outcome = Outcome::default();
            let mut byte = [0];
            for place in at..at + len {
                let version = self.wrote[place];
                if version == Version::UNKNOWN {
                    outcome.unverified_bytes += 1;
                    continue;
                }
                payload.fill(&mut byte, place as u64, version);
                if byte[0] != self.disk[place] {
                    let found = &self.disk[place..=place];
                    outcome.mismatch = payload.check(found, place as u64, version).err();
                    break;
                }
                outcome.verified_bytes += 1;
            }
            outcome
        }
    }

    fn same(got: &Outcome, model: &Outcome) -> bool {
        let key = |o: &Outcome| {
            let mismatch = o.mismatch.map(|m| (m.offset_bytes, m.expected));
            (o.verified_bytes, o.unverified_bytes, mismatch)
        };
        key(got) == key(model)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn agrees_with_a_byte_array(
            steps in steps(),
            granule in prop_oneof![Just(512u64), Just(4096)],
            dedupe in prop_oneof![Just(0.0), Just(0.4)],
        ) {
            let payload =
                Payload::new("d", 7, Knobs { compressible: 0.3, dedupe }).unwrap();
            let mut map = VersionMap::new(granule);
            let mut model = Model {
                disk: vec![0x55; DISK_BYTES],
                wrote: vec![Version::UNKNOWN; DISK_BYTES],
                granule: granule as usize,
            };
            for (seq, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Write(at, len) => {
                        let version = Version::of_write(seq as u64);
                        payload.fill(&mut model.disk[at..at + len], at as u64, version);
                        map.record_write(at as u64, len as u64, version);
                        model.set(at, len, version);
                    }
                    Step::Zeroes(at, len) => {
                        model.disk[at..at + len].fill(0);
                        map.record_zeroes(at as u64, len as u64);
                        model.set(at, len, Version::ZEROES);
                    }
                    Step::Forget(at, len) => {
                        map.forget(at as u64, len as u64);
                        model.forget(at, len);
                    }
                    Step::Read(at, len) => {
                        let got = map.verify_read(&payload, at as u64, &model.disk[at..at + len]);
                        prop_assert_eq!(got.mismatch, None);
                        prop_assert!(same(&got, &model.expect(&payload, at, len)));
                    }
                    Step::Corrupt(at) => {
                        model.disk[at] ^= 0x10;
                        let (from, to) = (at.saturating_sub(5000), (at + 5000).min(DISK_BYTES));
                        let got = map.verify_read(&payload, from as u64, &model.disk[from..to]);
                        prop_assert!(same(&got, &model.expect(&payload, from, to - from)));
                        model.disk[at] ^= 0x10;
                    }
                }
            }
            let mut known = vec![Version::UNKNOWN; DISK_BYTES];
            let mut last: Option<KnownRange> = None;
            for range in map.known_ranges() {
                if let Some(last) = last {
                    let end = last.offset_bytes + last.length_bytes;
                    prop_assert!(end < range.offset_bytes
                        || (end == range.offset_bytes && last.version != range.version));
                }
                let at = range.offset_bytes as usize;
                known[at..at + range.length_bytes as usize].fill(range.version);
                last = Some(range);
            }
            prop_assert!(known == model.wrote);
        }
    }

    #[test]
    fn memory_follows_the_footprint() {
        let mut map = VersionMap::new(512);
        for mib in 0..64u64 {
            map.record_write(mib << 30, 4096, Version::of_write(mib));
        }
        let full = map.memory_bytes();
        assert!((64 * 8192..64 * 8192 + 16384).contains(&full), "{full}");
        for mib in 0..64u64 {
            map.forget((mib << 30) + 17, 4000);
        }
        assert_eq!(map.known_ranges().count(), 0);
        assert!(map.memory_bytes() < 8192, "forgotten chunks are given back");
    }
}
