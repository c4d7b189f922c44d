//! The source's journal: entries that the replica has not confirmed, oldest first, bounded. What
//! memory has no room for lies in a spill file, and comes back before it is sent.

use std::collections::VecDeque;
use std::sync::Arc;

use super::entry::{Batch, Entry, HEADER_BYTES};
use super::spill::{Region, Ring, record_bytes};

/// Entries kept for further ones, with their buffers.
const SPARE_MAX: usize = 32;
/// Spilled entries that are read back ahead of their sending.
const AHEAD: usize = 4;

/// Where an entry's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Memory,
    /// On its way to the spill file: in memory until it is there.
    Leaving(Region),
    Spilled(Region),
    Returning(Region),
}

#[derive(Debug)]
struct Slot {
    entry: Arc<Entry>,
    place: Place,
}

/// Entries by number, from the oldest that is not confirmed on.
#[derive(Debug)]
pub struct Journal {
    entries: VecDeque<Slot>,
    /// Number of the first one.
    first_no: u64,
    /// Of all of them, with bytes in place of tokens.
    bytes: u64,
    /// Of those whose bodies are in memory.
    resident_bytes: u64,
    /// Not yet handed to the link.
    unsent_bytes: u64,
    cursor_no: u64,
    /// The highest number ever handed to a link: the replica may have it.
    sent_no: u64,
    /// Of confirmed entries: nobody else has them.
    spare: Vec<Arc<Entry>>,
    ring: Ring,
    /// No entry before this one is spilled any more.
    spill_no: u64,
    /// Entries that are in the spill file alone.
    spilled: usize,
    /// Bodies leave memory with their record: else only the figures are those of a spill file.
    strips: bool,
}

fn size(entry: &Entry) -> u64 {
    HEADER_BYTES as u64 + entry.real_bytes
}

impl Journal {
    /// With a spill file of so many bytes, 0 for none. Bodies of `tokens` stay in memory: they
    /// stand for data that is in the file.
    #[must_use]
    pub const fn new(spill_bytes: u64, tokens: bool) -> Self {
        Self {
            entries: VecDeque::new(),
            first_no: 1,
            bytes: 0,
            resident_bytes: 0,
            unsent_bytes: 0,
            cursor_no: 1,
            sent_no: 0,
            spare: Vec::new(),
            ring: Ring::new(spill_bytes),
            spill_no: 1,
            spilled: 0,
            strips: !tokens,
        }
    }

    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What of it is in memory.
    #[must_use]
    pub const fn resident_bytes(&self) -> u64 {
        self.resident_bytes
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

    pub fn push(&mut self, entry: Entry) {
        debug_assert_eq!(entry.no, self.next_no());
        self.keep(Arc::new(entry));
    }

    /// Closes a batch as the next entry.
    #[inline]
    pub fn push_batch(&mut self, batch: &mut Batch) {
        let no = self.next_no();
        let mut entry = self.spare.pop().unwrap_or_default();
        match Arc::get_mut(&mut entry) {
            Some(place) => batch.close_into(no, place),
            None => entry = Arc::new(batch.close(no, Vec::new())),
        }
        self.keep(entry);
    }

    #[inline]
    fn keep(&mut self, entry: Arc<Entry>) {
        let bytes = size(&entry);
        self.bytes += bytes;
        self.resident_bytes += bytes;
        self.unsent_bytes += bytes;
        self.entries.push_back(Slot { entry, place: Place::Memory });
    }

    fn slot(&mut self, no: u64) -> Option<&mut Slot> {
        self.entries.get_mut(no.checked_sub(self.first_no)? as usize)
    }

    /// The entry to send next, unless it has yet to come back from the spill file.
    pub fn send(&mut self) -> Option<Arc<Entry>> {
        let slot = self.entries.get((self.cursor_no - self.first_no) as usize)?;
        if !matches!(slot.place, Place::Memory | Place::Leaving(_)) {
            return None;
        }
        self.unsent_bytes -= size(&slot.entry);
        self.sent_no = self.sent_no.max(self.cursor_no);
        self.cursor_no += 1;
        Some(Arc::clone(&slot.entry))
    }

    /// This connection was given the entry, or the replica had it before.
    #[must_use]
    pub const fn has_sent(&self, no: u64) -> bool {
        no < self.cursor_no
    }

    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.cursor_no < self.next_no()
    }

    /// The replica has all entries up to this one.
    pub fn confirm(&mut self, no: u64) {
        while self.first_no <= no {
            let Some(Slot { entry, place }) = self.entries.pop_front() else { break };
            self.first_no += 1;
            self.bytes -= size(&entry);
            self.left(&entry, place);
            if self.cursor_no < self.first_no {
                self.cursor_no = self.first_no;
                self.unsent_bytes -= size(&entry);
            }
            if self.spare.len() < SPARE_MAX && Arc::strong_count(&entry) == 1 {
                self.spare.push(entry);
            }
        }
        self.ring.forget_before(self.first_no);
    }

    /// An entry is gone from where it was.
    fn left(&mut self, entry: &Entry, place: Place) {
        match place {
            Place::Memory | Place::Leaving(_) => self.resident_bytes -= size(entry),
            Place::Spilled(_) | Place::Returning(_) => self.spilled -= 1,
        }
    }

