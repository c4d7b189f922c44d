//! Decoder of ESXi's vscsiStats traces, versions 1 and 2.

use crate::error::{Error, Result};
use crate::formats::input::Input;
use crate::formats::{Format, Options};
use crate::io::Op;
use crate::trace::{DecodeReport, NO_LATENCY, NO_STREAM, TraceBatch, TraceIo, TraceSource};

pub const PAGE: &str = "\
# vscsi

Binary traces of ESXi's `vscsiStats -t` (a virtual disk each), as in the CloudPhysics collection:
records of 32 bytes (version 1) or 40 (version 2, with response times), little-endian, no header.

## Import

    vaio-bench import vm.vscsi -o t.parquet

Offsets are in sectors of 512 bytes and lengths in bytes, both in the file; times are microseconds.
SCSI reads and writes of all lengths become reads and writes, SYNCHRONIZE CACHE a flush. Other
commands have no place in a block trace: left out and counted by opcode.

The disk is named `vscsi`, or with several files (one a disk) after the files.

## Known limits

The response time of version 2 has no published unit: it is taken as microseconds, as all other
times of vscsiStats are. The histograms that `vscsiStats -p all -c` prints are no trace.
";

const V1_BYTES: usize = 32;
const V2_BYTES: usize = 40;
const SECTOR_BYTES: u64 = 512;

pub struct Vscsi;

impl Format for Vscsi {
    fn name(&self) -> &'static str {
        "vscsi"
    }

    fn page(&self) -> &'static str {
        PAGE
    }

    fn sniff(&self, head: &[u8]) -> bool {
        version(head).is_some()
    }

    fn open(&self, inputs: Vec<Input>, options: &Options) -> Result<Box<dyn TraceSource>> {
        let names: Vec<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
        let disks = match names.as_slice() {
            [_] => vec!["vscsi".to_owned()],
            many => many.iter().map(|name| file_stem(name)).collect(),
        };
        Ok(Box::new(VscsiSource {
            inputs,
            current: 0,
            version: 0,
            disks,
            skip_bad: options.skip_bad,
            has_latency: false,
            other: [0; 256],
            report: DecodeReport::default(),
        }))
    }
}

/// The file's name without its folder and without what follows the first dot.
fn file_stem(name: &str) -> String {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.split('.').next().unwrap_or(file).to_owned()
}

/// The version byte lies in another place in each version: both records of the probe must agree.
fn version(head: &[u8]) -> Option<u8> {
    let is = |size: usize, at: usize, version: u8| {
        let records = (head.len() / size).min(2);
        records > 0 && (0..records).all(|i| head[i * size + at] == version)
    };
    if is(V2_BYTES, 3, 2) {
        Some(2)
    } else if is(V1_BYTES, 15, 1) {
        Some(1)
    } else {
        None
    }
}

/// Whether an I/O's record of this version may begin there.
fn may_begin(version: u8, bytes: &[u8]) -> bool {
    let (size, opcode, at) = if version == 1 { (V1_BYTES, 12, 15) } else { (V2_BYTES, 0, 3) };
    bytes.len() >= size
        && bytes[at] == version
        && bytes[opcode + 1] == 0
        && operation(bytes[opcode]).is_some()
}

fn operation(opcode: u8) -> Option<Op> {
    match opcode {
        0x08 | 0x28 | 0x2d | 0x88 | 0xa8 => Some(Op::Read),
        // WRITE, WRITE AND VERIFY, WRITE LONG, WRITE ATOMIC in their lengths.
        0x0a | 0x2a | 0x2e | 0x3f | 0x8a | 0x8e | 0x9a | 0x9c | 0xaa | 0xae => Some(Op::Write),
        0x35 | 0x91 => Some(Op::Flush),
        _ => None,
    }
}

struct VscsiSource {
    inputs: Vec<Input>,
    current: usize,
    /// Of the current file; 0 before its first record.
    version: u8,
    disks: Vec<String>,
    skip_bad: bool,
    has_latency: bool,
    /// Commands left out, by opcode.
    other: [u64; 256],
    report: DecodeReport,
}

fn u32_at(record: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
}

fn u64_at(record: &[u8], at: usize) -> u64 {
    u64::from(u32_at(record, at)) | u64::from(u32_at(record, at + 4)) << 32
}

