//! The link of the wall clock: a thread with a TLS connection to a site. It sends at the declared
//! bandwidth and holds frames back for half the round trip each way, so that a line can be
//! emulated on loopback; compression and encryption are done here, off the guest's path.

use std::collections::VecDeque;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::channel::{Channel, Encoded, wait};
use super::dial::dial;
use super::entry::{Codec, Entry};
use super::faults::Fault;
use super::frame::Frame;
use super::link::{Link, LinkEvent};
use super::model::Line;
use crate::backends::waker::{Bell, Wake, Waker};
use crate::clock::{Ns, monotonic_ns, thread_cpu_ns};
use crate::error::{Error, ErrorKind, Result};

/// How far ahead of the line's pace a frame may be taken up: covers a thread that wakes late.
const AHEAD_NS: Ns = 3_000_000;
const IDLE_NS: Ns = 200_000_000;
/// A thread that is later than this leaves the line idle.
const LATE_NS: Ns = 10_000_000;
/// Fewer bytes than this are never compressed: it would gain nothing.
const COMPRESS_MIN: usize = 256;

struct Shared {
    /// Each with the time at which it was sent.
    frames: Mutex<VecDeque<(Ns, Frame)>>,
    queued_bytes: AtomicU64,
    /// Queued beyond this, no more is wanted.
    enough_bytes: u64,
    /// Frames and commands given so far, and whether the thread sleeps until there are more.
    posted: AtomicU64,
    asleep: AtomicBool,
    events: Mutex<VecDeque<(Ns, LinkEvent)>>,
    commands: Mutex<Vec<Command>>,
    up: AtomicBool,
    ready: AtomicBool,
    bell: Bell,
    waker: Mutex<Option<Waker>>,
    wire_bytes: AtomicU64,
    busy_ns: AtomicU64,
    cpu_ns: AtomicU64,
}

enum Command {
    Connect,
    Reset(String),
    Shape(bool, Ns),
    Stop,
}

impl Shared {
    fn tell(&self, ready_ns: Ns, event: LinkEvent) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push_back((ready_ns, event));
        self.wake();
    }

    /// There is more for the thread: ends its sleep, if it sleeps.
    fn post(&self) {
        // Either the thread sees the count before it sleeps, or this sees that it does.
        self.posted.fetch_add(1, SeqCst);
        if self.asleep.swap(false, SeqCst) {
            self.bell.wake();
        }
    }

    /// The worker has something to do here.
    fn wake(&self) {
        self.ready.store(true, Relaxed);
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake();
        }
    }
}

/// The filter's side.
pub struct TcpLink {
    shared: Arc<Shared>,
    /// Started with the first connection.
    end: Option<End>,
    thread: Option<JoinHandle<()>>,
    /// What was counted before the line was shaped: bytes, and time busy and of the processor.
    before: [u64; 3],
}

impl TcpLink {
    /// # Errors
    /// The thread cannot be started.
    pub fn new(site: &str, config: Arc<ClientConfig>, line: Line, codec: Codec) -> Result<Self> {
        let shared = Arc::new(Shared {
            frames: Mutex::default(),
            queued_bytes: AtomicU64::new(0),
            enough_bytes: ((line.bytes_per_s * 0.01) as u64).clamp(256 << 10, 8 << 20),
            posted: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            events: Mutex::default(),
            commands: Mutex::default(),
            up: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            bell: Bell::new()?,
            waker: Mutex::new(None),
            wire_bytes: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
            cpu_ns: AtomicU64::new(0),
        });
        let end = End {
            shared: Arc::clone(&shared),
            site: site.to_owned(),
            config,
            line,
            codec,
            shaped: false,
            start_ns: Ns::MAX,
            channel: None,
            free_ns: 0,
            leaving: VecDeque::new(),
            arriving: VecDeque::new(),
            one_way_ns: 0,
        };
        Ok(Self { shared, end: Some(end), thread: None, before: [0; 3] })
    }

    /// Bytes on the wire, time busy and time of the processor, ns.
    fn counted(&self) -> [u64; 3] {
        [&self.shared.wire_bytes, &self.shared.busy_ns, &self.shared.cpu_ns]
            .map(|n| n.load(Relaxed))
    }

