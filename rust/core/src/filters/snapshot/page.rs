//! The page of `snapshot`.

pub const PAGE: &str = "\
# snapshot

Replicates by periodic snapshots: the baseline that continuous replication replaces.

At every scheduled time, or when the session before has ended if that is later, the guest is held
until its I/Os under way are done and for `stun` more: that is the cut. Then the blocks changed
since the last cut are read below the filter, each once in its current state, and sent over the
link; that load on the disk is real. When the last byte has arrived, the state at the cut is
recoverable (event `restore_point`). While the disk does not change, a snapshot holds what the disk
holds and is a point at once. The round begins in sync.

While a snapshot exists, `redo = \"copy-on-write\"` copies what a write is about to change for the
first time to the redo log, before the write goes on. With `merge`, a snapshot is removed as a redo
log is consolidated: what was written while it existed is merged at `rate` with the guest running,
which writes to a helper snapshot meanwhile, again and again, until what is left takes no longer
than `pause` or `iterations` have passed; then the guest is held while the rest is merged. With
writes at a share r of the merge rate each pass leaves the share r: it ends if r is below 1.

When something happens to the link, a transfer goes on where it was: in an outage nothing is sent
and nothing arrives, so it takes that much longer. A broken connection (a reset, a restart, an
outage of more than `timeout`, by default `\"10s\"`) is tried again after 100 ms and up after three
round trips; what had left and not arrived is sent again, and what had arrived is kept. A snapshot
that has nothing to send is a point when the far end hears of it. The planner (`rpo --fault`) has
the same line.

Rule of the schedule: with syncs of length T back to back the newest point is up to 2T old, so an
RPO holds if 2T is within it.

## Parameters
- `every`: the period, such as `\"15min\"`.
- `link`: `{ bandwidth, rtt, efficiency, compression, timeout, faults }`, such as
  `{ bandwidth = \"100Mbit/s\", rtt = \"20ms\" }`; `efficiency` (1) is the share of the bandwidth
  that carries payload, `compression` (0) the share by which it shrinks. `faults` are those of
  `cdp`, each with a `kind` and a time `at` after the start: `outage` (`for` how long), `reset` of
  the connection, `restart` of the site (`for`), and another `bandwidth` or `rtt` from then on.
- `granularity`: unit of change tracking, by default `\"4KiB\"`; a power of two up to 16 MiB.
- `rpo`: the target that the verdicts of `run_rpo` are about; the schedule does not depend on it.
- `stun`: how long the guest is held at a cut and at a removal, by default `\"0s\"`; more than that
  while I/Os are under way.
- `redo`: `\"none\"` (default) or `\"copy-on-write\"`. `redo_file` and `redo_size` (`\"1GiB\"`): its
  log, a file on the wall clock (by default in the run folder, removed with the round); it is
  written round and round.
- `merge`: `{ rate, pause, iterations }`, by default none, `\"5s\"` and 10.
- `depth`: chunks (of 256 KiB, or one block) read or on the link at one time, by default 16.

## Example
```toml
[[filter]]
use = \"snapshot\"
every = \"15min\"
rpo = \"15min\"
granularity = \"64KiB\"
stun = \"400ms\"
link = { bandwidth = \"100Mbit/s\", rtt = \"20ms\" }
merge = { rate = \"100MiB/s\" }
```

## Class and properties
Class replication. It defers (stuns, copies), reads below by itself, and has the redo log as a
device of its own. Events: `restore_point`, `stun`, `consolidate`, `mode`, `fault`. Gauges:
`backlog_bytes`, `changed_bytes`, `redo_bytes`, `held_ios`, `lag_ns`.

## Laws it declares
Transparent: what is read below is read above. Errors pass up unchanged. Guest data is always in its
place: a crash while a snapshot exists loses nothing that was acknowledged.

## Unsuitable for
Recovery: the link is a model on either clock and nothing is kept at its far end (see `cdp`). A
merge's load is a read of the disk and a write of the redo log for each byte, because the data is in
its place already; a product that redirects writes also pays for reads that look in two places.

## Sources
Sequence: Veeam Backup & Replication user guide, 'How replication works'. Schedule: vSphere
Replication documentation (an instance reflects the state at the start of its sync; a block is sent
once a sync). Consolidation: VMware KB 337175 and KB 2039754 (helper snapshots, forced stun). Stun:
VMware KB 417644 (385 to 438 ms).
";
