//! `cache`: a write-through block cache in memory. The page is below.
//!
//! The policy decides at submit, block by block, and knows nothing of data: that is how the
//! filter counts the same hits as the simulator. Here each slot of the policy has a buffer and a
//! generation; a generation begins when the slot gets another block, so what arrives late for a
//! block evicted meanwhile is seen to be stale, and dropped. See [`reads`] and [`writes`].

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Answer, Built, Class, Cx, DataMode, Filter, Kind, ParamError, Properties, Setting, Up, params,
};
use crate::eviction::{self, Access, CAPACITY_MAX, Eviction, Index, Slot};
use crate::io::{OK, Op, Status};
use crate::slab::IoId;
use crate::units::Size;

mod reads;
mod store;
mod writes;

use store::{Portion, Store};

const PAGE: &str = "\
# cache

Keeps blocks that were read or written in memory and answers reads from there: a host-side cache
in front of the disk. Write-through: a write is acknowledged when the layers below have it, and
what was written is then cached.

Reads and writes both look up and both insert. The eviction policy is asked when an I/O comes
down, block by block in order of address: an I/O of 12 KiB at blocks of 4 KiB is three requests. A
hit on a block that is still on its way into the cache waits for it, and is a hit. write_zeroes
counts as a write. A discard drops the blocks it covers whole; flushes pass and are no requests.

A read whose blocks are all there never reaches the layers below. Of a read with some blocks
there, only the others are fetched; an I/O that covers a missing block in part makes the cache
fetch the whole block (for a write at the same time as the write itself). If a fetch fails, for
instance because the disk ends inside the block, the read goes to the layers below as it is.

## Parameters
- `capacity`: size of the cache. It holds floor(capacity / block) blocks. Required.
- `block`: bytes of a block, a power of two from 512 to 1 MiB; by default `\"4KiB\"`.
- `eviction`: which block leaves; by default `\"lru\"`. Each has a page (`explain lru`).
- `write_policy`: `\"through\"`, which is also the default.

## Example
```toml
[[filter]]
use = \"cache\"
capacity = \"512MiB\"
block = \"4KiB\"
eviction = \"lru\"
```

## Class and properties
Class cache. It answers and defers, and issues I/Os of its own: up to four fetches at a time for
one I/O. Its unit is `block`. A cache for each disk; nothing outlives the run.

## Laws it declares
Transparent: what is read below is read above. Errors pass up unchanged. On the same requests it
counts the same hits as the simulator. Writes and flushes keep their durability: nothing is held.

## Unsuitable for
Judging flash wear or a cache's speed: its memory costs next to nothing. Blocks much larger than
the I/Os: each miss fetches a whole one.

## Sources
The rules of counting are those of libCacheSim (reads and writes alike, by block). See also `lru`.
";

pub const KIND: Kind = Kind { name: "cache", class: Some(Class::Cache), page: PAGE, schema, build };

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Size of the cache.
    capacity: Option<Size>,
    /// Bytes of a block.
    block: Option<Size>,
    /// Name of an eviction policy.
    eviction: Option<String>,
    write_policy: Option<WritePolicy>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum WritePolicy {
    Through,
}

const BLOCK_BYTES: u64 = 4096;
const BLOCK_MAX: u64 = 1 << 20;
/// Fetches under way at one time for one I/O; more wait, so that slots stay bounded.
const FETCHES: u32 = 4;

fn schema() -> Value {
    params::schema_of::<Params>()
}

