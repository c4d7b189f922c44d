//! Decoder of fio's I/O logs, versions 2 and 3.

use std::collections::HashMap;

use crate::error::Result;
use crate::formats::input::Input;
use crate::formats::lines::{Lines, excerpt};
use crate::formats::numbers::{parse_bytes, parse_u64};
use crate::formats::{Format, Options};
use crate::io::Op;
use crate::trace::{DecodeReport, NO_LATENCY, NO_STREAM, TraceBatch, TraceIo, TraceSource};

pub const PAGE: &str = "\
# fio-iolog

fio's I/O log (`write_iolog=`, `read_iolog=`), text, recognised by its first line.

- Version 2: `file action [offset length]`, and `file wait MS`.
- Version 3: `timestamp file action [offset length]`; the timestamp is in microseconds.

## Import

    vaio-bench import job.iolog -o t.parquet

Offsets and lengths are bytes. The file name is the disk. `read` and `write` as they are, `trim`
is a discard, `sync` and `datasync` are flushes; `add`, `open` and `close` are no I/Os. Several
logs (one a job) are merged by their times, which all count from the start of the job.

A `wait` of version 2 is, as fio itself takes it, the time since the start of the job in
milliseconds, not a pause; I/Os between two waits share a time. Where a time goes back, fio
issues at once: the I/O gets the time of the one before.

## Known limits

No latencies. Version 1 (before fio 1.20) is refused, as fio does. fio writes the log at queue
time of each job by itself.
";

const FIRST_LINE: &[u8] = b"fio version ";

pub struct FioIolog;

impl Format for FioIolog {
    fn name(&self) -> &'static str {
        "fio-iolog"
    }

    fn page(&self) -> &'static str {
        PAGE
    }

    fn sniff(&self, head: &[u8]) -> bool {
        head.starts_with(FIRST_LINE)
    }

    fn open(&self, inputs: Vec<Input>, options: &Options) -> Result<Box<dyn TraceSource>> {
        Ok(Box::new(IologSource {
            lines: Lines::new(inputs, options.skip_bad),
            skip_bad: options.skip_bad,
            version: 0,
            time_ns: 0,
            file_index: usize::MAX,
            disks: Vec::new(),
            disk_index: HashMap::new(),
            went_back: 0,
            report: DecodeReport::default(),
        }))
    }
}

struct IologSource {
    lines: Lines,
    skip_bad: bool,
    version: u8,
    time_ns: i64,
    file_index: usize,
    disks: Vec<String>,
    disk_index: HashMap<Vec<u8>, u32>,
    went_back: u64,
    report: DecodeReport,
}

/// What was wrong with a row: what was expected.
type Expected = &'static str;

impl IologSource {
    /// The first line of each file says its version.
    fn start_file(&mut self) -> Result<()> {
        self.file_index = self.lines.file_index();
        self.time_ns = 0;
        self.version = match self.lines.line() {
            b"fio version 2 iolog" => 2,
            b"fio version 3 iolog" => 3,
            other => {
                let got = excerpt(other);
                return Err(self.lines.error(format!(
                    "expected \"fio version 2 iolog\" or \"fio version 3 iolog\", got {got}"
                )));
            }
        };
        Ok(())
    }

    fn row(&mut self) -> Result<Option<TraceIo>, Expected> {
        let line = self.lines.line();
        let mut words = line.split(|b| b.is_ascii_whitespace()).filter(|word| !word.is_empty());
        let Some(mut word) = words.next() else { return Ok(None) };
        if self.version == 3 {
            let us = parse_u64(word).and_then(|us| i64::try_from(us.checked_mul(1_000)?).ok());
            let time_ns = us.ok_or("expected a timestamp in microseconds first")?;
            self.went_back += u64::from(time_ns < self.time_ns);
            self.time_ns = time_ns.max(self.time_ns);
            word = words.next().ok_or("expected a file name after the timestamp")?;
        }
        let file = word;
        let action = words.next().ok_or("expected an action after the file name")?;
        let op = match action {
            b"read" => Op::Read,
            b"write" => Op::Write,
            b"trim" => Op::Discard,
            b"sync" | b"datasync" | b"sync_file_range" => Op::Flush,
            b"add" | b"open" | b"close" => return Ok(None),
            b"wait" if self.version == 2 => {
                let ms = words.next().and_then(parse_u64);
                let ns = ms.and_then(|ms| i64::try_from(ms.checked_mul(1_000_000)?).ok());
                let ns = ns.ok_or("expected milliseconds after wait")?;
                self.went_back += u64::from(ns < self.time_ns);
                self.time_ns = ns.max(self.time_ns);
                return Ok(None);
            }
            _ => {
                return Err("expected read, write, trim, sync, datasync, wait, add, open or close");
            }
        };
        let (mut offset_bytes, mut length_bytes) = (0, 0);
        if op != Op::Flush {
            let mut number = || words.next().and_then(|word| parse_bytes(word, 1));
            offset_bytes = number().ok_or("expected an offset in bytes after the action")?;
            length_bytes = number().ok_or("expected a length in bytes after the offset")?;
            offset_bytes.checked_add(length_bytes).ok_or("expected a range below 2^63 bytes")?;
        }
        let disk = match self.disk_index.get(file) {
            Some(&disk) => disk,
            None => {
                let disk = self.disks.len() as u32;
                self.disk_index.insert(file.to_vec(), disk);
                self.disks.push(String::from_utf8_lossy(file).into_owned());
                disk
            }
        };
        Ok(Some(TraceIo {
            time_ns: self.time_ns,
            disk,
            op,
            offset_bytes,
            length_bytes,
            latency_ns: NO_LATENCY,
            flags: 0,
            stream: NO_STREAM,
        }))
    }
}

impl TraceSource for IologSource {
    fn next_batch(&mut self, max_rows: usize) -> Result<Option<TraceBatch>> {
        let mut batch = TraceBatch::default();
        while batch.len() < max_rows && self.lines.advance()? {
            if self.file_index != self.lines.file_index() {
                self.start_file()?;
                continue;
            }
            self.report.records += 1;
            match self.row() {
                Ok(Some(io)) if io.length_bytes == 0 && io.op != Op::Flush => {
                    self.report.drop_row("length of 0", 1);
                }
                Ok(Some(io)) => batch.push(&io),
                Ok(None) => {}
                Err(_) if self.skip_bad => self.report.drop_row("broken row", 1),
                Err(expected) => {
                    let got = excerpt(self.lines.line());
                    return Err(self.lines.error(format!("{expected}, got {got}")));
                }
            }
        }
        Ok(if batch.is_empty() { None } else { Some(batch) })
    }

    fn disks(&self) -> &[String] {
        &self.disks
    }

    fn report(&self) -> DecodeReport {
        let mut report = self.report.clone();
        if self.went_back > 0 {
            report.warnings.push(format!("{} times went back: taken as no delay", self.went_back));
        }
        report.warnings.extend(self.lines.given_up.iter().cloned());
        report
    }
}
