"""Exact quantiles of any number of stored rows in bounded memory, and distribution curves.

Two streaming passes. The first counts values in log-spaced buckets (`BUCKETS_PER_OCTAVE` an
octave, so a bucket is about 0.5 % wide); the second counts distinct values, but only in the
buckets that hold a wanted rank. What is in memory is a few thousand buckets and the distinct
nanoseconds of a few of them, whatever the number of rows.

A quantile q of n values is the nearest-rank one: the smallest value v with at least q * n values
<= v (Hyndman and Fan 1996, definition 1; `inverted_cdf` in numpy, `quantile_disc` in DuckDB,
`equiprobable` in Polars). It is a value that was measured, never one between two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from vaio_bench.schemas import IoFlag

BUCKETS_PER_OCTAVE = 128
# Values below this have a bucket each: a log bucket there would be narrower than 1 ns.
_LINEAR_BELOW = 128

# Names of the quantiles that reports and comparisons use.
LADDER: dict[str, float] = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999}

LATENCY_NS = pl.col("complete_ns") - pl.col("submit_ns")
RESPONSE_NS = pl.col("complete_ns") - pl.col("due_ns")
ISSUE_ERROR_NS = pl.col("submit_ns") - pl.col("due_ns")


def issued() -> pl.Expr:
    """Whether a row's I/O was issued: not dropped because of a conflict."""
    return (pl.col("flags").cast(pl.Int64) & int(IoFlag.DROPPED)) == 0


def completed(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The rows that were issued and succeeded: the ones that have a latency."""
    return rows.filter((pl.col("status") == 0) & issued())


@dataclass(frozen=True)
class Distribution:
    """Log-bucketed counts of one quantity: `upper` is the largest value seen in the bucket."""

    bucket: np.ndarray
    upper: np.ndarray
    count: np.ndarray
    total: float

    @property
    def n(self) -> int:
        """How many values there are."""
        return int(self.count.sum())

    @property
    def mean(self) -> float:
        """Arithmetic mean; nan without values."""
        return self.total / self.n if self.n else math.nan

    def bucket_of_rank(self, rank: int) -> tuple[int, int]:
        """Bucket that holds the 1-based `rank`, and the rank's place in it (1-based)."""
        cumulative = np.cumsum(self.count)
        at = int(np.searchsorted(cumulative, rank))
        before = int(cumulative[at - 1]) if at else 0
        return int(self.bucket[at]), rank - before

    def at(self, q: float) -> int:
        """The nearest-rank quantile, as exact as the buckets are."""
        at = int(np.searchsorted(np.cumsum(self.count), rank_of(q, self.n)))
        return int(self.upper[at])

    def ecdf(self) -> tuple[np.ndarray, np.ndarray]:
        """Values and the share of all values at or below each: exact at these values."""
        return self.upper, np.cumsum(self.count) / max(self.n, 1)


def bucket_expr(value: pl.Expr) -> pl.Expr:
    """The bucket of a value: grows with it, so buckets order as values do."""
    log = value.cast(pl.Float64).log(2.0) * BUCKETS_PER_OCTAVE
    # log2(_LINEAR_BELOW) * BUCKETS_PER_OCTAVE = 896 lies above every linear bucket.
    return (pl.when(value < _LINEAR_BELOW).then(value).otherwise(log.floor().cast(pl.Int64))).alias(
        "bucket"
    )


def distributions(
    rows: pl.LazyFrame, value: pl.Expr, by: Sequence[str] = ()
) -> dict[tuple[object, ...], Distribution]:
    """Bucketed counts of `value` (integers) for each combination of the columns `by`.

    With no `by` the one key is `()`. Groups without rows are absent.
    """
    counted = (
        rows.select(*by, value.alias("value"))
        .group_by(*by, bucket_expr(pl.col("value")))
        .agg(
            pl.len().alias("count"),
            pl.col("value").max().alias("upper"),
            pl.col("value").cast(pl.Float64).sum().alias("total"),
        )
        .collect(engine="streaming")
        .sort("bucket")
    )
    if not by:
        return {(): _distribution(counted)} if counted.height else {}
    return {key: _distribution(part) for key, part in counted.group_by(*by, maintain_order=True)}


def _distribution(counted: pl.DataFrame) -> Distribution:
    return Distribution(
        bucket=counted["bucket"].to_numpy(),
        upper=counted["upper"].to_numpy(),
        count=counted["count"].cast(pl.Int64).to_numpy(),
        total=float(counted["total"].sum()),
    )


def counted(histogram: pl.DataFrame) -> Distribution:
    """The distribution of a stored histogram (columns of `schemas.HISTOGRAM`), ops together."""
    summed = histogram.group_by("latency_ns").agg(pl.col("count").sum()).sort("latency_ns")
    values, counts = summed["latency_ns"].to_numpy(), summed["count"].to_numpy()
    return Distribution(
        bucket=np.arange(len(values)), upper=values, count=counts,
        total=float((values * counts).sum()),
    )  # fmt: skip


def rank_of(q: float, n: int) -> int:
    """The 1-based nearest rank of quantile `q` among `n` values."""
    # 0.999 * 1000 is 999.0000000000001 in binary: without the rounding its rank would be 1000.
    return min(max(math.ceil(round(q * n, 6)), 1), n)


def exact_quantiles(
    rows: pl.LazyFrame, value: pl.Expr, quantiles: Sequence[float], by: Sequence[str] = ()
) -> dict[tuple[object, ...], list[int]]:
    """Nearest-rank quantiles of `value` for each combination of the columns `by`, exactly."""
    found = distributions(rows, value, by)
    return refine(rows, value, found, quantiles, by)


def refine(
    rows: pl.LazyFrame,
    value: pl.Expr,
    found: dict[tuple[object, ...], Distribution],
    quantiles: Sequence[float],
    by: Sequence[str] = (),
) -> dict[tuple[object, ...], list[int]]:
    """The exact quantiles, by a second pass over the buckets that hold a wanted rank."""
    wanted = {
        key: [of.bucket_of_rank(rank_of(q, of.n)) for q in quantiles] for key, of in found.items()
    }
    buckets = sorted({bucket for ranks in wanted.values() for bucket, _ in ranks})
    if not buckets:
        return {}
    counted = (
        rows.select(*by, value.alias("value"))
        .with_columns(bucket_expr(pl.col("value")))
        .filter(pl.col("bucket").is_in(buckets))
        .group_by(*by, "bucket", "value")
        .agg(pl.len().alias("count"))
        .collect(engine="streaming")
        .sort("value")
    )
    values: dict[tuple[object, ...], tuple[np.ndarray, np.ndarray]] = {
        key: (part["value"].to_numpy(), part["count"].cast(pl.Int64).cum_sum().to_numpy())
        for key, part in counted.group_by(*by, "bucket", maintain_order=True)
    }
    exact: dict[tuple[object, ...], list[int]] = {}
    for key, ranks in wanted.items():
        exact[key] = []
        for bucket, rank in ranks:
            distinct, cumulative = values[(*key, bucket)]
            exact[key].append(int(distinct[np.searchsorted(cumulative, rank)]))
    return exact
