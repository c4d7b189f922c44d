//! Connecting by a name, which may have several addresses.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::clock::{Ns, monotonic_ns};

/// For all addresses of a name together.
const CONNECT_NS: Ns = 5_000_000_000;

/// Connects with the first of a name's addresses that answers, and how long that took.
///
/// # Errors
/// What the first address said, where none answers.
pub fn dial(addresses: &[SocketAddr]) -> std::io::Result<(TcpStream, Ns)> {
    let each = Duration::from_nanos(CONNECT_NS / addresses.len().max(1) as Ns);
    let mut why = None;
    for address in addresses {
        let began = monotonic_ns();
        match TcpStream::connect_timeout(address, each) {
            Ok(socket) => return Ok((socket, monotonic_ns() - began)),
            Err(error) => why = why.or(Some(error)),
        }
    }
    Err(why.unwrap_or_else(|| std::io::Error::other("no such address")))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_name_s_second_address_is_tried_where_the_first_does_not_answer() {
        let there = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // Nobody listens any more where the first listener was.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (socket, _) = dial(&[there, listener.local_addr().unwrap()]).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), listener.local_addr().unwrap());
        assert!(dial(&[there]).is_err());
        assert_eq!(dial(&[]).unwrap_err().to_string(), "no such address");
    }
}
