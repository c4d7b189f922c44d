//! The `--columns` language: which column of a text trace holds what, in which unit.

use crate::error::{Error, Result};
use crate::formats::blkevent::SECTOR_BYTES;
use crate::io::Op;

/// A column by its place (negative: from the right, -1 is the last) or by its header name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Index(i32),
    Name(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Index(index) if *index < 0 => write!(f, "number {index}, from the right"),
            Self::Index(index) => write!(f, "number {index}, from 0"),
            Self::Name(name) => write!(f, "{name:?}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separator {
    /// Found from the first line: comma, tab, semicolon, else blanks.
    Auto,
    Byte(u8),
    /// Runs of blanks and tabs.
    Blanks,
}

/// The codes of each operation, in the order of [`Op::NAMES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpCodes(pub Vec<Vec<Vec<u8>>>);

#[derive(Debug, Clone)]
pub struct Columns {
    pub time: Place,
    pub time_unit_ns: i128,
    pub op: Place,
    pub codes: OpCodes,
    pub offset: Place,
    pub offset_unit_bytes: u64,
    pub length: Place,
    pub length_unit_bytes: u64,
    /// Joined with `_`; none: one disk a file.
    pub disk: Vec<Place>,
    pub latency: Option<(Place, i128)>,
    pub flags: Option<Place>,
    pub stream: Option<Place>,
    pub separator: Separator,
    /// `None`: a first row without a number for its time is one.
    pub header: Option<bool>,
}

/// What every message about the language ends with.
pub const SYNTAX: &str = "expected such as \
    time=0:us,op=3:R/W,offset=4:bytes,length=5:sectors,disk=1+2,latency=6:us,sep=comma";

const FIELDS: &str = "time op offset length disk latency flags stream sep header";

fn bad(message: impl std::fmt::Display) -> Error {
    Error::input(format!("{message}; {SYNTAX}")).with("option", "--columns")
}

impl Columns {
    /// Reads `field=place[:unit],...`; see the page of the `csv` format.
    ///
    /// # Errors
    /// `Input` that names the part and what was expected.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts: Vec<(&str, &str)> = Vec::new();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (field, value) =
                part.split_once('=').ok_or_else(|| bad(format!("{part:?} has no =")))?;
            let field = field.trim();
            if !FIELDS.split(' ').any(|known| known == field) {
                return Err(bad(format!("unknown field {field:?}, expected one of: {FIELDS}")));
            }
            if parts.iter().any(|(known, _)| *known == field) {
                return Err(bad(format!("{field} is given twice")));
            }
            parts.push((field, value.trim()));
        }
        let find = |field: &str| parts.iter().find(|(f, _)| *f == field).map(|(_, v)| *v);
        let need = |field: &str| find(field).ok_or_else(|| bad(format!("{field} is missing")));
        let (time, unit) = split_unit(need("time")?);
        let time_unit_ns = time_unit("time", unit)?;
        let (op, codes) = split_unit(need("op")?);
        let (offset, offset_unit) = split_unit(need("offset")?);
        let (length, length_unit) = split_unit(need("length")?);
        let latency = match find("latency").map(split_unit) {
            Some((at, unit)) => Some((place("latency", at)?, time_unit("latency", unit)?)),
            None => None,
        };
        let disk = find("disk").map_or(Ok(Vec::new()), |value| {
            value.split('+').map(|one| place("disk", one)).collect::<Result<Vec<_>>>()
        })?;
        Ok(Self {
            time: place("time", time)?,
            time_unit_ns,
            op: place("op", op)?,
            codes: OpCodes::parse(codes)?,
            offset: place("offset", offset)?,
            offset_unit_bytes: byte_unit("offset", offset_unit)?,
            length: place("length", length)?,
            length_unit_bytes: byte_unit("length", length_unit)?,
            disk,
            latency,
            flags: find("flags").map(|v| place("flags", v)).transpose()?,
            stream: find("stream").map(|v| place("stream", v)).transpose()?,
            separator: separator(find("sep"))?,
            header: header(find("header"))?,
        })
    }

    /// Every place that is used, to be resolved against a header.
    pub fn places_mut(&mut self) -> impl Iterator<Item = &mut Place> {
        [&mut self.time, &mut self.op, &mut self.offset, &mut self.length]
            .into_iter()
            .chain(&mut self.disk)
            .chain(self.latency.as_mut().map(|(place, _)| place))
            .chain(&mut self.flags)
            .chain(&mut self.stream)
    }
}

fn split_unit(value: &str) -> (&str, Option<&str>) {
    value.split_once(':').map_or((value, None), |(at, unit)| (at, Some(unit)))
}

fn place(field: &str, text: &str) -> Result<Place> {
    let text = text.trim();
    if text.is_empty() {
        return Err(bad(format!("{field} names no column")));
    }
    Ok(text.parse::<i32>().map_or_else(|_| Place::Name(text.to_owned()), Place::Index))
}

fn time_unit(field: &str, unit: Option<&str>) -> Result<i128> {
    match unit {
        Some("s") => Ok(1_000_000_000),
        Some("ms") => Ok(1_000_000),
        Some("us") => Ok(1_000),
        Some("100ns") => Ok(100),
        Some("ns") => Ok(1),
        Some(other) => Err(bad(format!("{field}: expected s, ms, us, 100ns or ns, got {other:?}"))),
        None => Err(bad(format!("{field} needs a unit: s, ms, us, 100ns or ns"))),
    }
}

