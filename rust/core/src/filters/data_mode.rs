//! What stands for the data of I/Os.

/// What an I/O's data is in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataMode {
    /// The bytes themselves.
    Bytes,
    /// Eight bytes for each 512-byte sector: its version. For virtual time.
    Tokens,
    /// None: nothing in the run looks at data.
    Nothing,
}

/// Bytes of a token.
pub const TOKEN_BYTES: usize = 8;
/// What a token stands for.
pub const SECTOR_BYTES: u64 = 512;

impl DataMode {
    /// Bytes in memory for `length` bytes of disk (of a whole number of sectors for tokens).
    #[must_use]
    #[inline]
    pub const fn size(self, length_bytes: u64) -> usize {
        match self {
            Self::Bytes => length_bytes as usize,
            Self::Tokens => length_bytes.div_ceil(SECTOR_BYTES) as usize * TOKEN_BYTES,
            Self::Nothing => 0,
        }
    }
}
