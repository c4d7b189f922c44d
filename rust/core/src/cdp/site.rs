//! The replica site: a process that listens, takes sources that have the shared key, and keeps
//! what they send in a store. One source at a time; a new connection of the same run takes over
//! from the old one, which may not have noticed yet that it is dead.
//!
//! A peer without the key gets no further than the handshake; one that sends nothing, or garbage,
//! is shown the door in seconds, and takes no place from those that have the key. Memory is
//! bounded: so many connections, each with a buffer for one frame, which is small until the peer
//! has shown its key and said hello.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustls::{ServerConfig, ServerConnection};

use self::door::{Door, Stranger};
use super::channel::{Channel, wait};
use super::frame::Frame;
use super::replica::Replica;
use super::store::Store;
use super::tls::Secret;
use crate::clock::{Ns, monotonic_ns};
use crate::error::{Error, Result};

mod door;
#[cfg(test)]
mod tests;

/// A peer has this long for handshake and hello.
const GREETING_NS: Ns = 5_000_000_000;
/// Connections at one time of peers that have the key.
const CONNECTIONS_MAX: usize = 32;
const NOTHING_SAID: &str = "it said nothing within 5 s";
/// Read at most at a time from a peer that has not said hello.
const HANDSHAKE_BYTES: usize = 1 << 16;
const LOOK_UP_NS: Ns = 100_000_000;
/// Looks between two questions of what retention asks for, and after it went wrong.
const CHORES_TURNS: u64 = 3;
const RETRY_TURNS: u64 = 600;
/// What is taken in between two confirmations.
const TURN_BYTES: usize = 4 << 20;

struct Shared {
    replica: Mutex<Replica<Store>>,
    /// The connection that may append; older ones end when they see that it is not theirs. It
    /// changes while the replica is locked.
    session: AtomicU64,
    connections: AtomicUsize,
    door: Mutex<Door>,
    stop: AtomicBool,
    log: Mutex<Sender<String>>,
    cpu_ns: AtomicU64,
    received_bytes: AtomicU64,
}

impl Shared {
    fn say(&self, line: String) {
        let _ = self.log.lock().unwrap_or_else(PoisonError::into_inner).send(line);
    }

    fn tell_refused(&self, now: Ns) {
        let line = self.door().line(now);
        if let Some(line) = line {
            self.say(line);
        }
    }

    fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A site under way.
pub struct Site {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    log: Receiver<String>,
    threads: Vec<JoinHandle<()>>,
}

impl Site {
    /// Opens the store and listens.
    ///
    /// # Errors
    /// `Input` when the store, the key or the address cannot be used.
    pub fn start(
        address: &str,
        dir: &Path,
        key: &[u8],
        capacity_bytes: u64,
        segment_bytes: u64,
    ) -> Result<Self> {
        let tls = Secret::new(key)?.server()?;
        let mut store = Store::open(dir, capacity_bytes, segment_bytes)?;
        store.leave_chores();
        let cannot = |e| Error::input(format!("cannot listen on {address}")).caused_by(e);
        let listener = TcpListener::bind(address).map_err(cannot)?;
        listener.set_nonblocking(true).map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let (say, log) = channel();
        let shared = Arc::new(Shared {
            replica: Mutex::new(Replica::new(store)),
            session: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            door: Mutex::default(),
            stop: AtomicBool::new(false),
            log: Mutex::new(say),
            cpu_ns: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
        });
        let mut site = Self { address, shared, log, threads: Vec::new() };
        let own = Arc::clone(&site.shared);
        site.spawn("site", move || listen(&listener, &own, &tls))?;
        let own = Arc::clone(&site.shared);
        site.spawn("site-retention", move || retain(&own))?;
        Ok(site)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
        self.threads.push(thread.map_err(|e| Error::failed("cannot start a thread").caused_by(e))?);
        Ok(())
    }

    /// The next line of the log within `timeout_ns`.
    #[must_use]
    pub fn next_line(&self, timeout_ns: Ns) -> Option<String> {
        self.log.recv_timeout(std::time::Duration::from_nanos(timeout_ns)).ok()
    }

