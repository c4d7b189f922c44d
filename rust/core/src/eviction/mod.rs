//! Eviction policies: which block leaves when another comes. The trait, and THE list.
//!
//! One piece of code decides for the `cache` filter and for the simulator, so both count the same
//! hits on the same requests. A policy keeps no data and knows no time: it sees a row of block
//! numbers and answers with slots. One file a policy.

use crate::int_map::IntMap;

pub mod lru;

/// Place of a resident block, from 0 to the capacity less one.
pub type Slot = u32;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The block is resident in this slot.
    Hit(Slot),
    /// It was not, and now is. `evicted` is the block that had the slot before.
    Miss { slot: Slot, evicted: Option<u64> },
}

/// A policy over a fixed number of blocks.
///
/// The implementer guarantees: never more residents than the capacity; two residents never share
/// a slot; a resident keeps its slot until it is evicted or removed; nobody is evicted while a
/// slot is free.
pub trait Eviction: Send {
    /// A request for `block`: it is resident afterwards.
    fn access(&mut self, block: u64) -> Access;

    /// Forgets `block` (a discard), and says which slot that frees. The next request for it is a
    /// miss. `None` when it was not resident.
    fn remove(&mut self, block: u64) -> Option<Slot>;

    /// Blocks resident now.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Back to the state it was built in.
    fn clear(&mut self);
}

/// A policy as the catalogue lists it.
pub struct Kind {
    pub name: &'static str,
    pub page: &'static str,
    /// Builds it for `capacity` blocks (at least 1, at most [`CAPACITY_MAX`]).
    pub build: fn(capacity: usize, index: Index) -> Box<dyn Eviction>,
}

/// Slots are 32-bit numbers, one of which stands for none.
pub const CAPACITY_MAX: usize = u32::MAX as usize - 1;

/// THE list.
pub static POLICIES: &[Kind] = &[lru::KIND];

#[must_use]
pub fn find(name: &str) -> Option<&'static Kind> {
    POLICIES.iter().find(|kind| kind.name == name)
}

/// Names for messages: `lru, ...`.
#[must_use]
pub fn names() -> String {
    POLICIES.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ")
}

/// No slot.
pub(crate) const NONE: Slot = Slot::MAX;

/// From a block's number to a number of the policy's own (a slot, a ghost entry).
pub enum Index {
    /// Numbers up to a known end, as a simulator gives them: one load a look-up.
    Dense(Vec<u32>),
    /// Any numbers.
    Hashed(IntMap<u32>),
}

impl Index {
    /// For block numbers from 0 to `blocks` less one.
    #[must_use]
    pub fn dense(blocks: usize) -> Self {
        Self::Dense(vec![NONE; blocks])
    }

    #[must_use]
    pub fn hashed() -> Self {
        Self::Hashed(IntMap::default())
    }

    #[inline]
    #[must_use]
    pub fn get(&self, block: u64) -> Option<u32> {
        match self {
            Self::Dense(table) => Some(table[block as usize]).filter(|entry| *entry != NONE),
            Self::Hashed(map) => map.get(&block).copied(),
        }
    }

    #[inline]
    pub fn insert(&mut self, block: u64, entry: u32) {
        match self {
            Self::Dense(table) => table[block as usize] = entry,
            Self::Hashed(map) => {
                map.insert(block, entry);
            }
        }
    }

    #[inline]
    pub fn remove(&mut self, block: u64) -> Option<u32> {
        match self {
            Self::Dense(table) => {
                Some(std::mem::replace(&mut table[block as usize], NONE)).filter(|e| *e != NONE)
            }
            Self::Hashed(map) => map.remove(&block),
        }
    }

    pub fn clear(&mut self) {
        match self {
            Self::Dense(table) => table.fill(NONE),
            Self::Hashed(map) => map.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What the trait promises, for every policy of the list and both kinds of index.
        #[test]
        fn every_policy_keeps_its_promises(
            requests in proptest::collection::vec((0u64..60, 0u8..20), 1..600),
            capacity in 1usize..40,
        ) {
            for kind in POLICIES {
                for index in [Index::dense(60), Index::hashed()] {
                    let mut policy = (kind.build)(capacity, index);
                    keeps_its_promises(kind.name, policy.as_mut(), capacity, &requests)?;
                    policy.clear();
                    prop_assert_eq!(policy.len(), 0);
                    keeps_its_promises(kind.name, policy.as_mut(), capacity, &requests)?;
                }
            }
        }
    }

    fn keeps_its_promises(
        name: &str,
        policy: &mut dyn Eviction,
        capacity: usize,
        requests: &[(u64, u8)],
    ) -> Result<(), TestCaseError> {
        let mut slots: Vec<Option<u64>> = vec![None; capacity];
        for &(block, action) in requests {
            let place = slots.iter().position(|b| *b == Some(block));
            if action == 0 {
                prop_assert_eq!(policy.remove(block).map(|s| s as usize), place, "{}", name);
                if let Some(place) = place {
                    slots[place] = None;
                }
            } else {
                match policy.access(block) {
                    Access::Hit(slot) => prop_assert_eq!(Some(slot as usize), place, "{}", name),
                    Access::Miss { slot, evicted } => {
                        prop_assert_eq!(place, None, "{}: a resident was missed", name);
                        prop_assert_eq!(slots[slot as usize], evicted, "{}: slot", name);
                        let full = slots.iter().all(Option::is_some);
                        prop_assert_eq!(evicted.is_some(), full, "{}: evicted too early", name);
                        slots[slot as usize] = Some(block);
                    }
                }
            }
            prop_assert_eq!(policy.len(), slots.iter().flatten().count(), "{}", name);
        }
        Ok(())
    }
}
