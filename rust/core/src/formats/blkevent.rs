//! One event of the Linux block layer, as both blktrace's binary and blkparse's text give it.
//! Codes and category bits: `include/uapi/linux/blktrace_api.h`.

use crate::io::{Op, flags};

pub const QUEUE: u8 = 1;
pub const REQUEUE: u8 = 6;
pub const ISSUE: u8 = 7;
pub const COMPLETE: u8 = 8;
pub const REMAP: u8 = 15;

/// Category bits.
pub mod category {
    pub const WRITE: u32 = 1 << 1;
    pub const FLUSH: u32 = 1 << 2;
    pub const SYNC: u32 = 1 << 3;
    pub const PASSTHROUGH: u32 = 1 << 9;
    pub const NOTIFY: u32 = 1 << 10;
    pub const AHEAD: u32 = 1 << 11;
    pub const META: u32 = 1 << 12;
    pub const DISCARD: u32 = 1 << 13;
    pub const DRIVER_DATA: u32 = 1 << 14;
    pub const FUA: u32 = 1 << 15;
    /// Zone reset, reset all, finish, open, close (version 8).
    pub const ZONE_MANAGEMENT: u32 = 0b11111 << 17;
    pub const WRITE_ZEROES: u32 = 1 << 22;
}

pub const SECTOR_BYTES: u64 = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub time_ns: u64,
    pub sector: u64,
    pub bytes: u32,
    pub category: u32,
    pub pid: u32,
    /// `major << 20 | minor`.
    pub device: u32,
    /// [`QUEUE`], [`ISSUE`] and so on: the low byte of the action.
    pub action: u8,
    /// The completion reported an error.
    pub failed: bool,
}

impl Event {
    /// Whether the matcher has a use for an action of this code.
    #[must_use]
    #[inline]
    pub const fn is_relevant(action: u8) -> bool {
        matches!(action, QUEUE | REQUEUE | ISSUE | COMPLETE)
    }

    /// The operation of a request or bio that carries bytes; for none, see `is_pure_flush`.
    #[must_use]
    #[inline]
    pub const fn op(&self) -> Op {
        if self.category & category::DISCARD != 0 {
            Op::Discard
        } else if self.category & category::WRITE_ZEROES != 0 {
            Op::WriteZeroes
        } else if self.category & category::WRITE != 0 {
            Op::Write
        } else {
            Op::Read
        }
    }

    /// No bytes, and the flush bit: a flush, however the direction bit stands.
    #[must_use]
    #[inline]
    pub const fn is_pure_flush(&self) -> bool {
        self.bytes == 0 && self.category & category::FLUSH != 0
    }

    /// The canonical flags; a pure flush has no preflush flag of its own.
    #[must_use]
    #[inline]
    pub const fn flags(&self) -> u32 {
        let c = self.category;
        let mut bits = 0;
        if c & category::FUA != 0 {
            bits |= flags::FUA;
        }
        if c & category::SYNC != 0 {
            bits |= flags::SYNC;
        }
        if c & category::META != 0 {
            bits |= flags::META;
        }
        if c & category::AHEAD != 0 {
            bits |= flags::READAHEAD;
        }
        if c & category::FLUSH != 0 && self.bytes != 0 {
            bits |= flags::PREFLUSH;
        }
        bits
    }
}

/// The disk name of a device number: `8,0`, as blkparse prints it.
#[must_use]
pub fn device_name(device: u32) -> String {
    format!("{},{}", device >> 20, device & 0xf_ffff)
}
