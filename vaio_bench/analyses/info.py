"""info: what the workload of a trace is.

## What it does

Reads a canonical trace once and profiles it, all disks together and each by itself: mix, sizes,
alignment, sequentiality, footprint and working set, overwrites, reuse, popularity, interarrival
times, burstiness, and, where the trace has latencies, those and the outstanding I/Os. Memory
follows the footprint, not the length.

## What the figures mean

- A *block request* is one block (`--block`, 4 KiB by default) touched by one read, write or
  write_zeroes; an I/O of 12 KiB is three. `unique_blocks`, `footprint_bytes` (their number times
  the block), overwrites, working set and reuse count block requests. Discards and flushes are
  none.
- *Sequential*: starts where the disk's last read or write ended; *near-sequential*: where one of
  the last 32 did.
- *Reuse distance*: distinct other blocks requested since the block's last request; an LRU cache
  of that many blocks or fewer misses. Exact up to 2 million regions of 8 blocks, beyond that
  sampled (SHARDS-adj); `reuse.sampled` is the share tracked, 1 when exact.
- *Working set*: distinct blocks in each complete window of 10 s, 1 min, 10 min, 1 h.
- *Burstiness*: over complete windows of 100 ms, 1 s, 1 min: peak to mean, and the index of
  dispersion (variance over mean of the counts; 1 for Poisson). `hurst` is estimated from
  aggregated variances and is null when the trace has too few scales (about 5 s are needed).
- *Outstanding*: the depth an arriving I/O finds, from captured latencies.
- Percentiles are nearest-rank: exact up to 16,384 values, then off by at most 0.2 %.

## Example

    vaio-bench info T.parquet
    vaio-bench info T.parquet --block 64KiB --json

## References

Mattson et al. 1970 (stack distance); Waldspurger et al., FAST '15 (SHARDS); Taqqu, Teverovsky
and Willinger 1995 (aggregated variance); Gulati et al. 2009 (vscsiStats, look-back window).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vaio_bench import _core
from vaio_bench.trace import open_trace
from vaio_bench.units import format_size, parse_size

# What the profile reads; `content` may be large and says nothing here.
_COLUMNS = ("time_ns", "disk", "op", "offset_bytes", "length_bytes", "latency_ns", "flags")


def info(
    trace: str | Path,
    *,
    block: str | int = "4KiB",
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """The workload profile of a canonical trace, as the document of `info --json`.

    Args:
        trace: Canonical Parquet file.
        block: Unit of footprint and reuse: a power of two from 512 bytes to 1 GiB.
        progress: Called with (rows done, rows in all) after every batch.

    Returns:
        `{"trace", "description" (a sentence), "ios", "reads", "writes", "flushes", "discards",
        "read_bytes", "write_bytes", "duration_s", "footprint_bytes", "unique_blocks",
        "block_bytes", "working_set", "reuse", "interarrival_ns", "burstiness", "hurst",
        "outstanding", "sizes", "alignment", "sequentiality", "latency_ns", ...,
        "disks": [{"disk", and the same keys}, ...]}`. Units
        are in the names; a share or figure that the trace cannot give is null.

    Raises:
        InputError: The file is missing, damaged or no canonical trace; names the row if one is
            wrong. Also for a bad `block`.
    """
    block_bytes = parse_size(block, "--block")
    path = str(trace)
    with open_trace(path) as opened:
        rows = opened.rows
        report = (lambda done: progress(done, rows)) if progress else None
        document = _core.profile_trace(opened.reader(_COLUMNS), path, block_bytes, report)
    profile = json.loads(document)
    return {"trace": path, "description": describe(profile), **profile}


def describe(profile: dict[str, Any]) -> str:
    """What the workload is, in words.

    Args:
        profile: A document of `info`, or one of its disks.
    """
    if not profile["ios"]:
        return "An empty trace: no I/O at all."
    words = [f"A {_mix(profile)} workload"]
    size = _typical_size(profile)
    if size:
        words.append(f"of {_order(profile)} I/Os of {size}")
    words.append(f"on {format_size(profile['footprint_bytes'])}")
    disks = len(profile.get("disks", ()))
    if disks > 1:
        words.append(f"of {disks} disks")
    sentence = " ".join(words)
    extras = [text for text in (_arrival(profile), _locality(profile)) if text]
    return "; ".join([sentence, *extras]) + "."


def _mix(profile: dict[str, Any]) -> str:
    share = profile["read_share"]
    if share is None:
        return "flush-only" if profile["flushes"] == profile["ios"] else "data-free"
    if share in (0, 1):
        return "read-only" if share else "write-only"
    for limit, name in ((0.9, "read-mostly"), (0.6, "read-heavy"), (0.4, "mixed")):
        if share >= limit:
            return f"{name} ({percent(share)} reads)"
    kind = "write-heavy" if share > 0.1 else "write-mostly"
    return f"{kind} ({percent(1 - share)} writes)"


def _order(profile: dict[str, Any]) -> str:
    near = profile["sequentiality"]["near_sequential_share"]
    grades = ((0.9, "sequential"), (0.6, "mostly sequential"), (0.3, "partly sequential"))
    for limit, name in grades:
        if near >= limit:
            return name
    return "random" if near < 0.1 else "mostly random"


def _typical_size(profile: dict[str, Any]) -> str | None:
    sizes = profile["sizes"]
    medians = [sizes[k]["p50"] for k in ("read_bytes", "write_bytes") if sizes[k]]
    if not medians:
        return None
    if len(set(medians)) == 1:
        return f"{format_size(medians[0])} (median)"
    return f"{format_size(medians[0])} read, {format_size(medians[1])} written (medians)"


def _arrival(profile: dict[str, Any]) -> str | None:
    rate = profile["iops"]
    if rate is None:
        return None
    bursts = {b["window_s"]: b for b in profile["burstiness"]}
    burst = bursts.get(1.0) or bursts.get(0.1)
    text = f"{number(rate)} I/Os a second"
    if burst is None:
        return text
    ratio, span = burst["peak_to_mean"], "second" if burst["window_s"] == 1 else "100 ms"
    steady = "steady" if ratio < 1.5 else "uneven" if ratio < 3 else "bursty"
    return f"{text}, {steady} (the busiest {span} has {ratio:.1f} times the mean)"


def _locality(profile: dict[str, Any]) -> str | None:
    for point in profile["reuse"]["lru"]:
        if point["footprint_share"] == 0.1:
            ratio = percent(point["hit_ratio"])
            return f"an LRU cache of 10 % of the footprint would hit {ratio} of block requests"
    return None


def percent(share: float) -> str:
    """A share for people: "7.3 %"; only all of it reads as 100 %."""
    value = 100 * share
    if 99.5 <= value < 100:
        return ">99 %"
    decimals = 0 if value >= 10 or value == 0 else 1 if value >= 1 else 2
    return f"{value:.{decimals}f} %"


def number(value: float) -> str:
    """A count or a rate for people: "1,234", "0.25"."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
