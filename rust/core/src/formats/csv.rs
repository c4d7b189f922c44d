//! Decoder of any text trace with columns: the `csv` format, and the engine of the presets.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::formats::columns::{Columns, Place, SYNTAX, Separator};
use crate::formats::input::Input;
use crate::formats::lines::{Lines, excerpt};
use crate::formats::numbers::{parse_bytes, parse_scaled, parse_u64};
use crate::formats::{Format, Options};
use crate::io::Op;
use crate::trace::{DecodeReport, NO_LATENCY, NO_STREAM, TraceBatch, TraceIo, TraceSource};

pub const PAGE: &str = "\
# csv

Any text trace with one I/O a line in columns.

A file whose header has the canonical names needs no options, in any order of the columns:

    time_ns,op,offset_bytes,length_bytes[,disk][,latency_ns][,flags][,stream]

Any other is described by `--columns`:

    vaio-bench import x.csv -o t.parquet --format csv \\
        --columns time=0:us,disk=2,op=3:R/W,offset=4:bytes,length=5:sectors,latency=6:us

Each part is `field=column[:unit]`. A column is a number from 0, a negative number from the right
(-1 is the last), or a name in the header.

- `time` (s, ms, us, 100ns, ns): any origin; decimals are read exactly, never as float64.
- `op`: codes of read/write[/flush[/discard[/write_zeroes]]], alternatives behind `|`:
  `op=3:0/1`, `op=3:Read|R/Write|W`. Without codes the usual words (R, read, W, write, ...).
- `offset`, `length` (bytes, sectors of 512 bytes, KiB, MiB, or a number of bytes): decimal, or
  hexadecimal with 0x.
- `disk`: a name or number; `1+2` joins two columns with `_`. Without it, a disk a file.
- `latency` (a unit of time): empty, `-` or negative is none. `stream`, `flags`: numbers.
- `sep`: comma, tab, semicolon, pipe, blanks, auto (the default). `header`: yes, no, auto (a
  first row whose time is no number).

Rows need no order: the import sorts by time, and equal times stay in the order of the file.
Fields may be in double quotes. I/Os of no length are left out and counted. Lines that start
with `#` are passed over, except a header.

Examples of published sets that have no format of their own:

    time=0:ms,disk=1,offset=2:bytes,length=3:bytes,op=4:1/0,sep=blanks
    time=0:s,op=1:R|r/W|w,offset=2:sectors,length=3:sectors,sep=blanks
";

const CANONICAL: [&str; 4] = ["time_ns", "op", "offset_bytes", "length_bytes"];

pub struct Csv;

impl Format for Csv {
    fn name(&self) -> &'static str {
        "csv"
    }

    fn page(&self) -> &'static str {
        PAGE
    }

    fn sniff(&self, head: &[u8]) -> bool {
        canonical_columns(first_line(head)).is_some()
    }

    fn open(&self, mut inputs: Vec<Input>, options: &Options) -> Result<Box<dyn TraceSource>> {
        let columns = match (&options.columns, inputs.first_mut()) {
            (Some(text), _) => Columns::parse(text)?,
            (None, Some(input)) => {
                let name = input.name.clone();
                let head = input.fill(super::input::HEAD_BYTES)?;
                let text = canonical_columns(first_line(head)).ok_or_else(|| {
                    let wanted = CANONICAL.join(",");
                    Error::input(format!("expected a header with {wanted}, or --columns; {SYNTAX}"))
                        .with("file", name)
                })?;
                Columns::parse(&text)?
            }
            (None, None) => return Err(Error::input("expected at least one file")),
        };
        Ok(Box::new(CsvSource::new(inputs, columns, options.skip_bad)))
    }
}

/// The first line of a file.
#[must_use]
pub fn first_line(head: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'\n', head).unwrap_or(head.len());
    head[..end].trim_ascii_end()
}

/// A name in a header, without comment sign, blanks and quotes.
fn header_name(field: &[u8]) -> &[u8] {
    let field = field.trim_ascii();
    unquoted(field.strip_prefix(b"#").unwrap_or(field).trim_ascii())
}

#[inline]
fn unquoted(field: &[u8]) -> &[u8] {
    match field {
        [b'"', inner @ .., b'"'] => inner,
        _ => field,
    }
}

/// The `--columns` of a header with the canonical names.
fn canonical_columns(header: &[u8]) -> Option<String> {
    let names: Vec<&[u8]> = header.split(|&b| b == b',').map(header_name).collect();
    let has = |name: &str| names.contains(&name.as_bytes());
    if !CANONICAL.iter().all(|name| has(name)) {
        return None;
    }
    let mut text = "time=time_ns:ns,op=op,offset=offset_bytes:bytes,length=length_bytes:bytes,\
        sep=comma,header=yes"
        .to_owned();
    for (name, part) in [
        ("disk", ",disk=disk"),
        ("latency_ns", ",latency=latency_ns:ns"),
        ("flags", ",flags=flags"),
        ("stream", ",stream=stream"),
    ] {
        if has(name) {
            text.push_str(part);
        }
    }
    Some(text)
}

