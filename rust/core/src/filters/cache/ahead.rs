//! Read-ahead: while a disk is read in sequence, the blocks behind are fetched in the background.

use super::super::{Child, ChildData, Cx};
use super::work::Piece;
use super::{AHEADS, Cache, DESTAGE_BYTES};
use crate::eviction::Access;
use crate::io::{OK, Op};
use crate::slab::IoId;

/// Marks the tag of a fetch ahead; the rest is its number.
pub const AHEAD: u64 = 1 << 40;

/// How far a disk was read.
#[derive(Debug, Clone, Copy, Default)]
struct Stream {
    end_bytes: u64,
    /// Blocks below this one are fetched.
    ahead_to: u64,
}

pub struct Ahead {
    blocks: u64,
    /// By disk.
    streams: Vec<Stream>,
    fetches: [Vec<Piece>; AHEADS],
    idle: Vec<usize>,
    /// I/Os that change data and are not done: what they touch is not fetched, for nobody knows
    /// which of both the device does first.
    changing: Vec<IoId>,
    pub fetched_blocks: i64,
}

impl Ahead {
    pub fn new(blocks: u64) -> Self {
        Self {
            blocks,
            streams: Vec::new(),
            fetches: std::array::from_fn(|_| Vec::new()),
            idle: (0..AHEADS).collect(),
            changing: Vec::new(),
            fetched_blocks: 0,
        }
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.blocks);
    }

    pub fn changes(&mut self, io: IoId) {
        self.changing.push(io);
    }

    pub fn changed(&mut self, io: IoId) {
        if let Some(at) = self.changing.iter().position(|other| *other == io) {
            self.changing.swap_remove(at);
        }
    }

    /// From which block to which to fetch after a read of these bytes and blocks.
    fn wanted(&mut self, disk: usize, from: u64, to: u64, end: u64) -> std::ops::Range<u64> {
        if self.streams.len() <= disk {
            self.streams.resize(disk + 1, Stream::default());
        }
        let stream = &mut self.streams[disk];
        let in_sequence = from > 0 && stream.end_bytes == from;
        stream.end_bytes = to;
        if !in_sequence {
            stream.ahead_to = end;
        }
        let first = stream.ahead_to.max(end);
        let last = end + self.blocks;
        // Half of it at a time, so that the fetches are long.
        if !in_sequence || first + self.blocks.div_ceil(2) > last {
            return first..first;
        }
        stream.ahead_to = last;
        first..last
    }
}

impl Cache {
    pub(super) fn read_ahead(&mut self, cx: &mut Cx<'_>, io: IoId, blocks: &std::ops::Range<u64>) {
        let of = cx.io(io);
        let (disk, from) = (of.disk as usize, of.offset_bytes);
        let to = from + of.length_bytes;
        let Some(ahead) = &mut self.ahead else { return };
        let mut wanted = ahead.wanted(disk, from, to, blocks.end);
        while !wanted.is_empty() {
            let Some(number) = self.ahead.as_mut().and_then(|ahead| ahead.idle.pop()) else {
                return;
            };
            if !self.fetch_ahead(cx, number, &mut wanted)
                && let Some(ahead) = &mut self.ahead
            {
                ahead.idle.push(number);
            }
        }
    }

    /// Fetches the first run of blocks of the range that are not here, and takes it off.
    fn fetch_ahead(
        &mut self,
        cx: &mut Cx<'_>,
        number: usize,
        wanted: &mut std::ops::Range<u64>,
    ) -> bool {
        let Some(ahead) = &mut self.ahead else { return false };
        let mut pieces = std::mem::take(&mut ahead.fetches[number]);
        pieces.clear();
        while !wanted.is_empty() && (pieces.len() as u64 + 1) * self.grid.block <= DESTAGE_BYTES {
            let block = wanted.start;
            let key = self.grid.key(cx.disk(), block);
            if self.is_taken(cx, block, key) {
                if !pieces.is_empty() {
                    break;
                }
                wanted.start += 1;
                continue;
            }
            wanted.start += 1;
            if let Access::Miss { slot, .. } = self.policy.access(key) {
                self.begin(slot, key);
                pieces.push(Piece::new(block, key, slot, self.frames.generation(slot)));
            }
        }
        let fetch = pieces.first().map(|first| Child {
            op: Op::Read,
            offset_bytes: first.block * self.grid.block,
            length_bytes: pieces.len() as u64 * self.grid.block,
            flags: 0,
            data: ChildData::Own,
            tag: AHEAD | number as u64,
        });
        let disk = cx.disk();
        let is_under_way = fetch.is_some_and(|fetch| cx.background_of(disk, fetch).is_some());
        if !is_under_way {
            for piece in &pieces {
                self.drop_block(piece);
            }
        }
        if let Some(ahead) = &mut self.ahead {
            ahead.fetches[number] = pieces;
        }
        is_under_way
    }

    /// Is it here, on its way, or being changed?
    fn is_taken(&self, cx: &Cx<'_>, block: u64, key: u64) -> bool {
        let (begin, end) = (block * self.grid.block, (block + 1) * self.grid.block);
        self.policy.resident(key).is_some()
            || self.frames.of_evicted(key).is_some()
            || self.ahead.as_ref().is_some_and(|ahead| {
                ahead.changing.iter().any(|io| {
                    let io = cx.io(*io);
                    io.disk == cx.disk()
                        && io.offset_bytes < end
                        && begin < io.offset_bytes + io.length_bytes
                })
            })
    }

    /// A fetch ahead is back; where the disk ended before it, nothing was lost.
    pub(super) fn ahead_done(&mut self, cx: &mut Cx<'_>, child: IoId) {
        let (tag, status) = (cx.io(child).tag, cx.io(child).status);
        let number = (tag & !AHEAD) as usize;
        let Some(ahead) = &mut self.ahead else { return };
        let pieces = std::mem::take(&mut ahead.fetches[number]);
        for piece in &pieces {
            if status == OK {
                self.arrived(cx, child, piece);
            } else {
                self.drop_block(piece);
            }
            self.wake(cx, piece);
        }
        if let Some(ahead) = &mut self.ahead {
            ahead.fetched_blocks += if status == OK { pieces.len() as i64 } else { 0 };
            ahead.fetches[number] = pieces;
            ahead.idle.push(number);
        }
    }
}
