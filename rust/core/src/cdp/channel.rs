//! Frames over a TLS connection: what both ends of the wall clock's link share.
//!
//! A frame is a kind, a length and that many bytes: an entry as it is stored, the others as JSON.

use std::collections::VecDeque;
use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use rustls::Connection;

use super::entry::{BODY_MAX, Entry, HEADER_BYTES};
use super::frame::{Ask, Durable, Frame, Held, Hello};
use crate::error::{Error, Result};

const PREFIX_BYTES: usize = 8;
/// Read from the socket at a time, while the peer has not shown that it has the key and after.
const INBOX_MIN: usize = 8 << 10;
const INBOX_BYTES: usize = 256 << 10;
/// Parts of frames, two each, that are encrypted in one go.
const PARTS: usize = 32;
/// Frames that are no entries are no longer.
const WORDS_MAX: usize = 64 << 10;
/// What was asked, before the digests that answer it; and a digest.
const ASK_BYTES: usize = 32;
const SUM_BYTES: usize = 16;

/// A frame as it travels: an entry's body stays where it is.
pub struct Encoded {
    head: Vec<u8>,
    body: Option<Arc<Entry>>,
}

impl Encoded {
    #[must_use]
    pub fn of(frame: Frame) -> Self {
        let mut head = Vec::new();
        encode(&frame, &mut head);
        let body = if let Frame::Entry(entry) = frame { Some(entry) } else { None };
        Self { head, body }
    }

    /// Bytes in all.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.head.len() + self.body().len()
    }

    fn body(&self) -> &[u8] {
        self.body.as_ref().map_or(&[], |entry| &entry.body)
    }
}

/// A frame as bytes: prefix, then one or two parts; all but the body of an entry.
fn encode(frame: &Frame, out: &mut Vec<u8>) {
    let words = |out: &mut Vec<u8>, kind: u8, value: &serde_json::Value| {
        let text = value.to_string();
        prefix(out, kind, text.len());
        out.extend_from_slice(text.as_bytes());
    };
    match frame {
        Frame::Entry(entry) => {
            out.reserve_exact(PREFIX_BYTES + HEADER_BYTES);
            prefix(out, 1, HEADER_BYTES + entry.body.len());
            out.extend_from_slice(&entry.header());
        }
        Frame::Hello(hello) => words(out, 0, &serde_json::json!(hello)),
        Frame::Welcome { next_no, points, held } => {
            let welcome = serde_json::json!({"next_no": next_no, "points": points, "held": held});
            words(out, 2, &welcome);
        }
        Frame::Ask(ask) => words(out, 6, &serde_json::json!(ask)),
        Frame::Sums(ask, sums) => {
            prefix(out, 7, ASK_BYTES + sums.len() * SUM_BYTES);
            for word in [u64::from(ask.disk), ask.offset_bytes, ask.length_bytes, ask.block_bytes] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            sums.iter().for_each(|sum| out.extend_from_slice(&sum.to_le_bytes()));
        }
        Frame::Ack { received_no, durable_no, points } => words(
            out,
            3,
            &serde_json::json!({
                "received_no": received_no, "durable_no": durable_no, "points": points
            }),
        ),
        Frame::Full => words(out, 4, &serde_json::Value::Null),
        Frame::Refuse(why) => words(out, 5, &serde_json::json!(why)),
    }
}

fn prefix(out: &mut Vec<u8>, kind: u8, length: usize) {
    out.extend_from_slice(&[kind, b'v', b'b', b'1']);
    out.extend_from_slice(&(length as u32).to_le_bytes());
}

#[derive(serde::Deserialize)]
struct Welcomed {
    next_no: u64,
    points: Vec<Durable>,
    held: Option<Held>,
}

#[derive(serde::Deserialize)]
struct Acked {
    received_no: u64,
    durable_no: u64,
    points: Vec<Durable>,
}

/// Takes frames out of a run of bytes.
#[derive(Default)]
pub struct Frames {
    buffer: Vec<u8>,
    from: usize,
}

