"""simulated: a run's hits beside those of a simulation of the same requests.

## What it does

Takes the requests of a run from its rows, in the order of the trace, and simulates the cache of
each policy's `cache` filter over them: the same eviction code, capacity, block, write policy, scope
and seed. `replay` tells the difference, `report` shows it.

## What the figures mean

- *requests* and *hits* are counted by block, *ios* and *io_hits* by I/O: an I/O hits when all its
  blocks do. `difference` is the run's hit ratio less the simulation's.
- In virtual time, and on the wall clock with one I/O in flight, both count exactly the same. With
  more in flight on the wall clock, I/Os that wait for one that they overlap are passed by others:
  the cache is asked in another order than the trace's.
- `why` says what else may keep them apart: read-ahead brings blocks that nobody asked for, a
  filter above the cache may reorder, an I/O that failed leaves no block. With `dedup` a block's
  content decides, which rows do not keep: nothing is simulated.

## References

The rules of counting are those of `cache`: `explain cache`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from vaio_bench import _core
from vaio_bench.schemas import IoFlag
from vaio_bench.store import Run, open_run
from vaio_bench.units import parse_size

_BATCH_ROWS = 1 << 17
# Rows are sorted in memory: about 4 GB for as many.
_ROWS_MAX = 100_000_000


@dataclass(frozen=True)
class Simulated:
    """Of one policy and round. Counts are None where nothing was simulated; `why` says so."""

    policy: str
    round: int
    eviction: str
    capacity_bytes: int
    block_bytes: int
    requests: int
    hits: int
    simulated_hits: int | None
    ios: int
    io_hits: int
    simulated_io_hits: int | None
    why: str | None

    @property
    def is_same(self) -> bool | None:
        """Whether run and simulation count the same, to the single hit."""
        if self.simulated_hits is None:
            return None
        run, simulation = (self.hits, self.io_hits), (self.simulated_hits, self.simulated_io_hits)
        return run == simulation

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with ratios and their differences (run less simulation)."""
        ratio = _ratio(self.hits, self.requests)
        io_ratio = _ratio(self.io_hits, self.ios)
        simulated = _ratio(self.simulated_hits, self.requests)
        io_simulated = _ratio(self.simulated_io_hits, self.ios)
        return asdict(self) | {
            "is_same": self.is_same,
            "hit_ratio": ratio,
            "simulated_hit_ratio": simulated,
            "difference": _less(ratio, simulated),
            "io_hit_ratio": io_ratio,
            "simulated_io_hit_ratio": io_simulated,
            "io_difference": _less(io_ratio, io_simulated),
        }


def simulated(run: Run | str | Path) -> list[Simulated]:
    """Hits of each policy with a `cache` filter and each complete round, run and simulation."""
    run = run if isinstance(run, Run) else open_run(run)
    found = []
    for policy in run.policies:
        filters = run.manifest.get("policies", {}).get(policy, {}).get("filters") or []
        caches = [each for each in filters if each.get("engine_use", each.get("use")) == "cache"]
        if len(caches) == 1 and "capacity" in (caches[0].get("params") or {}):
            rounds = run.rounds(policy, complete_only=True)
            found += [_of_round(run, policy, number, caches[0], filters) for number in rounds]
    return found


def _of_round(
    run: Run, policy: str, number: int, cache: dict[str, Any], filters: list[dict[str, Any]]
) -> Simulated:
    params = cache.get("params") or {}
    block_bytes = parse_size(params.get("block", "4KiB"), "block")
    capacity_bytes = parse_size(params["capacity"], "capacity")
    issued = (pl.col("flags").cast(pl.Int64) & int(IoFlag.DROPPED)) == 0
    rows = run.scan_ios(policy, number).filter(issued)
    hit = (pl.col("blocks") > 0) & (pl.col("blocks") == pl.col("hit_blocks"))
    counted = rows.select(
        pl.len().alias("rows"),
        (pl.col("status") != 0).sum().alias("failed"),
        pl.col("blocks").cast(pl.Int64).sum(),
        pl.col("hit_blocks").cast(pl.Int64).sum(),
        (pl.col("blocks") > 0).sum().alias("ios"),
        hit.sum().alias("io_hits"),
    ).collect(engine="streaming")
    of = counted.row(0, named=True)
    eviction = str(params.get("eviction", "lru"))
    hits: int | None = None
    io_hits: int | None = None
    why = _refused(params, of["rows"])
    if why is None:
        is_group = params.get("scope") == "group"
        around = params.get("write_policy") == "around"
        setting = {"block_bytes": block_bytes, "is_shared": is_group}
        setting["write_policy"] = "around" if around else "through"
        capacity = capacity_bytes // block_bytes
        disks = _disks(run, rows)
        seed = int(run.manifest.get("seed") or 0)
        hits, io_hits = _simulate(rows, disks, setting, eviction, capacity, seed)
        why = _apart(run, params, of["failed"], filters, (hits, io_hits), of)
    return Simulated(
        policy=policy,
        round=number,
        eviction=eviction,
        capacity_bytes=capacity_bytes,
        block_bytes=block_bytes,
        requests=of["blocks"],
        hits=of["hit_blocks"],
        simulated_hits=hits,
        ios=of["ios"],
        io_hits=of["io_hits"],
        simulated_io_hits=io_hits,
        why=why,
    )