fn byte_unit(field: &str, unit: Option<&str>) -> Result<u64> {
    match unit {
        Some("bytes" | "B") => Ok(1),
        Some("sectors") => Ok(SECTOR_BYTES),
        Some("KiB") => Ok(1 << 10),
        Some("MiB") => Ok(1 << 20),
        Some(other) => other.parse::<u64>().ok().filter(|&unit| unit > 0).ok_or_else(|| {
            bad(format!(
                "{field}: expected bytes, sectors, KiB, MiB or bytes a unit, got {other:?}"
            ))
        }),
        None => Err(bad(format!("{field} needs a unit: bytes, sectors (of 512), KiB or MiB"))),
    }
}

fn separator(text: Option<&str>) -> Result<Separator> {
    Ok(match text {
        None | Some("auto") => Separator::Auto,
        Some("comma") => Separator::Byte(b','),
        Some("tab") => Separator::Byte(b'\t'),
        Some("semicolon" | ";") => Separator::Byte(b';'),
        Some("pipe" | "|") => Separator::Byte(b'|'),
        Some("blanks" | "space") => Separator::Blanks,
        Some(other) => {
            return Err(bad(format!(
                "sep: expected comma, tab, semicolon, pipe, blanks or auto, got {other:?}"
            )));
        }
    })
}

fn header(text: Option<&str>) -> Result<Option<bool>> {
    match text {
        None | Some("auto") => Ok(None),
        Some("yes") => Ok(Some(true)),
        Some("no") => Ok(Some(false)),
        Some(other) => Err(bad(format!("header: expected yes, no or auto, got {other:?}"))),
    }
}

impl OpCodes {
    /// `R/W`: the codes of read, write, flush, discard, write_zeroes in this order, alternatives
    /// behind `|`. None: the usual words.
    fn parse(codes: Option<&str>) -> Result<Self> {
        let codes = codes.unwrap_or(
            "read|r|rd|rs/write|w|wr|ws/flush|f|sync/discard|d|trim|unmap/write_zeroes|wz",
        );
        let lists: Vec<Vec<Vec<u8>>> = codes
            .split('/')
            .map(|list| list.split('|').map(|code| code.trim().as_bytes().to_vec()).collect())
            .collect();
        if lists.len() < 2 || lists.len() > Op::NAMES.len() {
            return Err(bad(format!(
                "op: expected codes for read/write[/flush[/discard[/write_zeroes]]], got {codes:?}"
            )));
        }
        Ok(Self(lists))
    }

    /// The operation of a code, in any case of letters.
    #[must_use]
    #[inline]
    pub fn find(&self, code: &[u8]) -> Option<Op> {
        self.0
            .iter()
            .position(|list| list.iter().any(|known| known.eq_ignore_ascii_case(code)))
            .map(|at| Op::from_code(at as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_language_is_read() {
        let columns = Columns::parse(
            "time=Timestamp:s,op=-4:0|r/1|w,offset=4:sectors,length=5:4096,disk=1+Host,\
             latency=6:100ns,stream=2,sep=tab,header=yes",
        )
        .expect("valid");
        assert_eq!(columns.time, Place::Name("Timestamp".into()));
        assert_eq!(columns.op, Place::Index(-4));
        assert_eq!((columns.offset_unit_bytes, columns.length_unit_bytes), (512, 4096));
        assert_eq!(columns.disk, [Place::Index(1), Place::Name("Host".into())]);
        assert_eq!(columns.latency, Some((Place::Index(6), 100)));
        assert_eq!(columns.codes.find(b"R"), Some(Op::Read));
        assert_eq!(columns.codes.find(b"1"), Some(Op::Write));
        assert_eq!(columns.codes.find(b"2"), None);
        assert_eq!(columns.separator, Separator::Byte(b'\t'));
        assert_eq!(columns.header, Some(true));
    }

    #[test]
    fn every_mistake_is_named() {
        let good = "time=0:us,op=1,offset=2:bytes,length=3:bytes";
        for (text, word) in [
            ("time=0:us,op=1,offset=2:bytes", "length is missing"),
            ("time=0:us,op=1,offset=2:bytes,length=3:furlongs", "furlongs"),
            ("time=0,op=1,offset=2:bytes,length=3:bytes", "time needs a unit"),
            ("time=0:h,op=1,offset=2:bytes,length=3:bytes", "\"h\""),
            ("time=0:us,op=1:R,offset=2:bytes,length=3:bytes", "read/write"),
            ("time=0:us,op=1,offset=:bytes,length=3:bytes", "names no column"),
            (&format!("{good},size=4"), "unknown field \"size\""),
            (&format!("{good},time=4:s"), "given twice"),
            (&format!("{good},sep=dot"), "sep"),
            (&format!("{good},header=perhaps"), "header"),
            ("time", "has no ="),
        ] {
            let error = Columns::parse(text).expect_err(text).to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert!(Columns::parse(good).is_ok());
    }
}
