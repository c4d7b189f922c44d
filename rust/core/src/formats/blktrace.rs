//! Decoder of blktrace's binary files, versions 7 and 8.

use crate::error::{Error, Result};
use crate::formats::blkevent::{Event, REMAP, category};
use crate::formats::blkmatch::Matcher;
use crate::formats::input::Input;
use crate::formats::{Format, Options};
use crate::trace::{DecodeReport, TraceBatch, TraceSource};
use std::ops::Range;

pub const PAGE: &str = "\
# blktrace

Binary records of the Linux kernel's block tracer, as `blktrace` stores them: one file per CPU
(`sda.blktrace.0`, `sda.blktrace.1`, ...), or one file merged by `blkparse -d`.

## Import

    vaio-bench import sda -o t.parquet              # every sda.blktrace.N
    vaio-bench import sda.blktrace.* -o t.parquet   # the same
    vaio-bench import sda --event issue -o t.parquet

Give all files of a capture at once: an I/O may be queued on one CPU and completed on another.
Files are merged by time. Versions 7 and 8 (kernel 6.19 on) are read, in either byte order.

## What becomes an I/O

With `--event queue` (the default) every Q record: what the file system asked for, before merging
and splitting. With `--event issue` every D record: what the device was asked for; a request that
was requeued counts once.

- `time_ns`: of that record. `stream`: the process id in it.
- `latency_ns`: service time, from issue (D) to completion (C). A merged bio has the service time
  of the request it was merged into; a bio that was split has the time from the first issue to the
  last completion; after a requeue the last issue counts. Null where the capture has no completion.
  Devices without requests (device mapper, md) complete bios: there it is Q to C.
- `disk`: `major,minor`. Several devices in one capture become several disks. A remap (A) is no
  I/O: a remapped bio has a Q record on each device it passes, and is an I/O of each; where both
  devices are in the capture, a warning says so.
- `op`: a record with the flush bit and no bytes is a flush (blkparse's summary counts those as
  reads or writes); with bytes it is a write with the preflush flag. Discard and, in version 8,
  write zeroes are kept as such; version 7 writes the latter as plain writes.
- A flush is served by the flush request that completed last before it; a write with preflush or
  FUA has the service time of its own data request.

Passthrough (SCSI) and zone management commands are left out and counted.

## Known limits

Records lost during capture leave I/Os without latency. Times are those of the kernel's monotonic
clock, and relative in a merged dump; the trace starts at 0 either way.
";

const MAGIC: u32 = 0x6561_7400;
const V7_BYTES: usize = 48;
const V8_BYTES: usize = 64;
/// Events decoded between two looks at whether the batch is full.
const EVENTS_PER_TURN: usize = 4096;
/// A 16-bit length field bounds what follows a record.
const MAX_RECORD_BYTES: usize = V8_BYTES + u16::MAX as usize;

pub struct Blktrace;

impl Format for Blktrace {
    fn name(&self) -> &'static str {
        "blktrace"
    }

    fn page(&self) -> &'static str {
        PAGE
    }

    fn sniff(&self, head: &[u8]) -> bool {
        Layout::of(head).is_some()
    }

    fn open(&self, inputs: Vec<Input>, options: &Options) -> Result<Box<dyn TraceSource>> {
        Ok(Box::new(BlktraceSource::new(inputs, options)?))
    }
}

/// How the records of one file are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    swapped: bool,
    v8: bool,
}

impl Layout {
    fn of(head: &[u8]) -> Option<Self> {
        let magic = u32::from_le_bytes(head.get(..4)?.try_into().ok()?);
        [(magic, false), (magic.swap_bytes(), true)].into_iter().find_map(|(magic, swapped)| {
            let v8 = match magic.checked_sub(MAGIC)? {
                7 => false,
                8 => true,
                _ => return None,
            };
            Some(Self { swapped, v8 })
        })
    }

    const fn header_bytes(self) -> usize {
        if self.v8 { V8_BYTES } else { V7_BYTES }
    }

