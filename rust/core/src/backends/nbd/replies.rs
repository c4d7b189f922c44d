//! The stream of replies: taken apart as it arrives, a read's bytes put where they belong.

use super::link::{Broken, Part, Parts};
use super::wire::{
    self, SIMPLE_REPLY_BYTES, STRUCTURED_REPLY_BYTES, chunk, command, u16_at, u32_at, u64_at,
};
use crate::io::OK;

const BUFFER_BYTES: usize = 256 << 10;
/// Of a read's bytes that are still to come, as many are worth a vector of their own: they arrive
/// where they belong without a copy.
const DIRECT_BYTES: usize = 16 << 10;
/// Behind a long read's bytes as many are taken in: the next header, and next to nothing of the
/// bytes behind it, which would have to be copied.
const HEADER_BYTES: usize = 64;
/// "The server SHOULD NOT send more than 4096 bytes" of an error's text.
const ERROR_BYTES_MAX: u32 = 16 << 10;

/// Bytes of a read that are on their way.
#[derive(Clone, Copy)]
struct Payload {
    place: u32,
    to: *mut u8,
    left: usize,
    /// The answer is whole with them.
    last: bool,
}

pub struct Replies {
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
    payload: Option<Payload>,
    /// Bytes of the first of `room`'s vectors, when it is a read's own.
    direct: usize,
    /// The last answer had bytes enough for a vector of their own; so may the next.
    is_long: bool,
}

impl Default for Replies {
    fn default() -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            from: 0,
            to: 0,
            payload: None,
            direct: 0,
            is_long: false,
        }
    }
}

impl Replies {
    /// Where the next bytes go: how many of the two vectors are used. Then `take_in`.
    pub fn room(&mut self) -> ([libc::iovec; 2], usize) {
        self.buffer.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        let rest = &mut self.buffer[self.to..];
        let iov_len = if self.is_long { rest.len().min(HEADER_BYTES) } else { rest.len() };
        let own = libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len };
        match self.payload.filter(|payload| self.to == 0 && payload.left >= DIRECT_BYTES) {
            Some(payload) => {
                self.direct = payload.left;
                let direct = libc::iovec { iov_base: payload.to.cast(), iov_len: payload.left };
                ([direct, own], 2)
            }
            None => {
                self.direct = 0;
                ([own, own], 1)
            }
        }
    }

    /// Takes in `got` bytes at the place that `room` named.
    pub fn take_in(
        &mut self,
        got: usize,
        parts: &mut Parts,
        ended: &mut Vec<u32>,
    ) -> Result<(), Broken> {
        let direct = got.min(self.direct);
        self.to += got - direct;
        if direct > 0 {
            self.advance(direct, parts, ended);
        }
        loop {
            if let Some(payload) = self.payload {
                let ready = payload.left.min(self.to - self.from);
                // SAFETY: the rest of an open read's bytes, which its slot (or bounce) lends until
                // the part has ended, and bytes of our own buffer.
                unsafe {
                    let from = self.buffer.as_ptr().add(self.from);
                    std::ptr::copy_nonoverlapping(from, payload.to, ready);
                }
                self.from += ready;
                self.advance(ready, parts, ended);
                if self.payload.is_some() {
                    return Ok(());
                }
            }
            if !self.header(parts, ended)? {
                return Ok(());
            }
        }
    }

    /// So many bytes of the payload are in their place.
    fn advance(&mut self, bytes: usize, parts: &mut Parts, ended: &mut Vec<u32>) {
        let Some(payload) = &mut self.payload else { return };
        payload.left -= bytes;
        if payload.left == 0 {
            if payload.last {
                parts.end(payload.place, ended);
            }
            self.payload = None;
        } else {
            // SAFETY: short of the end of the read's bytes.
            payload.to = unsafe { payload.to.add(bytes) };
        }
    }

    /// Takes one header off the buffer; false when it is not all there yet.
    fn header(&mut self, parts: &mut Parts, ended: &mut Vec<u32>) -> Result<bool, Broken> {
        let bytes = &self.buffer[self.from..self.to];
        if bytes.len() < SIMPLE_REPLY_BYTES {
            // Garbage is told at once, not when enough of it has come.
            return if bytes.len() >= 4 { magic(bytes).map(|_| false) } else { Ok(false) };
        }
        match magic(bytes)? {
            wire::SIMPLE_REPLY_MAGIC => self.simple(parts, ended).map(|()| true),
            _ if bytes.len() < STRUCTURED_REPLY_BYTES => Ok(false),
            _ => self.structured(parts, ended),
        }
    }

    fn simple(&mut self, parts: &mut Parts, ended: &mut Vec<u32>) -> Result<(), Broken> {
        let bytes = &self.buffer[self.from..self.to];
        let (error, cookie) = (u32_at(bytes, 4), u64_at(bytes, 8));
        let (place, part) = parts.find(cookie)?;
        self.from += SIMPLE_REPLY_BYTES;
        self.is_long = false;
        if error != 0 {
            part.status = wire::errno(error);
        } else if part.command == command::READ {
            let left = part.length_bytes as usize;
            part.got_bytes = part.length_bytes;
            self.is_long = left >= DIRECT_BYTES;
            self.payload = Some(Payload { place, to: part.data, left, last: true });
            return Ok(());
        }
        parts.end(place, ended);
        Ok(())
    }

    fn structured(&mut self, parts: &mut Parts, ended: &mut Vec<u32>) -> Result<bool, Broken> {
        let bytes = &self.buffer[self.from..self.to];
        let (flags, kind) = (u16_at(bytes, 4), u16_at(bytes, 6));
        let (cookie, length) = (u64_at(bytes, 8), u32_at(bytes, 16));
        let (place, part) = parts.find(cookie)?;
        let body = &bytes[STRUCTURED_REPLY_BYTES..];
        let is_last = flags & wire::CHUNK_DONE != 0;
        // What must be there before the chunk can be taken in.
        let needed = match kind {
            chunk::NONE if length == 0 && is_last => 0,
            chunk::OFFSET_DATA if length > 8 && part.command == command::READ => 8,
            chunk::OFFSET_HOLE if length == 12 && part.command == command::READ => 12,
            _ if kind & chunk::ERROR != 0 && (6..=ERROR_BYTES_MAX).contains(&length) => {
                length as usize
            }
            _ => {
                return Err(Broken::garbage(format!(
                    "a chunk of type {kind} with {length} bytes in answer to command {}",
                    part.command
                )));
            }
        };
        if body.len() < needed {
            return Ok(false);
        }
        self.is_long = kind == chunk::OFFSET_DATA && length as usize >= DIRECT_BYTES;
        match kind {
            chunk::NONE => {}
            chunk::OFFSET_DATA => {
                let to = within(part, u64_at(body, 0), length - 8)?;
                let left = length as usize - 8;
                part.got_bytes = part.got_bytes.saturating_add(length - 8);
                self.payload = Some(Payload { place, to, left, last: is_last });
            }
            chunk::OFFSET_HOLE => {
                let hole = u32_at(body, 8);
                let to = within(part, u64_at(body, 0), hole)?;
                part.got_bytes = part.got_bytes.saturating_add(hole);
                // SAFETY: `within` saw that so many bytes of the read's begin there.
                unsafe { std::ptr::write_bytes(to, 0, hole as usize) };
            }
            _ if part.status == OK => part.status = wire::errno(u32_at(body, 0)),
            _ => {}
        }
        let short = part.command == command::READ && part.got_bytes != part.length_bytes;
        if is_last && part.status == OK && short {
            return Err(Broken::garbage(format!(
                "{} bytes in answer to a read of {}",
                part.got_bytes, part.length_bytes
            )));
        }
        if is_last && self.payload.is_none() {
            parts.end(place, ended);
        }
        self.from += STRUCTURED_REPLY_BYTES + needed;
        Ok(true)
    }
}

