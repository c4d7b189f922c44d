//! Bytes (or tokens) of a modelled disk, sparse: memory is bounded by what was written.

use super::Request;
use super::pieces::Pieces;
use crate::filters::{DataMode, SECTOR_BYTES, TOKEN_BYTES};
use crate::int_map::IntMap;
use crate::io::Op;

/// Disk bytes a chunk stands for.
const CHUNK: u64 = 1 << 20;

/// The contents of the disks of one worker. What was never written reads as zeros.
pub struct Store {
    mode: DataMode,
    /// Where a chunk is in memory, by disk and number, see [`key`].
    chunks: IntMap<u32>,
    memory: Pieces,
    chunk_bytes: usize,
}

impl Store {
    #[must_use]
    pub fn new(mode: DataMode) -> Self {
        let chunk_bytes = mode.size(CHUNK);
        Self { mode, chunks: IntMap::default(), memory: Pieces::new(chunk_bytes), chunk_bytes }
    }

    /// Carries the request out.
    pub fn apply(&mut self, request: &Request) {
        if self.mode == DataMode::Nothing {
            return;
        }
        let place = Place::of(request);
        match request.op {
            // SAFETY: the slot's bytes, which the worker lends until the completion is reaped.
            Op::Read => self.read(place, unsafe {
                std::slice::from_raw_parts_mut(request.data, request.data_bytes)
            }),
            // SAFETY: as above.
            Op::Write => self.write(place, unsafe {
                std::slice::from_raw_parts(request.data, request.data_bytes)
            }),
            Op::Discard | Op::WriteZeroes => self.fill(place, 0),
            Op::Flush => {}
        }
    }

    /// Copies a range out; `out` is as long as the range is in memory.
    pub fn read(&self, place: Place, out: &mut [u8]) {
        for piece in pieces(self.mode, place) {
            let out = &mut out[piece.at..piece.at + piece.bytes];
            match self.chunks.get(&key(place.disk, piece.chunk)) {
                Some(chunk) => {
                    let chunk = self.memory.at(*chunk);
                    out.copy_from_slice(&chunk[piece.from..piece.from + piece.bytes]);
                }
                None => out.fill(0),
            }
        }
    }

    /// Takes a range over from `data`.
    pub fn write(&mut self, place: Place, data: &[u8]) {
        for piece in pieces(self.mode, place) {
            self.chunk(place.disk, piece.chunk)[piece.from..piece.from + piece.bytes]
                .copy_from_slice(&data[piece.at..piece.at + piece.bytes]);
        }
    }

    /// Brings the start of a range nearer to the processor, ahead of its use: most I/Os of a trace
    /// go where nothing has been for long.
    #[inline]
    pub fn prefetch(&self, disk: u16, offset_bytes: u64) {
        if self.mode == DataMode::Nothing {
            return;
        }
        let from = self.mode.size(offset_bytes % CHUNK);
        if let Some(chunk) = self.chunks.get(&key(disk, offset_bytes / CHUNK)) {
            prefetch_line(&self.memory.at(*chunk)[from]);
        }
    }

    /// Makes every byte of a range `byte`.
    pub fn fill(&mut self, place: Place, byte: u8) {
        for piece in pieces(self.mode, place) {
            if byte == 0 && piece.bytes == self.chunk_bytes {
                if let Some(chunk) = self.chunks.remove(&key(place.disk, piece.chunk)) {
                    self.memory.give_back(chunk);
                }
            } else if byte != 0 || self.chunks.contains_key(&key(place.disk, piece.chunk)) {
                self.chunk(place.disk, piece.chunk)[piece.from..piece.from + piece.bytes]
                    .fill(byte);
            }
        }
    }

    /// Makes a range what it is in `from`.
    pub fn copy(&mut self, place: Place, from: &Self) {
        let mut data = vec![0; self.mode.size(place.length_bytes)];
        from.read(place, &mut data);
        self.write(place, &data);
    }

    fn chunk(&mut self, disk: u16, chunk: u64) -> &mut [u8] {
        let memory = &mut self.memory;
        let number = *self.chunks.entry(key(disk, chunk)).or_insert_with(|| memory.take());
        memory.at_mut(number)
    }
}

impl Clone for Store {
    fn clone(&self) -> Self {
        let mut other = Self::new(self.mode);
        for (key, chunk) in &self.chunks {
            let copy = other.memory.take();
            other.memory.at_mut(copy).copy_from_slice(self.memory.at(*chunk));
            other.chunks.insert(*key, copy);
        }
        other
    }
}

/// No disk reaches to 2^62 bytes, so that a chunk's number leaves room for the disk's.
#[inline]
const fn key(disk: u16, chunk: u64) -> u64 {
    (disk as u64) << 48 | chunk
}

#[inline]
fn prefetch_line(byte: &u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint about a valid address; it changes nothing that a program can see.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_ET0>(std::ptr::from_ref(byte).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = byte;
}

/// A range of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub disk: u16,
    pub offset_bytes: u64,
    pub length_bytes: u64,
}

impl Place {
    #[must_use]
    pub const fn of(request: &Request) -> Self {
        Self {
            disk: request.disk,
            offset_bytes: request.offset_bytes,
            length_bytes: request.length_bytes,
        }
    }
}

/// A part of a range inside one chunk, in bytes of memory.
struct Piece {
    chunk: u64,
    from: usize,
    at: usize,
    bytes: usize,
}

fn pieces(mode: DataMode, place: Place) -> impl Iterator<Item = Piece> + use<> {
    let (mut offset, end) = (place.offset_bytes, place.offset_bytes + place.length_bytes);
    let mut at = 0;
    std::iter::from_fn(move || {
        if offset >= end {
            return None;
        }
        let chunk = offset / CHUNK;
        let to = end.min((chunk + 1) * CHUNK);
        let (from, bytes) = match mode {
            DataMode::Bytes => ((offset % CHUNK) as usize, (to - offset) as usize),
            _ => {
                let first = (offset % CHUNK) / SECTOR_BYTES;
                let last = (to - chunk * CHUNK).div_ceil(SECTOR_BYTES);
                (first as usize * TOKEN_BYTES, (last - first) as usize * TOKEN_BYTES)
            }
        };
        let piece = Piece { chunk, from, at, bytes };
        at += bytes;
        offset = to;
        Some(piece)
    })
}
