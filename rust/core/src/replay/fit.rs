//! `--fit-to`: a large disk folded onto a small file, hot and cold kept apart.
//!
//! Extents of 1 MiB take places in order of first touch, wrapping when the file is full. An I/O
//! that reaches over extents which are not neighbours on the target becomes several.

use std::collections::HashMap;

pub const EXTENT: u64 = 1 << 20;

/// A part of an I/O as it goes to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub trace_offset_bytes: u64,
    pub offset_bytes: u64,
    pub length_bytes: u64,
}

/// The map of one disk.
#[derive(Debug, Default, Clone)]
pub struct FitMap {
    places: HashMap<u64, u64>,
    /// Extents that fit.
    capacity: u64,
    order: Vec<u64>,
}

impl FitMap {
    /// A map onto a target of `size_bytes` (at least one extent).
    #[must_use]
    pub fn new(size_bytes: u64) -> Self {
        Self { places: HashMap::new(), capacity: (size_bytes / EXTENT).max(1), order: Vec::new() }
    }

    /// Gives every extent of the range a place.
    pub fn touch(&mut self, offset: u64, length: u64) {
        if length == 0 {
            return;
        }
        for extent in offset / EXTENT..=(offset + length - 1) / EXTENT {
            let next = self.places.len() as u64;
            let order = &mut self.order;
            let capacity = self.capacity;
            self.places.entry(extent).or_insert_with(|| {
                order.push(extent);
                next % capacity
            });
        }
    }

    /// The parts of an I/O on the target. Extents without a place (only ever discarded) are left
    /// out: nothing is there.
    pub fn map(&self, offset: u64, length: u64, out: &mut Vec<Piece>) {
        let end = offset + length;
        let mut at = offset;
        while at < end {
            let extent = at / EXTENT;
            let to = end.min((extent + 1) * EXTENT);
            if let Some(place) = self.places.get(&extent) {
                let target = place * EXTENT + at % EXTENT;
                match out.last_mut() {
                    Some(last)
                        if last.offset_bytes + last.length_bytes == target
                            && last.trace_offset_bytes + last.length_bytes == at =>
                    {
                        last.length_bytes += to - at;
                    }
                    _ => out.push(Piece {
                        trace_offset_bytes: at,
                        offset_bytes: target,
                        length_bytes: to - at,
                    }),
                }
            }
            at = to;
        }
    }

    #[must_use]
    pub fn wrapped(&self) -> bool {
        self.places.len() as u64 > self.capacity
    }

    /// Extents in order of first touch: the `i`-th lies at place `i % capacity`.
    #[must_use]
    pub fn order(&self) -> &[u64] {
        &self.order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Pieces cover the I/O in order without gap or overlap, stay inside the target, and two
        /// disk addresses share a target address only when the map wrapped.
        #[test]
        fn pieces_cover_the_io(
            ios in proptest::collection::vec((0u64..64 << 20, 1u64..5 << 20), 1..40),
            size in 1u64..40,
        ) {
            let mut map = FitMap::new(size * EXTENT);
            for (offset, length) in &ios {
                map.touch(*offset, *length);
            }
            for (offset, length) in &ios {
                let mut pieces = Vec::new();
                map.map(*offset, *length, &mut pieces);
                let mut at = *offset;
                for piece in &pieces {
                    prop_assert_eq!(piece.trace_offset_bytes, at);
                    prop_assert!(piece.offset_bytes + piece.length_bytes <= size * EXTENT);
                    at += piece.length_bytes;
                }
                prop_assert_eq!(at, offset + length);
            }
            prop_assert_eq!(map.wrapped(), map.order().len() as u64 > size);
        }
    }
}
