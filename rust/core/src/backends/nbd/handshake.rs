//! The newstyle handshake: what an export is, or why it cannot be had.

use std::io;

use super::socket::{Deadline, Socket};
use super::uri::Uri;
use super::wire::{self, export_flags, option, option_reply, u16_at, u32_at, u64_at};
use crate::error::{Error, ErrorKind, Result};

/// Text and lists of a handshake are far shorter.
const REPLY_BYTES_MAX: u32 = 64 << 10;
/// Where a server says nothing, what it must take ("Block size constraints").
const BLOCK_MAX: u32 = 32 << 20;

/// What the server says of the export. Sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "they are flags of the protocol, one by one")]
pub struct Export {
    pub uri: String,
    pub export: String,
    pub size_bytes: u64,
    pub read_only: bool,
    pub flush: bool,
    pub fua: bool,
    pub trim: bool,
    pub write_zeroes: bool,
    pub rotational: bool,
    pub multi_conn: bool,
    pub structured_replies: bool,
    pub block_min_bytes: u32,
    pub block_preferred_bytes: u32,
    pub block_max_bytes: u32,
    pub connections: usize,
}

/// Talks until the server is ready for requests.
///
/// # Errors
/// `Input` when the server has no such export, `Failed` when it cannot be understood in time.
pub fn shake(socket: &Socket, uri: &Uri, deadline: Deadline) -> Result<Export> {
    Shake { socket, uri, deadline }.run()
}

struct Shake<'a> {
    socket: &'a Socket,
    uri: &'a Uri,
    deadline: Deadline,
}

/// A reply to an option.
struct Reply {
    kind: u32,
    data: Vec<u8>,
}