    fn command(&self, command: Command) {
        self.shared.commands.lock().unwrap_or_else(PoisonError::into_inner).push(command);
        self.shared.post();
    }
}

impl Link for TcpLink {
    fn connect(&mut self, _now: Ns) {
        if let Some(mut end) = self.end.take() {
            let thread = std::thread::Builder::new().name("link".to_owned());
            match thread.spawn(move || end.run()) {
                Ok(thread) => self.thread = Some(thread),
                Err(error) => {
                    let why = format!("cannot start a thread: {error}");
                    self.shared.tell(monotonic_ns(), LinkEvent::Down(why));
                }
            }
        }
        self.command(Command::Connect);
    }

    fn reset(&mut self, _now: Ns, why: &str) {
        self.shared.up.store(false, Relaxed);
        self.command(Command::Reset(why.to_owned()));
    }

    fn send(&mut self, _now: Ns, frame: Frame) {
        self.shared.queued_bytes.fetch_add(frame.wire_bytes(1.0), Relaxed);
        self.shared
            .frames
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back((monotonic_ns(), frame));
        self.shared.post();
    }

    fn wants(&self, _now: Ns) -> bool {
        self.shared.up.load(Relaxed)
            && self.shared.queued_bytes.load(Relaxed) < self.shared.enough_bytes
    }

    fn is_ready(&self) -> bool {
        self.shared.ready.load(Relaxed)
    }

    fn poll(&mut self, _now: Ns, out: &mut Vec<LinkEvent>) {
        self.shared.ready.store(false, Relaxed);
        let now = monotonic_ns();
        let mut events = self.shared.events.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((ready_ns, mut event)) = events.pop_front() {
            // The worker may look late: that is no part of the point's age.
            if let LinkEvent::Frame { one_way_ns, .. } = &mut event {
                *one_way_ns += now.saturating_sub(ready_ns);
            }
            out.push(event);
        }
    }

    fn shape(&mut self, on: bool, _now: Ns) {
        // What was sent before has been confirmed: all of it is counted.
        self.before = self.counted();
        self.command(Command::Shape(on, monotonic_ns()));
    }

    fn wake_by(&mut self, waker: Waker) {
        *self.shared.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
    }

    fn close(&mut self, _now: Ns) -> serde_json::Value {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let [now, before] = [self.counted(), self.before];
        let since = |i: usize| now[i] - before[i];
        serde_json::json!({"sent_bytes": since(0), "busy_ns": since(1), "cpu_ns": since(2)})
    }
}

impl Drop for TcpLink {
    fn drop(&mut self) {
        self.close(0);
    }
}

/// The thread's side.
struct End {
    shared: Arc<Shared>,
    site: String,
    config: Arc<ClientConfig>,
    line: Line,
    codec: Codec,
    shaped: bool,
    start_ns: Ns,
    channel: Option<(Channel, bool)>,
    /// When the line has sent all that was taken up.
    free_ns: Ns,
    /// Bytes on their way, by when they arrive.
    leaving: VecDeque<(Ns, Encoded)>,
    arriving: VecDeque<(Ns, Frame)>,
    /// Half of the shortest round trip that was seen.
    one_way_ns: Ns,
}

impl End {
    fn run(&mut self) {
        crate::clock::end_sleeps_in_time();
        loop {
            let posted = self.shared.posted.load(SeqCst);
            if !self.obey() {
                break;
            }
            let now = monotonic_ns();
            self.strike(now);
            if let Err(error) = self.turn(now) {
                self.lose(&error);
            }
            self.shared.cpu_ns.store(thread_cpu_ns(), Relaxed);
            let due = self.next_due_ns();
            let now = monotonic_ns();
            let timeout = due.saturating_sub(now).min(IDLE_NS);
            let bell = self.shared.bell.fd();
            self.shared.asleep.store(true, SeqCst);
            if self.shared.posted.load(SeqCst) != posted {
                self.shared.asleep.store(false, SeqCst);
                continue;
            }
            match &self.channel {
                Some((channel, _)) => {
                    wait(&[(bell, false), (channel.fd(), channel.wants_write())], timeout);
                }
                None => wait(&[(bell, false)], timeout),
            }
            self.shared.asleep.store(false, SeqCst);
            self.shared.bell.clear();
        }
    }