    /// The stream goes on where an earlier source's ended: entries that no link was given yet
    /// get the numbers and times that follow.
    pub fn go_on_at(&mut self, next_no: u64, stream_ns: u64) {
        debug_assert!(self.sent_no == 0 && self.first_no == 1);
        let by = next_no - 1;
        for slot in &mut self.entries {
            let entry = Arc::make_mut(&mut slot.entry);
            entry.no += by;
            entry.first_ns += stream_ns;
            entry.last_ns += stream_ns;
        }
        self.first_no += by;
        self.cursor_no += by;
        self.spill_no += by;
        self.sent_no = by;
    }

    /// A new connection goes on from here; everything before is confirmed.
    pub fn rewind(&mut self, next_no: u64) {
        self.confirm(next_no - 1);
        self.cursor_no = self.first_no;
        self.unsent_bytes = self.bytes;
    }

    /// Takes away what no link was ever given: the replica cannot have it. Bodies of what was
    /// spilled are not there.
    pub fn drop_unsent(&mut self) -> Vec<Arc<Entry>> {
        let keep = (self.sent_no + 1).saturating_sub(self.first_no) as usize;
        let dropped: Vec<Slot> = self.entries.drain(keep.min(self.entries.len())..).collect();
        for Slot { entry, place } in &dropped {
            self.bytes -= size(entry);
            self.unsent_bytes -= size(entry);
            self.left(entry, *place);
        }
        let next_no = self.next_no();
        self.cursor_no = self.cursor_no.min(next_no);
        self.spill_no = self.spill_no.min(next_no);
        self.ring.forget_from(next_no);
        dropped.into_iter().map(|slot| slot.entry).collect()
    }

    /// When the oldest write completed that is not confirmed.
    #[must_use]
    pub fn oldest_ns(&self) -> Option<u64> {
        let slot = self.entries.iter().find(|slot| slot.entry.count > 0);
        slot.map(|slot| slot.entry.first_ns)
    }

    /// Every entry handed to this connection.
    #[must_use]
    pub fn in_flight_bytes(&self) -> u64 {
        self.bytes - self.unsent_bytes
    }

    /// The next entry to write to the spill file, and where: the oldest that no link has.
    pub fn spill(&mut self, record_max_bytes: u64) -> Option<(Arc<Entry>, Region)> {
        let mut no = self.spill_no.max(self.sent_no + 1).max(self.cursor_no);
        loop {
            let slot = self.slot(no)?;
            if slot.place == Place::Memory
                && record_bytes(slot.entry.real_bytes) <= record_max_bytes
            {
                break;
            }
            no += 1;
        }
        self.spill_no = no;
        let entry = Arc::clone(&self.slot(no)?.entry);
        let region = self.ring.take(no, entry.real_bytes)?;
        self.slot(no)?.place = Place::Leaving(region);
        self.spill_no = no + 1;
        Some((entry, region))
    }

    /// A record was written, or was not; the entry, where it is in the file alone now.
    pub fn spilled(&mut self, region: Region, well: bool) -> Option<Arc<Entry>> {
        let unsent = self.cursor_no.max(self.sent_no + 1) <= region.no;
        let strips = self.strips;
        let slot = self.slot(region.no).filter(|slot| slot.place == Place::Leaving(region));
        let gone = slot.and_then(|slot| {
            if !well || !unsent {
                slot.place = Place::Memory;
                return None;
            }
            slot.place = Place::Spilled(region);
            let whole = Arc::clone(&slot.entry);
            if strips {
                slot.entry = Arc::new(whole.clone_without_body());
            }
            Some(whole)
        });
        if let Some(entry) = &gone {
            self.resident_bytes -= size(entry);
            self.spilled += 1;
        } else if !well {
            // It is tried again.
            self.spill_no = self.spill_no.min(region.no.max(self.first_no));
        }
        self.ring.written(region, gone.is_some());
        gone
    }

    /// The next record to read back: what is sent soon.
    pub fn unspill(&mut self) -> Option<Region> {
        if self.spilled == 0 {
            return None;
        }
        let from = (self.cursor_no - self.first_no) as usize;
        for slot in self.entries.iter_mut().skip(from).take(AHEAD) {
            if let Place::Spilled(region) = slot.place {
                slot.place = Place::Returning(region);
                return Some(region);
            }
        }
        None
    }

    /// A record was read: its entry, or none where it is not what was written. False for that.
    pub fn unspilled(&mut self, region: Region, entry: Option<Entry>) -> bool {
        let strips = self.strips;
        let Some(slot) = self.slot(region.no).filter(|slot| slot.place == Place::Returning(region))
        else {
            return true;
        };
        match entry {
            Some(entry) if strips => slot.entry = Arc::new(entry),
            Some(_) => {}
            None => return false,
        }
        slot.place = Place::Memory;
        let bytes = size(&slot.entry);
        self.resident_bytes += bytes;
        self.spilled -= 1;
        true
    }

    /// Whether any entry is in the spill file alone.
    #[must_use]
    pub const fn has_spilled(&self) -> bool {
        self.spilled > 0
    }
}