impl Shake<'_> {
    fn run(&self) -> Result<Export> {
        let mut hello = [0; 18];
        self.read(&mut hello[..16])?;
        let (first, second) = (u64_at(&hello, 0), u64_at(&hello, 8));
        if first != wire::INIT_MAGIC {
            return Err(self.garbage(format!("it greets with {first:#018x} and not NBDMAGIC")));
        }
        if second == wire::OLDSTYLE_MAGIC {
            return Err(self.failed("the server speaks the oldstyle handshake: start it newstyle"));
        }
        if second != wire::OPTION_MAGIC {
            return Err(self.garbage(format!("{second:#018x} where IHAVEOPT was expected")));
        }
        self.read(&mut hello[16..])?;
        let offered = u16_at(&hello, 16);
        let taken = offered & (wire::FIXED_NEWSTYLE | wire::NO_ZEROES);
        self.write(&u32::from(taken).to_be_bytes())?;
        let mut export = Export {
            uri: self.uri.text.clone(),
            export: self.uri.export.clone(),
            block_min_bytes: 1,
            block_preferred_bytes: 4096,
            block_max_bytes: BLOCK_MAX,
            connections: 1,
            ..Export::default()
        };
        if taken & wire::FIXED_NEWSTYLE == 0 {
            self.by_name(&mut export, taken)?;
        } else {
            self.send(option::STRUCTURED_REPLY, &[])?;
            export.structured_replies =
                self.reply(option::STRUCTURED_REPLY)?.kind == option_reply::ACK;
            if !self.go(&mut export)? {
                self.by_name(&mut export, taken)?;
            }
        }
        self.check(&export)?;
        Ok(export)
    }

    /// `NBD_OPT_GO`; false when the server does not know it.
    fn go(&self, export: &mut Export) -> Result<bool> {
        let name = self.uri.export.as_bytes();
        let mut data = (name.len() as u32).to_be_bytes().to_vec();
        data.extend_from_slice(name);
        data.extend_from_slice(&1u16.to_be_bytes());
        data.extend_from_slice(&wire::INFO_BLOCK_SIZE.to_be_bytes());
        self.send(option::GO, &data)?;
        let mut known = false;
        loop {
            let reply = self.reply(option::GO)?;
            match reply.kind {
                option_reply::ACK if known => return Ok(true),
                option_reply::ACK => {
                    return Err(self.garbage("an export without its size".to_owned()));
                }
                option_reply::INFO if reply.data.len() >= 2 => {
                    let info = &reply.data[2..];
                    match (u16_at(&reply.data, 0), info.len()) {
                        (wire::INFO_EXPORT, 10) => {
                            known = true;
                            note(export, u64_at(info, 0), u16_at(info, 8));
                        }
                        (wire::INFO_BLOCK_SIZE, 12) => {
                            export.block_min_bytes = u32_at(info, 0);
                            export.block_preferred_bytes = u32_at(info, 4);
                            export.block_max_bytes = u32_at(info, 8);
                        }
                        (wire::INFO_EXPORT | wire::INFO_BLOCK_SIZE, length) => {
                            return Err(self.garbage(format!("an information of {length} bytes")));
                        }
                        _ => {}
                    }
                }
                option_reply::ERR_UNSUP => return Ok(false),
                kind if kind & option_reply::ERROR != 0 => return Err(self.refusal(&reply)),
                kind => return Err(self.garbage(format!("reply {kind} to NBD_OPT_GO"))),
            }
        }
    }

    /// `NBD_OPT_EXPORT_NAME`, which a server refuses by closing the connection.
    fn by_name(&self, export: &mut Export, taken: u16) -> Result<()> {
        self.send(option::EXPORT_NAME, self.uri.export.as_bytes())?;
        let zeroes = if taken & wire::NO_ZEROES == 0 { 124 } else { 0 };
        let mut answer = [0; 10 + 124];
        self.read(&mut answer[..10 + zeroes])?;
        note(export, u64_at(&answer, 0), u16_at(&answer, 8));
        Ok(())
    }

    fn check(&self, export: &Export) -> Result<()> {
        let (min, max) = (export.block_min_bytes, export.block_max_bytes);
        if !min.is_power_of_two() || min > 64 << 10 || max < min {
            return Err(self.garbage(format!("blocks of {min} to {max} bytes")));
        }
        if export.size_bytes > i64::MAX as u64 {
            return Err(self.failed(&format!(
                "the server says its export has {} bytes: expected at most {}, as offsets are \
                 signed",
                export.size_bytes,
                i64::MAX
            )));
        }
        Ok(())
    }

    fn send(&self, option: u32, data: &[u8]) -> Result<()> {
        let mut bytes = wire::OPTION_MAGIC.to_be_bytes().to_vec();
        bytes.extend_from_slice(&option.to_be_bytes());
        bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
        bytes.extend_from_slice(data);
        self.write(&bytes)
    }

    fn reply(&self, option: u32) -> Result<Reply> {
        let mut header = [0; 20];
        self.read(&mut header)?;
        let (magic, to, length) = (u64_at(&header, 0), u32_at(&header, 8), u32_at(&header, 16));
        if magic != wire::OPTION_REPLY_MAGIC || to != option || length > REPLY_BYTES_MAX {
            return Err(self.garbage(format!(
                "no reply to option {option}, but magic {magic:#x}, option {to}, {length} bytes"
            )));
        }
        let mut data = vec![0; length as usize];
        self.read(&mut data)?;
        Ok(Reply { kind: u32_at(&header, 12), data })
    }

    fn refusal(&self, reply: &Reply) -> Error {
        let words: String = String::from_utf8_lossy(&reply.data)
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        let words = if words.is_empty() { String::new() } else { format!(" ({words})") };
        let name = &self.uri.export;
        match reply.kind {
            option_reply::ERR_UNKNOWN => {
                Error::input(format!("the server has no export \"{name}\"{words}"))
                    .with("file", self.uri)
            }
            option_reply::ERR_TLS_REQD => {
                self.failed("the server wants TLS, which this client has not")
            }
            kind => {
                let number = kind & !option_reply::ERROR;
                self.failed(&format!("the server refuses export \"{name}\": error {number}{words}"))
            }
        }
    }

    fn read(&self, bytes: &mut [u8]) -> Result<()> {
        self.socket.read_by(bytes, self.deadline).map_err(|e| self.broken(e))
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        self.socket.write_by(bytes, self.deadline).map_err(|e| self.broken(e))
    }

    fn broken(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                self.failed("the server closed the connection in the handshake")
            }
            io::ErrorKind::TimedOut => {
                let words = "the server did not answer the handshake";
                Error::new(ErrorKind::ServerSilent, words).with("file", self.uri)
            }
            _ => self.failed("the handshake failed").caused_by(error),
        }
    }

    fn garbage(&self, what: String) -> Error {
        self.failed(&format!("this is no NBD server's handshake: {what}"))
    }

    fn failed(&self, words: &str) -> Error {
        Error::failed(words).with("file", self.uri)
    }
}

fn note(export: &mut Export, size_bytes: u64, flags: u16) {
    let has = |flag| flags & flag != 0;
    export.size_bytes = size_bytes;
    export.read_only = has(export_flags::READ_ONLY);
    export.flush = has(export_flags::SEND_FLUSH);
    export.fua = has(export_flags::SEND_FUA);
    export.trim = has(export_flags::SEND_TRIM);
    export.write_zeroes = has(export_flags::SEND_WRITE_ZEROES);
    export.rotational = has(export_flags::ROTATIONAL);
    export.multi_conn = has(export_flags::CAN_MULTI_CONN);
}
