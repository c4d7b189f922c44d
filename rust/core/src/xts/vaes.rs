//! XTS with VAES and AVX-512: four blocks a register, 32 blocks (512 bytes) at a time.
//!
//! Eight registers of data hide the latency of a round; their eight tweaks are advanced by x^32
//! with a shift by four bytes and one carry-less multiplication each.

use std::arch::x86_64::*;

use aes::cipher::inout::InOutBuf;

use super::{BLOCK_BYTES, Direction, KEY_BYTES};

/// Round keys of AES-256.
const ROUND_KEYS: usize = 15;
/// Data registers worked on together.
const WIDE: usize = 8;
/// Blocks in a register.
const LANES: usize = 4;
const WIDE_BYTES: usize = WIDE * LANES * BLOCK_BYTES;
/// Units whose first tweaks are encrypted together: four registers hide a round's latency.
const UNITS_AHEAD: usize = 16;

type RoundKeys = [__m128i; ROUND_KEYS];
type WideKeys = [__m512i; ROUND_KEYS];

#[derive(Clone)]
pub struct Keys {
    encrypt: RoundKeys,
    decrypt: RoundKeys,
    tweak: RoundKeys,
}

/// Where the data comes from and goes to, the same for work in place.
#[derive(Clone, Copy)]
struct Place {
    src: *const u8,
    dst: *mut u8,
}

impl Place {
    /// # Safety
    /// `bytes` must stay within what `src` and `dst` may be used for.
    unsafe fn skip(self, bytes: usize) -> Self {
        // SAFETY: the caller's promise is this function's.
        unsafe { Self { src: self.src.add(bytes), dst: self.dst.add(bytes) } }
    }
}

impl Keys {
    /// `None` where the processor lacks one of the instructions.
    pub fn new(key: &[u8; KEY_BYTES]) -> Option<Self> {
        let able = is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq")
            && is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw");
        // SAFETY: the features `expand` asks for were found just above.
        able.then(|| unsafe { Self::expand(key) })
    }

    #[target_feature(enable = "aes")]
    fn expand(key: &[u8; KEY_BYTES]) -> Self {
        let (data, tweak) = key.split_at(KEY_BYTES / 2);
        let encrypt = round_keys(data);
        let mut decrypt = encrypt;
        decrypt.reverse();
        for key in &mut decrypt[1..ROUND_KEYS - 1] {
            *key = _mm_aesimc_si128(*key);
        }
        Self { encrypt, decrypt, tweak: round_keys(tweak) }
    }

    /// The caller has checked that `data` is whole units, and a unit whole blocks.
    pub fn run(
        &self,
        direction: Direction,
        unit_bytes: usize,
        first_unit: u64,
        data: InOutBuf<'_, '_, u8>,
    ) {
        let units = data.len() / unit_bytes;
        let (src, dst) = data.into_raw();
        let place = Place { src, dst };
        // SAFETY: a value of this type exists only where `new` found the features. The pointers
        // are good for `data.len()` bytes, which is `units * unit_bytes` (checked by the
        // caller), and `data` is borrowed until this function returns.
        unsafe {
            match direction {
                Direction::Encrypt => self.units::<false>(unit_bytes, first_unit, units, place),
                Direction::Decrypt => self.units::<true>(unit_bytes, first_unit, units, place),
            }
        }
    }

    /// # Safety
    /// `place` must be good for `units * unit_bytes` bytes.
    #[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq,aes")]
    unsafe fn units<const DECRYPT: bool>(
        &self,
        unit_bytes: usize,
        first_unit: u64,
        units: usize,
        mut place: Place,
    ) {
        let keys = widen(if DECRYPT { &self.decrypt } else { &self.encrypt });
        let tweak_keys = widen(&self.tweak);
        let mut done = 0;
        while done < units {
            let first = first_tweaks(&tweak_keys, first_unit.wrapping_add(done as u64));
            let now = UNITS_AHEAD.min(units - done);
            for i in 0..now {
                let group = first[i / LANES];
                let pick = _mm512_add_epi64(
                    _mm512_set1_epi64(2 * (i % LANES) as i64),
                    _mm512_set_epi64(1, 0, 1, 0, 1, 0, 1, 0),
                );
                let tweak = _mm512_permutexvar_epi64(pick, group);
                // SAFETY: `done + i` is below `units`, so a whole unit is left in `place`.
                unsafe {
                    unit::<DECRYPT>(&keys, tweak, unit_bytes, place);
                    place = place.skip(unit_bytes);
                }
            }
            done += now;
        }
    }
}