fn build(table: &Value, setting: &Setting) -> Built {
    let params: Params = params::parse(table)?;
    let mut errors = Vec::new();
    let mut fault = |key: &str, message: String| errors.push(ParamError::new(key, message));
    let Size(mut block) = params.block.unwrap_or(Size(BLOCK_BYTES));
    if !block.is_power_of_two() || !(512..=BLOCK_MAX).contains(&block) {
        let message = format!("expected a power of two from 512 to 1MiB, got {block} bytes");
        fault("block", message);
        block = BLOCK_BYTES;
    }
    let blocks = params.capacity.map(|Size(bytes)| (bytes, bytes / block));
    match blocks {
        None => fault("capacity", "missing: expected a size such as \"512MiB\"".into()),
        Some((bytes, blocks)) if blocks == 0 || blocks > CAPACITY_MAX as u64 => {
            let message =
                format!("expected 1 to {CAPACITY_MAX} blocks of {block} bytes, got {bytes} bytes");
            fault("capacity", message);
        }
        Some(_) => {}
    }
    let name = params.eviction.as_deref().unwrap_or("lru");
    let policy = eviction::find(name);
    if policy.is_none() {
        fault("eviction", format!("expected one of {}, got \"{name}\"", eviction::names()));
    }
    let WritePolicy::Through = params.write_policy.unwrap_or(WritePolicy::Through);
    let (Some(policy), Some((_, blocks)), true) = (policy, blocks, errors.is_empty()) else {
        return Err(errors);
    };
    let cache = Cache {
        policy: (policy.build)(blocks as usize, Index::hashed(), setting.seed),
        store: Store::new(setting.data, block),
        mode: setting.data,
        block,
        works: Vec::new(),
        waiters: Vec::new(),
        requests: 0,
        hits: 0,
    };
    let properties = Properties {
        may_answer: true,
        may_defer: true,
        unit_bytes: block,
        // A fetch that failed still has its slot when the read is sent down as it is.
        children_per_io: FETCHES + 1,
        child_bytes: block,
        ..Properties::TRANSPARENT
    };
    Ok((Box::new(cache), properties))
}

/// A block that an I/O has to do with, as the policy answered at submit.
#[derive(Debug, Clone, Copy)]
struct Piece {
    block: u64,
    slot: Slot,
    generation: u32,
    need: Need,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Its data come with the I/O itself.
    Nothing,
    /// To be fetched.
    Fetch,
    /// Fetched; a write's own data are still to be laid over it.
    Fetched,
    /// Another I/O fetches it.
    Wait,
}

/// What an I/O waits for.
#[derive(Debug, Default)]
struct Work {
    pieces: Vec<Piece>,
    /// The first piece not yet looked at by `fetch`.
    next: usize,
    children: u32,
    waits: u32,
    /// A fetch failed: the read goes down as it is.
    failed: bool,
    /// Finished, or on its way down as it is.
    concluded: bool,
    /// Of a write's own child.
    status: Status,
}

impl Work {
    fn begin(&mut self) {
        self.pieces.clear();
        (self.next, self.children, self.waits) = (0, 0, 0);
        (self.failed, self.concluded, self.status) = (false, false, OK);
    }
}

/// A read that waits for a block that another I/O brings.
#[derive(Debug, Clone, Copy)]
struct Waiter {
    io: IoId,
    block: u64,
    slot: Slot,
    generation: u32,
}

struct Cache {
    policy: Box<dyn Eviction>,
    store: Store,
    mode: DataMode,
    block: u64,
    /// By [`IoId`].
    works: Vec<Work>,
    /// A few at most: I/Os in flight on blocks in flight.
    waiters: Vec<Waiter>,
    requests: i64,
    hits: i64,
}

/// Where a request found its block.
enum Found {
    Here,
    /// On its way.
    Coming,
    Missing,
}

impl Cache {
    /// The policy's answer, and the state of the slot that goes with it.
    fn look_up(&mut self, block: u64) -> (Piece, Found) {
        let (slot, found) = match self.policy.access(block) {
            Access::Hit(slot) if self.store.is_valid(slot) => (slot, Found::Here),
            Access::Hit(slot) => (slot, Found::Coming),
            Access::Miss { slot, .. } => {
                self.store.begin(slot, block);
                (slot, Found::Missing)
            }
        };
        let generation = self.store.generation(slot);
        (Piece { block, slot, generation, need: Need::Nothing }, found)
    }

    fn count(&mut self, cx: &mut Cx<'_>, io: IoId, blocks: u64, hits: u64) {
        self.requests += blocks as i64;
        self.hits += hits as i64;
        cx.count_blocks(io, blocks as u32, hits as u32);
    }

