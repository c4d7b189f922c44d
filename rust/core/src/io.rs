//! What travels: an I/O, its operation, its flags and its status.

/// Operation of an I/O. The codes are the order of the dictionary in every Parquet file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    Read = 0,
    Write = 1,
    Flush = 2,
    Discard = 3,
    WriteZeroes = 4,
}

impl Op {
    pub const NAMES: [&'static str; 5] = ["read", "write", "flush", "discard", "write_zeroes"];

    /// The inverse of `as u8`; an unknown code is a read (codes come from [`Op::NAMES`] only).
    #[must_use]
    #[inline]
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Write,
            2 => Self::Flush,
            3 => Self::Discard,
            4 => Self::WriteZeroes,
            _ => Self::Read,
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().position(|n| *n == name).map(|i| Self::from_code(i as u8))
    }

    /// Changes what a later read of the range returns.
    #[must_use]
    #[inline]
    pub const fn modifies(self) -> bool {
        matches!(self, Self::Write | Self::Discard | Self::WriteZeroes)
    }

    /// Carries bytes to or from the device.
    #[must_use]
    #[inline]
    pub const fn has_data(self) -> bool {
        matches!(self, Self::Read | Self::Write)
    }
}

/// Flags of a trace's I/O (the `flags` column of the canonical trace).
pub mod flags {
    pub const FUA: u32 = 1;
    pub const SYNC: u32 = 2;
    pub const META: u32 = 4;
    pub const READAHEAD: u32 = 8;
    pub const PREFLUSH: u32 = 16;
}

/// Flags of a replayed I/O (the `flags` column of a run's rows).
pub mod row_flags {
    pub const HIT: u32 = 1;
    pub const PARTIAL_HIT: u32 = 2;
    pub const DEFERRED: u32 = 4;
    pub const FORKED: u32 = 8;
    pub const SPLIT: u32 = 16;
    pub const CONFLICT_WAITED: u32 = 32;
    pub const SLOT_WAITED: u32 = 64;
    pub const DROPPED: u32 = 128;
}

/// 0, or the errno of the failure (positive), as in the `status` column.
pub type Status = i32;

pub const OK: Status = 0;
