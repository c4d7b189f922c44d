//! `nbd`: an NBD server in place of the device.
//!
//! Sockets that never block, driven by the worker's own thread: requests are gathered and sent at
//! a kick, replies taken apart when completions are asked for, and a wait is a poll of the kernel.
//! An I/O becomes one request or several: parts of at most the server's largest block, each in
//! whole blocks of its smallest, a part that is not being read, changed and written back.

use std::sync::Arc;

use self::link::{Broken, Link, Part};
pub use self::server::{Server, Settings, check};
use self::spin::Spin;
pub use self::uri::Uri;
use self::wire::command;
use super::align::Bounce;
use super::psync::Pool;
use super::target::Target;
use super::waker::{Bell, Waker};
use super::{Backend, Completion, Counts, Request};
use crate::clock::{Ns, monotonic_ns};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{OK, Op, Status};
use crate::slab::IoId;

mod handshake;
mod link;
mod pieces;
mod replies;
mod server;
mod socket;
mod spin;
mod uri;
mod wire;

pub use self::handshake::Export;

pub const PAGE: &str = "\
# nbd

An NBD server takes the place of the device: somebody else's filters, behind the same harness. It is
the last filter of a policy and needs no `--backend`.

## Parameters
- `use`: `nbd+unix:///path.sock` (with `?export=NAME` where the server has several) or
  `nbd://host:port/export`; the standard form `nbd+unix:///export?socket=/path.sock` works too. For
  a trace of several disks, `{disk}` in it stands for the disk's name.
- `connections` (1 to 16, default 1): used where the server says that its connections share a cache
  (NBD_FLAG_CAN_MULTI_CONN).
- `timeout` (a time, default 30s): a request that waits longer ends the round.
- `connect_timeout` (a time, default 5s): for the connection and its handshake.

## Example
```toml
[policy]
name = \"nbdkit-cache\"

[[filter]]
use = \"nbd+unix:///tmp/cache.sock\"
```
Our write-back cache against nbdkit's, both over the same kind of file, which is 1 GiB large:
```sh
truncate -s 1G theirs.img
nbdkit -U /tmp/cache.sock --filter=cache file theirs.img cache=writeback
vaio-bench compare t.parquet --target ours.img --policy ours.toml --policy nbdkit-cache.toml \\
    --destroy-data -o RUN
```
The direct path goes to `--target`. To tell what nbdkit's filter costs from what the server itself
does, add a policy for a second nbdkit without the filter.

## What is asked of the server
The newstyle handshake (NBD_OPT_GO, or NBD_OPT_EXPORT_NAME), structured replies where offered, many
requests in flight, flush, trim, write zeroes and FUA. Where the server has no FUA, a flush follows
the write (`fua_by_flush` counts them); without flush nothing can be made durable, and the run says
so (`unflushed`). Its block sizes are respected: I/O below the smallest is a read-modify-write, and
counted. TLS and the oldstyle handshake are not spoken.

Where two requests or fewer are in flight and the server answers within 50 us, the client looks for
the answer before it sleeps: a wake-up would take as long. That costs a processor meanwhile; a slow
server makes it stop looking. CPU per I/O is not told of such a policy: the server's is not known.

The manifest says what stands there (size, flags, block sizes). What the export holds is overwritten
only with `--destroy-data`. A server that goes away, sends garbage or does not answer in time costs
the round, with a reason that names the URI; the I/Os in flight have the errno in their rows. The
rounds after it are tried: each is lost at once while nobody is there, and the other policies go on.
A server that is not there to begin with is a mistake in the policy.

