//! The source: from completed writes to the stream, and what it does when the link falls behind.
//!
//! A state machine. It is told of writes, of time and of what the link has to say, and puts what
//! its filter has to do into [`Source::outputs`].

use std::collections::VecDeque;

use self::base::Base;
use super::dirty::Dirty;
use super::entry::{Batch, Change, Entry, Kind, RECORD_HEADER_MAX, Record};
use super::fold::fold;
use super::frame::{Durable, Frame, Hello, VERSION};
use super::journal::Journal;
use super::link::{Ack, Link, LinkEvent};
use crate::clock::Ns;
use crate::filters::DataMode;

/// Continuous points are told at steps of this.
pub const CONTINUOUS_STEP_NS: Ns = 1_000_000;
/// What waits for the link makes so many entries or more, where they may be smaller.
const BATCHES_WAITING: u64 = 64;

/// What the line sends in a millisecond, or a page, makes an entry at least, if more waits: with
/// fewer bytes headers would count.
#[must_use]
pub fn batch_least_bytes(line_bytes_per_s: f64) -> u64 {
    ((line_bytes_per_s / 1e3) as u64).max(4 << 10)
}

mod base;
mod connection;
mod degrade;
mod overflow;
mod words;

pub use base::Initial;
pub use connection::{BACKOFF_MAX_NS, BACKOFF_MIN_NS, GREETING_PATIENCE_MAX, TIMEOUT_NS};
pub use degrade::{READS_MAX, Resync};
pub use overflow::MOVES_MAX;
pub use words::{Config, Degrade, Mode, Output, Waits};

/// A point on its way.
#[derive(Debug, Clone, Copy)]
struct Pending {
    id: u64,
    no: u64,
    cut_ns: Ns,
    /// Sent for it, with bytes in place of tokens.
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Down { retry_ns: Ns },
    Connecting { since_ns: Ns },
    Greeting { since_ns: Ns },
    Up,
}

/// The replication of one group of disks.
pub struct Source {
    config: Config,
    pub outputs: Vec<Output>,
    journal: Journal,
    open: Batch,
    /// The batch under way is closed when it is so large.
    batch_bytes: u64,
    mode: Mode,
    state: State,
    backoff_ns: Ns,
    /// When the far end last confirmed something, or had nothing to confirm.
    progress_ns: Ns,
    /// Connections in a row that were given up before anything was confirmed on them.
    fruitless: u32,
    /// The link was given up, and has not yet said that it is down.
    given_up: bool,
    last_id: u64,
    points: VecDeque<Pending>,
    since_point_bytes: u64,
    /// Cut of the newest point that is recoverable or on its way.
    newest_cut_ns: Ns,
    /// Cut of the newest point that is recoverable.
    last_recoverable_cut_ns: Ns,
    /// All that was received, as far as acknowledgements say.
    received_no: u64,
    /// Entries up to here hold writes that waited for nothing.
    unwaited_no: u64,
    /// The replica has taken this source.
    joined: bool,
    /// The replica had no room for what it was sent last.
    pub store_full: bool,
    /// Why the connection was last lost.
    pub last_trouble: String,
    /// Times in the stream count from here: the start of the trace.
    origin_ns: Ns,
    /// And are so much later, where another source's stream goes on.
    stream_ns: Ns,
    started: bool,
    base: Base,
    initial_sent_bytes: u64,
    initial_equal_bytes: u64,
    dirty: Dirty,
    overflow: overflow::Overflow,
    /// Blocks that entries in the spill file changed.
    spilled: Dirty,
    reads: u64,
    reads_from_ns: Ns,
    hole: Option<degrade::Hole>,
    resync: degrade::Resync,
    /// When the last continuous point was told, and the one kept back.
    told_ns: Ns,
    untold: Option<(Ns, Ns)>,
    counts: Counts,
}

/// Totals for the manifest.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Counts {
    pub captured_bytes: u64,
    pub entries: u64,
    pub points: u64,
    pub points_lost: u64,
    pub resyncs: u64,
    #[serde(flatten)]
    pub resync: degrade::Resync,
    pub reconnects: u64,
    pub peak_journal_bytes: u64,
    /// Written to the spill file.
    pub spilled_bytes: u64,
    /// Of what the disks held before: what was sent, and what was there already.
    pub initial_sent_bytes: u64,
    pub initial_equal_bytes: u64,
}

impl Source {
    #[must_use]
    pub fn new(config: Config) -> Self {
        let mut source = Self::without_base(config);
        if source.config.initial != Initial::Never {
            source.begin_initial();
        }
        source
    }