    /// Takes no more, ends all connections; what there was to tell, as JSON.
    pub fn stop(&mut self) -> serde_json::Value {
        self.shared.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        let replica = self.shared.replica.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::json!({
            "cpu_s": self.shared.cpu_ns.load(Relaxed) as f64 / 1e9,
            "received_bytes": self.shared.received_bytes.load(Relaxed),
            "points": replica.vault.points().count(),
            "journal_bytes": replica.vault.journal_bytes(),
        })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Retention, beside the sources: only where a file is replaced does the store wait for it.
fn retain(shared: &Shared) {
    let store = || shared.replica.lock().unwrap_or_else(PoisonError::into_inner);
    let goes_on = || !shared.stop.load(Relaxed);
    let pause = |turns: u64| {
        (0..turns).all(|_| {
            wait(&[], LOOK_UP_NS);
            goes_on()
        })
    };
    while goes_on() {
        let chore = store().vault.next_chore();
        let Some(mut chore) = chore else {
            pause(CHORES_TURNS);
            continue;
        };
        let bytes = store().vault.bytes_of(&chore);
        let done = wait_for(&|| store().vault.begin(&chore), &pause)
            .and_then(|begun| Ok(begun && chore.run(&mut || goes_on())?))
            .and_then(|ran| Ok(ran && wait_for(&|| store().vault.finish(&chore), &pause)?));
        if let (Ok(true), Some(line)) = (&done, chore.told(bytes)) {
            shared.say(line);
        }
        if let Err(error) = done {
            shared.say(format!("retention: {error}: tried again in a minute"));
            pause(RETRY_TURNS);
        }
    }
    shared.cpu_ns.fetch_add(crate::clock::thread_cpu_ns(), Relaxed);
}

/// Asks again while a recovery reads the files, and the site goes on.
fn wait_for(what: &dyn Fn() -> Result<bool>, pause: &dyn Fn(u64) -> bool) -> Result<bool> {
    loop {
        match what() {
            Ok(false) if pause(1) => {}
            done => return done,
        }
    }
}

fn listen(listener: &TcpListener, shared: &Arc<Shared>, tls: &Arc<ServerConfig>) {
    use std::os::fd::AsRawFd;
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    while !shared.stop.load(Relaxed) {
        let is_open = shared.door().is_open(monotonic_ns());
        let all = [(listener.as_raw_fd(), false)];
        let (ends, lasts) =
            if is_open { (&all[..], LOOK_UP_NS) } else { (&[][..], LOOK_UP_NS / 10) };
        wait(ends, lasts);
        threads.retain(|thread| !thread.is_finished());
        shared.tell_refused(monotonic_ns());
        if !is_open {
            continue;
        }
        let (socket, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
            Err(_) => {
                // No file descriptor is left, say: it waits for one.
                wait(&[], LOOK_UP_NS / 10);
                continue;
            }
        };
        let (own, tls) = (Arc::clone(shared), Arc::clone(tls));
        let stranger = shared.door().enter(monotonic_ns());
        let thread = std::thread::Builder::new().name("site-source".to_owned());
        let serving = Arc::clone(&stranger);
        let thread = thread.spawn(move || {
            receive(socket, peer, &own, tls, &serving);
            own.cpu_ns.fetch_add(crate::clock::thread_cpu_ns(), Relaxed);
        });
        match thread {
            Ok(thread) => threads.push(thread),
            Err(_) => shared.door().leave(&stranger),
        }
    }
    for thread in threads {
        let _ = thread.join();
    }
    shared.tell_refused(Ns::MAX);
}

/// One connection, from handshake to end.
fn receive(
    socket: TcpStream,
    peer: SocketAddr,
    shared: &Shared,
    tls: Arc<ServerConfig>,
    stranger: &Stranger,
) {
    let deadline = monotonic_ns() + GREETING_NS;
    let admitted = admit(socket, shared, tls, stranger, deadline);
    shared.door().leave(stranger);
    let mut channel = match admitted {
        Ok(Some(channel)) => channel,
        Ok(None) => return,
        Err(error) => return shared.door().refused(format!("{peer}: refused: {error}")),
    };
    let done = if shared.connections.fetch_add(1, Relaxed) < CONNECTIONS_MAX {
        serve(&mut channel, shared, deadline)
    } else {
        Err(Error::failed(format!("refused: {CONNECTIONS_MAX} connections are open")))
    };
    shared.connections.fetch_sub(1, Relaxed);
    match done {
        Ok(()) => shared.say(format!("{peer}: done")),
        Err(error) => shared.say(format!("{peer}: {error}")),
    }
}

/// The handshake: who is through it has the key. None where the site ends.
fn admit(
    socket: TcpStream,
    shared: &Shared,
    tls: Arc<ServerConfig>,
    stranger: &Stranger,
    deadline: Ns,
) -> Result<Option<Channel>> {
    let tls = ServerConnection::new(tls).map_err(|e| Error::failed(format!("TLS: {e}")))?;
    let mut channel = Channel::new(socket, tls.into())?;
    while channel.is_handshaking() {
        let broken = channel.read(HANDSHAKE_BYTES).err();
        let done = channel.write();
        broken.map_or(done, Err)?;
        if shared.stop.load(Relaxed) {
            return Ok(None);
        }
        if monotonic_ns() > deadline {
            return Err(Error::failed(NOTHING_SAID));
        }
        if stranger.load(Relaxed) {
            return Err(Error::failed("others came, and it was not through with the handshake"));
        }
        if channel.is_handshaking() {
            wait(&[(channel.fd(), channel.wants_write())], LOOK_UP_NS);
        }
    }
    Ok(Some(channel))
}

/// What a peer says that has the key.
fn serve(channel: &mut Channel, shared: &Shared, deadline: Ns) -> Result<()> {
    let hello = loop {
        // What came with the end of the handshake may be all of it.
        match channel.next_frame() {
            Ok(Some(Frame::Hello(hello))) => break hello,
            Ok(Some(_)) => return Err(Error::failed("refused: it did not say hello first")),
            Ok(None) => {}
            Err(error) => return Err(Error::failed(format!("refused: {error}"))),
        }
        if monotonic_ns() > deadline {
            return Err(Error::failed(format!("refused: {NOTHING_SAID}")));
        }
        if shared.stop.load(Relaxed) {
            return Ok(());
        }
        wait(&[(channel.fd(), channel.wants_write())], LOOK_UP_NS);
        let broken = channel.read(HANDSHAKE_BYTES).err();
        let done = channel.write();
        let refused = |error| Error::failed(format!("refused: {error}"));
        broken.map_or(done, |error| Err(refused(error)))?;
    };
    let (answer, session) = {
        let mut replica = shared.replica.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = replica.greet(&hello, monotonic_ns());
        // Who is refused takes over from nobody.
        let taken = u64::from(!matches!(answer, Frame::Refuse(_)));
        (answer, shared.session.fetch_add(taken, Relaxed) + taken)
    };
    channel.send(&answer);
    if let Frame::Refuse(why) = answer {
        flush(channel, deadline);
        return Err(Error::failed(format!("refused: {why}")));
    }
    shared.say(format!("run {}: connected, entry {} is next", hello.run, next_no(&answer)));
    take_entries(channel, shared, session, hello.early)
}

const fn next_no(answer: &Frame) -> u64 {
    match answer {
        Frame::Welcome { next_no, .. } => *next_no,
        _ => 0,
    }
}

fn flush(channel: &mut Channel, deadline: Ns) {
    while channel.wants_write() && monotonic_ns() < deadline {
        if channel.write().is_err() {
            return;
        }
        wait(&[(channel.fd(), channel.wants_write())], LOOK_UP_NS / 10);
    }
}

fn take_entries(channel: &mut Channel, shared: &Shared, session: u64, early: bool) -> Result<()> {
    loop {
        channel.write()?;
        let more = channel.read(TURN_BYTES)?;
        if shared.stop.load(Relaxed) {
            return Ok(());
        }
        let mut took = 0u64;
        {
            let mut replica = shared.replica.lock().unwrap_or_else(PoisonError::into_inner);
            // Nothing is taken from this one after the other's greeting.
            if shared.session.load(Relaxed) != session {
                return Err(Error::failed("a newer connection of the run has taken over"));
            }
            while let Some(frame) = channel.next_frame()? {
                let entry = match frame {
                    Frame::Entry(entry) => entry,
                    Frame::Ask(ask) => {
                        match replica.sums(ask) {
                            answer @ Frame::Refuse(_) => return refuse(channel, shared, &answer),
                            answer => channel.send(&answer),
                        }
                        continue;
                    }
                    _ => return Err(Error::failed("refused: it sends what no source sends")),
                };
                took += entry.body.len() as u64 + 1;
                if let Some(answer) = replica.take(&entry, monotonic_ns())? {
                    return refuse(channel, shared, &answer);
                }
            }
            if took > 0 {
                shared.received_bytes.fetch_add(took, Relaxed);
                if early {
                    channel.send(&replica.received());
                    channel.write()?;
                }
                match replica.sync(monotonic_ns())? {
                    Some(answer @ Frame::Ack { .. }) => channel.send(&answer),
                    Some(answer) => return refuse(channel, shared, &answer),
                    None => {}
                }
            }
        }
        channel.write()?;
        if !more {
            wait(&[(channel.fd(), channel.wants_write())], LOOK_UP_NS);
        }
    }
}

/// The source is told why it is taken no further.
fn refuse(channel: &mut Channel, shared: &Shared, answer: &Frame) -> Result<()> {
    channel.send(answer);
    flush(channel, monotonic_ns() + GREETING_NS);
    match answer {
        Frame::Full => {
            shared.say("the store is full: the source marks blocks until there is room".to_owned());
            Ok(())
        }
        Frame::Refuse(why) => Err(Error::failed(format!("refused: {why}"))),
        _ => Ok(()),
    }
}