fn magic(bytes: &[u8]) -> Result<u32, Broken> {
    match u32_at(bytes, 0) {
        known @ (wire::SIMPLE_REPLY_MAGIC | wire::STRUCTURED_REPLY_MAGIC) => Ok(known),
        other => Err(Broken::garbage(format!("{other:#010x} where a reply's magic was expected"))),
    }
}

/// Where in a read's memory a range of the disk belongs.
fn within(part: &Part, offset: u64, length: u32) -> Result<*mut u8, Broken> {
    let fits = |at: &u64| {
        length > 0 && at.saturating_add(u64::from(length)) <= u64::from(part.length_bytes)
    };
    let at = offset.checked_sub(part.offset_bytes).filter(fits);
    match at {
        // SAFETY: inside the part's bytes.
        Some(at) => Ok(unsafe { part.data.add(at as usize) }),
        None => Err(Broken::garbage(format!(
            "{length} bytes of offset {offset} in answer to a read of {} bytes of offset {}",
            part.length_bytes, part.offset_bytes
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: u32 = 64;

    fn simple(cookie: u64, data: usize) -> Vec<u8> {
        let mut reply = wire::SIMPLE_REPLY_MAGIC.to_be_bytes().to_vec();
        reply.extend(0u32.to_be_bytes());
        reply.extend(cookie.to_be_bytes());
        reply.extend(vec![7; data]);
        reply
    }

    /// Puts bytes where `room` has them arrive.
    fn arrive(
        replies: &mut Replies,
        parts: &mut Parts,
        ended: &mut Vec<u32>,
        bytes: &[u8],
    ) -> Result<(), Broken> {
        let ([own, _], count) = replies.room();
        assert!(count == 1 && bytes.len() <= own.iov_len);
        // SAFETY: the vector has room for them.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), own.iov_base.cast(), bytes.len()) };
        replies.take_in(bytes.len(), parts, ended)
    }

    #[test]
    fn an_answer_that_comes_twice_is_garbage() {
        for (command, data) in [(command::READ, LENGTH as usize), (command::WRITE, 0)] {
            let once = simple(0, data).len();
            // The second is cut in its header, in its data, or not at all.
            for arrived in [once + 16, once + 16 + data / 2, 2 * once] {
                let (mut replies, mut parts) = (Replies::default(), Parts::default());
                let mut memory = vec![0u8; LENGTH as usize];
                let mut part = Part::new(3, command, 0, LENGTH);
                part.data = memory.as_mut_ptr();
                let (place, cookie) = parts.put_sent(part);
                let twice = [simple(cookie, data), simple(cookie, data)].concat();
                let mut ended = Vec::new();
                let told = arrive(&mut replies, &mut parts, &mut ended, &twice[..arrived]);
                assert!(told.is_err_and(|broken| broken.words.contains("which is not open")));
                assert!(replies.payload.is_none());
                assert_eq!(ended, [place]);
                assert!(parts.take(place).is_some() && parts.take(place).is_none());
                // The place is free once.
                let others = [1, 2].map(|id| parts.put_sent(Part::new(id, command, 0, LENGTH)).0);
                assert_ne!(others[0], others[1]);
            }
        }
    }
}
