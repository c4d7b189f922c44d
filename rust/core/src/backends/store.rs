//! Bytes (or tokens) of a modelled disk, sparse: memory is bounded by what was written.

use std::collections::HashMap;

use super::Request;
use crate::filters::{DataMode, SECTOR_BYTES, TOKEN_BYTES};
use crate::io::Op;

/// Disk bytes a chunk stands for.
const CHUNK: u64 = 1 << 20;

/// The contents of the disks of one worker. What was never written reads as zeros.
pub struct Store {
    mode: DataMode,
    chunks: HashMap<(u16, u64), Box<[u8]>>,
    chunk_bytes: usize,
}

impl Store {
    #[must_use]
    pub fn new(mode: DataMode) -> Self {
        Self { mode, chunks: HashMap::new(), chunk_bytes: mode.size(CHUNK) }
    }

    /// Carries the request out.
    pub fn apply(&mut self, request: &Request) {
        if self.mode == DataMode::Nothing {
            return;
        }
        match request.op {
            Op::Read => self.read(request),
            Op::Write => self.write(request),
            Op::Discard | Op::WriteZeroes => self.zero(request),
            Op::Flush => {}
        }
    }

    fn read(&self, request: &Request) {
        // SAFETY: the slot's bytes, which the worker lends until the completion is reaped.
        let out = unsafe { std::slice::from_raw_parts_mut(request.data, request.data_bytes) };
        for piece in pieces(self.mode, request) {
            let out = &mut out[piece.at..piece.at + piece.bytes];
            match self.chunks.get(&(request.disk, piece.chunk)) {
                Some(chunk) => out.copy_from_slice(&chunk[piece.from..piece.from + piece.bytes]),
                None => out.fill(0),
            }
        }
    }

    fn write(&mut self, request: &Request) {
        // SAFETY: as in `read`.
        let data = unsafe { std::slice::from_raw_parts(request.data, request.data_bytes) };
        for piece in pieces(self.mode, request) {
            let chunk = self
                .chunks
                .entry((request.disk, piece.chunk))
                .or_insert_with(|| vec![0; self.chunk_bytes].into_boxed_slice());
            chunk[piece.from..piece.from + piece.bytes]
                .copy_from_slice(&data[piece.at..piece.at + piece.bytes]);
        }
    }

    fn zero(&mut self, request: &Request) {
        for piece in pieces(self.mode, request) {
            if piece.bytes == self.chunk_bytes {
                self.chunks.remove(&(request.disk, piece.chunk));
            } else if let Some(chunk) = self.chunks.get_mut(&(request.disk, piece.chunk)) {
                chunk[piece.from..piece.from + piece.bytes].fill(0);
            }
        }
    }
}

/// A part of a request inside one chunk, in bytes of memory.
struct Piece {
    chunk: u64,
    from: usize,
    at: usize,
    bytes: usize,
}

fn pieces(mode: DataMode, request: &Request) -> impl Iterator<Item = Piece> + use<> {
    let (mut offset, end) = (request.offset_bytes, request.offset_bytes + request.length_bytes);
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