impl Frames {
    /// The next frame, if all of it is there.
    ///
    /// # Errors
    /// `Failed` for what no end of this protocol says.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        let there = &self.buffer[self.from..];
        let Some(head) = there.get(..PREFIX_BYTES) else { return Ok(self.wait()) };
        if head[1..4] != *b"vb1" {
            return Err(Error::failed("what came is no frame"));
        }
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let kind = head[0];
        let most = if kind == 1 { HEADER_BYTES + BODY_MAX as usize } else { WORDS_MAX };
        if length > most {
            return Err(Error::failed(format!("a frame of {length} bytes, {most} at most")));
        }
        let Some(body) = there.get(PREFIX_BYTES..PREFIX_BYTES + length) else {
            return Ok(self.wait());
        };
        let frame = decode(kind, body)?;
        self.from += PREFIX_BYTES + length;
        Ok(Some(frame))
    }

    /// Makes room before more is read.
    fn wait(&mut self) -> Option<Frame> {
        self.buffer.drain(..self.from);
        self.from = 0;
        None
    }
}

fn decode(kind: u8, body: &[u8]) -> Result<Frame> {
    fn words<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T> {
        serde_json::from_slice(body).map_err(|e| Error::failed(format!("a frame's words: {e}")))
    }
    Ok(match kind {
        0 => Frame::Hello(words::<Box<Hello>>(body)?),
        1 => {
            let Some((head, rest)) = body.split_first_chunk::<HEADER_BYTES>() else {
                return Err(Error::failed("an entry without a header"));
            };
            let (mut entry, bytes, hash) = Entry::from_header(head)?;
            if bytes != rest.len() || !Entry::body_fits(rest, hash) {
                return Err(Error::failed(format!("entry {} is damaged", entry.no)));
            }
            entry.body = rest.to_vec();
            Frame::Entry(Arc::new(entry))
        }
        2 => {
            let Welcomed { next_no, points, held } = words(body)?;
            Frame::Welcome { next_no, points, held }
        }
        3 => {
            let Acked { received_no, durable_no, points } = words(body)?;
            Frame::Ack { received_no, durable_no, points }
        }
        4 => Frame::Full,
        5 => Frame::Refuse(words(body)?),
        6 => Frame::Ask(words(body)?),
        7 => sums(body).ok_or_else(|| Error::failed("digests that answer no question"))?,
        _ => return Err(Error::failed(format!("a frame of unknown kind {kind}"))),
    })
}

fn sums(body: &[u8]) -> Option<Frame> {
    let (head, rest) = body.split_first_chunk::<ASK_BYTES>()?;
    let mut words = head.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    let ask = Ask {
        disk: u16::try_from(words.next()?).ok()?,
        offset_bytes: words.next()?,
        length_bytes: words.next()?,
        block_bytes: words.next()?,
    };
    let (sums, []) = rest.as_chunks::<SUM_BYTES>() else { return None };
    let sums: Vec<u128> = sums.iter().map(|sum| u128::from_le_bytes(*sum)).collect();
    let fits = sums.is_empty() || ask.blocks().count() == sums.len();
    (ask.is_fair() && fits).then_some(Frame::Sums(ask, sums))
}

/// A connection that never blocks.
pub struct Channel {
    socket: TcpStream,
    tls: Connection,
    frames: Frames,
    /// Not yet given to TLS, how much of the first one is, and what is left in bytes.
    out: VecDeque<Encoded>,
    out_from: usize,
    out_bytes: usize,
    /// Read from the socket, not yet by TLS: a call for each of its own reads, of 4 KiB, would
    /// take most of the time.
    inbox: Vec<u8>,
    unread: Range<usize>,
    pub sent_bytes: u64,
}

