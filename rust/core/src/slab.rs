//! Slots for I/Os: everything an I/O needs, reserved before the run.
//!
//! A slot holds the I/O, its times in every layer, and an aligned piece of one memory map. The map
//! is reserved, not touched: slots are reused last in, first out, so that a run with a few small
//! I/Os in flight keeps a few pages in memory, whatever the limit in flight allows.

use std::sync::Arc;

use crate::clock::Ns;
use crate::error::{Error, Result};
use crate::io::{OK, Op, Status};

/// Index of a slot.
pub type IoId = u32;
pub const NONE: IoId = u32::MAX;
/// Of an I/O that is not for an auxiliary device.
pub(crate) const ON_DISK: u16 = u16::MAX;

/// The layer of an I/O that is not under way: its slot is free, or it has not been submitted.
pub(crate) const NOWHERE: u8 = u8::MAX;

/// Alignment of every slot's memory: enough for O_DIRECT on any device with 4 KiB sectors.
pub const SLOT_ALIGN: usize = 4096;

/// An I/O in a slot: a trace's own (a root), or a child that a filter forked.
#[derive(Debug, Clone)]
pub struct Io {
    pub op: Op,
    /// Index into the worker's disks.
    pub disk: u16,
    /// Bits of [`crate::io::flags`].
    pub flags: u32,
    pub offset_bytes: u64,
    pub length_bytes: u64,
    /// Position in the trace; the version of what a write writes.
    pub seq: u64,
    /// For the filter that forked a child.
    pub tag: u64,
    pub status: Status,
    /// Bits of [`crate::io::row_flags`], of the root.
    pub row_flags: u32,
    pub blocks: u32,
    pub hit_blocks: u32,
    /// The I/O that waits for this child, or [`NONE`].
    pub parent: IoId,
    pub(crate) data: *mut u8,
    pub(crate) data_bytes: usize,
    /// The I/O whose row this one's time is booked to: itself, or the first of its parents.
    pub(crate) root: IoId,
    /// The layer it is in, counted from the top; the number of filters is the backend.
    pub(crate) layer: u8,
    /// Held by that layer on its way up.
    pub(crate) is_up: bool,
    /// The first layer it passes: a child starts below the filter that forked it.
    pub(crate) floor: u8,
    /// The layer that forked a child.
    pub(crate) owner: u8,
    /// The backend's number of the filter's own device that a child is for, or [`ON_DISK`].
    pub(crate) auxiliary: u16,
    pub(crate) open_children: u32,
    pub(crate) submit_ns: Ns,
    pub(crate) complete_ns: Ns,
    pub(crate) harness_ns: u64,
    pub(crate) trace_offset_bytes: u64,
}

/// Time that one root spends in one layer, its children's counted once where they overlap.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LayerTime {
    entered_ns: Ns,
    pub span_ns: u64,
    pub cpu_ns: u64,
    /// When anybody last left it.
    left_ns: Ns,
    inside: u32,
}

impl LayerTime {
    /// This root, or a child of it, enters the layer.
    #[inline]
    pub fn enter(&mut self, now: Ns) {
        if self.inside == 0 {
            self.entered_ns = now;
        }
        self.inside += 1;
    }

    #[inline]
    pub fn exit(&mut self, now: Ns) {
        self.inside -= 1;
        self.left_ns = now;
        if self.inside == 0 {
            self.span_ns += now - self.entered_ns;
        }
    }

    /// As `enter`, told of later: what was counted already is not counted again.
    pub fn entered_at(&mut self, at: Ns) {
        self.enter(at.max(self.left_ns));
    }

    /// As `exit`, told of later: not before whoever has left it meanwhile.
    pub fn left_at(&mut self, at: Ns) {
        self.exit(at.max(self.entered_ns).max(self.left_ns));
    }
}

const BLANK: Io = Io {
    op: Op::Read,
    disk: 0,
    flags: 0,
    offset_bytes: 0,
    length_bytes: 0,
    seq: 0,
    tag: 0,
    status: OK,
    row_flags: 0,
    blocks: 0,
    hit_blocks: 0,
    parent: NONE,
    data: std::ptr::null_mut(),
    data_bytes: 0,
    root: NONE,
    layer: NOWHERE,
    is_up: false,
    floor: 0,
    owner: 0,
    auxiliary: ON_DISK,
    open_children: 0,
    submit_ns: 0,
    complete_ns: 0,
    harness_ns: 0,
    trace_offset_bytes: 0,
};

