//! XTS on the `aes` crate: whatever the processor, with its AES instructions where it has any.
//!
//! Eight tweaks are advanced at a time by x^8, in a form that vectorises, and run on across the
//! borders of units, so that the block cipher gets full batches however short a unit is. All of
//! it runs inside the cipher's own closure, which the crate compiles once for each instruction
//! set and picks at run time.

use aes::cipher::array::{Array, ArraySize};
use aes::cipher::inout::{InOut, InOutBuf};
use aes::cipher::typenum::U16;
use aes::cipher::{
    BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherDecrypt, BlockCipherEncBackend,
    BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit,
};
use aes::{Aes256, Aes256Enc};

use super::{BLOCK_BYTES, Direction, KEY_BYTES};

/// Tweaks made ahead of the cipher: 2 KiB of them, well inside the first-level cache, and whole
/// batches of the widest code (64 blocks).
const TWEAKS_AHEAD: usize = 128;
/// Tweaks advanced together. Eight 64-bit lanes are one AVX-512 register, two of AVX2.
const LANES: usize = 8;
/// Units whose first tweaks are encrypted together.
const UNITS_AHEAD: usize = 16;
/// A rest of this many blocks is cheaper as a batch of the widest code than block by block.
const FULL_BATCH_FROM: usize = 8;

type Block = Array<u8, U16>;

#[derive(Clone)]
pub struct Keys {
    data: Aes256,
    tweak: Aes256Enc,
}

impl Keys {
    pub fn new(key: &[u8; KEY_BYTES]) -> Self {
        let half = |at: usize| Array::from(std::array::from_fn::<u8, 32, _>(|i| key[at + i]));
        Self { data: Aes256::new(&half(0)), tweak: Aes256Enc::new(&half(KEY_BYTES / 2)) }
    }

    /// The caller has checked that `data` is whole units, and a unit whole blocks.
    pub fn run(
        &self,
        direction: Direction,
        unit_bytes: usize,
        first_unit: u64,
        data: InOutBuf<'_, '_, u8>,
    ) {
        let unit_blocks = unit_bytes / BLOCK_BYTES;
        let (mut blocks, _) = data.into_chunks::<U16>();
        let mut unit = first_unit;
        let mut first = [Block::default(); UNITS_AHEAD];
        while !blocks.is_empty() {
            let units = UNITS_AHEAD.min(blocks.len() / unit_blocks);
            let first = &mut first[..units];
            for (i, tweak) in (0..).zip(first.iter_mut()) {
                tweak[..8].copy_from_slice(&unit.wrapping_add(i).to_le_bytes());
                tweak[8..].fill(0);
            }
            self.tweak.encrypt_blocks(first);
            let (now, rest) = blocks.split_at(units * unit_blocks);
            let tweaks = Tweaks::new(first, unit_blocks);
            match direction {
                Direction::Encrypt => self.data.encrypt_with_backend(Job { blocks: now, tweaks }),
                Direction::Decrypt => self.data.decrypt_with_backend(Job { blocks: now, tweaks }),
            }
            blocks = rest;
            unit = unit.wrapping_add(units as u64);
        }
    }
}

/// The tweaks of a row of units, in order, across the borders of the units.
struct Tweaks<'a> {
    /// First tweaks of the units not yet begun.
    first: &'a [Block],
    unit_blocks: usize,
    /// Blocks of the current unit whose tweaks are still to be given.
    left: usize,
    /// The next eight tweaks of the current unit, low and high halves apart.
    low: [u64; LANES],
    high: [u64; LANES],
}

impl<'a> Tweaks<'a> {
    fn new(first: &'a [Block], unit_blocks: usize) -> Self {
        Self { first, unit_blocks, left: 0, low: [0; LANES], high: [0; LANES] }
    }

    /// Takes up the next unit: its first tweak times 1, x, ... x^7.
    #[inline(always)]
    fn begin_unit(&mut self) {
        let (first, rest) = self.first.split_first().expect("a tweak for every unit");
        self.first = rest;
        self.left = self.unit_blocks;
        let mut tweak = u128::from_le_bytes(first.0);
        for lane in 0..LANES {
            self.low[lane] = tweak as u64;
            self.high[lane] = (tweak >> 64) as u64;
            tweak = (tweak << 1) ^ ((tweak >> 127) * 0x87);
        }
    }

    /// Multiplies all eight by x^8: a shift by one byte, and what falls out of the top comes
    /// back times x^7 + x^2 + x + 1.
    #[inline(always)]
    fn advance(&mut self) {
        for lane in 0..LANES {
            let out = self.high[lane] >> 56;
            self.high[lane] = (self.high[lane] << 8) | (self.low[lane] >> 56);
            self.low[lane] = (self.low[lane] << 8) ^ out ^ (out << 1) ^ (out << 2) ^ (out << 7);
        }
    }

