//! Where the key comes from that source and site share.

use std::io::Read;

/// Longer than any key.
const BYTES_MAX: u64 = 4096;

/// The key that `file:PATH` or `env:NAME` names.
///
/// # Errors
/// A message that says what was expected; never the key.
pub fn load(source: &str) -> Result<Vec<u8>, String> {
    let key = match source.split_once(':') {
        Some(("file", path)) if !path.is_empty() => {
            let mut key = Vec::new();
            std::fs::File::open(path)
                .and_then(|file| file.take(BYTES_MAX).read_to_end(&mut key))
                .map_err(|error| format!("cannot read {path}: {error}"))?;
            key
        }
        Some(("env", name)) if !name.is_empty() => std::env::var(name)
            .map_err(|_| format!("expected a key in the environment as {name}, got none"))?
            .into_bytes(),
        _ => return Err("expected \"file:PATH\" or \"env:NAME\"".to_owned()),
    };
    let bytes = key.trim_ascii().len();
    if bytes < super::tls::KEY_BYTES_MIN {
        let least = super::tls::KEY_BYTES_MIN;
        return Err(format!("expected a key of at least {least} bytes in {source}, got {bytes}"));
    }
    Ok(key)
}
