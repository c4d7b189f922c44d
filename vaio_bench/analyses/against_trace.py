"""A round's rows against the trace file: is every I/O there as recorded, and as many in flight?

Rows and trace are compared by a sum of hashes of (seq, op, offset, length), in one streaming pass
each; only where the sums differ are the rows looked up one by one. How many I/Os are in flight is
their latencies over the time (J. D. C. Little, A Proof for the Queuing Formula L = lambda W, 1961),
interval by interval.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from vaio_bench.analyses import quantiles
from vaio_bench.store import Run

IN_FLIGHT_INTERVAL_NS = 100_000_000
# Fewer latencies than this share, and what was in flight at capture is not known.
_LATENCIES_MIN = 0.99
_IDENTITY = ("seq", "op", "trace_offset_bytes", "length_bytes")


@dataclass(frozen=True)
class Recorded:
    """The window of the trace that a run replayed, ready to be compared with its rounds."""

    rows: pl.LazyFrame
    ios: int
    digest: int
    in_flight: pl.DataFrame | None
    in_flight_mean: float | None


def recorded(run: Run) -> Recorded | None:
    """The run's trace; None where its file is gone or is another now."""
    known = run.manifest.get("trace") or {}
    named = str(known.get("path", ""))
    # A relative path is that of the folder in which the run was begun, wherever one asks from.
    path = Path(run.manifest.get("began_in") or "", named)
    path = path if path.is_file() else Path(named)
    if not path.is_file() or known.get("sha256") != _sha256(path):
        return None
    rows = (
        pl.scan_parquet(path, glob=False)
        .with_row_index("seq")
        .filter(pl.col("disk").cast(pl.String).is_in(known["disks"]))
        .slice(known.get("skip") or 0, known.get("limit"))
        .select(
            pl.col("seq").cast(pl.Int64),
            pl.col("op").cast(pl.String),
            pl.col("offset_bytes").alias("trace_offset_bytes"),
            "length_bytes",
            "time_ns",
            "latency_ns",
        )
    )
    counted = rows.select(
        pl.len().alias("ios"),
        _digest().alias("digest"),
        pl.col("latency_ns").count().alias("timed"),
        pl.col("latency_ns").sum().alias("latency"),
        pl.col("time_ns").min().alias("first"),
        pl.col("time_ns").max().alias("last"),
    ).collect(engine="streaming").to_dicts()[0]  # fmt: skip
    speed = float((run.manifest.get("pacing") or {}).get("speed") or 1.0)
    series = mean = None
    if counted["ios"] and counted["timed"] >= _LATENCIES_MIN * counted["ios"]:
        due = (pl.col("time_ns") - counted["first"]) / speed
        series = _in_flight(rows, due.cast(pl.Int64), pl.col("latency_ns"))
        span = max((counted["last"] - counted["first"]) / speed, 1.0)
        mean = counted["latency"] / span
    return Recorded(rows, counted["ios"], counted["digest"], series, mean)


@dataclass(frozen=True)
class Against:
    """What a round's rows show against the trace; None: it cannot be told.

    `missing` I/Os of the trace have no row, `altered` have one of another operation, place or
    length. `in_flight_error` is the mean over intervals of how far the number in flight was from
    the recorded one.
    """

    missing: int | None = None
    altered: int | None = None
    in_flight_mean: float | None = None
    in_flight_recorded_mean: float | None = None
    in_flight_error: float | None = None


def against(run: Run, policy: str, round_: int, trace: Recorded | None) -> Against:
    """Compares one round with what was recorded."""
    rows = run.scan_ios(policy, round_).with_columns(pl.col("op").cast(pl.String))
    found = (
        rows.filter(quantiles.issued())
        .select(
            pl.len().alias("ios"),
            quantiles.LATENCY_NS.sum().alias("latency"),
            (pl.col("submit_ns").max() - pl.col("submit_ns").min()).alias("span"),
        )
        .collect(engine="streaming")
        .to_dicts()[0]
    )
    mean = found["latency"] / max(found["span"] or 0, 1) if found["ios"] else None
    if trace is None:
        return Against(in_flight_mean=mean)
    missing, altered = _content(run, rows, trace)
    if trace.in_flight is None:
        return Against(missing, altered, mean)
    ours = _in_flight(rows.filter(quantiles.issued()), pl.col("submit_ns"), quantiles.LATENCY_NS)
    both = trace.in_flight.join(ours, on="interval", how="full", coalesce=True, suffix="_ours")
    off = (pl.col("in_flight").fill_null(0) - pl.col("in_flight_ours").fill_null(0)).abs()
    error = both.select(off.mean()).item()
    return Against(missing, altered, mean, trace.in_flight_mean, error)


def _content(run: Run, rows: pl.LazyFrame, trace: Recorded) -> tuple[int | None, int | None]:
    if run.manifest.get("fit_to"):
        # The fit map makes several rows of one I/O, at places of its own.
        return None, None
    counted = rows.select(pl.len().alias("ios"), _digest().alias("digest"))
    found = counted.collect(engine="streaming").to_dicts()[0]
    if (found["ios"], found["digest"]) == (trace.ios, trace.digest):
        return 0, 0
    joined = trace.rows.join(rows.select(_IDENTITY), on="seq", how="left", suffix="_row")
    same = pl.all_horizontal(*[pl.col(name) == pl.col(f"{name}_row") for name in _IDENTITY[1:]])
    counts = joined.select(
        pl.col("op_row").is_null().sum().alias("missing"),
        (pl.col("op_row").is_not_null() & ~same).sum().alias("altered"),
    ).collect(engine="streaming").to_dicts()[0]  # fmt: skip
    return counts["missing"], counts["altered"]


def _digest() -> pl.Expr:
    """A sum that does not depend on the order of rows; a hash cut to 32 bits cannot overflow it."""
    return (pl.struct(*_IDENTITY).hash(0) % (1 << 32)).sum()


def _in_flight(rows: pl.LazyFrame, start_ns: pl.Expr, latency_ns: pl.Expr) -> pl.DataFrame:
    return (
        rows.select(
            (start_ns // IN_FLIGHT_INTERVAL_NS).alias("interval"), latency_ns.alias("latency")
        )
        .group_by("interval")
        .agg((pl.col("latency").sum() / IN_FLIGHT_INTERVAL_NS).alias("in_flight"))
        .collect(engine="streaming")
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
