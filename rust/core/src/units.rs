//! Sizes, rates and times as policies write them: `512MiB`, `100Mbit/s`, `5s`.
//!
//! Units of 1000 (`MB`, `Mbit/s`) and of 1024 (`MiB`) differ, as IEC 80000-13 has it. A wrong
//! value is answered with what was expected, an example, and what was found.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Bytes a second, above zero.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct ByteRate(pub f64);

/// Nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

const SIZES: [(&str, f64); 10] = [
    ("B", 1.0),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
    ("kB", 1e3),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
];
/// Bits for network links, bytes for disks.
const RATES: [(&str, f64); 14] = [
    ("bit/s", 0.125),
    ("kbit/s", 125.0),
    ("Kbit/s", 125.0),
    ("Mbit/s", 125e3),
    ("Gbit/s", 125e6),
    ("B/s", 1.0),
    ("KiB/s", 1024.0),
    ("MiB/s", 1_048_576.0),
    ("GiB/s", 1_073_741_824.0),
    ("kB/s", 1e3),
    ("KB/s", 1e3),
    ("MB/s", 1e6),
    ("GB/s", 1e9),
    ("TB/s", 1e12),
];
const TIMES: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("min", 60e9),
    ("h", 3600e9),
    ("d", 86_400e9),
    ("\u{b5}s", 1e3),
];

impl Size {
    /// `"512MiB"`, `"4kB"`, or a plain number of bytes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(bytes) = text.parse() {
            return Some(Self(bytes));
        }
        whole(scaled(text, &SIZES)?).map(Self)
    }
}

impl ByteRate {
    /// `"100Mbit/s"`, `"64MiB/s"`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        scaled(text, &RATES).filter(|rate| *rate > 0.0).map(Self)
    }
}

impl Time {
    /// `"5s"`, `"100us"`, `"1.5ms"`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        whole(scaled(text, &TIMES)?).map(Self)
    }
}

/// A number and one of the units, with or without a space between.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<f64>().ok().map(|number| number * scale)
}

fn whole(value: f64) -> Option<u64> {
    // 2^63: beyond it neither a file's size nor a time makes sense.
    (value.is_finite() && value < 9.2e18).then(|| value.round() as u64)
}

const SIZE: &str = "a size such as \"512MiB\"";
const RATE: &str = "a rate such as \"100Mbit/s\" or \"64MiB/s\"";
const TIME: &str = "a time such as \"100us\" or \"5s\"";

struct TextVisitor<T> {
    expected: &'static str,
    parse: fn(&str) -> Option<T>,
    from_number: Option<fn(u64) -> T>,
}

impl<T> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text)
            .ok_or_else(|| E::custom(format!("expected {}, got \"{text}\"", self.expected)))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        match self.from_number {
            Some(from) => Ok(from(number)),
            None => Err(E::custom(format!("expected {}, got {number}", self.expected))),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        Err(E::custom(format!("expected {}, got {number}", self.expected)))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<T, E> {
        Err(E::custom(format!("expected {}, got {number}", self.expected)))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<T, E> {
        Err(E::custom(format!("expected {}, got {value}", self.expected)))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = TextVisitor { expected: SIZE, parse: Self::parse, from_number: Some(Size) };
        deserializer.deserialize_any(visitor)
    }
}

impl<'de> Deserialize<'de> for ByteRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = TextVisitor { expected: RATE, parse: Self::parse, from_number: None };
        deserializer.deserialize_any(visitor)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = TextVisitor { expected: TIME, parse: Self::parse, from_number: None };
        deserializer.deserialize_any(visitor)
    }
}

macro_rules! text_schema {
    ($name:ident, $text:literal, $($example:literal),+) => {
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "format": $text, "examples": [$($example),+]})
            }
        }
    };
}
text_schema!(Size, "size", "512MiB", "4KiB");
text_schema!(ByteRate, "rate", "100Mbit/s", "64MiB/s");
text_schema!(Time, "time", "100us", "5s");

/// A number above zero.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Positive(pub f64);

impl<'de> Deserialize<'de> for Positive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        match value.as_f64() {
            Some(number) if number > 0.0 && number.is_finite() => Ok(Self(number)),
            _ => Err(D::Error::custom(format!(
                "expected a number above 0 such as 2000, got {value}"
            ))),
        }
    }
}

impl JsonSchema for Positive {
    fn schema_name() -> Cow<'static, str> {
        "Positive".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "number", "exclusiveMinimum": 0})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_policies_write() {
        assert_eq!(Size::parse("512MiB"), Some(Size(512 << 20)));
        assert_eq!(Size::parse("1.5 KiB"), Some(Size(1536)));
        assert_eq!(Size::parse("10GB"), Some(Size(10_000_000_000)));
        assert_eq!(Size::parse("4096"), Some(Size(4096)));
        assert_eq!(ByteRate::parse("100Mbit/s"), Some(ByteRate(12.5e6)));
        assert_eq!(ByteRate::parse("64MiB/s"), Some(ByteRate(67_108_864.0)));
        assert_eq!(Time::parse("100us"), Some(Time(100_000)));
        assert_eq!(Time::parse("15min"), Some(Time(900_000_000_000)));
        assert_eq!(Time::parse("0s"), Some(Time(0)));
        for wrong in ["", "lots", "MiB", "-1s", "5", "5 parsecs", "1e30d", "1.2.3s", "5S"] {
            assert_eq!(Time::parse(wrong), None, "{wrong}");
        }
        for wrong in ["lots", "1.5", "-4KiB", "4k", "10TiB/s", "99999999999TiB"] {
            assert_eq!(Size::parse(wrong), None, "{wrong}");
        }
        assert_eq!(ByteRate::parse("0Mbit/s"), None);
    }

    #[test]
    fn a_wrong_value_says_what_was_expected() {
        let error = |json: &str| serde_json::from_str::<Size>(json).unwrap_err().to_string();
        assert!(error("\"lots\"").contains("expected a size such as \"512MiB\", got \"lots\""));
        assert!(error("-5").contains("expected a size such as \"512MiB\", got -5"));
        assert!(error("[1]").contains("a size such as"));
        let error = serde_json::from_str::<Time>("5").unwrap_err().to_string();
        assert!(error.contains("expected a time such as \"100us\" or \"5s\", got 5"), "{error}");
    }
}