impl Channel {
    /// # Errors
    /// The socket cannot be set up.
    pub fn new(socket: TcpStream, mut tls: Connection) -> Result<Self> {
        let set_up = socket.set_nonblocking(true).and_then(|()| socket.set_nodelay(true));
        set_up.map_err(|e| Error::failed("cannot set a socket up").caused_by(e))?;
        tls.set_buffer_limit(Some(1 << 20));
        Ok(Self {
            socket,
            tls,
            frames: Frames::default(),
            out: VecDeque::new(),
            out_from: 0,
            out_bytes: 0,
            inbox: vec![0; INBOX_MIN],
            unread: 0..0,
            sent_bytes: 0,
        })
    }

    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Bytes that wait for the socket.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.tls.wants_write() || self.out_bytes > 0
    }

    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.out_bytes
    }

    pub fn send(&mut self, frame: &Frame) {
        self.send_encoded(Encoded::of(frame.clone()));
    }

    pub fn send_encoded(&mut self, frame: Encoded) {
        self.out_bytes += frame.bytes();
        self.out.push_back(frame);
    }

    /// Gives TLS as much as it takes; many small frames at a time, for each time is a record.
    fn encrypt(&mut self) -> Result<()> {
        while self.out_bytes > 0 {
            let mut parts: [&[u8]; PARTS] = [&[]; PARTS];
            for (parts, frame) in parts.chunks_exact_mut(2).zip(&self.out) {
                (parts[0], parts[1]) = (&frame.head, frame.body());
            }
            let in_head = self.out_from.min(parts[0].len());
            parts[0] = &parts[0][in_head..];
            parts[1] = &parts[1][self.out_from - in_head..];
            let parts = parts.map(std::io::IoSlice::new);
            let some = self.tls.writer().write_vectored(&parts).map_err(broken)?;
            if some == 0 {
                break;
            }
            self.out_bytes -= some;
            self.out_from += some;
            while let Some(first) = self.out.front().map(Encoded::bytes)
                && self.out_from >= first
            {
                self.out_from -= first;
                self.out.pop_front();
            }
        }
        Ok(())
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn write(&mut self) -> Result<()> {
        loop {
            if !self.tls.is_handshaking() {
                self.encrypt()?;
            }
            if !self.tls.wants_write() {
                return Ok(());
            }
            match self.tls.write_tls(&mut self.socket) {
                Ok(0) => return Err(Error::failed("the peer has closed the connection")),
                Ok(bytes) => self.sent_bytes += bytes as u64,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(broken(e)),
            }
        }
    }

    /// Reads what there is, `most` bytes of plain text at most; whether there may be more.
    ///
    /// # Errors
    /// The connection is broken or closed, or the peer is not who it should be.
    pub fn read(&mut self, most: usize) -> Result<bool> {
        let mut got = 0;
        while got < most {
            if self.unread.is_empty() {
                match self.socket.read(&mut self.inbox) {
                    Ok(0) => return Err(Error::failed("the peer has closed the connection")),
                    Ok(bytes) => self.unread = 0..bytes,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                    Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                    Err(e) => return Err(broken(e)),
                }
            }
            let mut unread = &self.inbox[self.unread.clone()];
            self.unread.start += self.tls.read_tls(&mut unread).map_err(broken)?;
            let state = self.tls.process_new_packets().map_err(|e| {
                // The peer is told why, if it still listens.
                let _ = self.tls.write_tls(&mut self.socket);
                super::tls::told(e)
            })?;
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let mut reader = self.tls.reader();
                let some = reader.fill_buf().map_err(broken)?;
                let bytes = some.len();
                if bytes == 0 {
                    break;
                }
                self.frames.buffer.extend_from_slice(some);
                reader.consume(bytes);
                got += bytes;
                left = left.saturating_sub(bytes);
            }
            if self.inbox.len() < INBOX_BYTES
                && !self.tls.is_handshaking()
                && self.unread.is_empty()
            {
                // The peer has the key.
                self.inbox = vec![0; INBOX_BYTES];
            }
        }
        Ok(true)
    }

    /// # Errors
    /// As [`Frames::next_frame`].
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        self.frames.next_frame()
    }
}

fn broken(e: std::io::Error) -> Error {
    Error::failed("the connection is broken").caused_by(e)
}

/// Waits until one of these can be read (or written, where asked), at most `timeout_ns`.
pub fn wait(ends: &[(RawFd, bool)], timeout_ns: u64) {
    let mut polled: Vec<libc::pollfd> = ends
        .iter()
        .map(|(fd, write)| libc::pollfd {
            fd: *fd,
            events: if *write { libc::POLLIN | libc::POLLOUT } else { libc::POLLIN },
            revents: 0,
        })
        .collect();
    let timeout = libc::timespec {
        tv_sec: (timeout_ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (timeout_ns % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: as many valid entries as said; no signal mask.
    unsafe {
        libc::ppoll(
            polled.as_mut_ptr(),
            polled.len() as libc::nfds_t,
            &raw const timeout,
            std::ptr::null(),
        )
    };
}
