//! Decoder of write logs: device-mapper's `log-writes` target and QEMU's `blklogwrites` driver.
//!
//! Layout as in the kernel's drivers/md/dm-log-writes.c, all little-endian. Sector 0 holds u64
//! magic, u64 version, u64 entries, u32 bytes of a sector. An entry takes a sector (u64 sector, u64
//! sectors, u64 flags, u64 bytes of the mark that follows it there) and, unless it is a discard,
//! the sectors of its data come next.

use crate::error::{Error, Result};
use crate::formats::input::Input;
use crate::formats::{Format, Options};
use crate::io::{Op, flags};
use crate::trace::{DecodeReport, NO_LATENCY, NO_STREAM, TraceBatch, TraceIo, TraceSource};

pub const PAGE: &str = "\
# dm-log-writes

Logs of writes with what they wrote: of device-mapper's `log-writes` target, and of QEMU's
`blklogwrites` driver, which makes the same.

## Import

    vaio-bench import log.img -o t.parquet
    vaio-bench replay t.parquet --payload trace --target t.img --policy cdp.toml -o run

Writes, discards, flushes and their flags (preflush, FUA, metadata) in the order of the log. What
was written goes to `t.parquet.content` beside the trace: with `--payload trace` a replay writes
those very bytes, so that a file system or a database in an image can be checked by its own tools.

A log of a virtual machine's disk, or of any program that goes to the mounted FUSE file:

    qemu-storage-daemon --blockdev driver=file,node-name=f,filename=disk.img \\
      --blockdev driver=file,node-name=l,filename=log.img \\
      --blockdev driver=blklogwrites,node-name=w,file=f,log=l \\
      --export type=fuse,id=e,node-name=w,mountpoint=mount.img,writable=on

## Known limits

The format holds no times and no reads: I/Os are 1 ms apart in the order in which they completed.
Marks (`dmsetup message`) are no I/Os: counted, and the first are told with the row that they come
before. One log at a time. Entries behind the number that sector 0 tells are not part of the log: a
writer that died before it wrote that sector again left them.
";

pub const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const SUPER_BYTES: usize = 28;
const ENTRY_BYTES: usize = 32;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;
const METADATA: u64 = 16;
const ALL_FLAGS: u64 = FLUSH | FUA | DISCARD | MARK | METADATA;
/// No write is longer: 1 GiB, as in a replay.
const DATA_BYTES_MAX: u64 = 1 << 30;
/// The format has no times.
const APART_NS: i64 = 1_000_000;
const MARKS_TOLD: usize = 20;

pub struct DmLogWrites;

impl Format for DmLogWrites {
    fn name(&self) -> &'static str {
        "dm-log-writes"
    }

    fn page(&self) -> &'static str {
        PAGE
    }

    fn sniff(&self, head: &[u8]) -> bool {
        head.len() >= SUPER_BYTES && word(head, 0) == MAGIC
    }

    fn open(&self, inputs: Vec<Input>, options: &Options) -> Result<Box<dyn TraceSource>> {
        let log = Log::open(one(inputs)?, options.skip_bad)?;
        Ok(Box::new(LogSource { log, disks: vec!["dm-log-writes".to_owned()] }))
    }
}

