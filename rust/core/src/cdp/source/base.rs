//! The initial synchronisation: what the disks held before replication began goes to the replica,
//! while guest writes go on in the stream.
//!
//! A block is left out where the replica has it: zeroes where its store is new, or what its digest
//! says. That may be older than what was read, as long as every write since then is in the stream:
//! the replica then gets to the same state. Blocks of which it is not so are marked dirty, and are
//! sent whatever they hold.
//!
//! A resynchronisation compares in the same way: when it begins, the replica has all that was ever
//! sent, so what it holds then is a state since which everything is in the stream.

use std::collections::VecDeque;

use super::super::dirty::Dirty;
use super::super::frame::{ASK_MAX, Ask, Frame, Held, digest};
use super::super::link::Link;
use super::degrade::Hole;
use super::{Entry, Kind, Mode, Ns, Output, Source};
use crate::filters::DataMode;

/// A range of a disk: `(disk, offset, length)`.
pub type Block = (u16, u64, u64);

/// Of a block such parts are compared: less is sent than what is marked as a whole.
const PART_BYTES: u64 = 4096;

/// Questions under way at most, and blocks whose digests are known and that wait for their read.
const QUESTIONS_MAX: usize = 64;
const TOLD_MAX: usize = 256;

/// The reason of the hole that the initial synchronisation is.
const INITIAL: &str = "initial sync";

/// Whether the source sends what the disks hold already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initial {
    /// Before the trace starts.
    Before,
    /// While it runs, as the load that it is.
    During,
    /// Never: the replica got it some other way.
    Never,
}

/// What decides whether a block that was read is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
enum If {
    Always,
    NonZero,
    /// Those parts of which the digest is another.
    OtherThan(Vec<u128>),
}

/// What of the blocks is sent, known once the replica has told what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Unknown,
    All,
    NonZero,
    Compare,
}

/// How the initial synchronisation goes.
#[derive(Debug)]
pub(super) struct Base {
    pub is_running: bool,
    /// Not yet: the prefill is not done, or the trace has not started.
    pub is_paused: bool,
    how: How,
    /// Blocks that are neither sent nor known to be the same.
    left: Dirty,
    /// Questions under way, answered in their order.
    asked: VecDeque<Ask>,
    /// So many of them are about an earlier state: their answers say nothing any more.
    void: usize,
    /// What the replica is asked for it has to hold after this entry.
    from_no: u64,
    /// The replica tells no digests.
    is_untold: bool,
    /// Blocks and the digests of their parts at the replica.
    told: VecDeque<(Block, Vec<u128>)>,
    /// Reads under way, of dirty blocks too.
    reading: Vec<(Block, If)>,
    of_bytes: u64,
    sent_bytes: u64,
    equal_bytes: u64,
    tell_below_bytes: u64,
}

impl Base {
    pub fn new(disks: usize, block_bytes: u64) -> Self {
        Self {
            is_running: false,
            is_paused: false,
            how: How::Unknown,
            left: Dirty::new(disks, block_bytes),
            asked: VecDeque::new(),
            void: 0,
            from_no: 0,
            is_untold: false,
            told: VecDeque::new(),
            reading: Vec::new(),
            of_bytes: 0,
            sent_bytes: 0,
            equal_bytes: 0,
            tell_below_bytes: 0,
        }
    }

    /// Blocks that wait for a read.
    fn next(&mut self) -> Option<(Block, If)> {
        if self.is_paused {
            return None;
        }
        match self.how {
            How::Unknown => None,
            How::All => self.left.take().map(|block| (block, If::Always)),
            How::NonZero => self.left.take().map(|block| (block, If::NonZero)),
            How::Compare => self.told.pop_front().map(|(block, sums)| (block, If::OtherThan(sums))),
        }
    }

    fn is_done(&self) -> bool {
        self.left.is_empty() && self.asked.is_empty() && self.told.is_empty()
    }

    pub fn is_asking(&self) -> bool {
        !self.asked.is_empty()
    }

    pub fn left_bytes(&self) -> u64 {
        self.left.bytes() + self.told.iter().map(|(block, _)| block.2).sum::<u64>()
    }

    /// What was asked is not answered any more.
    pub fn forget_questions(&mut self) {
        for ask in self.asked.drain(..).skip(std::mem::take(&mut self.void)) {
            self.left.mark(ask.disk, ask.offset_bytes, ask.length_bytes);
        }
    }

    /// Digests of an earlier state say nothing any more; the answers to come neither.
    fn forget_told(&mut self) {
        for ask in self.asked.iter().skip(self.void) {
            self.left.mark(ask.disk, ask.offset_bytes, ask.length_bytes);
        }
        self.void = self.asked.len();
        for ((disk, offset, length), _) in self.told.drain(..) {
            self.left.mark(disk, offset, length);
        }
        for (_, when) in &mut self.reading {
            *when = If::Always;
        }
    }

