//! A connected stream that never blocks, and reading and writing it by a deadline.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::uri::Address;
use crate::clock::monotonic_ns;

pub struct Socket(OwnedFd);

/// A moment by which something must be done.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(u64);

impl Deadline {
    #[must_use]
    pub fn after_ns(ns: u64) -> Self {
        Self(monotonic_ns().saturating_add(ns))
    }

    fn left_ns(self) -> io::Result<u64> {
        match self.0.saturating_sub(monotonic_ns()) {
            0 => Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
            left => Ok(left),
        }
    }
}

impl Socket {
    /// # Errors
    /// The system's reason, or that the time was up.
    pub fn connect(address: &Address, deadline: Deadline) -> io::Result<Self> {
        match address {
            Address::Unix(path) => Self::connect_unix(Path::new(path), deadline),
            Address::Tcp(host, port) => Self::connect_tcp(host, *port, deadline),
        }
    }

    fn connect_tcp(host: &str, port: u16, deadline: Deadline) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in (host, port).to_socket_addrs()? {
            let left = Duration::from_nanos(deadline.left_ns()?);
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => {
                    // Requests are small and are sent in batches: nothing is gained by a wait.
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    return Ok(Self(stream.into()));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Not the standard library's, which waits without end while the server's backlog is full.
    fn connect_unix(path: &Path, deadline: Deadline) -> io::Result<Self> {
        // SAFETY: plain data.
        let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        let bytes = path.as_os_str().as_bytes();
        if bytes.len() >= address.sun_path.len() {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        for (to, from) in address.sun_path.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: takes numbers and gives a new descriptor.
        let fd = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and nobody else's.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        // SAFETY: `address` is a whole sockaddr_un.
        while unsafe { libc::connect(fd, (&raw const address).cast(), length) } != 0 {
            let error = io::Error::last_os_error();
            if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) {
                return Err(error);
            }
            let step = deadline.left_ns()?.min(10_000_000);
            std::thread::sleep(Duration::from_nanos(step));
        }
        Ok(socket)
    }

    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Fills `bytes`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the peer ends first, `ETIMEDOUT`, or the system's reason.
    pub fn read_by(&self, mut bytes: &mut [u8], deadline: Deadline) -> io::Result<()> {
        while !bytes.is_empty() {
            // SAFETY: `bytes` is valid for its length.
            let got = unsafe { libc::recv(self.fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
            match got {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                got if got > 0 => bytes = &mut bytes[got as usize..],
                _ => self.ready_by(libc::POLLIN, deadline)?,
            }
        }
        Ok(())
    }

    /// # Errors
    /// As [`Socket::read_by`].
    pub fn write_by(&self, mut bytes: &[u8], deadline: Deadline) -> io::Result<()> {
        while !bytes.is_empty() {
            // SAFETY: `bytes` is valid for its length.
            let put = unsafe {
                libc::send(self.fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL)
            };
            if put >= 0 {
                bytes = &bytes[put as usize..];
            } else {
                self.ready_by(libc::POLLOUT, deadline)?;
            }
        }
        Ok(())
    }

    /// After a call that failed: waits where it only would have blocked.
    fn ready_by(&self, events: i16, deadline: Deadline) -> io::Result<()> {
        let error = io::Error::last_os_error();
        if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) {
            return Err(error);
        }
        let mut poll = libc::pollfd { fd: self.fd(), events, revents: 0 };
        let left_ms = deadline.left_ns()?.div_ceil(1_000_000).min(i32::MAX as u64) as i32;
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&raw mut poll, 1, left_ms) };
        Ok(())
    }
}
