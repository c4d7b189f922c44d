//! Decoder of blkparse's default text.

use crate::error::Result;
use crate::formats::blkevent::{Event, REMAP, SECTOR_BYTES, category};
use crate::formats::blkmatch::Matcher;
use crate::formats::input::Input;
use crate::formats::lines::{Lines, excerpt};
use crate::formats::numbers::{parse_scaled, parse_u64};
use crate::formats::{Format, Options};
use crate::trace::{DecodeReport, TraceBatch, TraceSource};

pub const PAGE: &str = "\
# blkparse

The text that `blkparse` prints by default (no `-f`), one event a line:

      8,0    3       11     0.009507758   697  Q   R 223490 + 8 [kjournald]

Columns: device, CPU, sequence, seconds, process id, action, RWBS, then sector `+` sectors.

## Import

    blkparse -i sda > sda.txt
    vaio-bench import sda.txt -o t.parquet

The rules are those of the `blktrace` format (`vaio-bench explain blktrace`): which events become
I/Os (`--event queue|issue`), service time from D to C, flushes, flags, several devices. The
messages and the summary at the end are passed over.

## Known limits

The text cannot tell write zeroes from writes. RWBS letters: F before the direction is preflush,
after it FUA; D discard, W write, R read, N no data; A readahead, S sync, M metadata.
";

const EVENTS_PER_TURN: usize = 4096;
const EXPECTED: &str = "expected an event in blkparse's default format \
    (major,minor cpu sequence seconds pid action RWBS ...)";

pub struct Blkparse;

impl Format for Blkparse {
    fn name(&self) -> &'static str {
        "blkparse"
    }

    fn page(&self) -> &'static str {
        PAGE
    }

    fn sniff(&self, head: &[u8]) -> bool {
        head.split(|&b| b == b'\n')
            .take(50)
            .any(|line| matches!(parse_line(line), Ok(Line::Event(_) | Line::Other)))
    }

    fn open(&self, inputs: Vec<Input>, options: &Options) -> Result<Box<dyn TraceSource>> {
        Ok(Box::new(BlkparseSource {
            lines: Lines::new(inputs, options.skip_bad),
            matcher: Matcher::new(options.event),
            skip_bad: options.skip_bad,
        }))
    }
}

/// What a line is.
enum Line {
    Event(Event),
    Remap {
        from: u32,
    },
    /// An event of no use here: plug, message.
    Other,
    /// Blank, or of the summary.
    Summary,
}

/// Words of a line, at runs of blanks.
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.0.iter().position(|&b| b != b' ')?;
        let rest = &self.0[start..];
        let end = rest.iter().position(|&b| b == b' ').unwrap_or(rest.len());
        self.0 = &rest[end..];
        Some(&rest[..end])
    }

    fn number(&mut self) -> Option<u64> {
        parse_u64(self.next()?)
    }
}

fn parse_device(word: &[u8]) -> Option<u32> {
    let comma = memchr::memchr(b',', word)?;
    let major = parse_u64(&word[..comma]).filter(|&m| m < 1 << 12)?;
    let minor = parse_u64(&word[comma + 1..]).filter(|&m| m < 1 << 20)?;
    Some((major << 20 | minor) as u32)
}

/// Category bits of an RWBS word.
fn parse_rwbs(word: &[u8]) -> Option<u32> {
    let mut bits = 0;
    let mut has_direction = false;
    for &letter in word {
        bits |= match letter {
            b'F' if has_direction => category::FUA,
            b'F' => category::FLUSH,
            b'W' => category::WRITE,
            b'D' => category::DISCARD | category::WRITE,
            // Secure erase, behind the D of a discard.
            b'R' | b'N' | b'E' => 0,
            b'A' => category::AHEAD,
            b'S' => category::SYNC,
            b'M' => category::META,
            _ => return None,
        };
        has_direction |= matches!(letter, b'W' | b'D' | b'R' | b'N');
    }
    Some(bits)
}

fn is_summary(line: &[u8]) -> bool {
    const STARTS: [&[u8]; 11] = [
        b"CPU",
        b"Total",
        b"Throughput",
        b"Events",
        b"Skips",
        b"Input file",
        b" Read",
        b" Write",
        b" PC ",
        b" IO unplugs",
        b"discarded traces",
    ];
    line.trim_ascii().is_empty() || STARTS.iter().any(|start| line.starts_with(start))
}