    /// A write in the stream covers these blocks whole.
    pub fn clear_covered(&mut self, disk: u16, offset_bytes: u64, length_bytes: u64) {
        self.left.clear_covered(disk, offset_bytes, length_bytes);
    }
}

impl Source {
    /// From the first write on: nothing is a point before all that the disks held is sent.
    pub(super) fn begin_initial(&mut self) {
        for (disk, bytes) in self.config.disk_bytes.iter().enumerate() {
            self.dirty.reaches(disk as u16, *bytes);
            self.base.left.reaches(disk as u16, *bytes);
            let whole = [(0, *bytes)];
            let extents = self.config.extents.get(disk).map_or(&whole[..], |extents| extents);
            for (from, to) in extents {
                self.base.left.mark(disk as u16, *from, to - from);
            }
        }
        self.base.of_bytes = self.base.left.bytes();
        self.base.tell_below_bytes = self.base.of_bytes;
        self.base.is_running = true;
        self.base.is_paused = true;
        self.hole = Some(Hole { from_ns: 0, reason: INITIAL });
        self.mode = Mode::Resync;
        let no = self.journal.next_no();
        self.append(Entry::mark(no, Kind::ResyncBegin, 0));
    }

    /// The prefill is done: what the disks hold now is what the trace starts on. Read earlier, a
    /// block would be one thing in a point and another when the trace starts.
    pub fn seed(&mut self) {
        self.base.is_paused = self.config.initial == Initial::During;
    }

    /// The trace starts, and with it what waited for it.
    pub(super) fn start_initial(&mut self, now: Ns) {
        self.base.is_paused = false;
        if self.base.is_running
            && let Some(hole) = &mut self.hole
        {
            hole.from_ns = now;
            self.outputs.push(Output::Mode(self.mode));
        }
    }

    /// The replica has taken this source, for the first time.
    pub(super) fn join(&mut self, next_no: u64, held: Option<Held>) {
        self.joined = true;
        let Some(held) = held else {
            self.base.how = if self.config.skips_zeroes { How::NonZero } else { How::All };
            return;
        };
        if !self.base.is_running {
            return;
        }
        self.base.how = if self.config.checksums { How::Compare } else { How::All };
        // Where the disks hold nothing the replica may.
        for (disk, bytes) in self.config.disk_bytes.iter().enumerate() {
            self.base.left.mark(disk as u16, 0, *bytes);
        }
        self.base.of_bytes = self.base.left.bytes();
        self.base.tell_below_bytes = self.base.of_bytes;
        self.stream_ns = held.stream_ns;
        self.journal.go_on_at(next_no, held.stream_ns);
        self.open.first_ns += held.stream_ns;
        self.open.last_ns += held.stream_ns;
        self.last_id = held.last_id;
    }

    /// Asks for the next digests before they are needed. Marked blocks lie apart: many questions
    /// are on their way at one time.
    pub(super) fn ask(&mut self, now: Ns, link: &mut dyn Link) {
        let base = &mut self.base;
        let is_time = self.mode == Mode::Resync
            && !base.is_paused
            && base.how == How::Compare
            && self.journal.has_sent(base.from_no);
        let block_bytes = self.config.block_bytes.min(PART_BYTES);
        let blocks_max = (ASK_MAX * block_bytes / self.config.block_bytes).max(1);
        while is_time && base.asked.len() < QUESTIONS_MAX && base.told.len() < TOLD_MAX {
            let Some((disk, offset_bytes, length_bytes)) = base.left.take_run(blocks_max) else {
                return;
            };
            if base.asked.is_empty() && self.journal.in_flight_bytes() == 0 {
                self.progress_ns = now;
            }
            let ask = Ask { disk, offset_bytes, length_bytes, block_bytes };
            base.asked.push_back(ask);
            link.send(now, Frame::Ask(ask));
        }
    }

    pub(super) fn answered(&mut self, now: Ns, ask: Ask, sums: &[u128]) {
        if self.base.asked.front() != Some(&ask) {
            return;
        }
        self.progress_ns = now;
        if self.base.void > 0 {
            self.base.void -= 1;
            self.base.asked.pop_front();
            return;
        }
        if sums.is_empty() {
            self.base.forget_questions();
            self.base.is_untold = true;
            self.base.how = How::All;
            return;
        }
        self.base.asked.pop_front();
        let mut sums = sums.iter().copied();
        let blocks = Ask { block_bytes: self.config.block_bytes, ..ask };
        for (offset, length) in blocks.blocks() {
            let parts = length.div_ceil(ask.block_bytes) as usize;
            let told = ((ask.disk, offset, length), sums.by_ref().take(parts).collect());
            self.base.told.push_back(told);
        }
    }

    /// A resynchronisation begins with entry `no`: what is marked is compared, unless the first
    /// one is under way and the replica holds nothing to compare with.
    pub(super) fn compare_marked(&mut self, no: u64) {
        self.base.forget_told();
        let may = self.config.checksums && self.config.data != DataMode::Nothing;
        if may && !self.base.is_untold && (!self.base.is_running || self.base.how == How::Compare) {
            self.base.left.mark_all_of(&self.dirty);
            self.dirty.clear_all();
            (self.base.how, self.base.from_no) = (How::Compare, no);
        }
    }