    /// The first four bytes of every record, as a little-endian number.
    const fn magic(self) -> u32 {
        let magic = MAGIC | if self.v8 { 8 } else { 7 };
        if self.swapped { magic.swap_bytes() } else { magic }
    }

    #[inline(always)]
    fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let raw = u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        if self.swapped { raw.swap_bytes() } else { raw }
    }

    #[inline(always)]
    fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let raw = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if self.swapped { raw.swap_bytes() } else { raw }
    }

    #[inline(always)]
    fn u64(self, bytes: &[u8], at: usize) -> u64 {
        let (low, high) = (self.u32(bytes, at), self.u32(bytes, at + 4));
        if self.swapped {
            u64::from(low) << 32 | u64::from(high)
        } else {
            u64::from(high) << 32 | u64::from(low)
        }
    }

    /// Low byte of the action, category bits, length of the record: what skipping needs.
    #[inline(always)]
    fn kind(self, header: &[u8]) -> (u8, u32, usize) {
        let (action, category) = if self.v8 {
            let action = self.u64(header, 32);
            (action as u8, (action >> 16) as u32)
        } else {
            let action = self.u32(header, 28);
            (action as u8, action >> 16)
        };
        let length = header.len() + usize::from(self.u16(header, if self.v8 { 50 } else { 46 }));
        (action, category, length)
    }

    /// The event of a record header.
    #[inline(always)]
    fn event(self, header: &[u8], action: u8, category: u32) -> Event {
        let (pid, tail) = if self.v8 { (28, 40) } else { (32, 36) };
        Event {
            time_ns: self.u64(header, 8),
            sector: self.u64(header, 16),
            bytes: self.u32(header, 24),
            category,
            pid: self.u32(header, pid),
            device: self.u32(header, tail),
            action,
            failed: self.u16(header, tail + 8) != 0,
        }
    }
}

/// One file: the relevant events in it, the others skipped and counted.
struct Stream {
    input: Input,
    layout: Layout,
    /// The next relevant event.
    next: Option<Event>,
    records: u64,
    last_ns: u64,
    /// Events earlier than the one before: an issue that comes after its completion is not found.
    went_back: u64,
    skip_bad: bool,
    damage: Damage,
    /// Why the file was taken as ended (lenient import of damaged compressed data).
    given_up: Option<String>,
    remapped_from: u32,
}

/// What lenient import skipped of a file.
struct Damage {
    bytes: u64,
    places: u64,
    /// Where the last skip ended: a skip that starts there is of the same place.
    end: u64,
}

const NO_DEVICE: u32 = u32::MAX;

impl Stream {
    fn open(mut input: Input, skip_bad: bool) -> Result<Option<Self>> {
        let head = input.fill(V8_BYTES)?;
        if head.is_empty() {
            // A CPU that saw no I/O leaves an empty file.
            return Ok(None);
        }
        let Some(layout) = Layout::of(head) else {
            return Err(Error::input(
                "expected blktrace records (magic 0x65617407 or 0x65617408), got something else",
            )
            .with("file", &input.name)
            .with("byte", 0));
        };
        Ok(Some(Self {
            input,
            layout,
            next: None,
            records: 0,
            last_ns: 0,
            went_back: 0,
            skip_bad,
            damage: Damage { bytes: 0, places: 0, end: u64::MAX },
            given_up: None,
            remapped_from: NO_DEVICE,
        }))
    }

    /// Moves `next` to the next relevant event, or `None` at the end.
    #[inline]
    fn advance(&mut self, matcher: &mut Matcher) -> Result<()> {
        // A constant layout makes each of the four a loop of plain loads.
        match (self.layout.swapped, self.layout.v8) {
            (false, false) => self.scan(Layout { swapped: false, v8: false }, matcher),
            (true, false) => self.scan(Layout { swapped: true, v8: false }, matcher),
            (false, true) => self.scan(Layout { swapped: false, v8: true }, matcher),
            (true, true) => self.scan(Layout { swapped: true, v8: true }, matcher),
        }
    }

