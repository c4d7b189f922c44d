//! `crypt`: AES-256-XTS between the guest and everything below. The page is below.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Answer, Built, Child, ChildData, Class, Cx, DataMode, Filter, Kind, ParamError, Properties,
    Setting, Up, params,
};
use crate::io::{OK, Op, Status};
use crate::pipeline::ENOMEM;
use crate::slab::IoId;
use crate::units::Size;
use crate::xts::Xts;

mod key;

const PAGE: &str = "\
# crypt

Encrypts writes and decrypts reads: the layers below, and the target, hold AES-256-XTS cipher
text, as under VM encryption or dm-crypt.

The format is dm-crypt's `aes-xts-plain64` with a 512-bit key: each data unit is encrypted by
itself, and its tweak is its number on the disk, little-endian. What this filter wrote can be
opened with `cryptsetup open --type plain --cipher aes-xts-plain64 --key-size 512`; for units
above 512 bytes add `--sector-size 4096 --iv-large-sectors`.

A write is encrypted into a buffer of the filter's own, so the layers above still see clear text;
a read is decrypted in place on its way up. An I/O that covers a unit in part reads the unit
first, and writes it back whole; an I/O of whole units never does. A discard is cut to whole
units. write_zeroes has no cipher text of its own: it becomes writes of encrypted zeroes.

## Parameters
- `cipher`: `\"aes-256-xts\"`, which is also the default.
- `key`: where the 64 bytes of the key are: `\"file:PATH\"` (64 bytes, or 128 hex digits),
  `\"env:NAME\"` (128 hex digits) or `\"random\"` (made at the start and kept nowhere). A relative
  PATH is looked for beside the policy's file, then in the folder of the command.
- `sector`: bytes of a data unit: 512 (the default), 1024, 2048 or 4096.

## Example
```toml
[[filter]]
use = \"crypt\"
cipher = \"aes-256-xts\"
key = \"file:/etc/vaio-bench/disk.key\"
sector = 4096
```

## Class and properties
Class encryption. It defers writes, and issues I/Os of its own: one for each write, two edge units
and the middle for an I/O that covers units in part, one at a time of up to 128 KiB for
write_zeroes. Its unit is `sector`.

## Laws it declares
Read-after-write identity above it, cipher text below it. Errors pass up unchanged. Determinism,
except the bytes below it with `key = \"random\"`.

## Unsuitable for
Keeping secrets: keys lie in memory unprotected, and XTS does not detect changed data. A disk
whose size is no multiple of `sector`: its last unit cannot be written.

## Sources
IEEE Std 1619-2018 (XTS-AES); NIST SP 800-38E (the key's halves must differ); cryptsetup(8) and
the kernel's Documentation/admin-guide/device-mapper/dm-crypt.rst (plain64, iv_large_sectors).
";

pub const KIND: Kind =
    Kind { name: "crypt", class: Some(Class::Encryption), page: PAGE, schema, build };

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    cipher: Option<Cipher>,
    /// "file:PATH", "env:NAME" or "random".
    key: Option<String>,
    /// Bytes of a data unit: 512, 1024, 2048 or 4096.
    sector: Option<Size>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
enum Cipher {
    #[serde(rename = "aes-256-xts")]
    Aes256Xts,
}

/// Of zeroes encrypted at one time.
const ZEROES_BYTES: u64 = 128 << 10;

fn schema() -> Value {
    params::schema_of::<Params>()
}

fn build(table: &Value, _setting: &Setting) -> Built {
    let (params, mut errors) = params::parse_known::<Params>(table)?;
    let Cipher::Aes256Xts = params.cipher.unwrap_or(Cipher::Aes256Xts);
    let Size(unit) = params.sector.unwrap_or(Size(512));
    if ![512, 1024, 2048, 4096].contains(&unit) {
        let message = format!("expected 512, 1024, 2048 or 4096, got {unit}");
        errors.push(ParamError::new("sector", message));
    }
    // A key that is no text is a fault already, and not missing.
    let no_text = errors.iter().any(|error| error.path == "key");
    let xts = match key::load(params.key.as_deref()) {
        Ok(key) => Xts::new(&key).map_err(|fault| fault.to_string()),
        Err(message) => Err(message),
    };
    let tell = |message| (!no_text).then(|| errors.push(ParamError::new("key", message)));
    let xts = xts.map_err(tell).ok();
    let Some(xts) = xts.filter(|_| errors.is_empty()) else { return Err(errors) };
    let properties = Properties {
        transparent: false,
        may_defer: true,
        needs_data: true,
        unit_bytes: unit,
        children_per_io: CHILDREN_PER_IO,
        child_bytes: ZEROES_BYTES,
        ..Properties::TRANSPARENT
    };
    Ok((Box::new(Crypt { xts, unit, works: Vec::new() }), properties))
}

/// Both edge units and what lies between; an edge that was read keeps its buffer until the write
/// made from it has been forked.
const CHILDREN_PER_IO: u32 = 4;

/// What a child is for, as its tag.
const WHOLE: u64 = 0;
/// Units read for a read that covers the first or last of its units in part.
const PART_OF_READ: u64 = 1;
/// An edge unit read, to be changed and written back.
const EDGE_OF_WRITE: u64 = 2;

/// An I/O that waits for children.
#[derive(Debug, Clone, Copy, Default)]
struct Work {
    children: u32,
    /// The first failure.
    status: Status,
    /// Where the next write of zeroes begins.
    zeroed_to: u64,
}

struct Crypt {
    xts: Xts,
    unit: u64,
    /// By [`IoId`].
    works: Vec<Work>,
}

/// A range of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    from: u64,
    to: u64,
}

