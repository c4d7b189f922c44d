//! Requests that the target's alignment forbids: read the aligned span, change it, write it back.
//!
//! The driver's range locks are rounded out to the same alignment, so no other request touches
//! the span meanwhile. Device backends ask [`Bounce`] what to do with each part of such a request.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};

use super::Request;
use crate::io::Op;
use crate::slab::SLOT_ALIGN;

/// Whether the target can take the request as it is.
#[inline]
#[must_use]
pub fn is_aligned(request: &Request, offset_align: u64, memory_align: u64) -> bool {
    ((request.offset_bytes | request.length_bytes) & (offset_align - 1) == 0
        && (request.data as u64) & (memory_align - 1) == 0)
        || request.op == Op::Flush
}

/// Aligned memory for the span of one unaligned request.
pub struct Bounce {
    memory: *mut u8,
    layout: Layout,
    pub offset_bytes: u64,
    pub length_bytes: u64,
}

impl Bounce {
    /// Memory for the request's span, rounded out to `offset_align`.
    #[must_use]
    pub fn around(request: &Request, offset_align: u64) -> Self {
        let offset_bytes = request.offset_bytes & !(offset_align - 1);
        let end = (request.offset_bytes + request.length_bytes).next_multiple_of(offset_align);
        let length_bytes = end - offset_bytes;
        let layout = Layout::from_size_align(length_bytes as usize, SLOT_ALIGN)
            .expect("a request's length is far below isize::MAX");
        // SAFETY: the layout is not of size zero: an unaligned request spans a block at least.
        let memory = unsafe { alloc(layout) };
        if memory.is_null() {
            handle_alloc_error(layout);
        }
        Self { memory, layout, offset_bytes, length_bytes }
    }

    #[must_use]
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the allocation is ours alone and of this size.
        unsafe { std::slice::from_raw_parts_mut(self.memory, self.layout.size()) }
    }

    #[must_use]
    pub const fn pointer(&self) -> *mut u8 {
        self.memory
    }

    /// Puts the request's bytes (or its zeros) into the span that was read.
    pub fn merge(&mut self, request: &Request) {
        let at = (request.offset_bytes - self.offset_bytes) as usize;
        let length = request.length_bytes as usize;
        let span = &mut self.bytes()[at..at + length];
        if request.op == Op::Write {
            // SAFETY: a write's data spans its length; the slot's bytes are lent until reaped.
            span.copy_from_slice(unsafe { std::slice::from_raw_parts(request.data, length) });
        } else {
            span.fill(0);
        }
    }

    /// Hands the request what it wanted to read.
    pub fn deliver(&mut self, request: &Request) {
        let at = (request.offset_bytes - self.offset_bytes) as usize;
        let length = request.length_bytes as usize;
        let span = &self.bytes()[at..at + length];
        // SAFETY: as in `merge`; the two do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(span.as_ptr(), request.data, length) };
    }
}

impl Drop for Bounce {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.memory, self.layout) };
    }
}

// SAFETY: the memory belongs to the bounce alone.
unsafe impl Send for Bounce {}
