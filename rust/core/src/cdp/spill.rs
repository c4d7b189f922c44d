//! Where the journal's entries lie in its spill file: a ring, filled and freed in their order.
//!
//! A record is an entry as it travels (a header with checksums, then the body), padded to blocks.
//! Nothing is ever read of a file that another run left: after a crash of the source the disks
//! themselves hold all that was acknowledged, and are compared with the replica.

use std::collections::VecDeque;

use super::entry::{Entry, HEADER_BYTES};

/// Records start and end at multiples of this.
const BLOCK_BYTES: u64 = 4096;

/// A record's place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    pub no: u64,
    pub at_bytes: u64,
    pub length_bytes: u64,
    /// Still being written: not to be given away, wanted or not.
    busy: bool,
    live: bool,
}

/// The ring.
#[derive(Debug, Default)]
pub struct Ring {
    size_bytes: u64,
    regions: VecDeque<Region>,
}

/// What an entry takes in the file.
#[must_use]
pub const fn record_bytes(real_bytes: u64) -> u64 {
    (HEADER_BYTES as u64 + real_bytes).next_multiple_of(BLOCK_BYTES)
}

impl Ring {
    #[must_use]
    pub const fn new(size_bytes: u64) -> Self {
        Self { size_bytes, regions: VecDeque::new() }
    }

    /// A place for entry `no`, which follows all that have one; none when the file is full.
    pub fn take(&mut self, no: u64, real_bytes: u64) -> Option<Region> {
        let length_bytes = record_bytes(real_bytes);
        let at_bytes = match (self.regions.front(), self.regions.back()) {
            (Some(first), Some(last)) => {
                let (head, tail) = (first.at_bytes, last.at_bytes + last.length_bytes);
                if tail > head {
                    // Strictly before the head, else a full ring would look like an empty one.
                    let fits = self.size_bytes.saturating_sub(tail) >= length_bytes;
                    if fits { tail } else { (length_bytes < head).then_some(0)? }
                } else {
                    (tail + length_bytes < head).then_some(tail)?
                }
            }
            _ => (length_bytes <= self.size_bytes).then_some(0)?,
        };
        let region = Region { no, at_bytes, length_bytes, busy: true, live: true };
        self.regions.push_back(region);
        Some(region)
    }

    /// The write of a record is done; whether its entry is read back from it.
    pub fn written(&mut self, region: Region, wanted: bool) {
        let here = |other: &&mut Region| other.at_bytes == region.at_bytes;
        if let Some(region) = self.regions.iter_mut().find(here) {
            region.busy = false;
            region.live &= wanted;
        }
        self.free();
    }

    /// Entries before this one are confirmed.
    #[inline]
    pub fn forget_before(&mut self, no: u64) {
        if self.regions.is_empty() {
            return;
        }
        for region in self.regions.iter_mut().take_while(|region| region.no < no) {
            region.live = false;
        }
        self.free();
    }

    /// This entry and those after it were dropped; their numbers may be given again.
    pub fn forget_from(&mut self, no: u64) {
        for region in self.regions.iter_mut().filter(|region| region.no >= no) {
            region.live = false;
        }
        self.free();
    }

    fn free(&mut self) {
        while self.regions.front().is_some_and(|region| !region.busy && !region.live) {
            self.regions.pop_front();
        }
    }
}

/// The entry that a record holds.
#[must_use]
pub fn read_record(record: &[u8], no: u64) -> Option<Entry> {
    let (head, rest) = record.split_first_chunk::<HEADER_BYTES>()?;
    let (mut entry, bytes, hash) = Entry::from_header(head).ok()?;
    let body = rest.get(..bytes)?;
    if entry.no != no || !Entry::body_fits(body, hash) {
        return None;
    }
    entry.body = body.to_vec();
    Some(entry)
}

/// Writes an entry as a record.
pub fn write_record(entry: &Entry, record: &mut [u8]) {
    let (head, rest) = record.split_at_mut(HEADER_BYTES);
    head.copy_from_slice(&entry.header());
    let (body, padding) = rest.split_at_mut(entry.body.len());
    body.copy_from_slice(&entry.body);
    padding.fill(0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_two_records_share_a_place(
            steps in proptest::collection::vec((0u8..4, 1u64..40_000), 1..200)
        ) {
            let mut ring = Ring::new(100_000);
            let (mut kept, mut busy): (VecDeque<Region>, Vec<Region>) = Default::default();
            let mut no = 0;
            for (what, size) in steps {
                match what {
                    0 | 1 => {
                        if let Some(region) = ring.take(no + 1, size) {
                            no += 1;
                            prop_assert!(region.at_bytes + region.length_bytes <= 100_000);
                            for other in kept.iter().chain(&busy) {
                                prop_assert!(
                                    region.at_bytes + region.length_bytes <= other.at_bytes
                                        || other.at_bytes + other.length_bytes <= region.at_bytes
                                );
                            }
                            kept.push_back(region);
                            busy.push(region);
                        } else {
                            prop_assert!(!kept.is_empty() || size > 60_000 || !busy.is_empty());
                        }
                    }
                    2 => {
                        if let Some(region) = busy.pop() {
                            ring.written(region, true);
                        }
                    }
                    _ => {
                        if let Some(region) = kept.pop_front() {
                            ring.forget_before(region.no + 1);
                        }
                    }
                }
            }
        }
    }
}
