//! The stream that a source sends: numbered entries, each a batch of writes, a restore point or
//! the begin of a resynchronisation. The same bytes travel and are stored.
//!
//! A batch's body is a run of records: a tag byte (the kind in its low bits), then the disk, the
//! offset, the length and the time since the record before, as LEB128 numbers, then the data of a
//! write. With tokens in place of bytes the data is 8 bytes a sector, and `real_bytes` is what
//! the body would be with the bytes themselves.

use crate::clock::Ns;
use crate::error::{Error, Result};
use crate::filters::DataMode;

/// What a record does to its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Write,
    /// Zeroes: write_zeroes, or a discard, after which the range may hold anything.
    Zero,
    Discard,
}

impl Change {
    const fn code(self) -> u8 {
        match self {
            Self::Write => 0,
            Self::Zero => 1,
            Self::Discard => 2,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Write),
            1 => Some(Self::Zero),
            2 => Some(Self::Discard),
            _ => None,
        }
    }
}

/// A change of one range, borrowed from a batch's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub change: Change,
    pub disk: u16,
    pub offset_bytes: u64,
    pub length_bytes: u64,
    /// When the write completed at the source.
    pub time_ns: Ns,
    pub data: &'a [u8],
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Writes in their order.
    Batch,
    /// A restore point: the state after all entries up to `after_no`.
    Point { id: u64, cut_ns: Ns, after_no: u64 },
    /// From here to the next point the stream is no state that ever was.
    ResyncBegin,
}

/// How a stored body was compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    None,
    Lz4,
    Zstd,
}

/// One entry of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub no: u64,
    pub kind: Kind,
    pub codec: Codec,
    /// Records in the body.
    pub count: u32,
    /// Bytes of the body before compression.
    pub raw_bytes: u32,
    /// What the body would be with bytes in place of tokens.
    pub real_bytes: u64,
    /// Of these the data alone.
    pub payload_bytes: u64,
    /// Completion of the first and of the last record.
    pub first_ns: Ns,
    pub last_ns: Ns,
    pub body: Vec<u8>,
}

impl Default for Entry {
    fn default() -> Self {
        Self::mark(0, Kind::Batch, 0)
    }
}

impl Entry {
    #[must_use]
    pub const fn mark(no: u64, kind: Kind, now: Ns) -> Self {
        Self {
            no,
            kind,
            codec: Codec::None,
            count: 0,
            raw_bytes: 0,
            real_bytes: 0,
            payload_bytes: 0,
            first_ns: now,
            last_ns: now,
            body: Vec::new(),
        }
    }

    /// All but the body, for one that is stored otherwise.
    #[must_use]
    pub const fn clone_without_body(&self) -> Self {
        Self { body: Vec::new(), ..*self }
    }

    /// The records of an uncompressed batch.
    #[must_use]
    pub fn records(&self, mode: DataMode) -> Records<'_> {
        Records { rest: &self.body, time_ns: self.first_ns, mode }
    }
}

/// A batch under way.
#[derive(Debug, Default)]
pub struct Batch {
    pub body: Vec<u8>,
    pub count: u32,
    pub real_bytes: u64,
    pub payload_bytes: u64,
    pub first_ns: Ns,
    pub last_ns: Ns,
}

/// The longest header of a record: tag, disk, offset, length, time.
pub const RECORD_HEADER_MAX: u64 = 1 + 3 + 10 + 10 + 10;

impl Batch {
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends a record; times must not fall.
    #[inline]
    pub fn push(&mut self, record: &Record<'_>) {
        if self.count == 0 {
            self.first_ns = record.time_ns;
            self.last_ns = record.time_ns;
        }
        let before = self.body.len();
        let mut header = [0u8; RECORD_HEADER_MAX as usize];
        header[0] = record.change.code();
        let mut at = 1;
        at = varint(&mut header, at, u64::from(record.disk));
        at = varint(&mut header, at, record.offset_bytes);
        at = varint(&mut header, at, record.length_bytes);
        at = varint(&mut header, at, record.time_ns.saturating_sub(self.last_ns));
        self.body.extend_from_slice(&header[..at]);
        self.body.extend_from_slice(record.data);
        let real = if record.change == Change::Write { record.length_bytes } else { 0 };
        self.real_bytes += (self.body.len() - before - record.data.len()) as u64 + real;
        self.payload_bytes += real;
        self.last_ns = record.time_ns;
        self.count += 1;
    }

