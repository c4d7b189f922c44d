//! An I/O as requests that the server's block sizes allow.

use super::handshake::Export;
use super::link::Part;
use super::wire::{self, command};
use crate::backends::Request;
use crate::backends::align::Bounce;
use crate::io::Op;

/// Of a trim or a write of zeroes in one request: a whole number of any blocks, below 32 bits.
const STEP_BYTES: u64 = 1 << 30;
/// Of zeros that are sent as data.
const ZEROS_BYTES: u64 = 1 << 20;

/// A part of an I/O's range, as bytes since its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub from_bytes: u64,
    pub to_bytes: u64,
    pub is_aligned: bool,
}

#[must_use]
pub fn zeros() -> Bounce {
    let whole = Request {
        id: 0,
        disk: 0,
        op: Op::Write,
        offset_bytes: 0,
        length_bytes: ZEROS_BYTES,
        data: std::ptr::null_mut(),
        data_bytes: 0,
        fua: false,
    };
    Bounce::around(&whole, 1)
}

/// The piece after `done_bytes`; `None` after the last.
#[must_use]
pub fn next(request: &Request, done_bytes: u64, export: &Export) -> Option<Piece> {
    let end = request.offset_bytes + request.length_bytes;
    let at = request.offset_bytes + done_bytes;
    if at >= end {
        return None;
    }
    let min = u64::from(export.block_min_bytes);
    // Data is cut at multiples of the largest block, so that the span around a piece fits in one.
    let window = u64::from(export.block_max_bytes.min(32 << 20)) & !(min - 1);
    let window = match request.op {
        Op::Read | Op::Write => window,
        Op::WriteZeroes if !export.write_zeroes => window.min(ZEROS_BYTES),
        _ => STEP_BYTES,
    };
    let limit = end.min((at / window + 1) * window);
    let piece = |to: u64, is_aligned| Piece {
        from_bytes: at - request.offset_bytes,
        to_bytes: to - request.offset_bytes,
        is_aligned,
    };
    let whole = limit & !(min - 1);
    Some(match request.op {
        // Few and short: a span around all of it costs one turn less.
        Op::Read | Op::Write => piece(limit, (at | limit) & (min - 1) == 0),
        _ if at & (min - 1) != 0 => piece(end.min(at.next_multiple_of(min)), false),
        _ if whole > at => piece(whole, true),
        _ => piece(limit, false),
    })
}

/// The request for a piece; `None` where there is nothing to ask: a discard of less than a block.
#[must_use]
pub fn part(request: &Request, piece: &Piece, export: &Export, zeros: &Bounce) -> Option<Part> {
    let length_bytes = piece.to_bytes - piece.from_bytes;
    let own = Request {
        offset_bytes: request.offset_bytes + piece.from_bytes,
        length_bytes,
        data: match request.op {
            // SAFETY: inside the request's bytes.
            Op::Read | Op::Write => unsafe { request.data.add(piece.from_bytes as usize) },
            _ => request.data,
        },
        ..*request
    };
    if !piece.is_aligned {
        if own.op == Op::Discard {
            return None;
        }
        let bounce = Bounce::around(&own, u64::from(export.block_min_bytes));
        let span = (bounce.offset_bytes, bounce.length_bytes as u32);
        return Some(Part {
            data: bounce.pointer(),
            bounce: Some((bounce, own)),
            ..Part::new(own.id, command::READ, span.0, span.1)
        });
    }
    let (name, data) = match own.op {
        Op::Read => (command::READ, own.data),
        Op::Write => (command::WRITE, own.data),
        Op::WriteZeroes if !export.write_zeroes => (command::WRITE, zeros.pointer()),
        Op::WriteZeroes => (command::WRITE_ZEROES, std::ptr::null_mut()),
        Op::Discard | Op::Flush => (command::TRIM, std::ptr::null_mut()),
    };
    let fua = own.fua && export.fua && own.op != Op::Read;
    Some(Part {
        flags: if fua { wire::COMMAND_FUA } else { 0 },
        data,
        ..Part::new(own.id, name, own.offset_bytes, own.length_bytes as u32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(op: Op, offset: u64, length: u64, min: u32, max: u32) -> Vec<(u64, u64, bool)> {
        let export = Export {
            block_min_bytes: min,
            block_max_bytes: max,
            write_zeroes: true,
            ..Export::default()
        };
        let mut memory = vec![0u8; 1];
        let request = Request {
            id: 0,
            disk: 0,
            op,
            offset_bytes: offset,
            length_bytes: length,
            data: memory.as_mut_ptr(),
            data_bytes: 0,
            fua: false,
        };
        let (mut found, mut done) = (Vec::new(), 0);
        while let Some(piece) = next(&request, done, &export) {
            assert_eq!(piece.from_bytes, done);
            found.push((offset + done, offset + piece.to_bytes, piece.is_aligned));
            done = piece.to_bytes;
        }
        assert_eq!(done, length);
        found
    }

    #[test]
    fn pieces_are_whole_blocks_of_the_largest_size() {
        assert_eq!(cut(Op::Read, 512, 4096, 1, 32 << 20), [(512, 4608, true)]);
        assert_eq!(
            cut(Op::Write, 4096, 16_384, 512, 8192),
            [(4096, 8192, true), (8192, 16_384, true), (16_384, 20_480, true)]
        );
        assert_eq!(cut(Op::Write, 100, 4096, 512, 8192), [(100, 4196, false)]);
        // The span around a piece never is longer than the largest block.
        for (from, to, _) in cut(Op::Write, 5000, 20_000, 4096, 8192) {
            assert!(to.next_multiple_of(4096) - (from & !4095) <= 8192);
        }
    }

    #[test]
    fn zeroes_and_trims_keep_their_middle_whole() {
        let middle = [(100, 512, false), (512, 4096, true), (4096, 4100, false)];
        assert_eq!(cut(Op::WriteZeroes, 100, 4000, 512, 4096), middle);
        assert_eq!(cut(Op::Discard, 100, 4000, 512, 4096), middle);
        assert_eq!(cut(Op::WriteZeroes, 100, 50, 512, 4096), [(100, 150, false)]);
        let huge = cut(Op::WriteZeroes, 0, 5 << 30, 4096, 32 << 20);
        assert_eq!(huge.len(), 5);
        assert!(huge.iter().all(|(from, to, aligned)| *aligned && to - from < 1 << 32));
    }
}
