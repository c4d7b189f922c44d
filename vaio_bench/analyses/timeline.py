"""The timeline of a run: its rows gathered into intervals, per policy, round and disk.

Rows lie in the order of completion, disks mixed, but nothing here relies on it: the time range of
each part is read from its Parquet footer, time is cut into windows at the parts' starts, and each
window reads only the parts that reach into it. Memory is that of a few parts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from vaio_bench import schemas
from vaio_bench.analyses import quantiles
from vaio_bench.analyses.told import Told
from vaio_bench.errors import WorkError
from vaio_bench.store import Run, open_run

INTERVAL_NS = 100_000_000


@dataclass(frozen=True)
class _Part:
    path: Path
    first_ns: int
    last_ns: int


def round_timeline(
    run: Run | str | Path, policy: str, round_: int, *, interval_ns: int = INTERVAL_NS
) -> Iterator[pa.Table]:
    """The timeline of one round as tables of `schemas.TIMELINE`, ascending in time.

    An I/O belongs to the interval in which it completed; intervals without one have no row.

    Raises:
        InputError: the round has no rows.
    """
    run = run if isinstance(run, Run) else open_run(run)
    run.scan_ios(policy, round_)  # raises for a round without rows
    parts = [_range_of(path) for path in run.parts_of[policy, round_]]
    parts = [part for part in parts if part.last_ns >= part.first_ns]
    told = Told(run, policy, round_)
    starts = sorted({part.first_ns // interval_ns * interval_ns for part in parts})
    last = max((part.last_ns for part in parts), default=-1)
    for start, end in zip(starts, [*starts[1:], last + 1], strict=True):
        reaching = [part.path for part in parts if part.first_ns < end and part.last_ns >= start]
        rows = pl.scan_parquet(reaching, glob=False).filter(
            pl.col("complete_ns").is_between(start, end, closed="left")
        )
        gathered = told.beside(_gather(rows, policy, round_, interval_ns))
        if not gathered.is_empty():
            yield gathered.select(schemas.TIMELINE.names).to_arrow().cast(schemas.TIMELINE)


def append_round(
    run: Run | str | Path, policy: str, round_: int, *, interval_ns: int = INTERVAL_NS
) -> Path:
    """Add one round to `RUN/timeline.parquet`; what is there of that round is replaced.

    The file is written aside and renamed: a reader sees the old one or the new one.
    """
    run = run if isinstance(run, Run) else open_run(run)
    path = run.path / "timeline.parquet"
    aside = path.with_name(f"{path.name}.partial")
    try:
        with pq.ParquetWriter(aside, schemas.TIMELINE, compression="zstd") as writer:
            if path.is_file():
                stored = pq.ParquetFile(path)
                for group in range(stored.num_row_groups):
                    kept = _without(stored.read_row_group(group), policy, round_)
                    if kept.num_rows:
                        writer.write_table(kept.cast(schemas.TIMELINE))
            for table in round_timeline(run, policy, round_, interval_ns=interval_ns):
                writer.write_table(table)
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise WorkError(f"{path}: cannot write: {error}") from None
    return path


def _without(table: pa.Table, policy: str, round_: int) -> pa.Table:
    same = pa.compute.and_(
        pa.compute.equal(table["policy"], policy), pa.compute.equal(table["round"], round_)
    )
    return table.filter(pa.compute.invert(same))


def _range_of(path: Path) -> _Part:
    """First and last completion of a part, from the statistics in its footer where it has them."""
    metadata = pq.ParquetFile(path).metadata
    names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    column = names.index("complete_ns")
    found = [
        metadata.row_group(g).column(column).statistics for g in range(metadata.num_row_groups)
    ]
    known = [each for each in found if each is not None and each.has_min_max]
    if found and len(known) == len(found):
        return _Part(path, min(each.min for each in known), max(each.max for each in known))
    ends = pl.scan_parquet(path, glob=False).select(
        pl.col("complete_ns").min().alias("first"), pl.col("complete_ns").max().alias("last")
    )
    first, last = ends.collect(engine="streaming").row(0)
    return _Part(path, first, last) if first is not None else _Part(path, 0, -1)


def _gather(rows: pl.LazyFrame, policy: str, round_: int, interval_ns: int) -> pl.DataFrame:
    op = pl.col("op").cast(pl.String)
    done = pl.col("status") == 0
    read, write = done & (op == "read"), done & op.is_in(["write", "write_zeroes"])
    seconds = interval_ns / 1e9
    quantities = {
        "latency": quantiles.LATENCY_NS.filter(done),
        "response": quantiles.RESPONSE_NS.filter(done),
    }
    ladder = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return (
        rows.filter(quantiles.issued())
        .group_by(
            pl.col("disk").cast(pl.String),
            (pl.col("complete_ns") // interval_ns * interval_ns).alias("start_ns"),
        )
        .agg(
            done.sum().alias("ios"),
            read.sum().alias("reads"),
            write.sum().alias("writes"),
            (~done).sum().alias("errors"),
            pl.col("length_bytes").filter(read).sum().alias("read_bytes"),
            pl.col("length_bytes").filter(write).sum().alias("write_bytes"),
            *[
                value.quantile(q, interpolation="equiprobable").alias(f"{name}_{step}_ns")
                for name, value in quantities.items()
                for step, q in ladder.items()
            ],
            quantiles.ISSUE_ERROR_NS.max().alias("issue_error_max_ns"),
            pl.col("cpu_ns").list.sum().sum().alias("cpu_ns"),
            pl.col("blocks").filter(done).sum(),
            pl.col("hit_blocks").filter(done).sum(),
        )
        .with_columns(
            pl.lit(policy).alias("policy"),
            pl.lit(round_).alias("round"),
            pl.lit(interval_ns).alias("interval_ns"),
            (pl.col("ios") / seconds).alias("iops"),
            ((pl.col("read_bytes") + pl.col("write_bytes")) / seconds).alias("bytes_per_s"),
        )
        .sort("start_ns", "disk")
        .collect(engine="streaming")
    )