    #[inline(always)]
    fn scan(&mut self, layout: Layout, matcher: &mut Matcher) -> Result<()> {
        self.next = None;
        let header_bytes = layout.header_bytes();
        let magic = layout.magic().to_le_bytes();
        loop {
            let available = self.input.available();
            let mut used = 0;
            while let Some(header) = available.get(used..used + header_bytes) {
                let (action, categories, length) = layout.kind(header);
                if header[..4] != magic || length > available.len() - used {
                    break;
                }
                if self.skip_bad && swallows(&available[used..], header_bytes..length, magic) {
                    break;
                }
                self.records += 1;
                let record = used;
                used += length;
                if categories & category::NOTIFY != 0 {
                    continue;
                }
                if Event::is_relevant(action) {
                    let event = layout.event(header, action, categories);
                    self.went_back += u64::from(event.time_ns < self.last_ns);
                    self.last_ns = event.time_ns;
                    self.next = Some(event);
                    self.input.consume(used);
                    return Ok(());
                }
                if action == REMAP {
                    let pdu = &available[record + header_bytes..used];
                    note_remap(pdu, &mut self.remapped_from, matcher);
                }
            }
            self.input.consume(used);
            if !self.more()? {
                return Ok(());
            }
        }
    }

    /// Gets a whole record into the buffer; `false` at the end of the file.
    #[cold]
    fn more(&mut self) -> Result<bool> {
        let header_bytes = self.layout.header_bytes();
        let layout = self.layout;
        let available = match self.input.fill(MAX_RECORD_BYTES) {
            Ok(available) => available,
            Err(e) if self.skip_bad => {
                self.input.give_up();
                self.given_up = Some(e.to_string());
                return self.more();
            }
            Err(e) => return Err(e),
        };
        if available.is_empty() {
            return Ok(false);
        }
        let magic = layout.magic().to_le_bytes();
        let is_magic = available.len() >= 4 && available[..4] == magic;
        let whole = available.get(..header_bytes).is_some_and(|header| {
            let length = layout.kind(header).2;
            length <= available.len()
                && !(self.skip_bad && swallows(available, header_bytes..length, magic))
        });
        if is_magic && whole {
            return Ok(true);
        }
        if self.skip_bad {
            self.resynchronise();
            return Ok(true);
        }
        let error = if is_magic || available.len() < 4 {
            Error::input("the last record is cut short: expected its full length")
        } else {
            let found =
                u32::from_le_bytes([available[0], available[1], available[2], available[3]]);
            Error::input(format!(
                "expected a blktrace record (magic {:#010x}), got {found:#010x}",
                layout.magic()
            ))
        };
        Err(error.with("file", &self.input.name).with("byte", self.input.offset()))
    }

    /// Skips to the next place that looks like a record (lenient import only).
    fn resynchronise(&mut self) {
        let magic = self.layout.magic().to_le_bytes();
        let available = self.input.available();
        let is_last = available.len() < MAX_RECORD_BYTES;
        // Not the place itself: it holds the damage. A magic may be cut by the buffer's end.
        let skip = match memchr::memmem::find(&available[1..], &magic) {
            Some(at) => at + 1,
            None if is_last => available.len(),
            None => available.len() - (magic.len() - 1),
        };
        if self.damage.end != self.input.offset() {
            self.damage.places += 1;
        }
        self.damage.bytes += skip as u64;
        self.input.consume(skip);
        self.damage.end = self.input.offset();
    }
}

/// Whether the length of the record at the start is damaged: another record lies in what it says is
/// its pdu, and none after it.
fn swallows(available: &[u8], pdu: Range<usize>, magic: [u8; 4]) -> bool {
    !pdu.is_empty()
        && available.get(pdu.end..pdu.end + magic.len()).is_some_and(|next| next != magic)
        && memchr::memmem::find(&available[pdu], &magic).is_some()
}

