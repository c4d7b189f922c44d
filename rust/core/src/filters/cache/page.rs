//! The page of `cache`.

pub const PAGE: &str = "\
# cache

Keeps blocks that were read or written, in memory or on a file of a fast device, and answers reads
from there: a host-side cache in front of the disk.

Reads and writes both look up and both insert. The eviction policy is asked when an I/O comes
down, block by block in order of address: an I/O of 12 KiB at blocks of 4 KiB is three requests. A
hit on a block that is still on its way into the cache waits for it, and is a hit. write_zeroes
counts as a write. A discard drops the blocks it covers whole; flushes are no requests.

A read whose blocks are all there never reaches the layers below. Of a read with some blocks
there, only the others are fetched; an I/O that covers a missing block in part makes the cache
fetch the whole block (for a write at the same time as the write itself). Where a block cannot be
fetched, for instance because the disk ends inside it, the I/O's own part of it is read or written
below.

Writes, by `write_policy`:
- `through`: acknowledged when the layers below have it, and cached then.
- `back`: acknowledged when it is in the cache. The disk gets it `destage_after` later, sooner
  when half of `dirty_max` is dirty or its block is evicted, and neighbouring dirty blocks as one
  write; a block that is written again meanwhile is sent once. A flush waits until everything
  acknowledged before it is on the disk and then goes there itself; a write with FUA goes to the
  disk, past what is dirty under it. While `dirty_max` is reached, writes go through. At the end of
  the run everything dirty is written and flushed. When the host dies, what was written since the
  last flush is lost, as with the cache of a disk. If the disk fails a destage, waiting flushes
  fail, the data stay and are tried again.
- `around`: as `through`, but a write of a block that is not cached passes without bringing it.

With `file`, data lie in that file, which may be larger than memory; only the map of blocks is in
memory, 36 bytes a block beside what the eviction policy keeps of it (the process of a cache that
fills took 313 bytes a block more at its peak: scripts/bench_cache_file.py). A hit is a read of the
file.
What a read brings goes into the file after the read is done. With `back`:
- A write is acknowledged when its data are in the file. A flush makes the file durable (its data,
  then the map of what the disk lacks) and leaves the disk alone; a write with FUA does the same.
- What a flush covered outlives a crash of the host: the next start with this file brings it to the
  disk before the first I/O (event `cache_recovered`), whatever its write policy is then.
- A clean stop brings everything to the disk, too.
- A block that is dirty takes what is written to it even while `dirty_max` is reached.

The file starts empty each time: blocks that the disk has as well are never kept, so that nothing
stale can be served, whatever happened to the disk in between, and counts do not depend on the run
before. A file that is not a cache file, or of another version, damaged, or with dirty blocks for
another target (told by its inode), or for one that another run wrote to since, is left as it is,
and the run does not start (exit status 2); remove the file if what it holds may go. When the file
is full or fails, writes go through and reads pass, a second long at a time (`cache_file_errors`,
event `cache_file_failed`); a dirty block that cannot be read from it fails the read.

With `dedup`, the cache is content-based: from an address to the digest of its content to one
copy, so that what several addresses hold takes the room of one. An address keeps its digest when
the copy is evicted. A read hits when the digest of its address is known and the content is here,
whoever brought it; a block's content is known once it was read or written whole. Digests are 128
bits of XXH3; 24 bytes a known address come on top of the capacity. What a replay writes shares
content where the trace names it (column `content`), or by `--dedupe`; `vaio-bench cache --dedup`
simulates the same.

## Parameters
- `capacity`: size of the cache. It holds floor(capacity / block) blocks. Required.
- `block`: bytes of a block, a power of two from 512 (4 KiB with `file`) to 1 MiB; by default
  `\"4KiB\"`.
- `file`: path of the cache file, for a disk of its own each (`PATH`, `PATH.1`, ...). It is made
  when it does not exist, and takes all its room then: the capacity, 4 MiB (or 64 blocks), with
  `back` an eighth for evicted blocks on their way to the disk, and 17 bytes a block for the map.
  Where a model stands in for the devices, so it does for the file.
- `eviction`: which block leaves; by default `\"lru\"`. Each has a page (`explain lru`).
- `write_policy`: `\"through\"` (the default), `\"back\"` or `\"around\"`.
- `dirty_max`: with `back`, how much may be dirty; by default half the capacity.
- `destage_after`: with `back`, how long a block may be dirty; by default `\"1s\"`.
- `read_ahead`: how far to fetch ahead of reads in sequence; by default 0, none. What is fetched
  so is no request, but it changes what is evicted: counts then differ from a simulation's.
- `scope`: `\"disk\"` (the default), a cache for each disk, or `\"group\"`, one for all.
- `dedup`: true for a content-based cache; by default false. Only with `through`. Neither it nor
  `read_ahead` goes with `file`.

## Example
```toml
[[filter]]
use = \"cache\"
capacity = \"512MiB\"
block = \"4KiB\"
eviction = \"lru\"
write_policy = \"back\"
dirty_max = \"64MiB\"
```

## Class and properties
Class cache. It answers and defers, and issues I/Os of its own: up to four fetches at a time for
one I/O, eight destages and four fetches ahead. Its unit is `block`. It starts empty, and nothing
outlives the run but what is dirty in a file. It tells `cached_bytes`, `cache_requests`,
`cache_hits`; with `back`, `dirty_bytes`, `destaged_bytes` and `dirty_oldest_ns` (the age of the
oldest dirty data: the RPO if the cache were lost now); with `file`, `cache_file_errors` and
`uncached_blocks` (no room in the file: they pass, and hits may be fewer than simulated); with
`dedup`, `logical_bytes` (what the cached copies stand for) and `shared_blocks` (blocks brought
whose content was there).

## Laws it declares
Transparent: what is read below is read above; with `back`, when the run has ended. Errors pass up
unchanged. On the same requests it counts the same hits as the simulator: in virtual time, where
I/Os come to it in the order of the trace, and on the wall clock with one in flight. With more in
flight there, some pass those that wait for an I/O they overlap, and `replay` and the report say by
how much the run differs (`explain simulated`). What a flush or FUA covers is on the disk when they
complete, or in the file if there is one.

## Unsuitable for
Judging flash wear. A `file` on the disk that it is to speed up, or in virtual time, where both are
the same modelled device: nothing is gained. Blocks much larger than the I/Os: each miss
fetches a whole one. `back` for data that must not be lost with the host.

## Sources
The rules of counting are those of libCacheSim (reads and writes alike, by block). Going through
while too much is dirty is bcache's way (Linux, Documentation/admin-guide/bcache.rst). The two maps
of a content-based cache: Infinio's description of its product. See also `lru`.
";
