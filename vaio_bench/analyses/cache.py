"""cache: what a cache of a size under a policy would hit, for many of both at once.

## What it does

Reads a trace once, turns its I/Os into requests for blocks and runs every eviction policy at every
size over them, on all processors: the very code that the `cache` filter runs, so that both count
the same hits on the same requests. With `--curve` it gives whole miss-ratio curves, the working
set over time, the knee of each curve and a recommendation (see `cache-curves`).

## What the figures mean

- A *request* is one block (`--block`, 4 KiB by default) touched by one read, write or
  write_zeroes, in order of address: 12 KiB at blocks of 4 KiB are three. Reads and writes both
  look up and both insert. A flush is no request. A discard invalidates the blocks that it covers
  whole.
- *hit_ratio* counts all requests, *read_hit_ratio* those of reads, which is what a product's
  "hit rate" as a rule means. *byte_hit_ratio* counts the bytes of I/Os that lay in blocks that
  hit: a block touched in part counts in part. *io_hit_ratio* counts I/Os all of whose blocks hit.
- *Sizes* are absolute or a share of the footprint (the distinct blocks of the trace); a cache
  holds floor(size / block) blocks.
- *One cache a disk*, each of the size, as the filter has it; a share is of the disk's own
  footprint, and `size_bytes` is then the sum. With `--shared` one cache serves all disks.
- `--write-policy through` and `back` count the same hits. With *around*, a write hits when its
  block is cached, which it updates; one that misses goes past the cache and inserts nothing.
- With *back*, a block is dirty from its first write until it leaves the cache, a flush of its
  disk, or a discard. Losing the cache loses what was written since the first write of the block
  that is dirty the longest: its age is the RPO of the loss.
- With `--dedup`, each result has `content`, too: what a content-based cache (the filter's `dedup`)
  of the size hits, which keeps one copy of what several addresses hold. The trace must name its
  contents (`synth` does where asked, FIU's traces do). `logical_bytes` is what the cached copies
  (`physical_bytes`) stand for, `shared_blocks` how many blocks were brought that were there.
  With `--shared` disks share copies, else each keeps its own. What a block holds is looked up when
  the I/O comes and learnt when it is done: a write counts as a hit where its block's old content
  was here. w-tinylfu hashes other numbers than the filter, which has digests of data.
- `--warmup` (a share of the I/Os, or a time) leaves the first part out of the counts; series over
  time show it all.

Memory: 4 bytes a request, up to 1 GiB, beyond which the trace is read again for each step; 8
bytes a distinct block; 4 more, and 15 to 53 a cached one, for each cache that is running, one a
processor (`scripts/bench_eviction.py --memory` measures them). 100 M requests over 3.9 M blocks
took 1.2 GiB at most for three policies, 2.2 GiB for lru's curve (`--hundred-million`).

## Example

    vaio-bench cache T.parquet --policy lru --policy arc --size 1GiB --size 5%
    vaio-bench cache T.parquet --curve --json

## References

Mattson et al., IBM Systems Journal 9 (2), 1970; the counting is that of libCacheSim, by block.
Each policy's page names its paper: `explain arc`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from vaio_bench import _core, catalogue
from vaio_bench.analyses import cache_curves
from vaio_bench.analyses.study import Study
from vaio_bench.errors import InputError
from vaio_bench.trace import REQUIRED, Trace, open_trace
from vaio_bench.units import format_size, parse_share, parse_size, parse_time_ns

WRITE_POLICIES = ("through", "back", "around")
DEFAULT_SIZES = ("1%", "5%", "10%", "20%", "50%")
# Series have as many buckets of time; the engine's number.
_BUCKETS = 240
_KEEP_BYTES = 1 << 30
_CONTENT_BYTES = 4096
# Of a block.
_BLOCK_MIN, _BLOCK_MAX = 512, 1 << 30

Progress = Callable[[str, int, int], object]


@dataclass(frozen=True)
class CacheStudy(Study):
    """What `cache` found."""

    @property
    def results(self) -> list[dict[str, Any]]:
        """One document for each policy and size."""
        return list(self.document["results"])

    def frame(self) -> pl.DataFrame:
        """The results as a table: a row for each policy and size, without series."""
        flat = [
            {key: value for key, value in each.items() if not isinstance(value, list | dict)}
            for each in self.results
        ]
        return pl.DataFrame(flat, infer_schema_length=None)


@dataclass(frozen=True)
class _Size:
    """A size as it was asked for: bytes, or a share of the footprint."""

    text: str
    size_bytes: int | None
    share: float

    def of(self, footprint_bytes: int) -> int:
        """Bytes of the cache over a footprint."""
        return int(self.share * footprint_bytes) if self.size_bytes is None else self.size_bytes


def cache(
    trace: str | Path,
    *,
    policies: Sequence[str] = (),
    sizes: Sequence[str | int] = (),
    block: str | int = "4KiB",
    write_policy: str = "through",
    warmup: str | None = None,
    shared: bool = False,
    dedup: bool = False,
    curve: bool = False,
    sample: str | float | None = None,
    seed: int = 0,
    threads: int = 0,
    progress: Progress | None = None,
) -> CacheStudy:
    """Simulates caches over a trace.

    Args:
        trace: Canonical Parquet file.
        policies: Names of eviction policies, "belady" included; none: all.
        sizes: "512MiB", bytes, or a share of the footprint, "5%"; none: some shares.
        block: Bytes of a block: a power of two from 512 bytes to 1 GiB.
        write_policy: "through", "back" or "around".
        warmup: Not counted: a share of the I/Os ("10%") or a time ("5min") at the start.
        shared: One cache for all disks, not one for each.
        dedup: What content-based caches hit, too.
        curve: Whole curves, too.
        sample: Share of the blocks that curves of policies other than lru are simulated on;
            None: about 65,536 blocks; 1 is exact.
        seed: Of policies that draw.
        threads: 0: as many as there are processors.
        progress: Called with (what is done, how much, of how much).

    Raises:
        InputError: An option is wrong (an unknown policy: the nearest name is given), or the file
            is missing, damaged or no canonical trace.
    """
    names = [_policy(name) for name in policies] or _all_policies()
    asked = [_size(size) for size in sizes or DEFAULT_SIZES]
    block_bytes = _block_bytes(block)
    _check(write_policy, sample, curve=curve)
    with open_trace(trace) as opened:
        if dedup:
            _check_dedup(opened, block_bytes, write_policy)
        columns = [*REQUIRED, *(["content"] if dedup else [])]
        setting = {
            "block_bytes": block_bytes,
            "is_shared": shared,
            "write_policy": write_policy,
            **_warmup(warmup, opened),
            "bucket_ns": opened.duration_ns // _BUCKETS + 1,
            "keep_bytes": _KEEP_BYTES,
            "threads": threads,
        }
        engine = _core.CacheTrace(
            lambda: opened.reader(columns, batch_rows=1 << 17),
            str(trace),
            json.dumps(setting),
            _phase(progress, "reading", opened.rows),
        )
        summary = json.loads(engine.summary())
        if not any(stream["unique_blocks"] for stream in summary["streams"]):
            raise InputError(f"{trace}: no reads or writes to simulate")
        document: dict[str, Any] = {
            "trace": str(trace),
            "block_bytes": block_bytes,
            "unit": "block",
            "write_policy": write_policy,
            "warmup": warmup,
            "scope": "shared" if shared else "disk",
            "seed": seed,
            "ios": summary["ios"],
            "duration_s": summary["duration_ns"] / 1e9,
            "footprint_bytes": block_bytes * sum(_blocks(summary)),
            "caches": sum(1 for blocks in _blocks(summary) if blocks),
        }
        warnings: list[str] = []
        found = _simulate(engine, summary, names, asked, document, warnings, progress)
        document |= found
        if dedup:
            _add_contents(engine, summary, document, progress)
        if curve:
            marked = sorted({each["capacity_blocks"] for each in document["results"]})
            document |= cache_curves.curves(
                engine, summary, names, marked, document, sample=sample, progress=progress
            )
        document["warnings"] = warnings
        document["answer"] = cache_curves.answer(document)
    return CacheStudy(document)


def _block_bytes(block: str | int) -> int:
    block_bytes = parse_size(block, "--block")
    if block_bytes.bit_count() != 1 or not _BLOCK_MIN <= block_bytes <= _BLOCK_MAX:
        raise InputError(
            f'--block: expected a power of two from 512B to 1GiB, such as "4KiB", got "{block}"'
        )
    return block_bytes


def _check(write_policy: str, sample: str | float | None, *, curve: bool) -> None:
    if write_policy not in WRITE_POLICIES:
        expected = ", ".join(WRITE_POLICIES)
        raise InputError(f'--write-policy: expected one of {expected}, got "{write_policy}"')
    if sample is not None and not curve:
        raise InputError("--sample: expected --curve beside it: nothing else is sampled")


def _check_dedup(opened: Trace, block_bytes: int, write_policy: str) -> None:
    if "content" not in opened.schema.names:
        raise InputError(f"--dedup: {opened.path} does not name its contents (column content)")
    if block_bytes != _CONTENT_BYTES:
        raise InputError(f"--dedup: expected --block 4KiB, the unit of content, got {block_bytes}")
    if write_policy != "through":
        raise InputError(f'--dedup: expected --write-policy through, got "{write_policy}"')


def _add_contents(
    engine: _core.CacheTrace,
    summary: dict[str, Any],
    document: dict[str, Any],
    progress: Progress | None,
) -> None:
    """Gives each result of an online policy what a content-based cache hits."""
    block_bytes, blocks = document["block_bytes"], _blocks(summary)
    results = [each for each in document["results"] if each["policy"] != "belady"]
    streams = [at for at, count in enumerate(blocks) if count]
    jobs = [
        {
            "policy": each["policy"],
            "stream": at,
            "capacity": _capacity(_size(each["size"]), blocks[at], block_bytes),
        }
        for each in results
        for at in streams
    ]
    told = _phase(progress, "by content", summary["ios"])
    reports = iter(json.loads(engine.simulate_contents(json.dumps(jobs), document["seed"], told)))
    for each in results:
        own = [next(reports) for _ in streams]
        sums = {key: sum(report[key] for report in own) for key in own[0]}
        each["content"] = {
            **{key: sums[key] for key in ("requests", "hits", "read_requests", "read_hits")},
            "hit_ratio": _ratio(sums["hits"], sums["requests"]),
            "read_hit_ratio": _ratio(sums["read_hits"], sums["read_requests"]),
            "logical_bytes": sums["logical_blocks"] * block_bytes,
            "physical_bytes": sums["resident_blocks"] * block_bytes,
            "shared_blocks": sums["shared_blocks"],
        }


def _all_policies() -> list[str]:
    return [kind.name for kind in catalogue.kinds() if kind.kind == "eviction"]


def _policy(name: str) -> str:
    known = _all_policies()
    if name in known:
        return name
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
    raise InputError(f'--policy: unknown eviction policy "{name}": {hint}')


def _size(size: str | int) -> _Size:
    text = str(size)
    if text.strip().endswith("%"):
        share = parse_share(text, "--size")
        if share <= 0:
            raise InputError(f'--size: expected a share above zero, got "{text}"')
        return _Size(text, None, share)
    size_bytes = parse_size(size, "--size")
    if size_bytes == 0:
        raise InputError(f'--size: expected a size above zero, got "{text}"')
    return _Size(text, size_bytes, 0.0)


def _warmup(warmup: str | None, opened: Trace) -> dict[str, int]:
    if warmup is None:
        return {"warmup_ios": 0, "warmup_ns": 0}
    if warmup.strip().endswith("%"):
        share = parse_share(warmup, "--warmup")
        if share >= 1:
            raise InputError(f'--warmup: expected a share below 100%, got "{warmup}"')
        return {"warmup_ios": int(share * opened.rows), "warmup_ns": 0}
    warmup_ns = parse_time_ns(warmup, "--warmup")
    if warmup_ns and warmup_ns >= opened.duration_ns:
        raise InputError(f'--warmup: expected less than the whole trace, got "{warmup}"')
    return {"warmup_ios": 0, "warmup_ns": warmup_ns}


def _phase(progress: Progress | None, what: str, total: int) -> Callable[[int], object] | None:
    return (lambda done: progress(what, done, total)) if progress else None


def _blocks(summary: dict[str, Any]) -> list[int]:
    return [int(stream["unique_blocks"]) for stream in summary["streams"]]


def _simulate(
    engine: _core.CacheTrace,
    summary: dict[str, Any],
    names: Sequence[str],
    asked: Sequence[_Size],
    document: dict[str, Any],
    warnings: list[str],
    progress: Progress | None,
) -> dict[str, Any]:
    """The results, and the series that they share."""
    block_bytes = document["block_bytes"]
    streams = [at for at, blocks in enumerate(_blocks(summary)) if blocks]
    capacities = {
        (size.text, at): _capacity(size, _blocks(summary)[at], block_bytes)
        for size in asked
        for at in streams
    }
    warnings += _size_warnings(asked, capacities, summary, block_bytes)
    if "belady" in names and document["write_policy"] == "around":
        warnings.append(
            "belady is no bound with write-around: it counts writes that insert nothing"
        )
    keys = [(name, size, at) for name in names for size in asked for at in streams]
    jobs = [
        {"policy": name, "stream": at, "capacity": capacities[size.text, at]}
        for name, size, at in keys
    ]
    requests = sum(stream["requests"] for stream in summary["streams"])
    told = _phase(progress, "simulating", len(names) * len(asked) * requests)
    reports = json.loads(engine.simulate(json.dumps(jobs), document["seed"], told))
    by_key: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for (name, size, at), job, report in zip(keys, jobs, reports, strict=True):
        by_key.setdefault((name, size.text), []).append({"stream": at, **job, **report})
    results = [
        _result(name, size, by_key[name, size.text], summary, document)
        for name in names
        for size in asked
    ]
    first = next(iter(by_key.values()))
    width_s = (summary["duration_ns"] // _BUCKETS + 1) / 1e9
    series = {
        "time_s": [(at + 1) * width_s for at in range(_BUCKETS)],
        "requests": [sum(each["series"][at][0] for each in first) for at in range(_BUCKETS)],
    }
    return {"results": results, "series": series}


def _capacity(size: _Size, blocks: int, block_bytes: int) -> int:
    capacity = size.of(blocks * block_bytes) // block_bytes
    if size.size_bytes is None:
        # A share of hardly any blocks: the smallest cache there is.
        return max(1, capacity)
    if capacity == 0:
        raise InputError(
            f'--size: expected at least a block of {format_size(block_bytes)}, got "{size.text}"'
        )
    # A cache that holds all there is never evicts, however large it is.
    return min(capacity, blocks + 1)


def _size_warnings(
    asked: Sequence[_Size],
    capacities: dict[tuple[str, int], int],
    summary: dict[str, Any],
    block_bytes: int,
) -> list[str]:
    blocks = _blocks(summary)
    largest = max(blocks) * block_bytes
    found = []
    for size in asked:
        mine = [(at, held) for (text, at), held in capacities.items() if text == size.text]
        if all(held > blocks[at] for at, held in mine):
            found.append(
                f"--size {size.text} is above the footprint of {format_size(largest)}: only the "
                "first request of each block misses, and a larger cache changes nothing"
            )
    return found


def _result(
    name: str,
    size: _Size,
    reports: list[dict[str, Any]],
    summary: dict[str, Any],
    document: dict[str, Any],
) -> dict[str, Any]:
    """One policy at one size, over all its caches."""
    block_bytes, blocks = document["block_bytes"], _blocks(summary)
    streams = [summary["streams"][each["stream"]] for each in reports]
    size_bytes = size.size_bytes
    if size_bytes is None:
        of = [size.of(blocks[each["stream"]] * block_bytes) for each in reports]
        size_bytes = sum(max(block_bytes, each) for each in of)
    sums = {
        key: sum(stream[key] for stream in streams)
        for key in ("ios", "read_ios", "requests", "read_requests", "bytes", "read_bytes")
    }
    hit = {
        key: sum(each[key] for each in reports)
        for key in (
            "hits", "read_hits", "io_hits", "read_io_hits", "hit_bytes", "read_hit_bytes",
            "resident_blocks",
        )
    }  # fmt: skip
    misses = sums["requests"] - hit["hits"]
    write_requests = sums["requests"] - sums["read_requests"]
    write_hits = hit["hits"] - hit["read_hits"]
    result = {
        "policy": name,
        "size": size.text,
        "size_bytes": size_bytes,
        "capacity_blocks": size_bytes // block_bytes,
        **sums,
        **hit,
        "misses": misses,
        "write_requests": write_requests,
        "write_hits": write_hits,
        "hit_ratio": _ratio(hit["hits"], sums["requests"]),
        "miss_ratio": _ratio(misses, sums["requests"]),
        "read_hit_ratio": _ratio(hit["read_hits"], sums["read_requests"]),
        "write_hit_ratio": _ratio(write_hits, write_requests),
        "io_hit_ratio": _ratio(hit["io_hits"], sums["ios"]),
        "read_io_hit_ratio": _ratio(hit["read_io_hits"], sums["read_ios"]),
        "byte_hit_ratio": _ratio(hit["hit_bytes"], sums["bytes"]),
        "read_byte_hit_ratio": _ratio(hit["read_hit_bytes"], sums["read_bytes"]),
        "hits_over_time": [
            sum(each["series"][at][1] for each in reports) for at in range(_BUCKETS)
        ],
    }
    if document["write_policy"] == "back":
        result["write_back"] = _write_back([each["dirty"] for each in reports])
    return result


def _write_back(dirty: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums over the caches; ages are those of the oldest."""
    points = list(zip(*(each["series"] for each in dirty), strict=True))
    return {
        "dirty_bytes_max": sum(each["max_bytes"] for each in dirty),
        "dirty_bytes_end": sum(each["end_bytes"] for each in dirty),
        "age_max_s": max(each["max_age_ns"] for each in dirty) / 1e9,
        "age_mean_s": max(each["mean_age_ns"] for each in dirty) / 1e9,
        "written_blocks": sum(each["written_blocks"] for each in dirty),
        "destaged_blocks": sum(each["destaged_blocks"] for each in dirty),
        "dirty_bytes_over_time": [sum(each["dirty_bytes"] for each in point) for point in points],
        "age_s_over_time": [max(each["age_ns"] for each in point) / 1e9 for point in points],
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