## Unsuitable for
Virtual time: a server runs on the wall clock. Splitting the server's time among its filters: all of
it is the layer `nbd` (nbdkit's own `stats` and `log` filters tell more).
";

/// An I/O under way.
struct Active {
    request: Request,
    /// How much of it was made into parts.
    next_bytes: u64,
    open: u32,
    parts: u32,
    status: Status,
    /// The flush that stands for FUA is under way.
    is_flushing: bool,
}

/// Parts of one I/O that are under way at one time: a long write of zeroes has many.
const PARTS_MAX: u32 = 8;

pub struct Nbd {
    servers: Vec<Server>,
    links: Vec<Link>,
    /// By slot.
    active: Vec<Option<Active>>,
    /// Devices of the filters' own, which stay files.
    files: Arc<Vec<Target>>,
    pool: Pool,
    bell: Arc<Bell>,
    done: Vec<Completion>,
    ended: Vec<u32>,
    polls: Vec<libc::pollfd>,
    counts: Counts,
    /// What writes of zeroes send where the server does not know them.
    zeros: Bounce,
    now: Ns,
    spin: Spin,
    broken: Option<Status>,
    error: Option<Error>,
}

const POOL_THREADS: usize = 8;

impl Nbd {
    /// For `slots` requests; `files` are the targets that follow the disks.
    ///
    /// # Errors
    /// `Failed` when the kernel gives no event descriptor.
    pub fn new(mut servers: Vec<Server>, files: Arc<Vec<Target>>, slots: usize) -> Result<Self> {
        let mut links = Vec::new();
        for server in &mut servers {
            server.links = links.len()..links.len() + server.sockets.len();
            let timeout_ns = server.settings.timeout_ns;
            links.extend(server.sockets.drain(..).map(|socket| Link::new(socket, timeout_ns)));
        }
        let mut zeros = pieces::zeros();
        zeros.bytes().fill(0);
        Ok(Self {
            links,
            servers,
            active: (0..slots).map(|_| None).collect(),
            pool: Pool::new(Arc::clone(&files), POOL_THREADS, true, "nbd-files")?,
            files,
            bell: Arc::new(Bell::new()?),
            done: Vec::new(),
            ended: Vec::new(),
            polls: Vec::new(),
            counts: Counts::default(),
            zeros,
            now: 0,
            spin: Spin::default(),
            broken: None,
            error: None,
        })
    }

    fn complete(&mut self, id: IoId, status: Status, split: bool) {
        self.done.push(Completion { id, status, split });
    }

    /// Starts an I/O; what the server cannot do is answered here.
    fn start(&mut self, request: Request) {
        let server = &self.servers[request.disk as usize];
        let export = &server.export;
        let min = u64::from(export.block_min_bytes);
        let range = request.offset_bytes | request.length_bytes;
        match request.op {
            Op::Flush if !export.flush => {
                self.counts.unflushed += 1;
                return self.complete(request.id, OK, false);
            }
            // Advisory: a server that cannot is no error.
            Op::Discard if !export.trim => return self.complete(request.id, OK, false),
            Op::Flush => {}
            _ if request.length_bytes == 0 => return self.complete(request.id, OK, false),
            Op::Read | Op::Write | Op::WriteZeroes if range & (min - 1) != 0 => {
                self.counts.unaligned += 1;
            }
            _ => {}
        }
        let id = request.id;
        self.active[id as usize] = Some(Active {
            request,
            next_bytes: 0,
            open: 0,
            parts: 0,
            status: OK,
            is_flushing: false,
        });
        self.pump(id);
    }

    /// Makes parts of what is left of an I/O, and ends it when nothing is.
    fn pump(&mut self, id: IoId) {
        let Some(active) = &mut self.active[id as usize] else { return };
        let disk = active.request.disk as usize;
        let export = &self.servers[disk].export;
        if active.request.op == Op::Flush {
            if active.parts == 0 {
                (active.parts, active.open) = (1, 1);
                return self.enqueue(disk, Part::new(id, command::FLUSH, 0, 0));
            }
        } else {
            while active.open < PARTS_MAX && active.status == OK {
                let request = &active.request;
                let Some(piece) = pieces::next(request, active.next_bytes, export) else { break };
                active.next_bytes = piece.to_bytes;
                let Some(part) = pieces::part(request, &piece, export, &self.zeros) else {
                    continue;
                };
                active.open += 1;
                active.parts += 1;
                let link = self.servers[disk].pick(&self.links);
                self.links[link].enqueue(part, self.now);
            }
        }
        if active.open > 0 {
            return;
        }
        let writes = matches!(active.request.op, Op::Write | Op::WriteZeroes);
        let lacks_fua = writes && active.request.fua && !export.fua;
        if active.status == OK && lacks_fua && !active.is_flushing {
            active.is_flushing = true;
            if export.flush {
                self.counts.fua_by_flush += 1;
                active.open = 1;
                return self.enqueue(disk, Part::new(id, command::FLUSH, 0, 0));
            }
            self.counts.unflushed += 1;
        }
        let (status, split) = (active.status, active.parts > 1);
        self.active[id as usize] = None;
        self.complete(id, status, split);
    }

    fn enqueue(&mut self, disk: usize, part: Part) {
        let link = self.servers[disk].pick(&self.links);
        self.links[link].enqueue(part, self.now);
    }

    /// A part has its answer.
    fn part_ended(&mut self, link: usize, place: u32) {
        let Some(mut part) = self.links[link].parts.take(place) else { return };
        let id = part.id;
        if part.status == OK
            && let Some((bounce, piece)) = &mut part.bounce
            && part.command == command::READ
        {
            if piece.op == Op::Read {
                bounce.deliver(piece);
            } else {
                bounce.merge(piece);
                let fua = piece.fua && self.servers[piece.disk as usize].export.fua;
                part.command = command::WRITE;
                part.flags = if fua { wire::COMMAND_FUA } else { 0 };
                return self.links[link].enqueue(part, self.now);
            }
        }
        let Some(active) = &mut self.active[id as usize] else { return };
        active.open -= 1;
        if active.status == OK {
            active.status = part.status;
        }
        self.pump(id);
    }

    /// Does what a link has to do, and takes the consequences when it cannot.
    fn with_link(&mut self, at: usize, act: impl FnOnce(&mut Link) -> Result<(), Broken>) {
        if self.broken.is_some() {
            return;
        }
        let Err(broken) = act(&mut self.links[at]) else { return };
        let server = self.servers.iter().find(|server| server.links.contains(&at));
        let uri = server.map_or("", |server| server.export.uri.as_str());
        let is_silent = broken.status == libc::ETIMEDOUT;
        let kind = if is_silent { ErrorKind::ServerSilent } else { ErrorKind::ServerLost };
        self.error = Some(Error::new(kind, broken.words).with("file", uri));
        self.broken = Some(broken.status);
        // Nothing is read any more: the slots are free to go.
        self.links.clear();
        for id in 0..self.active.len() {
            if self.active[id].take().is_some() {
                self.complete(id as IoId, broken.status, false);
            }
        }
    }

    fn send(&mut self) {
        for at in 0..self.links.len() {
            if self.links.get(at).is_some_and(Link::has_unsent) {
                self.with_link(at, Link::send);
            }
        }
    }

    fn receive(&mut self, now: Ns) {
        let mut ended = std::mem::take(&mut self.ended);
        for at in 0..self.links.len() {
            let Some(link) = self.links.get(at) else { break };
            if !link.readable && link.parts.open() == 0 {
                continue;
            }
            self.with_link(at, |link| {
                link.receive(&mut ended)?;
                link.check_time(now)
            });
            for place in ended.drain(..) {
                if self.broken.is_none() {
                    self.part_ended(at, place);
                }
            }
        }
        self.ended = ended;
    }

    /// Looks for a reply for a while before a sleep; whether something came of it.
    fn look(&mut self, timeout_ns: u64) -> bool {
        let open: usize = self.links.iter().map(|link| link.parts.open()).sum();
        let Some(mut looking) = self.spin.begin(open, timeout_ns) else { return false };
        while looking.goes_on() {
            self.receive(self.now);
            if !self.done.is_empty() || self.broken.is_some() {
                return true;
            }
        }
        false
    }

    /// What to wait for: `(the sockets, then the files' bell, then the waker's)`.
    fn poll_for(&mut self, timeout_ns: u64) {
        self.polls.clear();
        for link in &self.links {
            let out = if link.has_unsent() { libc::POLLOUT } else { 0 };
            self.polls.push(libc::pollfd { fd: link.fd(), events: libc::POLLIN | out, revents: 0 });
        }
        let pool = self.pool.bell().map_or(-1, Bell::fd);
        for fd in [pool, self.bell.fd()] {
            self.polls.push(libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        }
        let timeout_ns = timeout_ns.min(3_600_000_000_000);
        let timeout = libc::timespec {
            tv_sec: (timeout_ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (timeout_ns % 1_000_000_000) as libc::c_long,
        };
        let (polls, count) = (self.polls.as_mut_ptr(), self.polls.len() as libc::nfds_t);
        // SAFETY: as many valid pollfds; the timeout is valid; no signal mask is changed.
        unsafe { libc::ppoll(polls, count, &raw const timeout, std::ptr::null()) };
        for (link, poll) in self.links.iter_mut().zip(&self.polls) {
            link.readable = poll.revents & !libc::POLLOUT != 0;
        }
        let bells = &self.polls[self.links.len()..];
        if bells[0].revents != 0
            && let Some(bell) = self.pool.bell()
        {
            bell.clear();
        }
        if bells[1].revents != 0 {
            self.bell.clear();
        }
    }
}

impl Backend for Nbd {
    fn submit(&mut self, mut request: Request, now: Ns) {
        self.now = now;
        let disks = self.servers.len();
        if request.disk as usize >= disks {
            request.disk -= disks as u16;
            self.pool.submit(request);
        } else if let Some(status) = self.broken {
            self.complete(request.id, status, false);
        } else {
            self.start(request);
        }
    }

    fn kick(&mut self) -> Result<()> {
        self.send();
        Ok(())
    }

    fn reap(&mut self, now: Ns, out: &mut Vec<Completion>) -> Result<()> {
        self.now = now;
        self.receive(now);
        // Second halves of what was read to be changed, and what did not fit before.
        self.send();
        if !self.files.is_empty() {
            self.pool.reap(&mut self.done);
        }
        out.append(&mut self.done);
        Ok(())
    }

    fn wait(&mut self, timeout_ns: u64) -> Result<()> {
        self.send();
        if !self.done.is_empty() {
            self.poll_for(0);
        } else if !self.look(timeout_ns) {
            let since = monotonic_ns();
            self.poll_for(timeout_ns);
            self.spin.learn(monotonic_ns() - since);
        }
        Ok(())
    }

    fn waker(&mut self) -> Waker {
        Arc::clone(&self.bell) as Waker
    }

    fn counts(&self) -> Counts {
        Counts { unaligned: self.counts.unaligned + self.pool.unaligned(), ..self.counts }
    }

    fn broken(&mut self) -> Option<Error> {
        self.error.take()
    }
}

impl Drop for Nbd {
    fn drop(&mut self) {
        for link in &mut self.links {
            link.close();
        }
    }
}
