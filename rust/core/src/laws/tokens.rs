//! What is written to a bed: sectors that tell which I/O wrote them.

use super::bed::Plan;
use crate::filters::SECTOR_BYTES;
use crate::io::Op;

/// What a sector may hold that nobody knows.
pub const ANY: u64 = u64::MAX;

pub fn sectors(plan: &Plan) -> std::ops::Range<u64> {
    plan.offset_bytes / SECTOR_BYTES..(plan.offset_bytes + plan.length_bytes) / SECTOR_BYTES
}

/// What an operation leaves behind; `None` for one that changes nothing.
pub const fn token_of(op: Op, seq: u64) -> Option<u64> {
    match op {
        Op::Write => Some(seq + 1),
        Op::WriteZeroes => Some(0),
        Op::Discard => Some(ANY),
        Op::Read | Op::Flush => None,
    }
}

/// A write's data: its token, over and over, and which word of the sector it is.
pub fn fill(data: &mut [u8], token: u64) {
    for (i, word) in data.chunks_exact_mut(8).enumerate() {
        let place = if token > 0 { (i as u64 % 64) << 48 } else { 0 };
        word.copy_from_slice(&(token | place).to_le_bytes());
    }
}

pub fn holds(data: &[u8], token: u64) -> bool {
    let mut expected = [0; SECTOR_BYTES as usize];
    fill(&mut expected, token);
    token == ANY || data == expected
}

pub fn told(token: u64) -> String {
    match token {
        0 => "zeros".to_owned(),
        token => format!("write {}", token - 1),
    }
}

/// The writes whose sectors these are, where they can be told.
pub fn written_by(data: &[u8]) -> impl Iterator<Item = u64> {
    let sectors = data.chunks_exact(SECTOR_BYTES as usize);
    sectors.filter_map(|sector| token_in(sector).and_then(|token| token.checked_sub(1)))
}

fn token_in(sector: &[u8]) -> Option<u64> {
    let mut first = [0; 8];
    first.copy_from_slice(&sector[..8]);
    let token = u64::from_le_bytes(first);
    (token < 1 << 32 && holds(sector, token)).then_some(token)
}

pub fn found(data: &[u8]) -> String {
    token_in(data).map_or("something else".to_owned(), told)
}
