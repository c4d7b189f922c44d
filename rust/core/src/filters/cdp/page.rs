//! The filter's page, for `explain` and the report.

pub const PAGE: &str = "\
# cdp

Continuous replication: every write that completes goes into a journal, in order, and over a link
to a replica site. Restore points are cut at an interval; each is the state after all writes
acknowledged before it, and nothing else. Failed writes never reach the log.

In virtual time the link is a model with the replica at its far end. On the wall clock it is TCP
and TLS 1.3, both ends proving that they have the shared key, to a `vaio-bench site`; a policy that
names none gets one on loopback, with its store in the run folder (`replica/POLICY/ROUND/store`).
The line is held to the declared bandwidth and round trip by the sender, so that a link can be
emulated. A byte has arrived at the end of its transmission and half a round trip.

When the journal is full, `degrade` says what happens. `bitmap`: changed blocks are marked instead,
and there are no restore points (a hole) until all have been read from the disk and what differs
has been sent again; so do Zerto and Veeam. `spill-backpressure-bitmap`: what memory has no room for
goes to the spill file; writes are held back while that is nearly full, or memory is because the
file is too slow or cannot be written; and blocks are marked only when a write was held for
`backpressure`; so does JetStream. `lag`: the spill file is large, and lag grows; so do AWS DRS and
Azure Site Recovery. The return is automatic, and new writes go before blocks that are sent again.

What the disks hold before replication begins goes to the replica first (`initial_sync`): it is
read through the chain below, and until all of it has arrived there is no restore point. Blocks of
zeroes are not sent to a new store. With a store that holds something already (`stream`, or a site
with `--adopt`) digests are compared, and only blocks that differ are sent; so a source that died
goes on where it was, and after a recovery the old disk is replicated back to. Guest writes go on
meanwhile, and a site or a link that comes back goes on where it stands.

A filter for all disks of the run: a point is one moment on all of them.

## Parameters
- `rpo`: the target. Required.
- `point_interval`: between restore points; by default half of `rpo`. `\"0s\"`: continuous, where
  every instant whose acknowledged writes have arrived is a point.
