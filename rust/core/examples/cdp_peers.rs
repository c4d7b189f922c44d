//! What `scripts/bench_cdp_path.py` and `scripts/bench_cdp_link.py` compare replication with: a
//! plain copy of 4 KiB in memory, and a plain copy through the same TLS library.
//!
//! ```text
//! cdp_peers copy                        nanoseconds of a copy of 4 KiB, a line a repetition
//! cdp_peers receive KEY                 the port on a line, then all bytes of one connection
//! cdp_peers send ADDRESS KEY SECONDS    bytes and nanoseconds until the peer has all
//! ```

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use vaio_bench_core::cdp::tls::Secret;

type Done = Result<(), Box<dyn Error>>;

/// As the source sends: an entry's worth at a time.
const PIECE_BYTES: usize = 256 << 10;
/// What the journal holds of a stream whose link keeps up.
const JOURNAL_BYTES: usize = 1 << 20;
const BLOCK_BYTES: usize = 4096;

fn main() -> Done {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["copy"] => {
            copy();
            Ok(())
        }
        ["receive", key] => receive(key),
        ["send", address, key, seconds] => send(address, key, seconds.parse()?),
        _ => Err("expected: copy | receive KEY | send ADDRESS KEY SECONDS".into()),
    }
}

/// The source of each copy was written just before, as a guest's buffer was; its destination is
/// where the journal's next record goes.
fn copy() {
    const COPIES: usize = 1000;
    let mut guest = vec![0u8; 32 * BLOCK_BYTES];
    let mut journal = vec![1u8; JOURNAL_BYTES];
    for repetition in 0..200u32 {
        guest.fill(repetition as u8);
        let began = Instant::now();
        for i in 0..COPIES {
            let from = i % 32 * BLOCK_BYTES;
            let to = i * BLOCK_BYTES % JOURNAL_BYTES;
            let from = std::hint::black_box(&guest[from..from + BLOCK_BYTES]);
            journal[to..to + BLOCK_BYTES].copy_from_slice(from);
            std::hint::black_box(&mut journal);
        }
        println!("{}", began.elapsed().as_nanos() as f64 / COPIES as f64);
    }
}

fn receive(key: &str) -> Done {
    let config = Secret::new(&std::fs::read(key)?)?.server()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let (socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, socket);
    let mut buffer = vec![0; PIECE_BYTES];
    let mut received = 0u64;
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            bytes => received += bytes as u64,
        }
    }
    stream.write_all(&received.to_le_bytes())?;
    stream.flush()?;
    Ok(())
}

fn send(address: &str, key: &str, seconds: f64) -> Done {
    let config = Secret::new(&std::fs::read(key)?)?.client()?;
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let name = ServerName::IpAddress(socket.peer_addr()?.ip().into());
    let mut tls = ClientConnection::new(config, name)?;
    tls.set_buffer_limit(Some(1 << 20));
    let mut stream = StreamOwned::new(tls, socket);
    let piece: Vec<u8> = (0..PIECE_BYTES).map(|i| ((i * 31) >> 3) as u8).collect();
    stream.flush()?;
    let (began, lasts) = (Instant::now(), Duration::from_secs_f64(seconds));
    let mut sent = 0u64;
    while began.elapsed() < lasts {
        stream.write_all(&piece)?;
        sent += PIECE_BYTES as u64;
    }
    stream.conn.send_close_notify();
    stream.flush()?;
    let mut got = [0; 8];
    stream.read_exact(&mut got)?;
    let took = began.elapsed().as_nanos();
    if u64::from_le_bytes(got) != sent {
        return Err("the peer did not get all bytes".into());
    }
    println!("{sent} {took}");
    Ok(())
}
