//! One connection in transmission: many requests in flight, sent in batches, replies in any order.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use super::replies::Replies;
use super::socket::Socket;
use super::wire::{self, Header, REQUEST_BYTES, command};
use crate::backends::Request;
use crate::backends::align::Bounce;
use crate::clock::Ns;
use crate::io::{OK, Status};
use crate::slab::IoId;

/// Vectors of one call: header and data of half as many requests.
const VECTORS_MAX: usize = 512;

/// Why a connection is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// For the I/Os that were in flight.
    pub status: Status,
    pub words: String,
}

impl Broken {
    pub fn garbage(words: String) -> Self {
        Self { status: libc::EPROTO, words: format!("the server sent garbage: {words}") }
    }

    fn system(what: &str) -> Self {
        let error = std::io::Error::last_os_error();
        let status = error.raw_os_error().unwrap_or(libc::EIO);
        match status {
            libc::EPIPE | libc::ECONNRESET => Self::closed(),
            _ => Self { status, words: format!("cannot {what} the server: {error}") },
        }
    }

    pub fn closed() -> Self {
        Self {
            status: libc::ECONNRESET,
            words: "the server closed the connection in the middle of the run".to_owned(),
        }
    }
}

/// One request on the wire: an I/O, or a part of one.
pub struct Part {
    pub id: IoId,
    pub command: u16,
    pub flags: u16,
    pub offset_bytes: u64,
    pub length_bytes: u32,
    /// Where a read's bytes go, or a write's come from.
    pub data: *mut u8,
    /// An unaligned part: what was asked for, and the aligned span around it.
    pub bounce: Option<(Bounce, Request)>,
    /// The answer so far.
    pub got_bytes: u32,
    pub status: Status,
}

/// A place for a part. The generation tells an answer to this part from one to an earlier part.
#[derive(Default)]
struct Place {
    part: Option<Part>,
    generation: u32,
    /// All of it: nobody can answer what has not been asked.
    is_sent: bool,
    /// In whole; the part is taken only after all that arrived with its answer was.
    is_answered: bool,
}

/// The parts that are on their way, by the cookie that the server answers with.
#[derive(Default)]
pub struct Parts {
    places: Vec<Place>,
    headers: Vec<Header>,
    free: Vec<u32>,
}

impl Parts {
    fn put(&mut self, part: Part) -> u32 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            self.headers.push([0; REQUEST_BYTES]);
            self.places.len() as u32 - 1
        });
        let place = &mut self.places[at as usize];
        place.generation = place.generation.wrapping_add(1);
        let cookie = u64::from(place.generation) << 32 | u64::from(at);
        self.headers[at as usize] =
            wire::request(part.flags, part.command, cookie, part.offset_bytes, part.length_bytes);
        place.part = Some(part);
        (place.is_sent, place.is_answered) = (false, false);
        at
    }

    pub fn take(&mut self, at: u32) -> Option<Part> {
        let part = self.places[at as usize].part.take()?;
        self.free.push(at);
        Some(part)
    }

    /// A part's answer is whole: another one for it is garbage from now on.
    pub fn end(&mut self, at: u32, ended: &mut Vec<u32>) {
        self.places[at as usize].is_answered = true;
        ended.push(at);
    }

    /// The part that a cookie means.
    pub fn find(&mut self, cookie: u64) -> Result<(u32, &mut Part), Broken> {
        let (at, generation) = (cookie as u32, (cookie >> 32) as u32);
        self.places
            .get_mut(at as usize)
            .filter(|place| place.generation == generation && place.is_sent && !place.is_answered)
            .and_then(|place| place.part.as_mut())
            .map(|part| (at, part))
            .ok_or_else(|| {
                Broken::garbage(format!("an answer to request {cookie:#x}, which is not open"))
            })
    }

    #[must_use]
    pub fn open(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// A part whose request counts as sent, and its cookie.
    #[cfg(test)]
    pub fn put_sent(&mut self, part: Part) -> (u32, u64) {
        let at = self.put(part);
        let place = &mut self.places[at as usize];
        place.is_sent = true;
        (at, u64::from(place.generation) << 32 | u64::from(at))
    }

    fn is_open(&self, at: u32, generation: u32) -> bool {
        let place = &self.places[at as usize];
        place.generation == generation && place.part.is_some()
    }
}

pub struct Link {
    socket: Socket,
    pub parts: Parts,
    replies: Replies,
    /// Places whose requests are not sent whole, and how many bytes of the first are.
    queue: VecDeque<u32>,
    sent_bytes: usize,
    vectors: Vec<libc::iovec>,
    /// In the order of sending, to find the one that waits longest.
    waiting: VecDeque<(u32, u32, Ns)>,
    timeout_ns: u64,
    /// The kernel said that there is something to read.
    pub readable: bool,
}

