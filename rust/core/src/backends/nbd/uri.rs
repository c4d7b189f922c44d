//! Where an NBD server is: the URI of a policy's last filter.
//!
//! Source: the NBD project's doc/uri.md; `nbd+unix:///path.sock` without a `socket` is ours.

use std::fmt;

/// A server's address and an export's name; `{disk}` in either stands for the disk's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    /// As it was written.
    pub text: String,
    pub address: Address,
    pub export: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Unix(String),
    Tcp(String, u16),
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

const PORT: u16 = 10_809;
const DISK: &str = "{disk}";
const FORMS: &str = "expected nbd+unix:///path.sock (with ?export=NAME if it has several) or \
                     nbd://host:port/export";

impl Uri {
    /// Whether a policy's `use` means a server: the schemes, whatever follows.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        ["nbd:", "nbds:", "nbd+unix:", "nbds+unix:"].iter().any(|scheme| text.starts_with(scheme))
    }

    /// # Errors
    /// What was expected, in words for the policy's author.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{FORMS}, got \"{text}\"{why}");
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong(""))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.find('/').map_or((place, ""), |at| place.split_at(at));
        let (mut export, mut socket) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value).ok_or_else(|| wrong(": a broken %-escape"))?;
            match key {
                "export" => export = Some(value),
                "socket" if scheme == "nbd+unix" => socket = Some(value),
                _ => return Err(wrong(&format!(": unknown key {key}"))),
            }
        }
        let path = decode(path).ok_or_else(|| wrong(": a broken %-escape"))?;
        let name = path.strip_prefix('/').unwrap_or(&path).to_owned();
        let (address, named) = match scheme {
            "nbd+unix" if !authority.is_empty() => return Err(wrong(": three slashes")),
            "nbd+unix" => match socket {
                Some(socket) => (Address::Unix(socket), Some(name)),
                None => (Address::Unix(path), None),
            },
            "nbd" => (tcp(authority).ok_or_else(|| wrong(""))?, Some(name)),
            "nbds" | "nbds+unix" => return Err(wrong(": this client has no TLS")),
            _ => return Err(wrong("")),
        };
        if matches!(&address, Address::Unix(path) if path.is_empty() || path == "/") {
            return Err(wrong(": no path"));
        }
        let export = match (export, named.filter(|name| !name.is_empty())) {
            (Some(_), Some(_)) => return Err(wrong(": two names of an export")),
            (a, b) => a.or(b).unwrap_or_default(),
        };
        Ok(Self { text: text.to_owned(), address, export })
    }

    /// Whether each disk has a place of its own.
    #[must_use]
    pub fn names_disk(&self) -> bool {
        self.export.contains(DISK)
            || matches!(&self.address, Address::Unix(path) if path.contains(DISK))
    }

    /// With the disk's name for `{disk}`: as it is in an export's name, and in a socket's path as
    /// targets are named in a folder.
    #[must_use]
    pub fn of_disk(&self, disk: &str) -> Self {
        Self {
            text: self.text.replace(DISK, &file_name(disk)),
            address: match &self.address {
                Address::Unix(path) => Address::Unix(path.replace(DISK, &file_name(disk))),
                tcp @ Address::Tcp(..) => tcp.clone(),
            },
            export: self.export.replace(DISK, disk),
        }
    }
}

fn tcp(authority: &str) -> Option<Address> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            (host, after.strip_prefix(':').or(after.is_empty().then_some(""))?)
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    if host.is_empty() || host.contains(['@', ':']) && !authority.starts_with('[') {
        return None;
    }
    let port = if port.is_empty() { PORT } else { port.parse().ok().filter(|port| *port > 0)? };
    Some(Address::Tcp(host.to_owned(), port))
}

/// `%2F` and the like; `None` when it is cut short or no UTF-8 comes of it.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

/// A disk's name as a file name, as `vaio_bench/targets.py` has it.
fn file_name(disk: &str) -> String {
    let mut name = String::new();
    for (i, byte) in disk.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || b"_.-~ ,=+@".contains(&byte);
        if plain && !(i == 0 && byte == b'.') {
            name.push(byte as char);
        } else {
            name += &format!("%{byte:02X}");
        }
    }
    if name.is_empty() { "%".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Address, String) {
        let uri = Uri::parse(text).unwrap();
        (uri.address, uri.export)
    }

    #[test]
    fn both_schemes_and_the_standard_form() {
        let unix = |path: &str| Address::Unix(path.to_owned());
        let tcp = |host: &str, port| Address::Tcp(host.to_owned(), port);
        for (text, address, export) in [
            ("nbd+unix:///run/a.sock", unix("/run/a.sock"), ""),
            ("nbd+unix:///run/a%20b.sock?export=x%2Fy", unix("/run/a b.sock"), "x/y"),
            ("nbd+unix:///disk?socket=/run/a.sock", unix("/run/a.sock"), "disk"),
            ("nbd+unix:///?socket=a.sock", unix("a.sock"), ""),
            ("nbd://localhost", tcp("localhost", 10_809), ""),
            ("nbd://10.0.0.1:99/disk", tcp("10.0.0.1", 99), "disk"),
            ("nbd://[::1]:99//disk", tcp("::1", 99), "/disk"),
            ("nbd://[::1]/", tcp("::1", 10_809), ""),
        ] {
            assert_eq!(parsed(text), (address, export.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        for text in [
            "nbd:unix:/run/a.sock",
            "nbd://",
            "nbd://host:0/",
            "nbd://host:x/",
            "nbd://me@host/",
            "nbd+unix://host/a.sock",
            "nbd+unix:///",
            "nbd+unix:///a%2.sock",
            "nbd+unix:///a.sock?name=x",
            "nbd+unix:///x?socket=/a.sock&export=y",
            "nbds://host/",
            "http://host/",
        ] {
            let told = Uri::parse(text).unwrap_err();
            assert!(told.starts_with("expected nbd+unix:///") && told.contains(text), "{told}");
        }
    }

    #[test]
    fn a_disk_has_its_own_place() {
        let uri = Uri::parse("nbd+unix:///run/{disk}.sock?export={disk}").unwrap();
        assert!(uri.names_disk() && !Uri::parse("nbd://host/x").unwrap().names_disk());
        let of = uri.of_disk("a/b");
        assert_eq!(of.address, Address::Unix("/run/a%2Fb.sock".to_owned()));
        assert_eq!(of.export, "a/b");
        assert_eq!(of.text, "nbd+unix:///run/a%2Fb.sock?export=a%2Fb");
        assert_eq!(uri.of_disk(".x").address, Address::Unix("/run/%2Ex.sock".to_owned()));
    }
}
