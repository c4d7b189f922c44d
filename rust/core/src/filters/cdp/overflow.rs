//! The filter's I/Os to and from the journal's spill file.

use super::{Cdp, Cx};
use crate::cdp::spill::{Region, read_record, write_record};
use crate::filters::{Child, ChildData, DataMode};
use crate::io::{OK, Op};
use crate::slab::IoId;

/// Tags of such I/Os; those of reads of the disks are small.
const WRITE: u64 = 1 << 62;
const READ: u64 = 1 << 63;

impl Cdp {
    /// Gets entries out of memory, and back what is sent soon.
    pub(super) fn move_overflow(&mut self, cx: &mut Cx<'_>) {
        if !self.source.has_overflow() {
            return;
        }
        let now = cx.now();
        while let Some((entry, region)) = self.source.next_spill(now) {
            let Some(io) = self.begin_move(cx, Op::Write, region) else {
                self.source.spilled(now, region, libc::ENOMEM);
                break;
            };
            if cx.data_mode() == DataMode::Bytes {
                write_record(&entry, cx.data_mut(io));
            }
        }
        while let Some(region) = self.source.next_unspill() {
            if self.begin_move(cx, Op::Read, region).is_none() {
                self.source.unspilled(now, region, None);
                break;
            }
        }
    }

    fn begin_move(&mut self, cx: &mut Cx<'_>, op: Op, region: Region) -> Option<IoId> {
        self.moves += 1;
        let tag = self.moves | if op == Op::Write { WRITE } else { READ };
        let child = Child {
            op,
            offset_bytes: region.at_bytes,
            length_bytes: region.length_bytes,
            flags: 0,
            data: ChildData::Own,
            tag,
        };
        let io = cx.background_on(0, child)?;
        self.moving.push((tag, region));
        Some(io)
    }

    /// An I/O of the spill file is done; false for one that is none.
    pub(super) fn has_moved(&mut self, cx: &Cx<'_>, child: IoId) -> bool {
        let io = cx.io(child);
        let (tag, status) = (io.tag, io.status);
        let Some(at) = self.moving.iter().position(|(of, _)| *of == tag) else { return false };
        let (_, region) = self.moving.swap_remove(at);
        let now = cx.now();
        if tag & WRITE != 0 {
            self.source.spilled(now, region, status);
        } else if status != OK {
            self.source.unspilled(now, region, None);
        } else if cx.data_mode() == DataMode::Bytes {
            self.source.unspilled(now, region, read_record(cx.data(child), region.no));
        } else {
            // The file is a model: what stands for the data never left.
            self.source.returned(now, region);
        }
        true
    }
}