impl Span {
    fn of(cx: &Cx<'_>, io: IoId) -> Self {
        let io = cx.io(io);
        Self { from: io.offset_bytes, to: io.offset_bytes + io.length_bytes }
    }

    fn length(self) -> u64 {
        self.to - self.from
    }

    /// The whole units inside, if any.
    fn whole_units(self, unit: u64) -> Option<Self> {
        let (from, to) = (self.from.next_multiple_of(unit), self.to - self.to % unit);
        (from < to).then_some(Self { from, to })
    }

    /// The units covered in part: none, one, or the first and the last.
    fn edges(self, unit: u64) -> impl Iterator<Item = Self> {
        let at = |from: u64| Self { from, to: from + unit };
        let first = (!self.from.is_multiple_of(unit)).then(|| at(self.from - self.from % unit));
        let last = (!self.to.is_multiple_of(unit)).then(|| at(self.to - self.to % unit));
        let last = last.filter(|last| first != Some(*last));
        first.into_iter().chain(last)
    }

    fn intersection(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }

    /// This range as indices into the bytes of an I/O at `base`.
    fn within(self, base: Self) -> std::ops::Range<usize> {
        (self.from - base.from) as usize..(self.to - base.from) as usize
    }
}

impl Crypt {
    fn is_whole(&self, span: Span) -> bool {
        span.from.is_multiple_of(self.unit) && span.to.is_multiple_of(self.unit)
    }

    fn number(&self, offset: u64) -> u64 {
        offset / self.unit
    }

    fn fork(&mut self, cx: &mut Cx<'_>, io: IoId, op: Op, span: Span, tag: u64) -> Option<IoId> {
        let flags = cx.io(io).flags;
        let data = ChildData::Own;
        let (offset_bytes, length_bytes) = (span.from, span.length());
        let child = Child { op, offset_bytes, length_bytes, flags, data, tag };
        let forked = cx.child(io, child);
        let work = &mut self.works[io as usize];
        match forked {
            Some(_) => work.children += 1,
            None => work.status = ENOMEM,
        }
        forked
    }

    /// Encrypts the part `span` (whole units) of a write into a child of its own.
    fn write_part(&mut self, cx: &mut Cx<'_>, io: IoId, span: Span) {
        let base = Span::of(cx, io);
        let Some(child) = self.fork(cx, io, Op::Write, span, WHOLE) else { return };
        if let Some((clear, cipher)) = cx.data_pair(io, child) {
            let number = self.number(span.from);
            self.xts.encrypt(self.unit as usize, number, &clear[span.within(base)], cipher);
        }
    }

    /// A read or write that covers units in part.
    fn start_in_parts(&mut self, cx: &mut Cx<'_>, io: IoId, span: Span) -> Answer {
        let op = cx.io(io).op;
        self.works[io as usize] = Work::default();
        if let Some(whole) = span.whole_units(self.unit) {
            match op {
                Op::Read => drop(self.fork(cx, io, Op::Read, whole, PART_OF_READ)),
                _ => self.write_part(cx, io, whole),
            }
        }
        for edge in span.edges(self.unit) {
            let tag = if op == Op::Read { PART_OF_READ } else { EDGE_OF_WRITE };
            self.fork(cx, io, Op::Read, edge, tag);
        }
        self.answer(io)
    }

    /// After the first forks: without any child nobody would end a deferred I/O.
    fn answer(&self, io: IoId) -> Answer {
        let work = &self.works[io as usize];
        if work.children == 0 { Answer::Fail(work.status) } else { Answer::Defer }
    }

    fn start_zeroes(&mut self, cx: &mut Cx<'_>, io: IoId, span: Span) -> Answer {
        self.works[io as usize] = Work { zeroed_to: span.from, ..Work::default() };
        if span.length() == 0 {
            return Answer::Complete;
        }
        self.zero_next(cx, io, span);
        self.answer(io)
    }