impl VscsiSource {
    /// The current file's next record, consumed; `None` at its end.
    fn record(&mut self) -> Result<Option<[u8; V2_BYTES]>> {
        let input = &mut self.inputs[self.current];
        let available = match input.fill(2 * V2_BYTES) {
            Ok(available) => available,
            Err(e) if self.skip_bad => {
                self.report.drop_row("rest of a damaged file", 1);
                self.report.warnings.push(e.to_string());
                input.give_up();
                input.available()
            }
            Err(e) => return Err(e),
        };
        if available.is_empty() {
            return Ok(None);
        }
        if self.version == 0 {
            let Some(found) = version(available) else {
                let expected = "expected vscsiStats records of version 1 or 2, got something else";
                return Err(Error::input(expected).with("file", &input.name).with("byte", 0));
            };
            self.version = found;
        }
        let size = if self.version == 1 { V1_BYTES } else { V2_BYTES };
        let got = available.len();
        if got < size {
            if self.skip_bad {
                self.report.drop_row("record cut short", 1);
                input.consume(got);
                return Ok(None);
            }
            return Err(Error::input(format!(
                "the last record is cut short: expected {size} bytes, got {got}"
            ))
            .with("file", &input.name)
            .with("byte", input.offset()));
        }
        let mut record = [0; V2_BYTES];
        record[..size].copy_from_slice(&available[..size]);
        input.consume(size);
        Ok(Some(record))
    }

    /// After a broken record (lenient import): where bytes were lost or came in between, the
    /// records behind begin at another place. Two in a row tell it from chance.
    fn realign(&mut self) {
        let version = self.version;
        let size = if version == 1 { V1_BYTES } else { V2_BYTES };
        let input = &mut self.inputs[self.current];
        let Ok(available) = input.fill(3 * size) else { return };
        let begins = |at: usize| {
            let next = at + size;
            may_begin(version, &available[at..])
                && (available.len() < next + size || may_begin(version, &available[next..]))
        };
        let shift = (0..size.min(available.len())).find(|&at| begins(at)).unwrap_or(0);
        if shift > 0 {
            let (name, byte) = (&input.name, input.offset());
            self.report.warnings.push(format!("{name}: byte {byte}: {shift} bytes skipped"));
            input.consume(shift);
        }
    }

    /// The I/O of a record; `Ok(None)` where it is none.
    fn decode(&mut self, record: &[u8; V2_BYTES]) -> Result<Option<TraceIo>, String> {
        let is_v1 = self.version == 1;
        let (found, opcode, length) = if is_v1 {
            (record[15], u16::from_le_bytes([record[12], record[13]]), u32_at(record, 4))
        } else {
            (record[3], u16::from_le_bytes([record[0], record[1]]), u32_at(record, 8))
        };
        if found != self.version {
            return Err(format!("expected a record of version {}, got {found}", self.version));
        }
        let opcode = u8::try_from(opcode)
            .map_err(|_| format!("expected a SCSI opcode below 256, got {opcode}"))?;
        let Some(op) = operation(opcode) else {
            self.other[usize::from(opcode)] += 1;
            return Ok(None);
        };
        let time_us = u64_at(record, 24);
        let time_ns = time_us.checked_mul(1_000).and_then(|ns| i64::try_from(ns).ok());
        let time_ns = time_ns.ok_or_else(|| format!("expected microseconds, got {time_us}"))?;
        let lbn = u64_at(record, 16);
        let end = lbn.checked_mul(SECTOR_BYTES).and_then(|b| b.checked_add(length.into()));
        if op != Op::Flush && end.is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(format!("expected a range below 2^63 bytes, got sector {lbn}"));
        }
        let latency_ns = if is_v1 {
            NO_LATENCY
        } else {
            let ns = u64_at(record, 32).checked_mul(1_000);
            ns.and_then(|ns| i64::try_from(ns).ok()).unwrap_or(NO_LATENCY)
        };
        self.has_latency |= !is_v1;
        let is_flush = op == Op::Flush;
        Ok(Some(TraceIo {
            time_ns,
            disk: self.current as u32,
            op,
            offset_bytes: if is_flush { 0 } else { (lbn * SECTOR_BYTES) as i64 },
            length_bytes: if is_flush { 0 } else { i64::from(length) },
            latency_ns,
            flags: 0,
            stream: NO_STREAM,
        }))
    }
}

impl TraceSource for VscsiSource {
    fn next_batch(&mut self, max_rows: usize) -> Result<Option<TraceBatch>> {
        let mut batch = TraceBatch::default();
        while batch.len() < max_rows && self.current < self.inputs.len() {
            let offset = self.inputs[self.current].offset();
            let Some(record) = self.record()? else {
                self.current += 1;
                self.version = 0;
                continue;
            };
            self.report.records += 1;
            match self.decode(&record) {
                Ok(Some(io)) if io.length_bytes == 0 && io.op != Op::Flush => {
                    self.report.drop_row("length of 0", 1);
                }
                Ok(Some(io)) => batch.push(&io),
                Ok(None) => {}
                Err(_) if self.skip_bad => {
                    self.report.drop_row("broken record", 1);
                    self.realign();
                }
                Err(message) => {
                    let name = &self.inputs[self.current].name;
                    return Err(Error::input(message).with("file", name).with("byte", offset));
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
        for (opcode, &count) in self.other.iter().enumerate().filter(|(_, count)| **count > 0) {
            report.drop_row(&format!("SCSI opcode {opcode:#04x}"), count);
        }
        if self.has_latency {
            report.warnings.push("response times are taken as microseconds".to_owned());
        }
        report
    }
}
