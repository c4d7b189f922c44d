//! Reuse distances: how many other blocks were requested since the last request of a block.
//!
//! Each block holds one bit at the position of its last request, and the distance is the number
//! of bits after it, found by a Fenwick tree (Fenwick 1994) over groups of 512 bits. Positions are
//! renumbered when they run out, so memory follows the number of blocks, never the length of the
//! trace.

const GROUP_WORDS: usize = 8;
const GROUP_BITS: usize = 64 * GROUP_WORDS;
const MIN_GROUPS: usize = 128;

/// Bits in order of request: the set ones are the last requests of their blocks.
#[derive(Debug, Clone)]
pub struct Order {
    words: Vec<u64>,
    /// Fenwick tree over the set bits of each group; `tree[0]` is unused.
    tree: Vec<u32>,
    next: usize,
    live: u32,
}

/// Set bits before each word: turns positions into ranks.
pub struct Ranks<'a> {
    words: &'a [u64],
    before: Vec<u32>,
}

impl Ranks<'_> {
    /// The position that a set bit gets by [`Order::restart`].
    #[inline]
    #[must_use]
    pub fn of(&self, position: u32) -> u32 {
        let (word, bit) = (position as usize / 64, position % 64);
        self.before[word] + (self.words[word] & ((1 << bit) - 1)).count_ones()
    }
}

impl Default for Order {
    fn default() -> Self {
        let mut order = Self { words: Vec::new(), tree: Vec::new(), next: 0, live: 0 };
        order.restart();
        order
    }
}

impl Order {
    /// No position is left: renumber, by [`Order::ranks`] and [`Order::restart`].
    #[inline]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.next == self.words.len() * 64
    }

    /// Sets the next bit and gives its position.
    #[inline]
    pub fn push(&mut self) -> u32 {
        let position = self.next as u32;
        self.next += 1;
        self.put_back(position);
        position
    }

    /// Sets the bit at a position that was given before and removed.
    #[inline]
    pub fn put_back(&mut self, position: u32) {
        let position = position as usize;
        self.words[position / 64] |= 1 << (position % 64);
        self.live += 1;
        let mut i = position / GROUP_BITS + 1;
        while i < self.tree.len() {
            self.tree[i] += 1;
            i += i & i.wrapping_neg();
        }
    }

    /// Clears the bit at `position` and gives the number of set bits after it.
    #[inline]
    pub fn remove(&mut self, position: u32) -> u32 {
        let (word, bit) = (position as usize / 64, position % 64);
        let group = position as usize / GROUP_BITS;
        let mut up_to = (self.words[word] & (u64::MAX >> (63 - bit))).count_ones();
        for w in &self.words[group * GROUP_WORDS..word] {
            up_to += w.count_ones();
        }
        let mut i = group;
        while i > 0 {
            up_to += self.tree[i];
            i &= i - 1;
        }
        let after = self.live - up_to;
        self.words[word] &= !(1 << bit);
        self.live -= 1;
        let mut i = group + 1;
        while i < self.tree.len() {
            self.tree[i] -= 1;
            i += i & i.wrapping_neg();
        }
        after
    }

    #[must_use]
    pub fn ranks(&self) -> Ranks<'_> {
        let mut sum = 0;
        let count = |w: &u64| {
            let before = sum;
            sum += w.count_ones();
            before
        };
        Ranks { words: &self.words, before: self.words.iter().map(count).collect() }
    }

    /// Moves the set bits to the front, in order, and makes room for as many again.
    pub fn restart(&mut self) {
        let live = self.live as usize;
        let groups = (2 * live).div_ceil(GROUP_BITS).next_power_of_two().max(MIN_GROUPS);
        self.words = vec![0; groups * GROUP_WORDS];
        self.words[..live / 64].fill(u64::MAX);
        if !live.is_multiple_of(64) {
            self.words[live / 64] = (1 << (live % 64)) - 1;
        }
        self.tree = vec![0; groups + 1];
        for i in 1..=groups {
            let own: u32 = self.words[(i - 1) * GROUP_WORDS..i * GROUP_WORDS]
                .iter()
                .map(|w| w.count_ones())
                .sum();
            self.tree[i] += own;
            let parent = i + (i & i.wrapping_neg());
            if parent <= groups {
                self.tree[parent] += self.tree[i];
            }
        }
        self.next = live;
    }
}