    /// The next piece of a write_zeroes, up to the end of a unit or some whole units.
    fn zero_next(&mut self, cx: &mut Cx<'_>, io: IoId, span: Span) {
        let from = self.works[io as usize].zeroed_to;
        let left = Span { from, to: span.to };
        let whole = left.whole_units(self.unit).filter(|whole| whole.from == from);
        let Some(whole) = whole else {
            let Some(edge) = left.edges(self.unit).next() else { return };
            self.works[io as usize].zeroed_to = edge.to.min(span.to);
            self.fork(cx, io, Op::Read, edge, EDGE_OF_WRITE);
            return;
        };
        let piece = Span { from, to: whole.to.min(from + ZEROES_BYTES) };
        self.works[io as usize].zeroed_to = piece.to;
        let Some(child) = self.fork(cx, io, Op::Write, piece, WHOLE) else { return };
        let data = cx.data_mut(child);
        data.fill(0);
        self.xts.encrypt_in_place(self.unit as usize, from / self.unit, data);
    }

    /// Part of a read is here: decrypted, its share goes into the read's bytes.
    fn read_arrived(&mut self, cx: &mut Cx<'_>, io: IoId, child: IoId) {
        let (base, span) = (Span::of(cx, io), Span::of(cx, child));
        let number = self.number(span.from);
        self.xts.decrypt_in_place(self.unit as usize, number, cx.data_mut(child));
        let wanted = span.intersection(base);
        if let Some((clear, to)) = cx.data_pair(child, io) {
            to[wanted.within(base)].copy_from_slice(&clear[wanted.within(span)]);
        }
    }

    /// An edge unit is here: changed as the write (or write_zeroes) asks, it is written back.
    fn edge_arrived(&mut self, cx: &mut Cx<'_>, io: IoId, read: IoId) {
        let (base, unit) = (Span::of(cx, io), Span::of(cx, read));
        let changed = unit.intersection(base);
        let number = self.number(unit.from);
        let bytes = cx.data_mut(read);
        self.xts.decrypt_in_place(self.unit as usize, number, bytes);
        if cx.io(io).op == Op::WriteZeroes {
            cx.data_mut(read)[changed.within(unit)].fill(0);
        } else if let Some((clear, bytes)) = cx.data_pair(io, read) {
            bytes[changed.within(unit)].copy_from_slice(&clear[changed.within(base)]);
        }
        let Some(write) = self.fork(cx, io, Op::Write, unit, WHOLE) else { return };
        if let Some((bytes, cipher)) = cx.data_pair(read, write) {
            self.xts.encrypt(self.unit as usize, number, bytes, cipher);
        }
    }
}

impl Filter for Crypt {
    fn open(&mut self, slots: usize) {
        self.works.clear();
        self.works.resize(slots, Work::default());
    }

    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        debug_assert_eq!(cx.data_mode(), DataMode::Bytes, "declared as needs_data");
        let span = Span::of(cx, io);
        match cx.io(io).op {
            Op::Flush => Answer::Pass,
            Op::WriteZeroes => self.start_zeroes(cx, io, span),
            Op::Read if self.is_whole(span) => Answer::Pass,
            Op::Discard if self.is_whole(span) => Answer::Pass,
            Op::Discard => {
                // A unit of which a part is gone could not be decrypted any more.
                let Some(whole) = span.whole_units(self.unit) else { return Answer::Complete };
                self.works[io as usize] = Work::default();
                self.fork(cx, io, Op::Discard, whole, WHOLE);
                self.answer(io)
            }
            Op::Write if self.is_whole(span) => {
                self.works[io as usize] = Work::default();
                self.write_part(cx, io, span);
                self.answer(io)
            }
            Op::Read | Op::Write => self.start_in_parts(cx, io, span),
        }
    }

    fn io_complete(&mut self, cx: &mut Cx<'_>, io: IoId) -> Up {
        // Only reads of whole units, discards and flushes pass.
        if cx.io(io).op == Op::Read && cx.io(io).status == OK {
            let number = self.number(cx.io(io).offset_bytes);
            self.xts.decrypt_in_place(self.unit as usize, number, cx.data_mut(io));
        }
        Up::Pass
    }

    fn child_complete(&mut self, cx: &mut Cx<'_>, parent: IoId, child: IoId) {
        let (tag, status) = (cx.io(child).tag, cx.io(child).status);
        self.works[parent as usize].children -= 1;
        if status != OK {
            let work = &mut self.works[parent as usize];
            work.status = if work.status == OK { status } else { work.status };
        } else if tag == PART_OF_READ {
            self.read_arrived(cx, parent, child);
        } else if tag == EDGE_OF_WRITE && self.works[parent as usize].status == OK {
            self.edge_arrived(cx, parent, child);
        }
        let span = Span::of(cx, parent);
        let Work { children, status, zeroed_to } = self.works[parent as usize];
        let zeroes = cx.io(parent).op == Op::WriteZeroes;
        if children == 0 && status == OK && zeroes && zeroed_to < span.to {
            self.zero_next(cx, parent, span);
        }
        let Work { children, status, .. } = self.works[parent as usize];
        if children == 0 {
            cx.finish(parent, status);
        }
    }
}

#[cfg(test)]
mod tests;
