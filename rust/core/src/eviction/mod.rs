//! Eviction policies: which block leaves when another comes. The trait, and THE list.
//!
//! One piece of code decides for the `cache` filter and for the simulator, so both count the same
//! hits on the same requests. A policy keeps no data and knows no time: it sees a row of block
//! numbers and answers with slots. One file a policy.

mod ghosts;
mod index;
mod nodes;
mod queue;
mod segments;

pub mod arc;
pub mod belady;
pub mod clock;
pub mod fifo;
pub mod lfu;
pub mod lirs;
pub mod lru;
pub mod lru_k;
pub mod random;
pub mod s3_fifo;
pub mod sieve;
pub mod slru;
pub mod twoq;
pub mod w_tinylfu;

pub(crate) use index::prefetch;
pub use index::{BlockIndex, Index, mark};

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

    /// The slot of `block` if it is resident. No request: nothing changes.
    fn resident(&self, block: u64) -> Option<Slot>;

    /// Blocks of the range that it has or remembers, in order: what a discard may change.
    fn known(&self, blocks: std::ops::Range<u64>) -> Vec<u64>;

    /// Blocks resident now.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Back to the state it was built in.
    fn clear(&mut self);

    /// A hint: `near` is asked for soon, and `far` after it. Nothing changes.
    fn prefetch(&self, _far: u64, _near: u64) {}

    /// Many requests in a row, of block numbers below 2^31: of a [`Request`] the bit of its
    /// position in `hits`, 64 a word, becomes 1 for a hit and 0 for a miss.
    ///
    /// One call for many, so that a policy behind a pointer is as fast as one that is not.
    fn access_all(&mut self, requests: &[Request], inserts: Inserts, hits: &mut [u64]) {
        for (word, at) in hits.iter_mut().zip((0..requests.len()).step_by(64)) {
            let mut bits = 0;
            let end = requests.len().min(at + 64);
            for i in at..end {
                let [far, near] = [FAR, NEAR].map(|ahead| requests.get(i + ahead));
                if let (Some(far), Some(near)) = (far, near) {
                    self.prefetch(far.block(), near.block());
                }
                let request = requests[i];
                let passes = inserts == Inserts::Reads && request.is_write();
                let is_hit = if passes && self.resident(request.block()).is_none() {
                    false
                } else {
                    matches!(self.access(request.block()), Access::Hit(_))
                };
                bits |= u64::from(is_hit) << (i - at);
            }
            *word = bits;
        }
    }
}

/// How many requests ahead the index is asked for, and then what it points to.
const FAR: usize = 24;
const NEAR: usize = 12;

/// A request of a simulation: a dense block number and whether it is a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request(u32);

impl Request {
    /// Block numbers end below this.
    pub const BLOCKS_MAX: usize = 1 << 31;

    #[inline]
    #[must_use]
    pub const fn new(block: u32, is_write: bool) -> Self {
        Self(block << 1 | is_write as u32)
    }

    #[inline]
    #[must_use]
    pub const fn block(self) -> u64 {
        (self.0 >> 1) as u64
    }

    #[inline]
    #[must_use]
    pub const fn is_write(self) -> bool {
        self.0 & 1 == 1
    }
}

/// Which requests bring their block into the cache when it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserts {
    All,
    /// Writes pass a cache that does not have their block (write-around).
    Reads,
}

/// A policy as the catalogue lists it.
pub struct Kind {
    pub name: &'static str,
    pub page: &'static str,
    /// Builds it for `capacity` blocks (at least 1, at most [`CAPACITY_MAX`]). The seed is for
    /// policies that draw.
    pub build: fn(capacity: usize, index: Index, seed: u64) -> Box<dyn Eviction>,
}

/// Slots are 31-bit numbers: the other half of 32 bits is for blocks that left.
pub const CAPACITY_MAX: usize = (1 << 31) - 16;

/// THE list of the policies that a cache can run.
pub static POLICIES: &[Kind] = &[
    fifo::KIND,
    lru::KIND,
    clock::KIND,
    lfu::KIND,
    twoq::KIND,
    arc::KIND,
    lirs::KIND,
    s3_fifo::KIND,
    sieve::KIND,
    w_tinylfu::KIND,
    slru::KIND,
    lru_k::KIND,
    random::KIND,
];

/// The policy that only a simulation can know.
pub const OFFLINE: (&str, &str) = ("belady", belady::PAGE);

#[must_use]
pub fn find(name: &str) -> Option<&'static Kind> {
    POLICIES.iter().find(|kind| kind.name == name)
}

/// Names for messages: `fifo, lru, ...`.
#[must_use]
pub fn names() -> String {
    POLICIES.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ")
}

/// The name that a misspelt one is most like, if it is like one at all.
#[must_use]
pub fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase().replace('_', "-");
    let of = |kind: &&Kind| edits(&name, kind.name);
    let near = POLICIES.iter().min_by_key(of)?;
    (of(&near) <= near.name.len().max(name.len()) / 2).then_some(near.name)
}

/// Letters to insert, delete or replace to make one word of the other (Levenshtein 1966).
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.chars().enumerate() {
            let replaced = corner + usize::from(a != b);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j].min(corner) + 1);
        }
    }
    row[row.len() - 1]
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
                    let mut policy = (kind.build)(capacity, index, 7);
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
            prop_assert_eq!(policy.resident(block).map(|s| s as usize), place, "{}", name);
            policy.prefetch(block + 1, block);
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

    /// `access_all` is `access`, request by request.
    #[test]
    fn many_requests_count_as_one_by_one() {
        let requests: Vec<Request> = (0..1000_u32)
            .map(|i| Request::new(i.wrapping_mul(2_654_435_761) >> 26, i % 3 == 0))
            .collect();
        for kind in POLICIES {
            for inserts in [Inserts::All, Inserts::Reads] {
                let mut one = (kind.build)(20, Index::dense(64), 1);
                let mut all = (kind.build)(20, Index::dense(1), 1);
                let mut hits = vec![u64::MAX; requests.len().div_ceil(64)];
                all.access_all(&requests, inserts, &mut hits);
                for (i, request) in requests.iter().enumerate() {
                    let is_here = one.resident(request.block()).is_some();
                    if is_here || inserts == Inserts::All || !request.is_write() {
                        one.access(request.block());
                    }
                    assert_eq!(hits[i / 64] >> (i % 64) & 1 == 1, is_here, "{} {i}", kind.name);
                }
                assert_eq!(hits[15] >> 40, 0, "no bit beyond the last request");
                assert_eq!(one.len(), all.len());
            }
        }
    }
}