/// A text trace described by [`Columns`].
pub struct CsvSource {
    lines: Lines,
    columns: Columns,
    /// `columns` with the names resolved against the header of the current file.
    resolved: Columns,
    separator: Separator,
    skip_bad: bool,
    file_index: usize,
    file_names: Vec<String>,
    /// Ends of the fields of the current line.
    fields: Vec<(u32, u32)>,
    /// Time of the first row, in full width: 1601 in nanoseconds does not fit in 64 bits.
    origin_ns: Option<i128>,
    disks: Vec<String>,
    disk_index: HashMap<Vec<u8>, u32>,
    last_disk: (Vec<u8>, u32),
    report: DecodeReport,
}

impl CsvSource {
    #[must_use]
    pub fn new(inputs: Vec<Input>, columns: Columns, skip_bad: bool) -> Self {
        let file_names = inputs.iter().map(|i| i.name.clone()).collect();
        Self {
            lines: Lines::new(inputs, skip_bad),
            resolved: columns.clone(),
            columns,
            separator: Separator::Auto,
            skip_bad,
            file_index: usize::MAX,
            file_names,
            fields: Vec::new(),
            origin_ns: None,
            disks: Vec::new(),
            disk_index: HashMap::new(),
            last_disk: (Vec::new(), u32::MAX),
            report: DecodeReport::default(),
        }
    }

    /// Looks at the first line of a file; `true` where it is a header.
    fn start_file(&mut self) -> Result<bool> {
        self.file_index = self.lines.file_index();
        let line = self.lines.line();
        self.separator = match self.columns.separator {
            Separator::Auto => *[b',', b'\t', b';']
                .iter()
                .find(|b| line.contains(b))
                .map(|&b| Separator::Byte(b))
                .as_ref()
                .unwrap_or(&Separator::Blanks),
            given => given,
        };
        split(line, self.separator, &mut self.fields);
        let names: Vec<&[u8]> =
            self.fields.iter().map(|&(a, b)| header_name(&line[a as usize..b as usize])).collect();
        let mut resolved = self.columns.clone();
        let mut by_name = false;
        for place in resolved.places_mut() {
            if let Place::Name(name) = place {
                by_name = true;
                let at = names.iter().position(|n| n.eq_ignore_ascii_case(name.as_bytes()));
                let Some(at) = at else {
                    let got = excerpt(line);
                    return Err(self
                        .lines
                        .error(format!("expected a header with column {name:?}, got {got}")));
                };
                *place = Place::Index(at as i32);
            }
        }
        self.resolved = resolved;
        Ok(match self.columns.header {
            Some(header) => header || by_name,
            None => {
                let time = self.field(&self.resolved.time);
                by_name || time.is_none_or(|t| parse_scaled(t, 1).is_none())
            }
        })
    }

    #[inline]
    fn field(&self, place: &Place) -> Option<&[u8]> {
        let Place::Index(index) = place else { return None };
        let at = if *index < 0 {
            self.fields.len().checked_sub(index.unsigned_abs() as usize)?
        } else {
            *index as usize
        };
        let &(start, end) = self.fields.get(at)?;
        Some(unquoted(self.lines.line()[start as usize..end as usize].trim_ascii()))
    }

    /// Field and its value, or what was expected.
    #[inline]
    fn need<T>(
        &self,
        name: &str,
        place: &Place,
        parse: impl FnOnce(&[u8]) -> Option<T>,
        expected: &str,
    ) -> Result<T, String> {
        let Some(text) = self.field(place) else {
            return Err(format!(
                "expected a column for {name} ({place}), got {} columns",
                self.fields.len()
            ));
        };
        parse(text).ok_or_else(|| format!("{name}: expected {expected}, got {}", excerpt(text)))
    }

    fn row(&mut self) -> Result<TraceIo, String> {
        let c = &self.resolved;
        let time = self.need("time", &c.time, |t| parse_scaled(t, c.time_unit_ns), "a number")?;
        let op = self.need("op", &c.op, |t| c.codes.find(t), "a code of an operation")?;
        let mut offset_bytes = 0;
        let mut length_bytes = 0;
        if op != Op::Flush {
            let whole = "a whole number, in bytes below 2^63";
            let unit = c.offset_unit_bytes;
            offset_bytes = self.need("offset", &c.offset, |t| parse_bytes(t, unit), whole)?;
            let unit = c.length_unit_bytes;
            length_bytes = self.need("length", &c.length, |t| parse_bytes(t, unit), whole)?;
            if offset_bytes.checked_add(length_bytes).is_none() {
                return Err("expected a range that ends below 2^63 bytes".to_owned());
            }
        }
        let latency_ns = match &c.latency {
            Some((place, unit)) => {
                self.need("latency", place, |t| parse_latency(t, *unit), "a time or nothing")?
            }
            None => NO_LATENCY,
        };
        let small = |t: &[u8]| parse_u64(t).and_then(|v| u32::try_from(v).ok());
        let flags = match &c.flags {
            Some(place) => self.need("flags", place, small, "a number below 2^32")?,
            None => 0,
        };
        let stream = match &c.stream {
            Some(place) => {
                let or_none = |t: &[u8]| if t.is_empty() { Some(NO_STREAM) } else { small(t) };
                self.need("stream", place, or_none, "a number below 2^32")?
            }
            None => NO_STREAM,
        };
        let origin = *self.origin_ns.get_or_insert(time);
        let time_ns = i64::try_from(time - origin)
            .map_err(|_| "expected times within 292 years of the first".to_owned())?;
        let disk = self.disk()?;
        Ok(TraceIo { time_ns, disk, op, offset_bytes, length_bytes, latency_ns, flags, stream })
    }