/// The slots of one worker.
pub struct Slab {
    ios: Vec<Io>,
    free: Vec<IoId>,
    times: Vec<LayerTime>,
    stride: usize,
    memory: Arc<Memory>,
    slot_bytes: usize,
    /// Slots for the children of a filter on the other side of a hop: it alone takes them and
    /// gives them back.
    lent: Vec<bool>,
}

impl Slab {
    /// `slots` slots of `slot_bytes` bytes each (rounded up), for a chain of `layers` layers,
    /// the backend included.
    ///
    /// # Errors
    /// `Failed` when the address space cannot be reserved.
    pub fn new(slots: usize, slot_bytes: usize, layers: usize) -> Result<Self> {
        Self::with_memory(slots, slot_bytes, layers, false)
    }

    /// As [`Slab::new`]; `shared` makes a process that is forked share the I/Os' bytes.
    ///
    /// # Errors
    /// As [`Slab::new`].
    pub fn with_memory(
        slots: usize,
        slot_bytes: usize,
        layers: usize,
        shared: bool,
    ) -> Result<Self> {
        let slot_bytes = slot_bytes.next_multiple_of(SLOT_ALIGN);
        let memory = Arc::new(Memory::reserve(slots * slot_bytes, shared)?);
        Ok(Self {
            ios: vec![BLANK; slots],
            free: (0..slots as IoId).rev().collect(),
            times: vec![LayerTime::default(); slots * layers],
            stride: layers,
            memory,
            slot_bytes,
            lent: vec![false; slots],
        })
    }

    /// What a filter on the other side of a hop sees: the same bytes, I/Os as it is told of them,
    /// and `lent` free slots of this slab, which are its own from now on.
    pub(crate) fn lend(&mut self, lent: usize) -> Self {
        // Those that are used last otherwise: the first ones are the chain's, and known to a ring.
        let keep = self.free.split_off(lent.min(self.free.len()));
        let free = std::mem::replace(&mut self.free, keep);
        for id in &free {
            self.lent[*id as usize] = true;
        }
        Self {
            ios: vec![BLANK; self.ios.len()],
            free,
            times: Vec::new(),
            stride: 0,
            memory: Arc::clone(&self.memory),
            slot_bytes: self.slot_bytes,
            lent: vec![false; self.ios.len()],
        }
    }

    #[must_use]
    pub fn capacity(&self) -> usize {
        self.ios.len()
    }

    #[must_use]
    pub fn free_slots(&self) -> usize {
        self.free.len()
    }

    #[must_use]
    pub const fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// Start and length of all slots' bytes; those of the slots that are used first come first.
    #[must_use]
    pub(crate) fn memory(&self) -> (*mut u8, usize) {
        (self.memory.start, self.memory.bytes)
    }

    /// A blank root of its own in a free slot, with `data_bytes` of the slot's memory.
    #[inline]
    pub(crate) fn take(&mut self, op: Op, data_bytes: usize) -> Option<IoId> {
        debug_assert!(data_bytes <= self.slot_bytes);
        let id = self.free.pop()?;
        let data = if data_bytes == 0 {
            std::ptr::null_mut()
        } else {
            self.memory.at(id as usize * self.slot_bytes)
        };
        self.begin(id, op, data, data_bytes);
        Some(id)
    }

    /// A blank root of its own in this slot, with these bytes.
    #[inline]
    pub(crate) fn begin(&mut self, id: IoId, op: Op, data: *mut u8, data_bytes: usize) {
        let io = &mut self.ios[id as usize];
        io.op = op;
        io.flags = 0;
        io.tag = 0;
        io.status = OK;
        io.row_flags = 0;
        io.blocks = 0;
        io.hit_blocks = 0;
        io.parent = NONE;
        io.data = data;
        io.data_bytes = data_bytes;
        io.root = id;
        io.layer = NOWHERE;
        io.is_up = false;
        io.floor = 0;
        io.auxiliary = ON_DISK;
        io.open_children = 0;
        io.harness_ns = 0;
        let from = id as usize * self.stride;
        self.times[from..from + self.stride].fill(LayerTime::default());
    }

