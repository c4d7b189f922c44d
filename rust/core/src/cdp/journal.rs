//! The source's journal: entries that the replica has not confirmed, oldest first, bounded.

use std::collections::VecDeque;
use std::sync::Arc;

use super::entry::{Entry, HEADER_BYTES};

/// Buffers kept for further batches.
const SPARE_MAX: usize = 32;

/// Entries by number, from the oldest that is not confirmed on.
#[derive(Debug)]
pub struct Journal {
    entries: VecDeque<Arc<Entry>>,
    /// Number of the first one.
    first_no: u64,
    /// Of all of them, with bytes in place of tokens.
    bytes: u64,
    /// Not yet handed to the link.
    unsent_bytes: u64,
    cursor_no: u64,
    /// The highest number ever handed to a link: the replica may have it.
    sent_no: u64,
    spare: Vec<Vec<u8>>,
}

fn size(entry: &Entry) -> u64 {
    HEADER_BYTES as u64 + entry.real_bytes
}

impl Journal {
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            first_no: 1,
            bytes: 0,
            unsent_bytes: 0,
            cursor_no: 1,
            sent_no: 0,
            spare: Vec::new(),
        }
    }

    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    #[must_use]
    pub const fn unsent_bytes(&self) -> u64 {
        self.unsent_bytes
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[must_use]
    pub fn next_no(&self) -> u64 {
        self.first_no + self.entries.len() as u64
    }

    /// The last entry that the replica has confirmed.
    #[must_use]
    pub const fn confirmed_no(&self) -> u64 {
        self.first_no - 1
    }

    /// A buffer for the next batch.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    pub fn push(&mut self, entry: Entry) {
        debug_assert_eq!(entry.no, self.next_no());
        self.bytes += size(&entry);
        self.unsent_bytes += size(&entry);
        self.entries.push_back(Arc::new(entry));
    }

    /// The entry to send next.
    pub fn send(&mut self) -> Option<Arc<Entry>> {
        let entry = self.entries.get((self.cursor_no - self.first_no) as usize)?;
        self.unsent_bytes -= size(entry);
        self.sent_no = self.sent_no.max(self.cursor_no);
        self.cursor_no += 1;
        Some(Arc::clone(entry))
    }

    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.cursor_no < self.next_no()
    }

    /// The replica has all entries up to this one.
    pub fn confirm(&mut self, no: u64) {
        while self.first_no <= no {
            let Some(entry) = self.entries.pop_front() else { break };
            self.first_no += 1;
            self.bytes -= size(&entry);
            if self.cursor_no < self.first_no {
                self.cursor_no = self.first_no;
                self.unsent_bytes -= size(&entry);
            }
            if self.spare.len() < SPARE_MAX
                && let Ok(entry) = Arc::try_unwrap(entry)
                && entry.body.capacity() > 0
            {
                let mut body = entry.body;
                body.clear();
                self.spare.push(body);
            }
        }
    }

    /// The stream goes on where an earlier source's ended: entries that no link was given yet
    /// get the numbers and times that follow.
    pub fn go_on_at(&mut self, next_no: u64, stream_ns: u64) {
        debug_assert!(self.sent_no == 0 && self.first_no == 1);
        let by = next_no - 1;
        for entry in &mut self.entries {
            let entry = Arc::make_mut(entry);
            entry.no += by;
            entry.first_ns += stream_ns;
            entry.last_ns += stream_ns;
        }
        self.first_no += by;
        self.cursor_no += by;
        self.sent_no = by;
    }

    /// A new connection goes on from here; everything before is confirmed.
    pub fn rewind(&mut self, next_no: u64) {
        self.confirm(next_no - 1);
        self.cursor_no = self.first_no;
        self.unsent_bytes = self.bytes;
    }

    /// Takes away what no link was ever given: the replica cannot have it.
    pub fn drop_unsent(&mut self) -> Vec<Arc<Entry>> {
        let keep = (self.sent_no + 1).saturating_sub(self.first_no) as usize;
        let dropped: Vec<_> = self.entries.drain(keep.min(self.entries.len())..).collect();
        for entry in &dropped {
            self.bytes -= size(entry);
            self.unsent_bytes -= size(entry);
        }
        self.cursor_no = self.cursor_no.min(self.next_no());
        dropped
    }

    /// When the oldest write completed that is not confirmed.
    #[must_use]
    pub fn oldest_ns(&self) -> Option<u64> {
        self.entries.iter().find(|entry| entry.count > 0).map(|entry| entry.first_ns)
    }

    /// Every entry handed to this connection.
    #[must_use]
    pub fn in_flight_bytes(&self) -> u64 {
        self.bytes - self.unsent_bytes
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self::new()
    }
}