fn one(inputs: Vec<Input>) -> Result<Input> {
    let count = inputs.len();
    let mut inputs = inputs.into_iter();
    match (inputs.next(), count) {
        (Some(input), 1) => Ok(input),
        _ => Err(Error::input(format!(
            "dm-log-writes: expected one log, got {count}: there are no times to merge them by"
        ))),
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// A log being read, entry by entry.
pub struct Log {
    input: Input,
    sector_bytes: u64,
    entries_left: u64,
    entry: u64,
    rows: u64,
    skip_bad: bool,
    report: DecodeReport,
}

/// What an entry is: its I/O, if it is one, and the bytes of data that follow it.
pub struct Entry {
    pub io: Option<TraceIo>,
    data_bytes: u64,
}

impl Log {
    /// Reads the first sector.
    ///
    /// # Errors
    /// `Input` where it is no log.
    pub fn open(mut input: Input, skip_bad: bool) -> Result<Self> {
        let head = input.fill(SUPER_BYTES)?;
        let message = if head.len() < SUPER_BYTES || word(head, 0) != MAGIC {
            Some("expected a log of writes, found another first sector".to_owned())
        } else if word(head, 8) != VERSION {
            Some(format!("expected version 1 of the format, got {}", word(head, 8)))
        } else {
            None
        };
        if let Some(message) = message {
            return Err(Error::input(message).with("file", &input.name).with("byte", 0));
        }
        let entries_left = word(head, 16);
        let sector_bytes = u64::from(u32::from_le_bytes(std::array::from_fn(|i| head[24 + i])));
        if !sector_bytes.is_power_of_two() || !(512..=1 << 23).contains(&sector_bytes) {
            let message = format!("expected sectors of 512 bytes to 8 MiB, got {sector_bytes}");
            return Err(Error::input(message).with("file", &input.name).with("byte", 24));
        }
        let report = DecodeReport::default();
        let mut log =
            Self { input, sector_bytes, entries_left, entry: 0, rows: 0, skip_bad, report };
        log.take(sector_bytes, &mut |_| Ok(()))?;
        Ok(log)
    }

    /// The next entry; its data has to be taken before the one after it.
    ///
    /// # Errors
    /// `Input` with the byte where the log is damaged or ends too early.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        if self.entries_left == 0 {
            return Ok(None);
        }
        match self.read_entry() {
            Ok(entry) => Ok(Some(entry)),
            Err(_) if self.skip_bad => {
                self.report.drop_row("entry behind a damaged one", self.entries_left);
                self.entries_left = 0;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn read_entry(&mut self) -> Result<Entry> {
        let at = self.input.offset();
        let wanted = self.sector_bytes as usize;
        let sector = self.input.fill(wanted)?;
        let broken =
            |what: String, name: &str| Err(Error::input(what).with("file", name).with("byte", at));
        if sector.len() < wanted {
            let what = format!("the log ends in entry {} of {}", self.entry, self.entries());
            return broken(what, &self.input.name);
        }
        let [first, sectors, bits, mark_bytes] = [0, 8, 16, 24].map(|i| word(sector, i));
        let length = sectors.checked_mul(self.sector_bytes);
        let offset = first.checked_mul(self.sector_bytes);
        let end = offset.zip(length).and_then(|(offset, length)| offset.checked_add(length));
        if bits & !ALL_FLAGS != 0 {
            return broken(format!("unknown flags {bits:#x} of an entry"), &self.input.name);
        }
        let (Some(length), Some(offset), Some(_)) =
            (length, offset, end.filter(|end| i64::try_from(*end).is_ok()))
        else {
            let what = format!("expected a range below 2^63 bytes, got sector {first}");
            return broken(what, &self.input.name);
        };
        let is_discard = bits & DISCARD != 0;
        let data_bytes = if is_discard { 0 } else { length };
        if data_bytes > DATA_BYTES_MAX {
            return broken(format!("expected 1 GiB at most, got {length} bytes"), &self.input.name);
        }
        if bits & MARK != 0 {
            let room = wanted - ENTRY_BYTES;
            let text = &sector[ENTRY_BYTES..ENTRY_BYTES + (mark_bytes as usize).min(room)];
            let text = String::from_utf8_lossy(text).trim_end_matches('\0').to_owned();
            if self.report.warnings.len() < MARKS_TOLD {
                self.report.warnings.push(format!("mark {text:?} before row {}", self.rows));
            }
        }
        self.input.consume(wanted);
        self.entries_left -= 1;
        self.entry += 1;
        self.report.records += 1;
        let io = self.io(bits, offset as i64, length as i64);
        self.rows += u64::from(io.is_some());
        Ok(Entry { io, data_bytes })
    }

    fn io(&mut self, bits: u64, offset_bytes: i64, length_bytes: i64) -> Option<TraceIo> {
        let op = match bits {
            _ if bits & MARK != 0 => {
                self.report.drop_row("mark", 1);
                return None;
            }
            _ if bits & DISCARD != 0 && length_bytes > 0 => Op::Discard,
            _ if length_bytes > 0 => Op::Write,
            _ if bits & FLUSH != 0 => Op::Flush,
            _ => {
                self.report.drop_row("length of 0", 1);
                return None;
            }
        };
        let mut of = 0;
        if op == Op::Write {
            for (bit, flag) in
                [(FLUSH, flags::PREFLUSH), (FUA, flags::FUA), (METADATA, flags::META)]
            {
                of |= if bits & bit != 0 { flag } else { 0 };
            }
        }
        Some(TraceIo {
            time_ns: (self.entry as i64 - 1) * APART_NS,
            disk: 0,
            op,
            offset_bytes: if op == Op::Flush { 0 } else { offset_bytes },
            length_bytes: if op == Op::Flush { 0 } else { length_bytes },
            latency_ns: NO_LATENCY,
            flags: of,
            stream: NO_STREAM,
        })
    }

    const fn entries(&self) -> u64 {
        self.entry + self.entries_left
    }

    /// Hands over the data of an entry, piece by piece.
    ///
    /// # Errors
    /// `Input` where the log ends in it, and what `each` says.
    pub fn data(&mut self, entry: &Entry, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.take(entry.data_bytes, each)
    }

    fn take(&mut self, bytes: u64, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut left = bytes;
        while left > 0 {
            let available = self.input.fill(1)?;
            let piece = available.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if piece == 0 {
                let what = format!("the log ends in entry {} of {}", self.entry, self.entries());
                let at = self.input.offset();
                return Err(Error::input(what).with("file", &self.input.name).with("byte", at));
            }
            each(&available[..piece])?;
            self.input.consume(piece);
            left -= piece as u64;
        }
        Ok(())
    }
}

struct LogSource {
    log: Log,
    disks: Vec<String>,
}

impl TraceSource for LogSource {
    fn next_batch(&mut self, max_rows: usize) -> Result<Option<TraceBatch>> {
        let mut batch = TraceBatch::default();
        while batch.len() < max_rows {
            let Some(entry) = self.log.next_entry()? else { break };
            self.log.data(&entry, &mut |_| Ok(()))?;
            if let Some(io) = entry.io {
                batch.push(&io);
            }
        }
        Ok(if batch.is_empty() { None } else { Some(batch) })
    }

    fn disks(&self) -> &[String] {
        &self.disks
    }

    fn report(&self) -> DecodeReport {
        let mut report = self.log.report.clone();
        report.warnings.push("the format holds no times: I/Os are 1 ms apart".to_owned());
        report
    }
}