    /// The batch as entry `no`; the builder is empty then, with `buffer` to go on with.
    pub fn close(&mut self, no: u64, buffer: Vec<u8>) -> Entry {
        let mut entry = Entry { body: buffer, ..Entry::mark(no, Kind::Batch, 0) };
        self.close_into(no, &mut entry);
        entry
    }

    /// As `close`, into an entry that is over: field by field, for copies of it as a whole would
    /// take longer than all else that an entry of one record needs. Its buffer becomes the
    /// builder's.
    #[inline]
    pub fn close_into(&mut self, no: u64, entry: &mut Entry) {
        entry.no = no;
        entry.kind = Kind::Batch;
        entry.codec = Codec::None;
        entry.count = self.count;
        entry.raw_bytes = self.body.len() as u32;
        entry.real_bytes = self.real_bytes;
        entry.payload_bytes = self.payload_bytes;
        entry.first_ns = self.first_ns;
        entry.last_ns = self.last_ns;
        std::mem::swap(&mut entry.body, &mut self.body);
        self.body.clear();
        self.count = 0;
        self.real_bytes = 0;
        self.payload_bytes = 0;
    }
}

#[inline]
fn varint(out: &mut [u8], mut at: usize, mut value: u64) -> usize {
    while value >= 0x80 {
        out[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    out[at] = value as u8;
    at + 1
}

#[inline]
fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0u64, 0);
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

/// The records of a body; ends with an error where it is none.
pub struct Records<'a> {
    rest: &'a [u8],
    time_ns: Ns,
    mode: DataMode,
}

impl<'a> Records<'a> {
    fn read(&mut self) -> Option<Record<'a>> {
        let (&tag, rest) = self.rest.split_first()?;
        self.rest = rest;
        let change = Change::from_code(tag)?;
        let disk = u16::try_from(read_varint(&mut self.rest)?).ok()?;
        let offset_bytes = read_varint(&mut self.rest)?;
        let length_bytes = read_varint(&mut self.rest)?;
        offset_bytes.checked_add(length_bytes)?;
        self.time_ns = self.time_ns.checked_add(read_varint(&mut self.rest)?)?;
        let bytes = if change == Change::Write { self.mode.size(length_bytes) } else { 0 };
        if bytes > self.rest.len() {
            return None;
        }
        let (data, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        let time_ns = self.time_ns;
        Some(Record { change, disk, offset_bytes, length_bytes, time_ns, data })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.read();
        if record.is_none() {
            self.rest = &[];
        }
        Some(record.ok_or_else(|| Error::failed("a batch holds what is no record")))
    }
}

/// Bytes of an entry's header, travelling or stored.
pub const HEADER_BYTES: usize = 80;
const MAGIC: u32 = 0x5042_4456;
/// The longest body that a peer may announce.
pub const BODY_MAX: u32 = 64 << 20;