- `link`: `bandwidth` (required; what the data get of it is `efficiency`, 1 by default: headers
  take none of the line's time, as with `rpo` and its `--link-efficiency`), `rtt` (`\"0s\"`),
  `site` (address of a replica site) and `key` (`\"file:PATH\"` or `\"env:NAME\"`, shared with it;
  a relative PATH is looked for beside the policy's file, then in the folder of the command),
  `timeout` (`\"10s\"`: without an answer or a confirmation for so long the connection is given
  up; twice as long each time it was in vain), `window` (bytes on their way at most; by default
  twice what the line holds at its fastest and longest and eight batches, and 16 MiB more to a
  real site, whose disk works meanwhile), and `faults`, each with a `kind` and a time `at` after
  the start: `outage` (`for` how long), `reset`, `bandwidth` and `rtt` (with their new value). In
  virtual time also `compression_ratio` (what compression leaves of a byte, 1 by default),
  `site_sync` (how long the site takes to make data durable), and the fault `restart` of the site
  (`for` how long).
- `journal`: `memory` (`\"256MiB\"`) and `spill`, bytes that are captured and not confirmed, and
  the spill `file` (by default in the run folder, removed with the round). From half of `memory` on
  the newest entries go to the file, and come back before they are sent; each record has checksums,
  and where one is damaged its blocks are marked. No spill by default with `bitmap`,
  `\"16GiB\"` with `spill-backpressure-bitmap`, `\"256GiB\"` with `lag`. Nobody reads the file of
  a source that died: the disk holds what was acknowledged, and the next run of the stream
  compares it.
- `degrade`: `\"bitmap\"` (default), `\"spill-backpressure-bitmap\"` or `\"lag\"`.
- `backpressure`: how long a write is held back at most, by default `\"1s\"`.
- `bitmap_block`: bytes of a marked block, a power of two; by default `\"64KiB\"`.
- `folding`: of what is written several times between two points, only the last is sent; by
  default false. Data then leaves when its point is cut.
- `compression`: `\"none\"` (default), `\"lz4\"` or `\"zstd\"`.
- `batch`: bytes sent as one entry at most, by default `\"256KiB\"`. Data are recoverable when all
  of their entry has arrived: so where little waits an entry is no longer than a 64th of that, or
  what the line sends in a millisecond (4 KiB at least). A line that is idle gets what there is.
- `mode`: `\"async\"` (default); `\"semi-sync\"`: a write is acknowledged when the replica has it in
  memory; `\"sync\"`: when it is durable there.
- `sync_timeout`: how long a write waits for the replica, by default `\"1s\"`; after that writes
  wait no more until the replica has caught up.
- `retention`, `retention_size`: how long, and how many bytes of, earlier states are kept: all
  points (short-term ones), and of a continuous stream every instant. Without either, for ever. The
  site gives up whole files of its journal (64 MiB, or its `--segment`), the oldest first, and no
  file that `retention` needs: so it holds that much more, two files at most. What lies before the
  oldest state on offer is refused with that one's time. In a hole nothing is given up of what came
  before it until it ends. A file that a continuous stream fills begins with a state, unless that is
  in a hole.
- `long_term`: after `retention` the first point of `every` such interval is kept, for a longer
  `retention`, and so many `points` at most (no bound by default):
  `{ every = \"8h\", retention = \"7d\", points = 95 }`. The site merges what lies between two of
  them, beside the sources: only the last version of a block is kept, and no point in between. What
  exceeds `retention_size` is merged earlier, then the oldest is given up. A merge holds a million
  ranges at a time (some 50 MiB, with one entry and one file's list of entries); where more was
  written apart it reads those files again for each further part.
- `initial_sync`: `\"before\"` the trace starts and with an unshaped link (the default on the wall
  clock: the run begins in sync), `\"during\"` the run (a hole without restore points, and real
  load), or `\"never\"` (the replica has it some other way; the default in virtual time, where the
  modelled device is empty at its start).
- `stream`: a name that outlives runs. Sources of the same name go on with one store, which is that
  of one run otherwise.
- `checksums`: blocks are compared with what the site holds before they are sent, when sources go
  on with a store and after a hole: digests of 4 KiB, of which only those travel that differ. The
  site lays its journal over its base for that, in its store. `false` sends whole blocks. Virtual
  time, whose site keeps no data, compares nothing.
- `drain`: how long the end of a run waits for the link, by default `\"10s\"`.

## Example
```toml
[[filter]]
use = \"cdp\"
rpo = \"5s\"
link = { bandwidth = \"100Mbit/s\", rtt = \"20ms\" }
```

## Class and properties
Class replication. It defers (held back, or waiting for the replica) and reads marked blocks of
its own, eight at a time. Events: `restore_point`, `hole` (with `resync_bytes` sent again, and
`resync_compared_bytes` compared, of them `resync_equal_bytes` not sent), `mode`, `link`, `syncing`
and `initial_sync`. Gauges: `backlog_bytes`, `lag_ns`, `unsynced_bytes`, `mode` (0 normal,
1 backpressure, 2 bitmap, 3 resync, 4 detached).

## Laws it declares
Transparent: what is read below is read above. Errors pass up unchanged.

## Unsuitable for
Judging a product: it has the published behaviour of several, and is none of them.

## Sources
Veeam Backup & Replication user guide, 'Guaranteed Delivery' (CDP); Zerto, 'Replication pause time'
and bitmap sync; JetStream DR administration guide, 'Replication log' and 'Backpressure'; AWS
Elastic Disaster Recovery, 'Data replication status'. Seneca (Ji, Veitch, Wilkes, USENIX ATC 2003)
for folding within atomic batches.
";
