//! Numbers out of text, as integers throughout: a float64 would lose the nanoseconds of a
//! ten-digit time in seconds.

/// Decimal digits, or hexadecimal after `0x`; blanks around are no error.
#[must_use]
#[inline]
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    if let Some(hex) = text.strip_prefix(b"0x").or_else(|| text.strip_prefix(b"0X")) {
        return u64::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok();
    }
    if text.is_empty() {
        return None;
    }
    let mut value: u64 = 0;
    for &byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

/// `digits[.digits]` times `unit`, exact; digits below one are cut off, not rounded.
/// A leading minus is read. `None` where it is no number or beyond 128 bits.
#[must_use]
pub fn parse_scaled(text: &[u8], unit: i128) -> Option<i128> {
    let text = text.trim_ascii();
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match memchr::memchr(b'.', text) {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &[][..]),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { parse_u64(whole)? };
    let mut value = i128::from(whole).checked_mul(unit)?;
    let mut place = unit;
    for &byte in fraction {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // Exact while the unit divides by ten; below that, the rest is less than one.
        if place % 10 == 0 {
            place /= 10;
            value += i128::from(digit) * place;
        } else {
            place = 0;
        }
    }
    Some(if negative { -value } else { value })
}

/// A number of bytes times `unit`, which fits in the canonical trace.
#[must_use]
#[inline]
pub fn parse_bytes(text: &[u8], unit: u64) -> Option<i64> {
    i64::try_from(parse_u64(text)?.checked_mul(unit)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaled_numbers_keep_every_digit() {
        assert_eq!(parse_scaled(b"1456095145.133076001", 1_000_000_000), Some(1456095145133076001));
        assert_eq!(parse_scaled(b"0.1234567891", 1_000_000_000), Some(123_456_789));
        assert_eq!(parse_scaled(b"128166385295514663", 100), Some(12_816_638_529_551_466_300));
        assert_eq!(parse_scaled(b" 1.5 ", 1_000), Some(1_500));
        assert_eq!(parse_scaled(b"-2", 1), Some(-2));
        assert_eq!(parse_scaled(b".5", 1_000_000_000), Some(500_000_000));
        for bad in [&b""[..], b".", b"1e3", b"1.2.3", b"12a", b"--1", b"nan"] {
            assert_eq!(parse_scaled(bad, 1_000), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn integers_are_checked() {
        assert_eq!(parse_u64(b"0x1F"), Some(31));
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b""), None);
        assert_eq!(parse_u64(b"+1"), None);
        assert_eq!(parse_bytes(b"18014398509481984", 512), None);
        assert_eq!(parse_bytes(b"8", 512), Some(4096));
    }
}