    /// The index of the row's disk.
    fn disk(&mut self) -> Result<u32, String> {
        let mut name = std::mem::take(&mut self.last_disk.0);
        let before = name.len();
        for (i, place) in self.resolved.disk.iter().enumerate() {
            if i > 0 {
                name.push(b'_');
            }
            let Some(text) = self.field(place) else {
                return Err(format!("expected a column for disk ({place})"));
            };
            name.extend_from_slice(text);
        }
        if self.resolved.disk.is_empty() {
            name.extend_from_slice(file_disk(&self.file_names, self.file_index).as_bytes());
        }
        // The last name lies in front of the new one: most rows have the same disk.
        if self.last_disk.1 != u32::MAX && name[..before] == name[before..] {
            name.truncate(before);
        } else {
            name.drain(..before);
            self.last_disk.1 = match self.disk_index.get(&name) {
                Some(&disk) => disk,
                None => {
                    let disk = self.disks.len() as u32;
                    self.disks.push(String::from_utf8_lossy(&name).into_owned());
                    self.disk_index.insert(name.clone(), disk);
                    disk
                }
            };
        }
        self.last_disk.0 = name;
        Ok(self.last_disk.1)
    }
}

/// The disk of a file in a trace without a disk column.
fn file_disk(names: &[String], index: usize) -> &str {
    if names.len() < 2 {
        return "disk";
    }
    names.get(index).map_or("disk", |name| name.rsplit('/').next().unwrap_or(name))
}

fn parse_latency(text: &[u8], unit: i128) -> Option<i64> {
    if text.is_empty() || text == b"-" {
        return Some(NO_LATENCY);
    }
    let ns = i64::try_from(parse_scaled(text, unit)?).ok()?;
    Some(if ns < 0 { NO_LATENCY } else { ns })
}

/// Splits a line into the ends of its fields.
#[inline]
fn split(line: &[u8], separator: Separator, fields: &mut Vec<(u32, u32)>) {
    fields.clear();
    match separator {
        Separator::Byte(byte) if memchr::memchr(b'"', line).is_some() => {
            let (mut start, mut quoted) = (0, false);
            for (i, &found) in line.iter().enumerate() {
                quoted ^= found == b'"';
                if found == byte && !quoted {
                    fields.push((start, i as u32));
                    start = i as u32 + 1;
                }
            }
            fields.push((start, line.len() as u32));
        }
        Separator::Byte(byte) => {
            let mut start = 0;
            for end in memchr::memchr_iter(byte, line) {
                fields.push((start, end as u32));
                start = end as u32 + 1;
            }
            fields.push((start, line.len() as u32));
        }
        Separator::Blanks | Separator::Auto => {
            let mut start = None;
            for (i, &byte) in line.iter().enumerate() {
                let blank = byte == b' ' || byte == b'\t';
                match (blank, start) {
                    (false, None) => start = Some(i as u32),
                    (true, Some(from)) => {
                        fields.push((from, i as u32));
                        start = None;
                    }
                    _ => {}
                }
            }
            if let Some(from) = start {
                fields.push((from, line.len() as u32));
            }
        }
    }
}

impl TraceSource for CsvSource {
    fn next_batch(&mut self, max_rows: usize) -> Result<Option<TraceBatch>> {
        let mut batch = TraceBatch::default();
        while batch.len() < max_rows && self.lines.advance()? {
            if self.file_index != self.lines.file_index() && self.start_file()? {
                continue;
            }
            let line = self.lines.line();
            if line.trim_ascii().is_empty() || line.starts_with(b"#") {
                continue;
            }
            self.report.records += 1;
            split(line, self.separator, &mut self.fields);
            match self.row() {
                Ok(io) if io.length_bytes == 0 && io.op != Op::Flush => {
                    self.report.drop_row("length of 0", 1);
                }
                Ok(io) => batch.push(&io),
                Err(_) if self.skip_bad => self.report.drop_row("broken row", 1),
                Err(message) => return Err(self.lines.error(message)),
            }
        }
        Ok(if batch.is_empty() { None } else { Some(batch) })
    }

    fn disks(&self) -> &[String] {
        &self.disks
    }

    fn report(&self) -> DecodeReport {
        let mut report = self.report.clone();
        report.warnings.extend(self.lines.given_up.iter().cloned());
        report
    }
}