    #[inline]
    pub(crate) fn give_back(&mut self, id: IoId) {
        self.ios[id as usize].layer = NOWHERE;
        if !self.lent[id as usize] {
            self.free.push(id);
        }
    }

    #[inline]
    #[must_use]
    pub fn io(&self, id: IoId) -> &Io {
        &self.ios[id as usize]
    }

    #[inline]
    pub fn io_mut(&mut self, id: IoId) -> &mut Io {
        &mut self.ios[id as usize]
    }

    #[inline]
    pub(crate) fn time_mut(&mut self, id: IoId, layer: usize) -> &mut LayerTime {
        &mut self.times[id as usize * self.stride + layer]
    }

    #[inline]
    pub(crate) fn times(&self, id: IoId) -> &[LayerTime] {
        &self.times[id as usize * self.stride..][..self.stride]
    }

    /// Whether the I/O's bytes are its own slot's, not its parent's.
    #[must_use]
    pub fn has_own_bytes(&self, id: IoId) -> bool {
        self.ios[id as usize].data == self.memory.at(id as usize * self.slot_bytes)
    }

    /// The I/O's bytes: what a write writes, where a read puts what it read.
    #[inline]
    #[must_use]
    pub fn data(&self, id: IoId) -> &[u8] {
        let io = &self.ios[id as usize];
        if io.data_bytes == 0 {
            return &[];
        }
        // SAFETY: `data` points into the memory map, which lives as long as the slab, and spans
        // `data_bytes` of it; a shared borrow of the slab keeps filters from writing meanwhile.
        unsafe { std::slice::from_raw_parts(io.data, io.data_bytes) }
    }

    #[inline]
    pub fn data_mut(&mut self, id: IoId) -> &mut [u8] {
        let io = &self.ios[id as usize];
        if io.data_bytes == 0 {
            return &mut [];
        }
        // SAFETY: as in `data`; the borrow of the slab is exclusive.
        unsafe { std::slice::from_raw_parts_mut(io.data, io.data_bytes) }
    }

    /// The bytes of two I/Os at once: one to read from, one to write to.
    ///
    /// `None` when they overlap: a child may share its parent's bytes.
    pub fn data_pair(&mut self, from: IoId, to: IoId) -> Option<(&[u8], &mut [u8])> {
        let (a, b) = (&self.ios[from as usize], &self.ios[to as usize]);
        if a.data_bytes == 0 || b.data_bytes == 0 {
            return Some((&[], &mut []));
        }
        let (a0, b0) = (a.data as usize, b.data as usize);
        if a0 < b0 + b.data_bytes && b0 < a0 + a.data_bytes {
            return None;
        }
        // SAFETY: both ranges lie in the map and were just seen not to overlap; the borrow of the
        // slab is exclusive, so nothing else reads or writes them.
        unsafe {
            Some((
                std::slice::from_raw_parts(a.data, a.data_bytes),
                std::slice::from_raw_parts_mut(b.data, b.data_bytes),
            ))
        }
    }
}

// SAFETY: the pointers inside lead into the memory map, which lives as long as any slab over it.
unsafe impl Send for Slab {}

/// An anonymous memory map, reserved without backing until touched.
struct Memory {
    start: *mut u8,
    bytes: usize,
}

impl Memory {
    fn reserve(bytes: usize, shared: bool) -> Result<Self> {
        let bytes = bytes.max(SLOT_ALIGN);
        let whose = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        // SAFETY: an anonymous map at no fixed address touches nothing that exists.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                whose | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Error::failed(format!("cannot reserve {bytes} bytes for I/O buffers"))
                .caused_by(std::io::Error::last_os_error()));
        }
        Ok(Self { start: start.cast(), bytes })
    }

    #[inline]
    fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset < self.bytes);
        // SAFETY: within the map by the slab's arithmetic.
        unsafe { self.start.add(offset) }
    }
}

// SAFETY: the map is only reached through the slabs over it, and an I/O's bytes belong to one side
// of a hop at a time, as its messages say.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the map is ours and nothing borrows it any more.
        unsafe { libc::munmap(self.start.cast(), self.bytes) };
    }
}