/// `Err(())` where the line is neither an event nor of the summary.
fn parse_line(line: &[u8]) -> Result<Line, ()> {
    let mut words = Words(line);
    let first = words.next().ok_or(()).and_then(|word| parse_device(word).ok_or(()));
    let Ok(device) = first else {
        return if is_summary(line) { Ok(Line::Summary) } else { Err(()) };
    };
    parse_event(device, words).ok_or(())
}

fn parse_event(device: u32, mut words: Words<'_>) -> Option<Line> {
    words.number()?;
    words.number()?;
    let time = words.next()?;
    memchr::memchr(b'.', time)?;
    let time_ns = u64::try_from(parse_scaled(time, 1_000_000_000)?).ok()?;
    let pid = u32::try_from(words.number()?).ok()?;
    let action = match words.next()? {
        b"Q" => crate::formats::blkevent::QUEUE,
        b"D" => crate::formats::blkevent::ISSUE,
        b"C" => crate::formats::blkevent::COMPLETE,
        b"R" => crate::formats::blkevent::REQUEUE,
        b"A" => REMAP,
        b"m" => return Some(Line::Other),
        [b'A'..=b'Z'] | b"UT" => 0,
        _ => return None,
    };
    let category = parse_rwbs(words.next()?)?;
    if action == 0 {
        return Some(Line::Other);
    }
    let mut event =
        Event { time_ns, sector: 0, bytes: 0, category, pid, device, action, failed: false };
    if action == REMAP {
        // sector + n <- (maj,min) sector
        let from = [words.next()?, words.next()?, words.next()?, words.next()?, words.next()?][4];
        let from = from.strip_prefix(b"(")?.strip_suffix(b")")?;
        return Some(Line::Remap { from: parse_device(from)? });
    }
    parse_tail(&mut event, words)?;
    Some(Line::Event(event))
}

/// `sector + n [..]`, `sector [error]`, `[comm]`, or of a passthrough command `bytes (cdb) [..]`.
fn parse_tail(event: &mut Event, mut words: Words<'_>) -> Option<()> {
    let Some(first) = words.next() else { return Some(()) };
    if first.starts_with(b"[") {
        return Some(());
    }
    if first.starts_with(b"(") {
        event.category |= category::PASSTHROUGH;
        return Some(());
    }
    event.sector = parse_u64(first)?;
    let mut next = words.next();
    match next {
        Some(b"+") => {
            let sectors = words.number()?;
            event.bytes = u32::try_from(sectors.checked_mul(SECTOR_BYTES)?).ok()?;
            next = words.next();
            if next.is_some_and(|word| word.starts_with(b"(")) {
                next = words.next();
            }
        }
        Some(word) if word.starts_with(b"(") => event.category |= category::PASSTHROUGH,
        _ => {}
    }
    if event.action == crate::formats::blkevent::COMPLETE {
        event.failed = next.is_some_and(|word| word.starts_with(b"[") && word != b"[0]");
    }
    Some(())
}

struct BlkparseSource {
    lines: Lines,
    matcher: Matcher,
    skip_bad: bool,
}

impl BlkparseSource {
    /// Takes some lines; `false` at the end.
    fn turn(&mut self) -> Result<bool> {
        for _ in 0..EVENTS_PER_TURN {
            if !self.lines.advance()? {
                return Ok(false);
            }
            match parse_line(self.lines.line()) {
                Ok(Line::Event(event)) => {
                    self.matcher.report.records += 1;
                    self.matcher.event(&event);
                }
                Ok(Line::Remap { from }) => {
                    self.matcher.report.records += 1;
                    self.matcher.remap(from);
                }
                Ok(Line::Other) => self.matcher.report.records += 1,
                Ok(Line::Summary) => {}
                Err(()) if self.skip_bad => {
                    self.matcher.report.records += 1;
                    self.matcher.report.drop_row("broken row", 1);
                }
                Err(()) => {
                    let got = excerpt(self.lines.line());
                    return Err(self.lines.error(format!("{EXPECTED}, got {got}")));
                }
            }
        }
        Ok(true)
    }
}

impl TraceSource for BlkparseSource {
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
        report.warnings.extend(self.lines.given_up.iter().cloned());
        report
    }
}
