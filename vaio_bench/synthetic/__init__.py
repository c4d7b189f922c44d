"""synth: synthetic traces from a preset or a spec.

## What it does

Writes a canonical trace made by a model: arrivals, addresses, sizes, mix, disks and, where asked
for, content. The same spec and seed give the same file; a longer trace starts with the shorter.
Rows are made in batches, so memory does not grow with the length.

## A spec

Every key but `ios` or `duration` may be left out; an unknown key is an error.

    name = "my-oltp"
    seed = 1
    ios = 1_000_000               # or duration = "60s"; with both, whichever comes first
    disks = 2                     # or names: ["vm0", "vm1"]
    disk_weights = [3, 1]         # share of the I/Os; equal when left out

    [arrival]
    process = "poisson"           # or "constant"
    rate = 5000                   # I/Os per second of the whole trace

    [address]
    pattern = "zipf"              # uniform, zipf, sequential, hotset
    footprint = "4GiB"            # of each disk
    start = 0                     # where it begins on the disk
    block = "4KiB"                # the unit that is drawn, and the alignment
    alpha = 1.0                   # zipf: popularity of rank k is k^-alpha; 0 is uniform
    scatter = true                # zipf, hotset: popular blocks lie anywhere, else at the start
    hot_share = 0.1               # hotset: this share of the blocks ...
    hot_access = 0.9              # ... gets this share of the I/Os

    [mix]
    read = 0.7                    # of reads and writes
    flush = 0.01                  # of all I/Os, as are discard and write_zeroes
    discard = 0
    write_zeroes = 0
    fua = 0.05                    # of the writes

    [size]
    read = "8KiB"                 # or several: [{ size = "4KiB", weight = 3 }, ...]
    write = [{ size = "8KiB", weight = 9 }, { size = "64KiB", weight = 1 }]

    [content]                     # a digest per 4 KiB block in the column `content`
    shared = 0.6                  # share of the blocks drawn from a pool common to the disks
    pool = "256MiB"

Several `[[stream]]` tables, each with `share` and its own `address`, `mix` and `size`, take the
place of the three: an I/O belongs to stream i with probability share; a database is random reads
and a sequential log. The stream's number is the column `stream`.

## The models

- Poisson: exponential gaps. Constant: I/O i at i / rate. Disk and stream of an I/O are drawn
  independently, so under Poisson each disk is Poisson too.
- Zipf on ranks 1..N, exact for any alpha >= 0, by rejection-inversion (Hörmann and Derflinger
  1996). Ranks are scattered over the disk by a seeded bijection, another one for each disk,
  without a table.
- An I/O that would cross the end of the footprint is moved back to end there; a sequential one
  starts over instead.
- Content: the digest of a block is a function of seed, disk, block and the number of writes to it,
  or of a pool entry; it differs from the one before the write. Never-written shared blocks are the
  same at the same address on all disks, as on clones of one image. Reads carry the digest that
  the last write left. Discards and write_zeroes cannot be combined with content.

## Example

    vaio-bench synth --list
    vaio-bench synth oltp -o T.parquet --duration 60s --seed 7
    vaio-bench synth zipf-1m -o T.parquet
    vaio-bench synth spec.toml -o T.parquet --footprint 1GiB --rate 2000
"""