impl Link {
    #[must_use]
    pub fn new(socket: Socket, timeout_ns: u64) -> Self {
        Self {
            socket,
            parts: Parts::default(),
            replies: Replies::default(),
            queue: VecDeque::new(),
            sent_bytes: 0,
            vectors: Vec::with_capacity(VECTORS_MAX),
            waiting: VecDeque::new(),
            timeout_ns,
            readable: false,
        }
    }

    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.socket.fd()
    }

    #[must_use]
    pub fn has_unsent(&self) -> bool {
        !self.queue.is_empty()
    }

    pub fn enqueue(&mut self, part: Part, now: Ns) {
        let at = self.parts.put(part);
        self.waiting.push_back((at, self.parts.places[at as usize].generation, now));
        self.queue.push_back(at);
    }

    /// Sends what the socket takes of all that waits.
    pub fn send(&mut self) -> Result<(), Broken> {
        while !self.queue.is_empty() {
            let wanted = self.gather();
            // SAFETY: plain data.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_iov = self.vectors.as_mut_ptr();
            message.msg_iovlen = self.vectors.len() as _;
            // SAFETY: the vectors describe headers of ours and bytes that slots (or bounces) lend
            // until their parts are done.
            let sent = unsafe {
                libc::sendmsg(
                    self.fd(),
                    &raw const message,
                    libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
                )
            };
            if sent < 0 {
                match std::io::Error::last_os_error().raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(()),
                    Some(libc::EINTR) => continue,
                    _ => return Err(Broken::system("send to")),
                }
            }
            self.drop_sent(sent as usize);
            if (sent as usize) < wanted {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Vectors of what is to be sent next; of how many bytes.
    fn gather(&mut self) -> usize {
        self.vectors.clear();
        let (mut wanted, mut skip) = (0, self.sent_bytes);
        for at in &self.queue {
            if self.vectors.len() + 2 > VECTORS_MAX {
                break;
            }
            let header = &self.parts.headers[*at as usize];
            let Some(part) = &self.parts.places[*at as usize].part else { break };
            let data = part.sent_data_bytes();
            for (from, length) in [(header.as_ptr().cast_mut(), REQUEST_BYTES), (part.data, data)] {
                if skip >= length {
                    skip -= length;
                    continue;
                }
                // SAFETY: within the header, or the part's data.
                let base = unsafe { from.add(skip) };
                let iov_len = length - skip;
                self.vectors.push(libc::iovec { iov_base: base.cast(), iov_len });
                wanted += iov_len;
                skip = 0;
            }
        }
        wanted
    }

    fn drop_sent(&mut self, sent: usize) {
        let mut sent = sent + self.sent_bytes;
        while let Some(at) = self.queue.front() {
            let Some(part) = &self.parts.places[*at as usize].part else { break };
            let data = part.sent_data_bytes();
            if sent < REQUEST_BYTES + data {
                break;
            }
            sent -= REQUEST_BYTES + data;
            self.parts.places[*at as usize].is_sent = true;
            self.queue.pop_front();
        }
        self.sent_bytes = sent;
    }

    /// Takes in what has arrived; places whose answer is whole go to `ended`.
    pub fn receive(&mut self, ended: &mut Vec<u32>) -> Result<(), Broken> {
        self.readable = false;
        loop {
            let (vectors, count) = self.replies.room();
            let wanted: usize = vectors[..count].iter().map(|vector| vector.iov_len).sum();
            // SAFETY: the vectors describe the rest of an open read's bytes, and our own buffer.
            let got = unsafe { libc::readv(self.fd(), vectors.as_ptr(), count as i32) };
            if got < 0 {
                match std::io::Error::last_os_error().raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(()),
                    Some(libc::EINTR) => continue,
                    _ => return Err(Broken::system("receive from")),
                }
            }
            if got == 0 {
                return Err(Broken::closed());
            }
            self.replies.take_in(got as usize, &mut self.parts, ended)?;
            if (got as usize) < wanted {
                return Ok(());
            }
        }
    }

    /// An error once a request has waited for its answer longer than it may.
    pub fn check_time(&mut self, now: Ns) -> Result<(), Broken> {
        while let Some((at, generation, since)) = self.waiting.front().copied() {
            if self.parts.is_open(at, generation) {
                if now.saturating_sub(since) > self.timeout_ns {
                    let seconds = self.timeout_ns as f64 / 1e9;
                    return Err(Broken {
                        status: libc::ETIMEDOUT,
                        words: format!("the server did not answer a request within {seconds} s"),
                    });
                }
                break;
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Says goodbye if that does not take any time.
    pub fn close(&mut self) {
        if self.queue.is_empty() {
            let bye = wire::request(0, command::DISCONNECT, 0, 0, 0);
            let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
            // SAFETY: a whole header of ours.
            unsafe { libc::send(self.fd(), bye.as_ptr().cast(), bye.len(), flags) };
        }
    }
}

impl Part {
    /// A part without data or flags.
    #[must_use]
    pub const fn new(id: IoId, command: u16, offset_bytes: u64, length_bytes: u32) -> Self {
        Self {
            id,
            command,
            flags: 0,
            offset_bytes,
            length_bytes,
            data: std::ptr::null_mut(),
            bounce: None,
            got_bytes: 0,
            status: OK,
        }
    }

    /// Bytes that follow its header.
    const fn sent_data_bytes(&self) -> usize {
        if self.command == command::WRITE { self.length_bytes as usize } else { 0 }
    }
}

// SAFETY: a link's pointers lead into slots and bounces, which belong to the worker whose thread
// calls it; it changes threads only before the first request.
unsafe impl Send for Link {}
