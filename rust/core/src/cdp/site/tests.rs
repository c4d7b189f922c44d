//! A site and what comes to its port, over real sockets.

use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::*;
use crate::cdp::entry::{Entry, Kind};
use crate::cdp::frame::{Hello, VERSION};

const KEY: &[u8] = b"an agreed word of some length";
const PATIENCE_NS: Ns = 20_000_000_000;

fn site() -> (tempfile::TempDir, Site) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let site = Site::start("127.0.0.1:0", &dir, KEY, 0, 1 << 20).unwrap();
    (folder, site)
}

fn connect(site: &Site) -> Channel {
    let socket = TcpStream::connect(site.address).unwrap();
    let name = ServerName::IpAddress(site.address.ip().into());
    let config = Secret::new(KEY).unwrap().client().unwrap();
    Channel::new(socket, ClientConnection::new(config, name).unwrap().into()).unwrap()
}

fn hello(run: &str) -> Hello {
    Hello {
        version: VERSION,
        run: run.into(),
        disks: vec!["disk".into()],
        disk_bytes: vec![1 << 20],
        acked_no: 0,
        fresh: true,
        first: true,
        continuous: false,
        early: false,
        retention_ns: 0,
        retention_bytes: 0,
        long_term: None,
        stream: String::new(),
    }
}

/// The next frame that the site sends.
fn next(channel: &mut Channel) -> Result<Frame> {
    let until = monotonic_ns() + PATIENCE_NS;
    loop {
        channel.write()?;
        let ended = channel.read(1 << 16).err();
        if let Some(frame) = channel.next_frame()? {
            return Ok(frame);
        }
        ended.map_or(Ok(()), Err)?;
        assert!(monotonic_ns() < until, "the site says nothing");
        wait(&[(channel.fd(), channel.wants_write())], LOOK_UP_NS);
    }
}

fn greet(site: &Site, hello: Hello) -> (Channel, Result<Frame>) {
    let mut channel = connect(site);
    channel.send(&Frame::Hello(Box::new(hello)));
    let answer = next(&mut channel);
    (channel, answer)
}

#[test]
fn peers_without_the_key_keep_nobody_out_and_fill_no_log() {
    let (_folder, mut site) = site();
    let silent: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(site.address).unwrap()).collect();
    let (_source, answer) = greet(&site, hello("a"));
    assert!(matches!(answer, Ok(Frame::Welcome { .. })), "{answer:?}");
    drop(silent);
    site.stop();
    let lines: Vec<String> = std::iter::from_fn(|| site.next_line(0)).collect();
    let refused = lines.iter().filter(|line| line.contains("refused")).count();
    assert!((1..=10).contains(&refused), "{lines:?}");
}

/// Sends the entry that is next, a point, and waits until it is durable.
fn send_point(channel: &mut Channel, no: u64) -> Result<()> {
    let point = Kind::Point { id: no, cut_ns: no, after_no: no - 1 };
    channel.send(&Frame::Entry(Arc::new(Entry::mark(no, point, no))));
    loop {
        match next(channel)? {
            Frame::Ack { durable_no, .. } if durable_no == no => return Ok(()),
            Frame::Ack { .. } => {}
            other => return Err(Error::failed(format!("{other:?}"))),
        }
    }
}

#[test]
fn a_source_that_is_refused_disturbs_nobody() {
    let (_folder, site) = site();
    let (mut source, answer) = greet(&site, hello("a"));
    assert!(matches!(answer, Ok(Frame::Welcome { .. })), "{answer:?}");
    send_point(&mut source, 1).unwrap();
    let (_other, answer) = greet(&site, hello("b"));
    assert!(matches!(answer, Ok(Frame::Refuse(_))), "{answer:?}");
    send_point(&mut source, 2).unwrap();
    // One of the same run takes over.
    let (mut again, answer) = greet(&site, Hello { first: false, acked_no: 2, ..hello("a") });
    assert!(matches!(answer, Ok(Frame::Welcome { next_no: 3, .. })), "{answer:?}");
    send_point(&mut again, 3).unwrap();
    assert!(send_point(&mut source, 4).is_err());
}

#[test]
fn a_store_is_not_that_of_a_source_that_was_refused() {
    let (_folder, site) = site();
    let (_, answer) = greet(&site, Hello { acked_no: 5, ..hello("a") });
    assert!(matches!(answer, Ok(Frame::Refuse(_))), "{answer:?}");
    let (_, answer) = greet(&site, hello("b"));
    assert!(matches!(answer, Ok(Frame::Welcome { next_no: 1, .. })), "{answer:?}");
}