    /// The blocks under an I/O.
    fn blocks(&self, cx: &Cx<'_>, io: IoId) -> std::ops::Range<u64> {
        let io = cx.io(io);
        let end = io.offset_bytes + io.length_bytes;
        io.offset_bytes / self.block..end.div_ceil(self.block)
    }

    /// What an I/O and a block have in common.
    fn portion(&self, cx: &Cx<'_>, io: IoId, block: u64) -> Portion {
        let io = cx.io(io);
        Portion::new(self.mode, self.block, block, io.offset_bytes, io.length_bytes)
    }

    /// Is the block still the one that the piece was answered for?
    fn is_current(&self, piece: &Piece) -> bool {
        self.store.generation(piece.slot) == piece.generation
    }

    /// Forgets a block that did not come.
    fn drop_block(&mut self, piece: &Piece) {
        if self.is_current(piece) {
            self.policy.remove(piece.block);
            self.store.end(piece.slot);
        }
    }

    fn discard(&mut self, cx: &Cx<'_>, io: IoId) {
        let io = cx.io(io);
        let end = io.offset_bytes + io.length_bytes;
        let whole = io.offset_bytes.div_ceil(self.block)..end / self.block;
        if whole.end.saturating_sub(whole.start) > self.policy.len() as u64 {
            // A discard of the whole disk: cheaper by what is cached.
            for slot in 0..self.store.slots() {
                let block = self.store.block(slot);
                if whole.contains(&block) && self.policy.remove(block).is_some() {
                    self.store.end(slot);
                }
            }
            return;
        }
        for block in whole {
            if let Some(slot) = self.policy.remove(block) {
                self.store.end(slot);
            }
        }
    }

    /// A block has come, or will not: the reads that wait for it go on.
    fn wake(&mut self, cx: &mut Cx<'_>, piece: &Piece) {
        let mut at = 0;
        while let Some(waiter) = self.waiters.get(at).copied() {
            if (waiter.slot, waiter.generation) != (piece.slot, piece.generation) {
                at += 1;
                continue;
            }
            self.waiters.remove(at);
            if self.is_current(piece) && self.store.is_valid(piece.slot) {
                self.copy_out(cx, waiter.io, waiter.block, waiter.slot);
            } else {
                self.give_up_fetching(cx, waiter.io);
            }
            self.works[waiter.io as usize].waits -= 1;
            self.conclude_read(cx, waiter.io);
            // What followed from that may have taken others out of the list.
            at = 0;
        }
    }
}

impl Filter for Cache {
    fn open(&mut self, slots: usize) {
        self.policy.clear();
        self.store.clear();
        self.works.clear();
        self.works.resize_with(slots, Work::default);
        self.waiters.clear();
        (self.requests, self.hits) = (0, 0);
    }

    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        match cx.io(io).op {
            Op::Read => self.start_read(cx, io),
            Op::Write | Op::WriteZeroes => self.start_write(cx, io),
            Op::Flush => Answer::Pass,
            Op::Discard => {
                self.discard(cx, io);
                Answer::Pass
            }
        }
    }

    fn io_complete(&mut self, cx: &mut Cx<'_>, io: IoId) -> Up {
        let status = cx.io(io).status;
        match cx.io(io).op {
            Op::Read => self.read_passed(cx, io, status),
            Op::Write | Op::WriteZeroes => self.written(cx, io, status),
            Op::Flush | Op::Discard => {}
        }
        Up::Pass
    }

    fn child_complete(&mut self, cx: &mut Cx<'_>, parent: IoId, child: IoId) {
        match cx.io(parent).op {
            Op::Read => self.fetch_done(cx, parent, child),
            _ => self.write_child_done(cx, parent, child),
        }
    }

    fn gauges(&self, out: &mut Vec<(&'static str, i64)>) {
        out.push(("cached_bytes", (self.policy.len() as u64 * self.block) as i64));
        out.push(("cache_requests", self.requests));
        out.push(("cache_hits", self.hits));
    }
}

#[cfg(test)]
mod tests;