impl Entry {
    /// Header and checksums; the body follows as it is.
    #[must_use]
    pub fn header(&self) -> [u8; HEADER_BYTES] {
        let (kind, words) = match self.kind {
            Kind::Batch => (0u8, [0, 0, 0]),
            Kind::Point { id, cut_ns, after_no } => (1, [id, cut_ns, after_no]),
            Kind::ResyncBegin => (2, [0, 0, 0]),
        };
        let codec = match self.codec {
            Codec::None => 0u8,
            Codec::Lz4 => 1,
            Codec::Zstd => 2,
        };
        let mut out = [0; HEADER_BYTES];
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4] = kind;
        out[5] = codec;
        out[8..16].copy_from_slice(&self.no.to_le_bytes());
        out[16..20].copy_from_slice(&self.count.to_le_bytes());
        out[20..24].copy_from_slice(&(self.body.len() as u32).to_le_bytes());
        out[24..28].copy_from_slice(&self.raw_bytes.to_le_bytes());
        // A mark has no records: its words take the place of their times and size.
        let words = if kind == 1 { words } else { [self.first_ns, self.last_ns, self.real_bytes] };
        for (i, word) in words.into_iter().enumerate() {
            out[32 + i * 8..40 + i * 8].copy_from_slice(&word.to_le_bytes());
        }
        out[64..72].copy_from_slice(&self.payload_bytes.to_le_bytes());
        let body_hash = xxhash_rust::xxh3::xxh3_64(&self.body);
        out[56..64].copy_from_slice(&body_hash.to_le_bytes());
        let hash = xxhash_rust::xxh3::xxh3_64(&out[..72]);
        out[72..].copy_from_slice(&hash.to_le_bytes());
        out
    }

    /// The entry that a header announces, and how many bytes of body follow.
    ///
    /// # Errors
    /// `Failed` when it is damaged or none.
    pub fn from_header(bytes: &[u8; HEADER_BYTES]) -> Result<(Self, usize, u64)> {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let half = |at: usize| (word(at) & 0xffff_ffff) as u32;
        if half(0) != MAGIC || word(72) != xxhash_rust::xxh3::xxh3_64(&bytes[..72]) {
            return Err(Error::failed("a damaged header"));
        }
        let (first_ns, last_ns, real_bytes) = (word(32), word(40), word(48));
        let kind = match bytes[4] {
            0 => Kind::Batch,
            1 => Kind::Point { id: first_ns, cut_ns: last_ns, after_no: real_bytes },
            2 => Kind::ResyncBegin,
            _ => return Err(Error::failed("an entry of an unknown kind")),
        };
        let codec = match bytes[5] {
            0 => Codec::None,
            1 => Codec::Lz4,
            2 => Codec::Zstd,
            _ => return Err(Error::failed("an entry of an unknown compression")),
        };
        let (body, raw_bytes) = (half(20), half(24));
        if body > BODY_MAX || raw_bytes > BODY_MAX {
            return Err(Error::failed("an entry longer than any"));
        }
        let mut entry = Self::mark(word(8), kind, first_ns);
        entry.codec = codec;
        entry.count = half(16);
        entry.raw_bytes = raw_bytes;
        if kind == Kind::Batch {
            (entry.last_ns, entry.real_bytes) = (last_ns, real_bytes);
            entry.payload_bytes = word(64);
        } else if let Kind::Point { cut_ns, .. } = kind {
            (entry.first_ns, entry.last_ns) = (cut_ns, cut_ns);
        }
        Ok((entry, body as usize, word(56)))
    }

    /// Checks a body that follows a header.
    #[must_use]
    pub fn body_fits(body: &[u8], hash: u64) -> bool {
        xxhash_rust::xxh3::xxh3_64(body) == hash
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_come_back(
            list in proptest::collection::vec(
                (0u8..3, 0u16..5, 0u64..1 << 50, 0u64..9000, 0u64..1 << 40), 1..40)
        ) {
            let mut batch = Batch::default();
            let (mut now, mut expected) = (5, Vec::new());
            let data: Vec<u8> = (0..9000u32).map(|i| i as u8).collect();
            for (code, disk, offset_bytes, length_bytes, gap) in list {
                let change = Change::from_code(code).unwrap();
                now += gap;
                let bytes = if change == Change::Write { length_bytes as usize } else { 0 };
                let record = Record {
                    change, disk, offset_bytes, length_bytes, time_ns: now, data: &data[..bytes],
                };
                batch.push(&record);
                expected.push(record);
            }
            let entry = batch.close(7, Vec::new());
            prop_assert_eq!(entry.real_bytes, entry.body.len() as u64);
            let got: Vec<_> = entry.records(DataMode::Bytes).map(Result::unwrap).collect();
            prop_assert_eq!(got, expected);
            let header = entry.header();
            let (mut back, bytes, hash) = Entry::from_header(&header).unwrap();
            prop_assert_eq!(bytes, entry.body.len());
            prop_assert!(Entry::body_fits(&entry.body, hash));
            back.body.clone_from(&entry.body);
            prop_assert_eq!(back, entry);
        }

        #[test]
        fn any_damage_is_seen(at in 0..HEADER_BYTES, bit in 0u8..8) {
            let point = Kind::Point { id: 3, cut_ns: 9, after_no: 7 };
            let mut header = Entry::mark(8, point, 9).header();
            prop_assert_eq!(Entry::from_header(&header).unwrap().0, Entry::mark(8, point, 9));
            header[at] ^= 1 << bit;
            prop_assert!(Entry::from_header(&header).is_err());
        }

        #[test]
        fn garbage_is_an_error_and_no_panic(body in proptest::collection::vec(any::<u8>(), 0..99)) {
            let mut entry = Entry::mark(1, Kind::Batch, 0);
            entry.body = body;
            let _ = entry.records(DataMode::Bytes).count();
        }
    }
}
