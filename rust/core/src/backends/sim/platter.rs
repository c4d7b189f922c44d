//! What a modelled device holds, and what of it outlives a loss of power.
//!
//! Two images: what reads see, and what is on stable storage. Without a write cache they are one.
//! With one, a write that has completed is seen at once and is stable after a flush that was
//! submitted later, or at once with FUA. A crash keeps what is stable and, of the rest, what the
//! seed says: a device may have written any of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backends::store::{Place, Store};
use crate::filters::{DataMode, SECTOR_BYTES};
use crate::io::Op;

/// What a discarded range reads as: anything may be there, and zeros would hide who relies on it.
const DISCARDED: u8 = 0xd1;

/// A device's contents, shared by the devices before and after a crash.
pub type SharedPlatter = Arc<Mutex<Platter>>;

/// The platter under the lock. A panic elsewhere cannot have left it half-changed.
pub fn lock(platter: &SharedPlatter) -> MutexGuard<'_, Platter> {
    platter.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A change that has not reached the platter, with a copy of its data.
#[derive(Debug, Clone)]
pub struct Change {
    /// Position in the order of submission.
    pub order: u64,
    pub op: Op,
    pub place: Place,
    pub fua: bool,
    pub data: Vec<u8>,
}

/// A sector that is not stable: who wrote it last, and the count of completions at which it first
/// held data that a flush must cover.
#[derive(Debug, Clone, Copy)]
struct Dirty {
    order: u64,
    since: u64,
}

pub struct Platter {
    mode: DataMode,
    seen: Store,
    /// Only with a write cache.
    stable: Option<Store>,
    dirty: HashMap<(u16, u64), Dirty>,
    completions: u64,
    /// What was on its way when the device went.
    on_the_way: Vec<Change>,
}

impl Platter {
    #[must_use]
    pub fn new(mode: DataMode, write_cache: bool) -> Self {
        Self {
            mode,
            seen: Store::new(mode),
            stable: write_cache.then(|| Store::new(mode)),
            dirty: HashMap::new(),
            completions: 0,
            on_the_way: Vec::new(),
        }
    }

    #[must_use]
    pub fn shared(mode: DataMode, write_cache: bool) -> SharedPlatter {
        Arc::new(Mutex::new(Self::new(mode, write_cache)))
    }

    /// What reads see.
    #[must_use]
    pub const fn seen(&self) -> &Store {
        &self.seen
    }

    /// Puts bytes there as if they had been there all the time: what somebody else left.
    pub fn put(&mut self, place: Place, data: &[u8]) {
        self.seen.write(place, data);
        if let Some(stable) = &mut self.stable {
            stable.write(place, data);
        }
    }

    pub(super) const fn seen_mut(&mut self) -> &mut Store {
        &mut self.seen
    }

    /// Bytes that a crash may take.
    #[must_use]
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty.len() as u64 * SECTOR_BYTES
    }

    /// The count that a flush submitted now must cover.
    #[must_use]
    pub const fn completions(&self) -> u64 {
        self.completions
    }

    /// A write, discard or write of zeroes completes. `part_bytes` of it are done: less than all
    /// of them when it fails half-way.
    pub fn complete(&mut self, change: &Change, part_bytes: u64) {
        self.completions += 1;
        let place =
            Place { length_bytes: part_bytes.min(change.place.length_bytes), ..change.place };
        put(&mut self.seen, change, place, self.mode);
        let Some(stable) = &mut self.stable else { return };
        for sector in sectors(place) {
            let at = (place.disk, sector);
            if change.fua {
                stable.copy(sector_place(place.disk, sector), &self.seen);
                self.dirty.remove(&at);
            } else {
                let since = self.completions;
                let dirty = self.dirty.entry(at).or_insert(Dirty { order: 0, since });
                dirty.order = change.order;
            }
        }
    }

    /// A flush completes that was submitted at this count of completions.
    pub fn flushed(&mut self, covers: u64, disk: u16) {
        let Some(stable) = &mut self.stable else { return };
        let seen = &self.seen;
        self.dirty.retain(|(of, sector), dirty| {
            let stays = *of != disk || dirty.since > covers;
            if !stays {
                stable.copy(sector_place(*of, *sector), seen);
            }
            stays
        });
    }

    pub(super) fn leave_on_the_way(&mut self, changes: Vec<Change>) {
        self.on_the_way = changes;
    }

    /// Power fails: what is not stable survives or not as the seed says, write by write or, when
    /// `torn`, sector by sector. What the device had not taken in may be there as well: it had the
    /// data. What is left is what reads see from now on, and all of it is stable.
    pub fn crash(&mut self, seed: u64, torn: bool) {
        let survives = |order: u64, sector: u64| {
            let unit = if torn { sector.wrapping_mul(0x9E37_79B9_7F4A_7C15) } else { 0 };
            mix(seed ^ mix(order ^ unit)) & 1 == 0
        };
        if let Some(stable) = &mut self.stable {
            for ((disk, sector), dirty) in self.dirty.drain() {
                if survives(dirty.order, sector) {
                    stable.copy(sector_place(disk, sector), &self.seen);
                }
            }
            self.seen = stable.clone();
        }
        let mut on_the_way = std::mem::take(&mut self.on_the_way);
        on_the_way.sort_by_key(|change| change.order);
        for change in &on_the_way {
            for sector in sectors(change.place) {
                if survives(change.order, sector) {
                    let part = cut(change.place, sector_place(change.place.disk, sector));
                    put(&mut self.seen, change, part, self.mode);
                }
            }
        }
        if let Some(stable) = &mut self.stable {
            *stable = self.seen.clone();
        }
    }
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014).
#[must_use]
pub const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Sectors that a range touches, in part or as a whole.
fn sectors(place: Place) -> std::ops::Range<u64> {
    if place.length_bytes == 0 {
        return 0..0;
    }
    place.offset_bytes / SECTOR_BYTES
        ..(place.offset_bytes + place.length_bytes).div_ceil(SECTOR_BYTES)
}

const fn sector_place(disk: u16, sector: u64) -> Place {
    Place { disk, offset_bytes: sector * SECTOR_BYTES, length_bytes: SECTOR_BYTES }
}

/// What two ranges of one disk, which overlap, have in common.
fn cut(a: Place, b: Place) -> Place {
    let from = a.offset_bytes.max(b.offset_bytes);
    let to = (a.offset_bytes + a.length_bytes).min(b.offset_bytes + b.length_bytes);
    Place { disk: a.disk, offset_bytes: from, length_bytes: to - from }
}

/// Does a part of a change, which begins at the change's start or at a sector's.
fn put(store: &mut Store, change: &Change, part: Place, mode: DataMode) {
    if mode == DataMode::Nothing || part.length_bytes == 0 {
        return;
    }
    match change.op {
        Op::Write => {
            let from = match mode {
                DataMode::Bytes => (part.offset_bytes - change.place.offset_bytes) as usize,
                _ => {
                    let first = change.place.offset_bytes / SECTOR_BYTES;
                    mode.size((part.offset_bytes / SECTOR_BYTES - first) * SECTOR_BYTES)
                }
            };
            store.write(part, &change.data[from..]);
        }
        Op::WriteZeroes => store.fill(part, 0),
        Op::Discard => store.fill(part, DISCARDED),
        Op::Read | Op::Flush => {}
    }
}
