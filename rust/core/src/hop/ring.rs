//! Two rings of messages in memory that both sides share, and how a side sleeps beside them.
//!
//! Each ring has one writer and one reader, each with its own line of the cache. The map is shared
//! and anonymous: a forked process has it, nobody else can, and it is gone with its last user.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

use crate::black_box::Record;
use crate::error::{Error, Result};
use crate::slab::NONE;

/// One message. What the fields mean is the kind's, see [`super::words`].
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Message {
    pub kind: u8,
    pub code: u8,
    pub disk: u16,
    pub io: u32,
    pub flags: u32,
    pub status: i32,
    pub offset_bytes: u64,
    pub length_bytes: u64,
    pub a: u64,
    pub b: u64,
    /// An address: the map of the I/Os' bytes lies in one place on both sides.
    pub data: u64,
    pub data_bytes: u32,
    pub root: u32,
}

impl Message {
    pub const fn of(kind: u8) -> Self {
        Self {
            kind,
            code: 0,
            disk: 0,
            io: NONE,
            flags: 0,
            status: 0,
            offset_bytes: 0,
            length_bytes: 0,
            a: 0,
            b: 0,
            data: 0,
            data_bytes: 0,
            root: NONE,
        }
    }
}

/// A cache line (and its neighbour, which the processor fetches with it) of its own.
#[derive(Default)]
#[repr(C, align(128))]
struct Line<T>(T);

#[derive(Default)]
#[repr(C)]
struct Positions {
    written: Line<AtomicU32>,
    read: Line<AtomicU32>,
}

/// Awake, asleep where a waker reaches it, asleep on the word itself.
pub(super) const AWAKE: u32 = 0;
pub(super) const ASLEEP_ELSEWHERE: u32 = 1;
pub(super) const ASLEEP: u32 = 2;

/// What lies in front of the rings. All zeroes is how it begins.
#[repr(C)]
pub(super) struct Front {
    to_far: Positions,
    to_near: Positions,
    pub far_sleep: Sleep,
    pub near_sleep: Sleep,
    /// Work came for the far side by another way than the ring.
    pub nudged: AtomicU32,
    /// The processors that the sides were last seen on.
    pub far_cpu: AtomicU32,
    pub near_cpu: AtomicU32,
    /// How often the far side went to sleep.
    pub far_sleeps: AtomicU64,
    /// When the phase that runs began.
    pub start_ns: AtomicU64,
    /// What the far side is doing, for whoever has to tell of its end.
    pub record: Record,
}

/// A word that somebody sleeps on.
#[repr(C, align(128))]
pub(super) struct Sleep(pub AtomicU32);

impl Sleep {
    /// Sleeps while the word is [`ASLEEP`], `timeout_ns` at most.
    pub fn sleep(&self, timeout_ns: u64) {
        let timeout = libc::timespec {
            tv_sec: (timeout_ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (timeout_ns % 1_000_000_000) as libc::c_long,
        };
        // SAFETY: the word and the time are valid for the call; not private: processes share it.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.0.as_ptr(),
                libc::FUTEX_WAIT,
                ASLEEP,
                &raw const timeout,
            );
        }
    }

    pub fn wake(&self) {
        self.0.store(AWAKE, Relaxed);
        // SAFETY: the word is valid for the call.
        unsafe { libc::syscall(libc::SYS_futex, self.0.as_ptr(), libc::FUTEX_WAKE, 1) };
    }
}

/// The processor that this thread runs on.
pub(super) fn processor() -> u32 {
    // SAFETY: asks for a number.
    unsafe { libc::sched_getcpu() as u32 }
}

/// The shared map of one hop.
pub(super) struct Map {
    start: *mut u8,
    bytes: usize,
    messages: u32,
}

// SAFETY: what is inside is atomic, or belongs to one side at a time as the rings' positions say.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Room for `messages` messages each way, rounded up to a power of two.
    pub fn new(messages: usize) -> Result<Arc<Self>> {
        let messages = messages.next_power_of_two();
        let bytes = size_of::<Front>().next_multiple_of(128) + 2 * messages * size_of::<Message>();
        // SAFETY: an anonymous map at no fixed address touches nothing that exists.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Error::failed(format!("cannot map {bytes} bytes for a placed filter"))
                .caused_by(std::io::Error::last_os_error()));
        }
        Ok(Arc::new(Self { start: start.cast(), bytes, messages: messages as u32 }))
    }

    pub fn front(&self) -> &Front {
        // SAFETY: the map is page-aligned, of zeroes at first, lives as long as `self`, and every
        // field is atomic.
        unsafe { &*self.start.cast::<Front>() }
    }

    fn slot(&self, ring: usize, position: u32) -> *mut Message {
        let at = size_of::<Front>().next_multiple_of(128) / size_of::<Message>()
            + ring * self.messages as usize
            + (position & (self.messages - 1)) as usize;
        // SAFETY: within the map by its size.
        unsafe { self.start.cast::<Message>().add(at) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the map is ours and nothing borrows it any more.
        unsafe { libc::munmap(self.start.cast(), self.bytes) };
    }
}