    fn without_base(config: Config) -> Self {
        Self {
            base: Base::new(config.disks.len(), config.block_bytes),
            stream_ns: 0,
            initial_sent_bytes: 0,
            initial_equal_bytes: 0,
            dirty: Dirty::new(config.disks.len(), config.block_bytes),
            overflow: overflow::Overflow::default(),
            spilled: Dirty::new(config.disks.len(), config.block_bytes),
            journal: Journal::new(config.spill_bytes, config.data != DataMode::Bytes),
            batch_bytes: config.batch_least_bytes,
            config,
            outputs: Vec::new(),
            open: Batch::default(),
            mode: Mode::Normal,
            state: State::Down { retry_ns: 0 },
            backoff_ns: BACKOFF_MIN_NS,
            progress_ns: 0,
            fruitless: 0,
            given_up: false,
            last_id: 0,
            points: VecDeque::new(),
            since_point_bytes: 0,
            newest_cut_ns: 0,
            last_recoverable_cut_ns: 0,
            received_no: 0,
            unwaited_no: 0,
            joined: false,
            store_full: false,
            last_trouble: String::new(),
            origin_ns: 0,
            started: false,
            reads: 0,
            reads_from_ns: 0,
            hole: None,
            resync: degrade::Resync::default(),
            told_ns: 0,
            untold: None,
            counts: Counts::default(),
        }
    }

    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    #[must_use]
    pub const fn counts(&self) -> Counts {
        Counts {
            initial_sent_bytes: self.initial_sent_bytes,
            initial_equal_bytes: self.initial_equal_bytes,
            ..self.counts
        }
    }

    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Captured and not confirmed.
    #[must_use]
    pub fn backlog_bytes(&self) -> u64 {
        let unread = self.dirty.bytes() + self.base.left_bytes();
        self.journal.bytes() + self.open.real_bytes + unread
    }

    /// Restore points that were cut and are not confirmed.
    #[must_use]
    pub fn unconfirmed_points(&self) -> usize {
        self.points.len()
    }

    /// Age of the oldest write that is not confirmed.
    #[must_use]
    pub fn lag_ns(&self, now: Ns) -> Ns {
        if self.hole.is_some() {
            return now.saturating_sub(self.newest_cut_ns);
        }
        self.oldest_ns().map_or(0, |oldest| now.saturating_sub(oldest))
    }

    /// When the oldest write completed that is not confirmed.
    fn oldest_ns(&self) -> Option<Ns> {
        let open = (!self.open.is_empty()).then_some(self.open.first_ns);
        self.journal
            .oldest_ns()
            .or(open)
            .map(|since| (since + self.origin_ns).saturating_sub(self.stream_ns))
    }

    /// A time as the stream has it; what is seeded before the start has none.
    const fn since_start(&self, at_ns: Ns) -> Ns {
        let since = if self.started { at_ns.saturating_sub(self.origin_ns) } else { 0 };
        since + self.stream_ns
    }

    /// The trace starts now; what was captured before has been confirmed.
    pub fn start(&mut self, now: Ns) {
        debug_assert!(self.journal.is_empty() && self.open.is_empty());
        self.origin_ns = now;
        self.started = true;
        self.newest_cut_ns = now;
        self.last_recoverable_cut_ns = now;
        self.counts = Counts::default();
        self.since_point_bytes = 0;
        self.start_initial(now);
    }