    /// Carries out what the filter asked for; false to end.
    fn obey(&mut self) -> bool {
        let commands = std::mem::take(
            &mut *self.shared.commands.lock().unwrap_or_else(PoisonError::into_inner),
        );
        for command in commands {
            match command {
                Command::Connect => {
                    if let Err(error) = self.connect() {
                        self.disconnect(&error.to_string());
                        // Nothing was up: the source waits for this word alone.
                        self.shared.tell(
                            monotonic_ns(),
                            LinkEvent::Down(format!("cannot connect: {error}")),
                        );
                    }
                }
                Command::Reset(why) => self.disconnect(&why),
                Command::Shape(on, now) => {
                    self.shaped = on;
                    if on {
                        self.start_ns = now;
                    }
                }
                Command::Stop => return false,
            }
        }
        true
    }

    fn connect(&mut self) -> Result<()> {
        self.channel = None;
        if self.outage_end(monotonic_ns()).is_some() {
            std::thread::sleep(Duration::from_millis(10));
            return Err(Error::failed("the line is out"));
        }
        let unreachable =
            |e: std::io::Error| Error::failed(format!("site {}", self.site)).caused_by(e);
        let addresses: Vec<SocketAddr> =
            self.site.to_socket_addrs().map_err(unreachable)?.collect();
        let (socket, took_ns) = dial(&addresses).map_err(unreachable)?;
        self.one_way_ns = took_ns / 2;
        let address = socket.peer_addr().map_err(unreachable)?;
        let name = ServerName::IpAddress(address.ip().into());
        let tls = ClientConnection::new(Arc::clone(&self.config), name)
            .map_err(|e| Error::failed(format!("TLS: {e}")))?;
        self.channel = Some((Channel::new(socket, tls.into())?, false));
        Ok(())
    }

    fn disconnect(&mut self, why: &str) {
        self.lose(&Error::failed(why));
    }

    fn lose(&mut self, error: &Error) {
        self.leaving.clear();
        self.arriving.clear();
        self.free_ns = 0;
        self.shared.up.store(false, Relaxed);
        self.shared.frames.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.shared.queued_bytes.store(0, Relaxed);
        if self.channel.take().is_some() {
            let event = match error.kind {
                // The user's mistake, which time does not mend.
                ErrorKind::Input => LinkEvent::Stranger(error.to_string()),
                _ => LinkEvent::Down(error.to_string()),
            };
            self.shared.tell(monotonic_ns(), event);
        }
    }

    /// Changes the line as its faults say.
    fn strike(&mut self, now: Ns) {
        let since = now.saturating_sub(self.start_ns);
        let mut i = 0;
        while i < self.line.faults.len() {
            let fault = self.line.faults[i];
            let due = match fault {
                Fault::Reset { at_ns } | Fault::Restart { at_ns, .. } => at_ns,
                Fault::Bandwidth { at_ns, .. } | Fault::Rtt { at_ns, .. } => at_ns,
                Fault::Outage { .. } => Ns::MAX,
            };
            if self.start_ns == Ns::MAX || due > since {
                i += 1;
                continue;
            }
            self.line.faults.remove(i);
            match fault {
                Fault::Bandwidth { bytes_per_s, .. } => self.line.bytes_per_s = bytes_per_s,
                Fault::Rtt { rtt_ns, .. } => self.line.rtt_ns = rtt_ns,
                _ => self.disconnect("connection reset"),
            }
        }
    }

    /// The end of the outage that there is now.
    fn outage_end(&self, now: Ns) -> Option<Ns> {
        let since = now.checked_sub(self.start_ns)?;
        self.line.faults.iter().find_map(|fault| match *fault {
            Fault::Outage { from_ns, to_ns } if (from_ns..to_ns).contains(&since) => {
                Some(self.start_ns + to_ns)
            }
            _ => None,
        })
    }

    const fn half_rtt_ns(&self) -> Ns {
        if self.shaped { self.line.rtt_ns / 2 } else { 0 }
    }