/// FIPS 197, 5.2 for Nk = 8: pairs of round keys, the second of a pair without rotation.
#[target_feature(enable = "aes")]
fn round_keys(key: &[u8]) -> RoundKeys {
    let half = |at: usize| u128::from_le_bytes(std::array::from_fn(|i| key[at + i]));
    let register = |v: u128| _mm_set_epi64x((v >> 64) as i64, v as i64);
    let mut keys = [_mm_setzero_si128(); ROUND_KEYS];
    keys[0] = register(half(0));
    keys[1] = register(half(16));
    next_pair::<0x01>(&mut keys, 2);
    next_pair::<0x02>(&mut keys, 4);
    next_pair::<0x04>(&mut keys, 6);
    next_pair::<0x08>(&mut keys, 8);
    next_pair::<0x10>(&mut keys, 10);
    next_pair::<0x20>(&mut keys, 12);
    next_pair::<0x40>(&mut keys, 14);
    keys
}

#[target_feature(enable = "aes")]
fn next_pair<const RCON: i32>(keys: &mut RoundKeys, at: usize) {
    let rotated = _mm_aeskeygenassist_si128::<RCON>(keys[at - 1]);
    keys[at] = _mm_xor_si128(running_xor(keys[at - 2]), _mm_shuffle_epi32::<0xff>(rotated));
    if at + 1 < ROUND_KEYS {
        let plain = _mm_aeskeygenassist_si128::<0>(keys[at]);
        keys[at + 1] = _mm_xor_si128(running_xor(keys[at - 1]), _mm_shuffle_epi32::<0xaa>(plain));
    }
}

/// Word i becomes the exclusive or of words 0 to i.
#[target_feature(enable = "sse2")]
fn running_xor(words: __m128i) -> __m128i {
    let words = _mm_xor_si128(words, _mm_slli_si128::<4>(words));
    _mm_xor_si128(words, _mm_slli_si128::<8>(words))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn widen(keys: &RoundKeys) -> WideKeys {
    let mut wide = [_mm512_setzero_si512(); ROUND_KEYS];
    for i in 0..ROUND_KEYS {
        wide[i] = _mm512_broadcast_i32x4(keys[i]);
    }
    wide
}

/// `E(K2, N)` of sixteen units from `unit` on, four a register.
#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn first_tweaks(keys: &WideKeys, unit: u64) -> [__m512i; UNITS_AHEAD / LANES] {
    let base = _mm512_mask_set1_epi64(_mm512_setzero_si512(), 0b0101_0101, unit as i64);
    let mut blocks = [_mm512_add_epi64(base, _mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0)); 4];
    for (i, block) in (0..).zip(&mut blocks) {
        let step = _mm512_mask_set1_epi64(_mm512_setzero_si512(), 0b0101_0101, 4 * i);
        *block = _mm512_add_epi64(*block, step);
    }
    cipher::<false, { UNITS_AHEAD / LANES }>(keys, &mut blocks);
    blocks
}

#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn cipher<const DECRYPT: bool, const N: usize>(keys: &WideKeys, blocks: &mut [__m512i; N]) {
    for block in blocks.iter_mut() {
        *block = _mm512_xor_si512(*block, keys[0]);
    }
    for key in &keys[1..ROUND_KEYS - 1] {
        for block in blocks.iter_mut() {
            *block = if DECRYPT {
                _mm512_aesdec_epi128(*block, *key)
            } else {
                _mm512_aesenc_epi128(*block, *key)
            };
        }
    }
    for block in blocks.iter_mut() {
        *block = if DECRYPT {
            _mm512_aesdeclast_epi128(*block, keys[ROUND_KEYS - 1])
        } else {
            _mm512_aesenclast_epi128(*block, keys[ROUND_KEYS - 1])
        };
    }
}

/// Each 128-bit lane times x^bits, `bits` below 64 and given for both halves of the lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vpclmulqdq")]
fn times_x_bits(tweak: __m512i, bits: __m512i) -> __m512i {
    let shifted = _mm512_sllv_epi64(tweak, bits);
    // A count of 64 gives zero, which is what no shift carries out.
    let carry = _mm512_srlv_epi64(tweak, _mm512_sub_epi64(_mm512_set1_epi64(64), bits));
    let into_high = _mm512_bslli_epi128::<8>(carry);
    let out = _mm512_bsrli_epi128::<8>(carry);
    let folded = _mm512_clmulepi64_epi128::<0>(out, _mm512_set1_epi64(0x87));
    _mm512_ternarylogic_epi64::<0x96>(shifted, into_high, folded)
}

