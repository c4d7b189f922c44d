//! Where the key comes from.

use std::io::Read;

use crate::xts::KEY_BYTES;

const SOURCES: &str = "\"file:PATH\", \"env:NAME\" or \"random\"";

/// The key that the parameter names; a message that says what was expected otherwise.
pub fn load(source: Option<&str>) -> Result<[u8; KEY_BYTES], String> {
    let source = source.ok_or_else(|| format!("missing: expected {SOURCES}"))?;
    match source.split_once(':') {
        None if source == "random" => random(),
        Some(("file", path)) if !path.is_empty() => from_file(path),
        Some(("env", name)) if !name.is_empty() => from_environment(name),
        _ => Err(format!("expected {SOURCES}, got \"{source}\"")),
    }
}

fn from_file(path: &str) -> Result<[u8; KEY_BYTES], String> {
    let mut bytes = Vec::new();
    // Hex digits with line ends fit well within; what is longer is no key, whatever its size.
    let limit = 4 * KEY_BYTES as u64;
    std::fs::File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read {path}: {error}"))?;
    if let Ok(raw) = <[u8; KEY_BYTES]>::try_from(bytes.as_slice()) {
        return Ok(raw);
    }
    let text = std::str::from_utf8(&bytes).unwrap_or("");
    from_hex(text).ok_or_else(|| {
        format!("expected 64 bytes or 128 hex digits in {path}, got {} bytes", bytes.len())
    })
}

fn from_environment(name: &str) -> Result<[u8; KEY_BYTES], String> {
    let text = std::env::var(name)
        .map_err(|_| format!("expected 128 hex digits in the environment as {name}, got none"))?;
    from_hex(&text).ok_or_else(|| {
        // The value itself stays out of logs.
        format!("expected 128 hex digits in the environment as {name}, got {}", text.len())
    })
}

fn random() -> Result<[u8; KEY_BYTES], String> {
    let mut key = [0; KEY_BYTES];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut key))
        .map_err(|error| format!("cannot make a random key from /dev/urandom: {error}"))?;
    Ok(key)
}

fn from_hex(text: &str) -> Option<[u8; KEY_BYTES]> {
    let digits = text.trim_end();
    if digits.len() != 2 * KEY_BYTES || !digits.bytes().all(|d| d.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; KEY_BYTES];
    for (i, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(key)
}