/// The pdu of a remap: `be32 device_from, be32 device_to, be64 sector_from`, after the cgroup id
/// where there is one; so counted from the end.
fn note_remap(pdu: &[u8], last: &mut u32, matcher: &mut Matcher) {
    let Some(start) = pdu.len().checked_sub(16) else { return };
    let from = u32::from_be_bytes([pdu[start], pdu[start + 1], pdu[start + 2], pdu[start + 3]]);
    if from != *last {
        *last = from;
        matcher.remap(from);
    }
}

struct BlktraceSource {
    streams: Vec<Stream>,
    matcher: Matcher,
    primed: bool,
}

impl BlktraceSource {
    fn new(inputs: Vec<Input>, options: &Options) -> Result<Self> {
        let mut streams = Vec::with_capacity(inputs.len());
        for input in inputs {
            streams.extend(Stream::open(input, options.skip_bad)?);
        }
        Ok(Self { streams, matcher: Matcher::new(options.event), primed: false })
    }

    /// Feeds the matcher up to `EVENTS_PER_TURN` events in order of time (ties: the first file
    /// first). `false` when all files have ended.
    fn turn(&mut self) -> Result<bool> {
        if !self.primed {
            for stream in &mut self.streams {
                stream.advance(&mut self.matcher)?;
            }
            self.primed = true;
        }
        let mut budget = EVENTS_PER_TURN;
        while budget > 0 {
            let Some((earliest, until)) = self.earliest() else { return Ok(false) };
            let stream = &mut self.streams[earliest];
            // The files change turns far less often than events come.
            while let Some(event) = stream.next.filter(|e| (e.time_ns, earliest) <= until) {
                self.matcher.event(&event);
                stream.advance(&mut self.matcher)?;
                budget = budget.saturating_sub(1);
                if budget == 0 {
                    break;
                }
            }
        }
        Ok(true)
    }

    /// The file with the earliest event, and until when it stays so.
    fn earliest(&self) -> Option<(usize, (u64, usize))> {
        let mut best: Option<(u64, usize)> = None;
        let mut second = (u64::MAX, usize::MAX);
        for (i, stream) in self.streams.iter().enumerate() {
            let Some(event) = &stream.next else { continue };
            let this = (event.time_ns, i);
            match best {
                Some(b) if b <= this => second = second.min(this),
                Some(b) => {
                    second = b;
                    best = Some(this);
                }
                None => best = Some(this),
            }
        }
        best.map(|(_, i)| (i, second))
    }
}

impl TraceSource for BlktraceSource {
    fn next_batch(&mut self, max_rows: usize) -> Result<Option<TraceBatch>> {
        let mut batch = TraceBatch::with_capacity(max_rows.min(1 << 20));
        loop {
            self.matcher.drain(&mut batch, max_rows);
            if batch.len() >= max_rows {
                return Ok(Some(batch));
            }
            if !self.turn()? {
                self.matcher.drain_rest(&mut batch, max_rows);
                return Ok(if batch.is_empty() { None } else { Some(batch) });
            }
        }
    }

    fn disks(&self) -> &[String] {
        self.matcher.disks()
    }

    fn report(&self) -> DecodeReport {
        let mut report = self.matcher.final_report();
        report.records += self.streams.iter().map(|s| s.records).sum::<u64>();
        for stream in &self.streams {
            let Damage { bytes, places, .. } = stream.damage;
            if places > 0 {
                report.drop_row("damaged records", places);
                report.warnings.push(format!(
                    "{}: {bytes} bytes skipped in {places} damaged place(s)",
                    stream.input.name
                ));
            }
            if stream.went_back > 0 {
                report.warnings.push(format!(
                    "{}: {} events are earlier than the one before them, so that I/Os may lack \
                     latencies: give the files of the CPUs one by one, as they were recorded",
                    stream.input.name, stream.went_back
                ));
            }
            if let Some(why) = &stream.given_up {
                report.drop_row("rest of a damaged file", 1);
                report.warnings.push(why.clone());
            }
        }
        report
    }
}