/// Each 128-bit lane times x^(8 * BYTES); `REST` is 16 - BYTES.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vpclmulqdq")]
fn times_x_bytes<const BYTES: i32, const REST: i32>(tweak: __m512i) -> __m512i {
    let out = _mm512_bsrli_epi128::<REST>(tweak);
    let folded = _mm512_clmulepi64_epi128::<0>(out, _mm512_set1_epi64(0x87));
    _mm512_xor_si512(_mm512_bslli_epi128::<BYTES>(tweak), folded)
}

/// The tweaks of a unit's first 32 blocks from its first tweak in all four lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vpclmulqdq")]
fn spread(first: __m512i) -> [__m512i; WIDE] {
    let t0 = times_x_bits(first, _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0));
    let t1 = times_x_bits(t0, _mm512_set1_epi64(4));
    let (t2, t3) = (times_x_bytes::<1, 15>(t0), times_x_bytes::<1, 15>(t1));
    let (t4, t5) = (times_x_bytes::<2, 14>(t0), times_x_bytes::<2, 14>(t1));
    let (t6, t7) = (times_x_bytes::<2, 14>(t2), times_x_bytes::<2, 14>(t3));
    [t0, t1, t2, t3, t4, t5, t6, t7]
}

/// # Safety
/// `place` must be good for `bytes` bytes, and `bytes` a multiple of 16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq")]
unsafe fn unit<const DECRYPT: bool>(
    keys: &WideKeys,
    first: __m512i,
    bytes: usize,
    mut place: Place,
) {
    let mut tweaks = spread(first);
    let mut left = bytes;
    while left >= WIDE_BYTES {
        // SAFETY: 512 bytes are left.
        unsafe {
            wide::<DECRYPT>(keys, &tweaks, place);
            place = place.skip(WIDE_BYTES);
        }
        left -= WIDE_BYTES;
        if left > 0 {
            for tweak in &mut tweaks {
                *tweak = times_x_bytes::<4, 12>(*tweak);
            }
        }
    }
    for tweak in tweaks {
        let words = (left / 8).min(8);
        if words == 0 {
            break;
        }
        // SAFETY: eight bytes a word are left.
        unsafe {
            masked::<DECRYPT>(keys, tweak, ((1u16 << words) - 1) as u8, place);
            place = place.skip(words * 8);
        }
        left -= words * 8;
    }
}

/// # Safety
/// `place` must be good for 512 bytes.
#[inline]
#[target_feature(enable = "avx512f,vaes")]
unsafe fn wide<const DECRYPT: bool>(keys: &WideKeys, tweaks: &[__m512i; WIDE], place: Place) {
    let mut blocks = *tweaks;
    for (i, block) in blocks.iter_mut().enumerate() {
        // SAFETY: register i of eight lies within the 512 bytes; the load needs no alignment.
        let data = unsafe { _mm512_loadu_si512(place.src.cast::<__m512i>().add(i)) };
        *block = _mm512_xor_si512(*block, data);
    }
    cipher::<DECRYPT, WIDE>(keys, &mut blocks);
    for (i, (block, tweak)) in blocks.iter().zip(tweaks).enumerate() {
        let data = _mm512_xor_si512(*block, *tweak);
        // SAFETY: as for the load.
        unsafe { _mm512_storeu_si512(place.dst.cast::<__m512i>().add(i), data) };
    }
}

/// # Safety
/// `place` must be good for the 8-byte words whose bits are set in `words`.
#[inline]
#[target_feature(enable = "avx512f,vaes")]
unsafe fn masked<const DECRYPT: bool>(
    keys: &WideKeys,
    tweak: __m512i,
    words: __mmask8,
    place: Place,
) {
    // SAFETY: a masked load touches only the words of the mask.
    let data = unsafe { _mm512_maskz_loadu_epi64(words, place.src.cast()) };
    let mut block = [_mm512_xor_si512(data, tweak)];
    cipher::<DECRYPT, 1>(keys, &mut block);
    // SAFETY: as for the load.
    unsafe {
        _mm512_mask_storeu_epi64(place.dst.cast(), words, _mm512_xor_si512(block[0], tweak));
    }
}
