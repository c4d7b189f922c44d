//! A hash map for numbers of blocks, chunks and the like.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Keys come from traces, so no attacker picks them to collide: one multiplication does.
pub type IntMap<V> = HashMap<u64, V, BuildHasherDefault<IntHasher>>;

#[derive(Debug, Default, Clone, Copy)]
pub struct IntHasher(u64);

impl Hasher for IntHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    #[inline]
    fn write_u64(&mut self, key: u64) {
        // The table takes its position from the low bits and its tag from the high ones, and
        // block numbers differ in few bits: fold the halves so that both ends depend on all.
        let product = u128::from(self.0 ^ key) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_and_strided_keys_spread() {
        for stride in [1u64, 8, 4096, 1 << 20, 1 << 40] {
            let (mut low, mut high) = (vec![0u32; 1024], vec![0u32; 128]);
            for i in 0..65_536u64 {
                let mut hasher = IntHasher::default();
                hasher.write_u64(i.wrapping_mul(stride));
                low[hasher.finish() as usize % 1024] += 1;
                high[(hasher.finish() >> 57) as usize] += 1;
            }
            // 64 and 512 on average; a Poisson tail stays well below these.
            assert!(*low.iter().max().unwrap() < 160, "stride {stride}");
            assert!(*high.iter().max().unwrap() < 900, "stride {stride}");
        }
    }
}
