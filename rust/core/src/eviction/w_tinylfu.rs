//! `w-tinylfu`: a small window, and a main part that only lets in what is asked for more often.

use super::segments::{self, Rule, Store};
use super::{BlockIndex, Eviction, Index, Kind, Slot};

const PAGE: &str = "\
# w-tinylfu

A new block enters a small window, ordered as in lru. What falls out of it is compared with the
block that the main part would evict: the one that was asked for more often lately stays. How
often is estimated by a sketch of small counters that is halved from time to time, so that old
popularity fades. The main part is a segmented LRU of two.

## Parameters
Fixed, as in Caffeine's first version: the window is 1 % of the cache (at least a block), four
fifths of the main part are protected, the sketch has four counters of 4 bits a block and is
halved after ten requests for each cached block. The sketch has 16 counters for each block, up to
64 Mi.

## Suitable for
Skewed popularity, whether or not it drifts slowly: it knows more than what the cache holds.

## Unsuitable for
Recency: bursts on new blocks, since 1 % of the space is theirs. Caches that adapt the window do
better there; this one does not.

## Counts
The sketch's hash and layout are its own, so counts differ from libCacheSim's WTinyLFU: on 10 M
Zipf requests (skew 1, a tenth of the blocks cached) 20.4 % are missed by both, within 0.1 points.

## Source
G. Einziger, R. Friedman, B. Manes, 'TinyLFU: a highly efficient cache admission policy', ACM
Transactions on Storage 13 (4), 2017. <https://arxiv.org/abs/1512.00727>
";

pub const KIND: Kind = Kind { name: "w-tinylfu", page: PAGE, build };

fn build(capacity: usize, index: Index, _seed: u64) -> Box<dyn Eviction> {
    let window = (capacity / 100).max(1);
    let protected = (capacity - window) * 4 / 5;
    segments::boxed(capacity, index, WTinyLfu { window, protected, sketch: Sketch::new(capacity) })
}

const WINDOW: usize = 0;
const PROBATION: usize = 1;
const PROTECTED: usize = 2;

struct WTinyLfu {
    window: usize,
    protected: usize,
    sketch: Sketch,
}

type Blocks<I> = Store<I, 3, 1>;

impl Rule<3, 1> for WTinyLfu {
    const MARKS: bool = true;

    #[inline]
    fn requested<I: BlockIndex>(&mut self, index: &I, block: u64) {
        self.sketch.add(index.mark(block));
    }

    #[inline]
    fn hit<I: BlockIndex>(&mut self, store: &mut Blocks<I>, slot: Slot) {
        let list = store.list_of(slot);
        if list != PROBATION {
            store.blocks.renew(list, slot);
            return;
        }
        store.shift(slot, PROTECTED);
        if store.blocks.len(PROTECTED) > self.protected {
            let last = store.blocks.oldest(PROTECTED).expect("the block just put there");
            store.shift(last, PROBATION);
        }
    }

    #[inline]
    fn evict<I: BlockIndex>(&mut self, store: &mut Blocks<I>) -> Slot {
        let oldest = |list| store.blocks.oldest(list);
        let victim = oldest(PROBATION).or_else(|| oldest(PROTECTED));
        let candidate = oldest(WINDOW).filter(|_| store.blocks.len(WINDOW) >= self.window);
        let slot = match (candidate, victim) {
            (Some(candidate), Some(victim)) => {
                let mark = |slot| store.index.mark(I::block(store.blocks.block(slot)));
                let often = |slot| self.sketch.estimate(mark(slot));
                if often(candidate) > often(victim) {
                    store.shift(candidate, PROBATION);
                    victim
                } else {
                    candidate
                }
            }
            (one, other) => one.or(other).expect("a full cache has a block"),
        };
        store.evict_slot(slot);
        slot
    }

    #[inline]
    fn list_for<I: BlockIndex>(&self, _store: &Blocks<I>, _was_ghost: bool) -> usize {
        WINDOW
    }

    #[inline]
    fn placed<I: BlockIndex>(&mut self, store: &mut Blocks<I>, _slot: Slot) {
        // While there is room, what falls out of the window is let in.
        if store.blocks.len(WINDOW) > self.window {
            let last = store.blocks.oldest(WINDOW).expect("the block just put there");
            store.shift(last, PROBATION);
        }
    }

    fn clear(&mut self) {
        self.sketch.clear();
    }
}

/// Counters of 4 bits, 16 a word: a count-min sketch.
struct Sketch {
    words: Vec<u64>,
    /// Requests since the last halving, and how many bring it about.
    added: usize,
    period: usize,
}

const WORDS_MAX: usize = 1 << 22;
const COUNT_MAX: u64 = 15;
/// The lowest three bits of every counter.
const LOW_BITS: u64 = 0x7777_7777_7777_7777;

impl Sketch {
    fn new(capacity: usize) -> Self {
        let words = capacity.min(WORDS_MAX).next_power_of_two().max(8);
        Self { words: vec![0; words], added: 0, period: 10 * capacity }
    }

    /// Word and shift of the four counters of a block, by its mark.
    #[inline]
    fn places(&self, mark: u32) -> [(usize, u32); 4] {
        let product = u128::from(u64::from(mark) ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        let hash = (product as u64) ^ (product >> 64) as u64;
        let mask = self.words.len() as u64 - 1;
        // Double hashing (Kirsch and Mitzenmacher 2006).
        let (first, step) = (hash, (hash >> 32) | 1);
        std::array::from_fn(|row| {
            let mixed = first.wrapping_add(step.wrapping_mul(row as u64));
            // Each row has four of the sixteen counters of a word for itself.
            let counter = 4 * row as u64 + (mixed >> 60 & 3);
            ((mixed & mask) as usize, 4 * counter as u32)
        })
    }

    #[inline]
    fn estimate(&self, mark: u32) -> u64 {
        let count = |(word, shift): (usize, u32)| self.words[word] >> shift & COUNT_MAX;
        self.places(mark).into_iter().map(count).min().unwrap_or(0)
    }

    #[inline]
    fn add(&mut self, mark: u32) {
        let mut grew = false;
        for (word, shift) in self.places(mark) {
            if self.words[word] >> shift & COUNT_MAX < COUNT_MAX {
                self.words[word] += 1 << shift;
                grew = true;
            }
        }
        self.added += usize::from(grew);
        if self.added >= self.period {
            for word in &mut self.words {
                *word = *word >> 1 & LOW_BITS;
            }
            self.added /= 2;
        }
    }

    fn clear(&mut self) {
        self.words.fill(0);
        self.added = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sketch_estimates_from_above_and_fades() {
        let mut sketch = Sketch::new(1000);
        for block in 0..900_u32 {
            for _ in 0..=block % 7 {
                sketch.add(block);
            }
        }
        let over = |block| sketch.estimate(block).checked_sub(u64::from(block % 7 + 1));
        assert!(
            (0..900).all(|block| over(block).is_some()),
            "a count-min sketch never falls short"
        );
        let exact = (0..900).filter(|block| over(*block) == Some(0)).count();
        assert!(exact > 850, "{exact} of 900 exact");
        for block in 10_000..17_000 {
            sketch.add(block);
        }
        assert!(sketch.estimate(6) < 7, "halved");
        sketch.clear();
        assert_eq!(sketch.estimate(6), 0);
    }
}