    /// One look at everything.
    fn turn(&mut self, now: Ns) -> Result<()> {
        let outage = self.outage_end(now).is_some();
        let half = self.half_rtt_ns();
        let Some((channel, up)) = &mut self.channel else { return Ok(()) };
        channel.write()?;
        // A peer that closes has often told why before: its words come first.
        let ended = channel.read(4 << 20).err();
        while let Some(frame) = channel.next_frame()? {
            self.arriving.push_back((now + half, frame));
        }
        if !*up && !channel.is_handshaking() {
            *up = true;
            self.shared.up.store(true, Relaxed);
            self.shared.tell(now, LinkEvent::Up);
        }
        if !outage {
            self.take_up(now);
            self.deliver(now, ended.is_some());
        }
        let Some((channel, _)) = &mut self.channel else { return Ok(()) };
        ended.map_or(Ok(()), Err)?;
        channel.write()
    }

    /// Hands over what has come through the line in either direction.
    fn deliver(&mut self, now: Ns, all: bool) {
        let Some((channel, _)) = &mut self.channel else { return };
        while self.leaving.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, frame)) = self.leaving.pop_front() else { break };
            channel.send_encoded(frame);
        }
        let half = if self.shaped { self.line.rtt_ns / 2 } else { 0 };
        while self.arriving.front().is_some_and(|(at, _)| *at <= now || all) {
            let Some((at, frame)) = self.arriving.pop_front() else { break };
            let one_way_ns = self.one_way_ns + half;
            self.shared.tell(at.min(now), LinkEvent::Frame { frame, one_way_ns });
        }
    }

    /// Takes frames up at the line's pace.
    fn take_up(&mut self, now: Ns) {
        let Some((channel, true)) = &self.channel else { return };
        // The socket's own queue is no part of the line.
        let mut waiting = channel.waiting_bytes();
        let half = self.half_rtt_ns();
        while self.free_ns <= now + AHEAD_NS && waiting < (8 << 20) {
            let next =
                self.shared.frames.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((sent_ns, frame)) = next else { break };
            let queued = frame.wire_bytes(1.0);
            let data_share = frame.payload_bytes(1.0) as f64 / queued as f64;
            let frame = Encoded::of(match frame {
                Frame::Entry(entry)
                    if self.codec != Codec::None && entry.body.len() >= COMPRESS_MIN =>
                {
                    Frame::Entry(Arc::new(packed(&entry, self.codec)))
                }
                frame => frame,
            });
            let before = self.shared.queued_bytes.fetch_sub(queued, Relaxed);
            let bytes = frame.bytes();
            self.shared.wire_bytes.fetch_add(bytes as u64, Relaxed);
            let took = if self.shaped {
                (bytes as f64 * data_share / self.line.bytes_per_s * 1e9) as Ns
            } else {
                0
            };
            // The line was at work while this thread was a little late for it.
            self.free_ns = self.free_ns.max(sent_ns.max(now.saturating_sub(LATE_NS))) + took;
            self.shared.busy_ns.fetch_add(took, Relaxed);
            waiting += bytes;
            self.leaving.push_back((self.free_ns + half, frame));
            let enough = self.shared.enough_bytes;
            if before >= enough && before.saturating_sub(queued) < enough {
                // There is room again: the source may have more.
                self.shared.wake();
            }
        }
    }

    fn next_due_ns(&self) -> Ns {
        let leaving = self.leaving.front().map(|(at, _)| *at);
        let arriving = self.arriving.front().map(|(at, _)| *at);
        let queued = self.shared.queued_bytes.load(Relaxed) > 0;
        let line = queued.then(|| self.free_ns.saturating_sub(AHEAD_NS));
        let due = [leaving, arriving, line].into_iter().flatten().min().unwrap_or(Ns::MAX);
        match self.outage_end(monotonic_ns()) {
            Some(end) => due.max(end),
            None => due,
        }
    }
}

/// The entry with its body compressed, or as it is where that gains nothing.
pub fn packed(entry: &Entry, codec: Codec) -> Entry {
    let body = match codec {
        Codec::Lz4 => lz4_flex::block::compress(&entry.body),
        Codec::Zstd => zstd::bulk::compress(&entry.body, 1).unwrap_or_default(),
        Codec::None => Vec::new(),
    };
    if body.is_empty() || body.len() >= entry.body.len() {
        return entry.clone();
    }
    Entry { codec, body, ..entry.clone_without_body() }
}