    /// The next block to read: changed ones first.
    pub(super) fn take_block(&mut self) -> Option<Block> {
        let dirty = self.dirty.take().map(|block| (block, If::Always));
        let (block, when) = dirty.or_else(|| self.base.next())?;
        self.base.reading.push((block, when));
        Some(block)
    }

    /// The parts of a block that was read that have to be sent, from and to within it.
    pub(super) fn wanted(&mut self, block: Block, data: &[u8]) -> Vec<(u64, u64)> {
        let whole = || vec![(0, block.2)];
        let Some(at) = self.base.reading.iter().position(|(of, _)| *of == block) else {
            return whole();
        };
        let (_, when) = self.base.reading.swap_remove(at);
        let is_compared = matches!(when, If::OtherThan(_));
        let wanted = match when {
            If::Always => whole(),
            If::NonZero if is_zero(data) => Vec::new(),
            If::NonZero => whole(),
            If::OtherThan(sums) => self.other_parts(block.2, data, &sums),
        };
        let sent_bytes: u64 = wanted.iter().map(|(from, to)| to - from).sum();
        if self.base.is_running {
            self.base.sent_bytes += sent_bytes;
            self.base.equal_bytes += block.2 - sent_bytes;
            // What is sent whole need not be asked for.
            self.base.left.clear_covered(block.0, block.1, block.2);
            self.tell_progress();
        } else if is_compared {
            self.resync.compared_bytes += block.2;
            self.resync.equal_bytes += block.2 - sent_bytes;
        }
        wanted
    }

    /// Runs of parts whose digest is not what the replica told.
    fn other_parts(&self, length_bytes: u64, data: &[u8], sums: &[u128]) -> Vec<(u64, u64)> {
        let part_bytes = self.config.block_bytes.min(PART_BYTES);
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (i, sum) in sums.iter().enumerate() {
            let from = i as u64 * part_bytes;
            let to = (from + part_bytes).min(length_bytes);
            let part = self.config.data.size(from)..self.config.data.size(to);
            if digest(&data[part]) == *sum {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.1 == from => run.1 = to,
                _ => runs.push((from, to)),
            }
        }
        runs
    }

    fn tell_progress(&mut self) {
        let base = &mut self.base;
        let left = base.left_bytes();
        if left < base.tell_below_bytes {
            let of = base.of_bytes;
            base.tell_below_bytes = left.saturating_sub(of / 10);
            let (sent_bytes, equal_bytes) = (base.sent_bytes, base.equal_bytes);
            let done_bytes = of.saturating_sub(left);
            self.outputs.push(Output::Syncing {
                done_bytes,
                of_bytes: of,
                sent_bytes,
                equal_bytes,
            });
        }
    }

    /// A block was not sent: it has to be read again.
    pub(super) fn put_back(&mut self, block: Block) {
        let when = self.base.reading.iter().position(|(of, _)| *of == block);
        let when = when.map(|at| self.base.reading.swap_remove(at).1);
        // Where all writes are in the stream the block may be compared again.
        if self.mode == Mode::Resync && when.is_some_and(|when| when != If::Always) {
            self.base.left.mark(block.0, block.1, block.2);
        } else {
            self.dirty.mark(block.0, block.1, block.2);
        }
    }

    pub(super) fn is_base_sent(&self) -> bool {
        let is_read = self.joined && !self.base.is_paused;
        self.base.is_done() && (!self.base.is_running || is_read)
    }

    /// The initial synchronisation is done.
    pub(super) fn end_initial(&mut self, now: Ns) {
        if std::mem::take(&mut self.base.is_running) {
            let Base { of_bytes, sent_bytes, equal_bytes, .. } = self.base;
            self.initial_sent_bytes = sent_bytes;
            self.initial_equal_bytes = equal_bytes;
            self.outputs.push(Output::Synced { to_ns: now, of_bytes, sent_bytes, equal_bytes });
        }
    }

    /// While the data that is read is the disks' content before the trace.
    #[must_use]
    pub const fn reads_base(&self) -> bool {
        self.base.is_running
    }

    /// Nothing is on its way; what the disks held is there, or waits for the trace to start.
    #[must_use]
    pub fn is_seeded(&self) -> bool {
        self.journal.is_empty()
            && self.open.is_empty()
            && (self.hole.is_none() || self.base.is_paused)
    }

    /// Bytes of the disks' content that the replica may not hold.
    #[must_use]
    pub fn unsynced_bytes(&self) -> u64 {
        self.base.left_bytes()
    }

    /// Zeroes are known as such: where data is tokens of writes, they stand for what is not known.
    pub(super) fn is_known_zero(&self, data: &[u8]) -> bool {
        self.config.skips_zeroes && self.config.data != DataMode::Nothing && is_zero(data)
    }
}

fn is_zero(data: &[u8]) -> bool {
    let (words, rest) = data.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}