    /// Nothing is on its way, and nothing has to be sent again.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.journal.is_empty() && self.open.is_empty() && self.hole.is_none()
    }

    /// A write (or discard) has completed. The entry that a synchronous one waits for, 0 for none.
    #[inline]
    pub fn record(&mut self, record: &Record<'_>) -> u64 {
        let now = record.time_ns;
        self.dirty.reaches(record.disk, record.offset_bytes + record.length_bytes);
        if self.mode == Mode::Bitmap {
            self.dirty.mark(record.disk, record.offset_bytes, record.length_bytes);
            return 0;
        }
        let size = RECORD_HEADER_MAX + record.length_bytes;
        if self.is_full_for(size) {
            self.enter_bitmap(now, "journal full");
            self.dirty.mark(record.disk, record.offset_bytes, record.length_bytes);
            return 0;
        }
        // The batch may be full with this record, and the next one open after it.
        let no = self.journal.next_no();
        self.push(record);
        if self.mode == Mode::Resync {
            self.dirty.clear_covered(record.disk, record.offset_bytes, record.length_bytes);
            self.base.clear_covered(record.disk, record.offset_bytes, record.length_bytes);
        }
        if self.waits() == Waits::Async { 0 } else { no }
    }

    #[inline]
    fn push(&mut self, record: &Record<'_>) {
        let before = self.open.real_bytes;
        let time_ns = self.since_start(record.time_ns);
        self.open.push(&Record { time_ns, ..*record });
        self.counts.captured_bytes += self.open.real_bytes - before;
        if self.open.real_bytes >= self.batch_bytes && !self.folds() {
            self.close_batch();
        }
    }

    /// In a hole there is no point to fold up to: batches go as they fill.
    const fn folds(&self) -> bool {
        self.config.folding && self.hole.is_none()
    }

    /// What writes wait for now.
    #[must_use]
    pub const fn waits(&self) -> Waits {
        match self.mode {
            Mode::Detached | Mode::Bitmap | Mode::Resync => Waits::Async,
            Mode::Normal | Mode::Backpressure => self.config.waits,
        }
    }

    fn close_batch(&mut self) {
        if self.open.is_empty() {
            return;
        }
        if self.folds() {
            let mut entry = self.open.close(self.journal.next_no(), Vec::new());
            let records: Vec<Record<'_>> =
                entry.records(self.config.data).filter_map(Result::ok).collect();
            let mut batches = Vec::new();
            fold(&records, self.config.data, self.config.batch_bytes, |batch| batches.push(batch));
            for mut batch in batches {
                let no = self.journal.next_no();
                self.since_point_bytes += batch.real_bytes;
                self.append(batch.close(no, Vec::new()));
            }
            entry.body.clear();
            self.open.body = entry.body;
        } else {
            self.since_point_bytes += self.open.real_bytes;
            self.journal.push_batch(&mut self.open);
            self.appended();
            // An entry is there when all of it has arrived: it adds a small share of the lag only.
            let share = self.journal.bytes() / BATCHES_WAITING;
            self.batch_bytes = share.clamp(self.config.batch_least_bytes, self.config.batch_bytes);
        }
    }

    fn append(&mut self, entry: Entry) {
        self.journal.push(entry);
        self.appended();
    }

    #[inline]
    fn appended(&mut self) {
        self.counts.entries += 1;
        self.counts.peak_journal_bytes = self.counts.peak_journal_bytes.max(self.journal.bytes());
    }

    /// Cuts a restore point: the state after all writes acknowledged before `now`.
    pub fn cut(&mut self, now: Ns) {
        if self.hole.is_some() {
            return;
        }
        self.close_batch();
        // Writes that wait for the replica are not acknowledged: the point lies before them.
        let after_no = match self.waits() {
            Waits::Async => self.journal.next_no() - 1,
            Waits::SemiSync => self.received_no.max(self.journal.confirmed_no()),
            Waits::Sync => self.journal.confirmed_no(),
        }
        .max(self.unwaited_no);
        self.last_id += 1;
        let (id, no) = (self.last_id, self.journal.next_no());
        let cut_ns = self.since_start(now);
        self.append(Entry::mark(no, Kind::Point { id, cut_ns, after_no }, cut_ns));
        let bytes = std::mem::take(&mut self.since_point_bytes);
        self.points.push_back(Pending { id, no, cut_ns: now, bytes });
        self.counts.points += 1;
        self.newest_cut_ns = now;
    }

    fn confirm(&mut self, no: u64, points: &[Durable], one_way_ns: Ns, now: Ns) {
        if no > self.journal.confirmed_no() && now <= self.progress_ns + self.config.timeout_ns {
            self.fruitless = 0;
        }
        self.journal.confirm(no);
        self.progress_ns = now;
        while let Some(point) = self.points.front().copied() {
            if point.no > no {
                break;
            }
            self.points.pop_front();
            self.last_recoverable_cut_ns = point.cut_ns;
            let age = points.iter().find(|told| told.id == point.id).map_or(0, |told| told.age_ns);
            let recoverable_ns = now.saturating_sub(one_way_ns + age).max(point.cut_ns);
            let Pending { id, cut_ns, bytes, .. } = point;
            self.outputs.push(Output::Point { id, cut_ns, recoverable_ns, bytes });
        }
        if self.is_continuous() {
            let arrived_ns = now.saturating_sub(one_way_ns);
            let cut_ns = self.oldest_ns().unwrap_or(arrived_ns);
            self.tell_continuous(cut_ns.min(arrived_ns), arrived_ns);
        }
    }

    const fn is_continuous(&self) -> bool {
        self.config.point_interval_ns == 0 && self.hole.is_none()
    }

    /// Continuous replication: every state up to `cut_ns` is recoverable since then. There are as
    /// many such points as writes: of those within a millisecond the last is told.
    fn tell_continuous(&mut self, cut_ns: Ns, recoverable_ns: Ns) {
        self.newest_cut_ns = self.newest_cut_ns.max(cut_ns);
        self.last_recoverable_cut_ns = self.last_recoverable_cut_ns.max(cut_ns);
        if let Some((_, since_ns)) = self.untold
            && recoverable_ns > since_ns + CONTINUOUS_STEP_NS
        {
            self.tell_untold();
        }
        let since_ns = self.untold.map_or(recoverable_ns, |(_, since)| since);
        if recoverable_ns > self.told_ns + CONTINUOUS_STEP_NS {
            self.untold = Some((cut_ns, recoverable_ns));
            self.tell_untold();
        } else {
            self.untold = Some((cut_ns, since_ns.max(recoverable_ns)));
        }
    }

    /// Tells the continuous point that was kept back, if any.
    pub fn tell_untold(&mut self) {
        let Some((cut_ns, recoverable_ns)) = self.untold.take() else { return };
        self.told_ns = recoverable_ns;
        let bytes = std::mem::take(&mut self.since_point_bytes);
        self.outputs.push(Output::Point { id: self.last_id, cut_ns, recoverable_ns, bytes });
    }

    /// From here on writes wait for the replica, if the filter is a synchronous one.
    fn resume_waiting(&mut self) {
        self.close_batch();
        self.unwaited_no = self.journal.next_no() - 1;
        self.set_mode(Mode::Normal);
    }

    fn set_mode(&mut self, mode: Mode) {
        if self.mode != mode {
            self.mode = mode;
            self.outputs.push(Output::Mode(mode));
        }
    }
}