/// One side's ends of both rings.
pub(super) struct Link {
    map: Arc<Map>,
    is_far: bool,
    written: u32,
    read: u32,
    /// As last seen.
    other_read: u32,
    other_written: u32,
}

impl Link {
    pub fn new(map: Arc<Map>, is_far: bool) -> Self {
        Self { map, is_far, written: 0, read: 0, other_read: 0, other_written: 0 }
    }

    pub fn front(&self) -> &Front {
        self.map.front()
    }

    fn rings(&self) -> (&Positions, &Positions) {
        let front = self.map.front();
        if self.is_far { (&front.to_near, &front.to_far) } else { (&front.to_far, &front.to_near) }
    }

    /// False when the ring is full.
    #[inline]
    pub fn push(&mut self, message: &Message) -> bool {
        if self.written.wrapping_sub(self.other_read) >= self.map.messages {
            self.other_read = self.rings().0.read.0.load(Acquire);
            if self.written.wrapping_sub(self.other_read) >= self.map.messages {
                return false;
            }
        }
        let slot = self.map.slot(usize::from(self.is_far), self.written);
        // SAFETY: the reader has left this slot, as `other_read` says, and waits for `written`.
        unsafe { slot.write(*message) };
        self.written = self.written.wrapping_add(1);
        self.rings().0.written.0.store(self.written, Release);
        true
    }

    #[inline]
    pub fn pop(&mut self) -> Option<Message> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: written before `written` moved past it, and the writer waits for `read`.
        let message = unsafe { self.map.slot(usize::from(!self.is_far), self.read).read() };
        self.read = self.read.wrapping_add(1);
        self.rings().1.read.0.store(self.read, Release);
        Some(message)
    }

    /// Whether there is nothing to take out.
    #[inline]
    pub fn is_empty(&mut self) -> bool {
        if self.read == self.other_written {
            self.other_written = self.rings().1.written.0.load(Acquire);
        }
        self.read == self.other_written
    }

    /// Says that this side goes to sleep, and looks once more: false when there is something.
    pub fn lie_down(&mut self, how: u32) -> bool {
        self.own_word().0.store(how, Relaxed);
        // The other side writes, then looks at the word; this one the other way round.
        fence(SeqCst);
        if self.is_empty() {
            return true;
        }
        self.own_word().0.store(AWAKE, Relaxed);
        false
    }

    fn own_word(&self) -> &Sleep {
        let front = self.map.front();
        if self.is_far { &front.far_sleep } else { &front.near_sleep }
    }

    /// How the other side sleeps, after what was written until now.
    #[inline]
    pub fn other_sleeps(&self) -> u32 {
        fence(SeqCst);
        let front = self.map.front();
        if self.is_far { &front.near_sleep } else { &front.far_sleep }.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_once_in_order_however_full_the_ring_is() {
        assert_eq!(size_of::<Message>(), 64);
        let map = Map::new(5).unwrap();
        let (mut near, mut far) =
            (Link::new(Arc::clone(&map), false), Link::new(Arc::clone(&map), true));
        let other = std::thread::spawn(move || {
            let mut sum = 0;
            for expected in 0..100_000 {
                let message = loop {
                    match far.pop() {
                        Some(message) => break message,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(message.a, expected);
                sum += message.a;
            }
            while !far.push(&Message { a: sum, ..Message::of(1) }) {}
        });
        for i in 0..100_000 {
            while !near.push(&Message { a: i, ..Message::of(0) }) {
                std::thread::yield_now();
            }
        }
        other.join().unwrap();
        assert_eq!(near.pop().unwrap().a, 4_999_950_000);
        assert!(near.pop().is_none());
    }

    #[test]
    fn nobody_lies_down_beside_a_message() {
        let map = Map::new(8).unwrap();
        let (mut near, mut far) = (Link::new(Arc::clone(&map), false), Link::new(map, true));
        assert!(far.lie_down(ASLEEP));
        assert!(near.push(&Message::of(0)));
        assert_eq!(near.other_sleeps(), ASLEEP);
        near.front().far_sleep.wake();
        assert_eq!(near.other_sleeps(), AWAKE);
        assert!(!far.lie_down(ASLEEP));
        // A sleep that was ended before it began returns at once.
        far.front().far_sleep.sleep(60_000_000_000);
    }
}
