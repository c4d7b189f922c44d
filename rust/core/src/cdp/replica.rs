//! The far end: takes entries in their order, each once, and tells how far it has got.

use std::collections::VecDeque;

use super::entry::Kind;
use super::frame::{Ask, Durable, Frame, Hello};
use super::vault::{Refusal, Vault};
use crate::clock::Ns;
use crate::error::Result;

/// Points whose time of durability is remembered for a source that was cut off.
const REMEMBERED: usize = 1024;

/// What became durable.
#[derive(Debug, PartialEq, Eq)]
pub enum Synced {
    Nothing,
    /// All entries up to this one, and the points among them.
    UpTo {
        no: u64,
        points: Vec<Durable>,
    },
    /// The store has no room for what it was given.
    Full,
}

/// The replica's side of the protocol, over any vault.
pub struct Replica<V> {
    pub vault: V,
    /// Points appended and not durable yet.
    fresh: Vec<u64>,
    /// Points that became durable, when, and after which entry.
    durable: VecDeque<(u64, Ns, u64)>,
    durable_no: u64,
    /// The last entry that was acknowledged as durable to this connection.
    told_no: u64,
}

impl<V: Vault> Replica<V> {
    pub fn new(vault: V) -> Self {
        let durable_no = vault.received_no();
        Self { vault, fresh: Vec::new(), durable: VecDeque::new(), durable_no, told_no: 0 }
    }

    /// Answers a source that has connected.
    pub fn greet(&mut self, hello: &Hello, now: Ns) -> Frame {
        if hello.version != super::frame::VERSION {
            return Frame::Refuse(format!(
                "the source speaks version {} of the protocol, the site {}",
                hello.version,
                super::frame::VERSION
            ));
        }
        // What it need not send again must not be lost again.
        let _ = self.vault.sync(now);
        self.durable_no = self.vault.received_no();
        for id in self.fresh.drain(..) {
            self.durable.push_back((id, now, self.durable_no));
        }
        let last_no = self.durable_no;
        if hello.acked_no > last_no {
            return Frame::Refuse(format!(
                "the store ends at entry {last_no}, the source knows {} to be durable: it is of \
                 another run, or was put back",
                hello.acked_no
            ));
        }
        // From here on the store is its own, and does as it says.
        let held = match self.vault.join(hello) {
            Ok(held) => held,
            Err(error) => return Frame::Refuse(error.to_string()),
        };
        self.told_no = last_no;
        let next_no = last_no + 1;
        Frame::Welcome { next_no, points: self.points_after(hello.acked_no, now), held }
    }

    /// Answers a source that compares. Where that cannot be done it sends all, as it would
    /// without asking.
    pub fn sums(&mut self, ask: Ask) -> Frame {
        if !ask.is_fair() {
            return Frame::Refuse("a question longer than any source asks".to_owned());
        }
        Frame::Sums(ask, self.vault.sums(ask).unwrap_or_default())
    }

    /// Takes an entry; a frame to send back at once, if any.
    ///
    /// # Errors
    /// The vault broke.
    pub fn take(
        &mut self,
        entry: &std::sync::Arc<super::entry::Entry>,
        now: Ns,
    ) -> Result<Option<Frame>> {
        let expected = self.vault.received_no() + 1;
        if entry.no < expected {
            return Ok(None);
        }
        if entry.no > expected {
            return Ok(Some(Frame::Refuse(format!(
                "entry {} came where {expected} was expected",
                entry.no
            ))));
        }
        match self.vault.append(entry, now) {
            Ok(()) => {
                if let Kind::Point { id, .. } = entry.kind {
                    self.fresh.push(id);
                }
                Ok(None)
            }
            Err(Refusal::Full) => {
                // What was not durable is gone, points among it.
                self.fresh.clear();
                Ok(Some(Frame::Full))
            }
            Err(Refusal::Broken(error)) => Err(error),
        }
    }

    /// Makes durable what there is; the acknowledgement, if anything is new.
    ///
    /// # Errors
    /// The vault broke.
    pub fn sync(&mut self, now: Ns) -> Result<Option<Frame>> {
        Ok(match self.make_durable(now)? {
            Synced::Nothing => None,
            Synced::Full => Some(Frame::Full),
            Synced::UpTo { no, points } => {
                Some(Frame::Ack { received_no: no, durable_no: no, points })
            }
        })
    }

    /// As `sync`, for who answers otherwise than by a frame.
    ///
    /// # Errors
    /// The vault broke.
    pub fn make_durable(&mut self, now: Ns) -> Result<Synced> {
        match self.vault.sync(now) {
            Ok(()) => {}
            Err(Refusal::Full) => {
                self.fresh.clear();
                return Ok(Synced::Full);
            }
            Err(Refusal::Broken(error)) => return Err(error),
        }
        self.durable_no = self.vault.received_no();
        if !self.fresh.is_empty() {
            for id in self.fresh.drain(..) {
                self.durable.push_back((id, now, self.durable_no));
            }
        }
        while self.durable.len() > REMEMBERED {
            self.durable.pop_front();
        }
        if self.durable_no <= self.told_no {
            return Ok(Synced::Nothing);
        }
        let points = self.points_after(self.told_no, now);
        self.told_no = self.durable_no;
        Ok(Synced::UpTo { no: self.durable_no, points })
    }

    /// Acknowledges what is in memory, for a source that waits for no more.
    pub fn received(&self) -> Frame {
        Frame::Ack {
            received_no: self.vault.received_no(),
            durable_no: self.told_no,
            points: Vec::new(),
        }
    }

    /// The site was restarted: what it knew beside the vault is gone.
    pub fn restart(&mut self) {
        self.fresh.clear();
        self.durable_no = self.vault.received_no();
        self.told_no = 0;
    }

    fn points_after(&self, no: u64, now: Ns) -> Vec<Durable> {
        if self.durable.back().is_none_or(|(_, _, at)| *at <= no) {
            return Vec::new();
        }
        let from = self.durable.partition_point(|(_, _, at)| *at <= no);
        self.durable
            .range(from..)
            .map(|(id, at, _)| Durable { id: *id, age_ns: now - at })
            .collect()
    }
}