def _refused(params: dict[str, Any], rows: int) -> str | None:
    """Why nothing is simulated."""
    if params.get("dedup"):
        return "with dedup, content decides what hits, and rows do not keep it"
    if rows > _ROWS_MAX:
        return f"more than {_ROWS_MAX:,} rows: `vaio-bench cache` simulates the trace itself"
    return None


def _apart(
    run: Run,
    params: dict[str, Any],
    failed: int,
    filters: list[dict[str, Any]],
    simulation: tuple[int, int],
    of: dict[str, Any],
) -> str | None:
    """What keeps run and simulation apart, where they are."""
    if simulation == (of["hit_blocks"], of["io_hits"]):
        return None
    reasons = []
    if "read_ahead" in params:
        reasons.append("read-ahead brought blocks that nobody had asked for")
    if failed:
        reasons.append("I/Os failed")
    if filters[0].get("engine_use", filters[0].get("use")) != "cache":
        reasons.append("filters above the cache may have reordered what it saw")
    pacing = run.manifest.get("pacing") or {}
    if not run.virtual_clock and (pacing.get("mode") != "asap" or pacing.get("depth") != 1):
        reasons.append("with several I/Os in flight, some passed those that waited")
    return "; ".join(reasons) or None


def _disks(run: Run, rows: pl.LazyFrame) -> list[str]:
    """Names of the disks in the order of the run's numbers."""
    known = [str(disk) for disk in (run.manifest.get("trace") or {}).get("disks") or []]
    stored = rows.select(pl.col("disk").cast(pl.String).unique()).collect()["disk"].to_list()
    return known + sorted(set(stored) - set(known))


def _simulate(
    rows: pl.LazyFrame,
    disks: list[str],
    setting: dict[str, Any],
    eviction: str,
    capacity: int,
    seed: int,
) -> tuple[int, int]:
    """Hits by block and by I/O."""
    columns = ["op", "disk", "offset_bytes", "length_bytes"]
    ordered = (
        rows.select("seq", "trace_offset_bytes", *columns)
        .with_columns(pl.col("disk").cast(pl.String).cast(pl.Enum(disks)))
        .sort("seq", "trace_offset_bytes")
        .select(*columns)
        .collect(engine="streaming")
    )
    # In the trace's order, whatever its times: nothing here depends on them.
    table = ordered.with_row_index("time_ns").with_columns(pl.col("time_ns").cast(pl.Int64))
    arrow = table.to_arrow()

    def reader() -> pa.RecordBatchReader:
        batches = arrow.to_batches(max_chunksize=_BATCH_ROWS)
        return pa.RecordBatchReader.from_batches(arrow.schema, batches)

    setting |= {"warmup_ios": 0, "warmup_ns": 0, "bucket_ns": 1 << 40}
    setting |= {"keep_bytes": 1 << 30, "threads": 0}
    engine = _core.CacheTrace(reader, "the run's rows", json.dumps(setting))
    streams = json.loads(engine.summary())["streams"]
    jobs = [
        {"policy": eviction, "stream": at, "capacity": capacity}
        for at, stream in enumerate(streams)
        if stream["unique_blocks"]
    ]
    reports = json.loads(engine.simulate(json.dumps(jobs), seed)) if jobs else []
    return sum(each["hits"] for each in reports), sum(each["io_hits"] for each in reports)


def _ratio(part: int | None, whole: int) -> float | None:
    return part / whole if whole and part is not None else None


def _less(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other