    /// Gives the next tweaks; returns how many, which is less than `out` takes only at the end.
    #[inline(always)]
    fn fill(&mut self, out: &mut [[u64; 2]; TWEAKS_AHEAD]) -> usize {
        let mut at = 0;
        while at + LANES <= TWEAKS_AHEAD {
            if self.left == 0 {
                if self.first.is_empty() {
                    break;
                }
                self.begin_unit();
            }
            // A unit's last eight may be fewer: what is too many is written over by the next.
            for lane in 0..LANES {
                out[at + lane] = [self.low[lane], self.high[lane]];
            }
            let given = self.left.min(LANES);
            at += given;
            self.left -= given;
            self.advance();
        }
        at
    }
}

struct Job<'i, 'o, 't> {
    blocks: InOutBuf<'i, 'o, Block>,
    tweaks: Tweaks<'t>,
}

impl BlockSizeUser for Job<'_, '_, '_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Job<'_, '_, '_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        self.work::<B::ParBlocksSize>(
            #[inline(always)]
            |batch| backend.encrypt_par_blocks(batch),
            #[inline(always)]
            |block| backend.encrypt_block(block),
        );
    }
}

impl BlockCipherDecClosure for Job<'_, '_, '_> {
    #[inline(always)]
    fn call<B: BlockCipherDecBackend<BlockSize = U16>>(self, backend: &B) {
        self.work::<B::ParBlocksSize>(
            #[inline(always)]
            |batch| backend.decrypt_par_blocks(batch),
            #[inline(always)]
            |block| backend.decrypt_block(block),
        );
    }
}

impl Job<'_, '_, '_> {
    #[inline(always)]
    fn work<Batch: ArraySize>(
        self,
        many: impl Fn(InOut<'_, '_, Array<Block, Batch>>),
        one: impl Fn(InOut<'_, '_, Block>),
    ) {
        let Self { mut blocks, mut tweaks } = self;
        let mut ahead = [[0u64; 2]; TWEAKS_AHEAD];
        while !blocks.is_empty() {
            let given = tweaks.fill(&mut ahead);
            let (now, rest) = blocks.split_at(given);
            blocks = rest;
            let (batches, tail) = now.into_chunks::<Batch>();
            let mut at = 0;
            for mut batch in batches {
                let tweaks = &ahead[at..at + Batch::USIZE];
                let mut work = Array::<Block, Batch>::default();
                for ((to, from), tweak) in work.iter_mut().zip(batch.get_in()).zip(tweaks) {
                    *to = xor(from, tweak);
                }
                many((&mut work).into());
                for ((to, from), tweak) in batch.get_out().iter_mut().zip(&work).zip(tweaks) {
                    *to = xor(from, tweak);
                }
                at += Batch::USIZE;
            }
            let tweaks = &ahead[at..given];
            if tail.len() >= FULL_BATCH_FROM {
                padded_batch(tail, tweaks, &many);
            } else {
                for (mut block, tweak) in tail.into_iter().zip(tweaks) {
                    let mut work = xor(block.get_in(), tweak);
                    one((&mut work).into());
                    *block.get_out() = xor(&work, tweak);
                }
            }
        }
    }
}

/// A part of a batch, filled up: one pass of the wide code costs less than many single blocks.
#[inline(always)]
fn padded_batch<Batch: ArraySize>(
    mut blocks: InOutBuf<'_, '_, Block>,
    tweaks: &[[u64; 2]],
    many: impl Fn(InOut<'_, '_, Array<Block, Batch>>),
) {
    let mut work = Array::<Block, Batch>::default();
    for ((to, from), tweak) in work.iter_mut().zip(blocks.get_in()).zip(tweaks) {
        *to = xor(from, tweak);
    }
    many((&mut work).into());
    for ((to, from), tweak) in blocks.get_out().iter_mut().zip(&work).zip(tweaks) {
        *to = xor(from, tweak);
    }
}

#[inline(always)]
fn xor(block: &Block, tweak: &[u64; 2]) -> Block {
    let (low, high) = block.0.split_at(8);
    let word = |bytes: &[u8]| u64::from_le_bytes(std::array::from_fn(|i| bytes[i]));
    let mut out = Block::default();
    out[..8].copy_from_slice(&(word(low) ^ tweak[0]).to_le_bytes());
    out[8..].copy_from_slice(&(word(high) ^ tweak[1]).to_le_bytes());
    out
}
