//! AES-256-XTS over data units, as dm-crypt's `aes-xts-plain64` does it.
//!
//! A data unit (512 or 4096 bytes on disks; any multiple of 16 here, so no ciphertext stealing)
//! is a row of 16-byte blocks. With the key halves K1, K2 and the unit's number N as 16 bytes
//! little-endian, block j of the unit is `C = E(K1, P ^ T) ^ T` with `T = E(K2, N) * x^j` in
//! GF(2^128) modulo x^128 + x^7 + x^2 + x + 1 (IEEE Std 1619-2018, 5.3 and 5.4).
//!
//! One call takes any number of consecutive units and encrypts the first tweaks of several units
//! together. Two codes do it: [`vaes`] for processors with VAES and AVX-512, and [`portable`] on
//! the `aes` crate for all others. The portable one would be fast enough for long I/Os, but the
//! crate prepares its round keys anew for each call, which costs an I/O of 512 bytes four times
//! the encryption itself.

use aes::cipher::inout::InOutBuf;

mod portable;
#[cfg(target_arch = "x86_64")]
mod vaes;

/// Bytes of the whole key: the data key K1, then the tweak key K2.
pub const KEY_BYTES: usize = 64;
/// Bytes of a cipher block; a data unit is a multiple of it.
pub const BLOCK_BYTES: usize = 16;

/// Both halves of an XTS key are the same, which IEEE 1619 and SP 800-38E forbid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EqualHalves;

impl std::fmt::Display for EqualHalves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the two halves of the XTS key are equal")
    }
}

impl std::error::Error for EqualHalves {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Encrypt,
    Decrypt,
}

#[derive(Clone)]
enum Code {
    #[cfg(target_arch = "x86_64")]
    Vaes(Box<vaes::Keys>),
    Portable(Box<portable::Keys>),
}

/// Keyed AES-256-XTS. Making one expands both keys; calls then share it freely.
#[derive(Clone)]
pub struct Xts {
    code: Code,
}

impl Xts {
    /// # Errors
    /// [`EqualHalves`] when the data key and the tweak key are the same.
    pub fn new(key: &[u8; KEY_BYTES]) -> Result<Self, EqualHalves> {
        if key[..KEY_BYTES / 2] == key[KEY_BYTES / 2..] {
            return Err(EqualHalves);
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(keys) = vaes::Keys::new(key) {
            return Ok(Self { code: Code::Vaes(Box::new(keys)) });
        }
        Ok(Self { code: Code::Portable(Box::new(portable::Keys::new(key))) })
    }

    /// Encrypts the consecutive units in `buf`, the first of which has number `first_unit`.
    ///
    /// # Panics
    /// When `unit_bytes` is no multiple of 16, or `buf` none of `unit_bytes`.
    pub fn encrypt_in_place(&self, unit_bytes: usize, first_unit: u64, buf: &mut [u8]) {
        self.run(Direction::Encrypt, unit_bytes, first_unit, buf.into());
    }

    /// As [`Xts::encrypt_in_place`], decrypting.
    ///
    /// # Panics
    /// As [`Xts::encrypt_in_place`].
    pub fn decrypt_in_place(&self, unit_bytes: usize, first_unit: u64, buf: &mut [u8]) {
        self.run(Direction::Decrypt, unit_bytes, first_unit, buf.into());
    }

    /// Encrypts `src` into `dst`, which must be as long.
    ///
    /// # Panics
    /// As [`Xts::encrypt_in_place`], and when the lengths differ.
    pub fn encrypt(&self, unit_bytes: usize, first_unit: u64, src: &[u8], dst: &mut [u8]) {
        self.run(Direction::Encrypt, unit_bytes, first_unit, pair(src, dst));
    }

    /// Decrypts `src` into `dst`, which must be as long.
    ///
    /// # Panics
    /// As [`Xts::encrypt`].
    pub fn decrypt(&self, unit_bytes: usize, first_unit: u64, src: &[u8], dst: &mut [u8]) {
        self.run(Direction::Decrypt, unit_bytes, first_unit, pair(src, dst));
    }

    /// Which code runs here, for the run's manifest.
    #[must_use]
    pub fn backend_name(&self) -> &'static str {
        match &self.code {
            #[cfg(target_arch = "x86_64")]
            Code::Vaes(_) => "vaes-avx512",
            Code::Portable(_) if aes::hardware_accelerated() => "aes-instructions",
            Code::Portable(_) => "software",
        }
    }

    fn run(
        &self,
        direction: Direction,
        unit_bytes: usize,
        first_unit: u64,
        data: InOutBuf<'_, '_, u8>,
    ) {
        assert!(
            unit_bytes > 0 && unit_bytes.is_multiple_of(BLOCK_BYTES),
            "a data unit of {unit_bytes} bytes is no multiple of {BLOCK_BYTES}"
        );
        assert!(
            data.len().is_multiple_of(unit_bytes),
            "{} bytes are no whole number of units of {unit_bytes}",
            data.len()
        );
        match &self.code {
            #[cfg(target_arch = "x86_64")]
            Code::Vaes(keys) => keys.run(direction, unit_bytes, first_unit, data),
            Code::Portable(keys) => keys.run(direction, unit_bytes, first_unit, data),
        }
    }
}

fn pair<'i, 'o>(src: &'i [u8], dst: &'o mut [u8]) -> InOutBuf<'i, 'o, u8> {
    assert_eq!(src.len(), dst.len(), "source and destination differ in length");
    InOutBuf::new(src, dst).expect("lengths were compared just above")
}

#[cfg(test)]
mod tests;
