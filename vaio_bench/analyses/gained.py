"""What a cache brought in the run: hit ratio beside the latency gained, from the run's own rows.

For each policy with a cache: the mean latency (submit to completion) of reads that hit, hit in
part and missed, of all reads and of all writes; beside it the same of the run's baseline, on the
same I/Os. What was gained of a mean is `1 - policy / baseline`; negative where the cache costs
more than it brings. A read counts as a hit when every block of it was one.

A mean and no quantile, because a hit ratio weighs means: with a share h of reads that hit,
mean = h * mean(hit) + (1 - h) * mean(others), exactly.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from vaio_bench.analyses import quantiles
from vaio_bench.schemas import IoFlag
from vaio_bench.store import Run, open_run


@dataclass(frozen=True)
class Gained:
    """Of one policy, all rounds together; a mean is None where there was no such I/O.

    Times are nanoseconds. `baseline_*` are None where the run has no other policy to compare with.
    """

    policy: str
    baseline: str | None
    reads: int
    hit_reads: int
    hit_ns: float | None
    partial_ns: float | None
    miss_ns: float | None
    read_ns: float | None
    write_ns: float | None
    baseline_read_ns: float | None
    baseline_write_ns: float | None

    @property
    def read_gain(self) -> float | None:
        """Share of the mean read latency that the cache took away."""
        return _gain(self.read_ns, self.baseline_read_ns)

    @property
    def write_gain(self) -> float | None:
        """Share of the mean write latency that the cache took away."""
        return _gain(self.write_ns, self.baseline_write_ns)

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with the gains."""
        return asdict(self) | {"read_gain": self.read_gain, "write_gain": self.write_gain}


def gained(run: Run | str | Path) -> list[Gained]:
    """What each policy with a cache brought; empty where no cache was asked."""
    run = run if isinstance(run, Run) else open_run(run)
    baseline = run.baseline if run.baseline in run.pooled_policies else None
    means = {policy: _means(run.pooled_ios(policy)) for policy in run.pooled_policies}
    return [
        Gained(
            policy=policy,
            baseline=baseline if baseline != policy else None,
            baseline_read_ns=_of(means, baseline, policy, "read_ns"),
            baseline_write_ns=_of(means, baseline, policy, "write_ns"),
            **{name: value for name, value in own.items() if name != "blocks"},
        )
        for policy, own in means.items()
        if own["blocks"]
    ]


def _means(rows: pl.LazyFrame) -> dict[str, Any]:
    latency = quantiles.LATENCY_NS
    op = pl.col("op").cast(pl.String)
    read, write = op == "read", op.is_in(["write", "write_zeroes"])
    hit, partial = _flag(IoFlag.HIT), _flag(IoFlag.PARTIAL_HIT)
    return (
        quantiles.completed(rows)
        .select(
            pl.col("blocks").sum(),
            read.sum().alias("reads"),
            (read & hit).sum().alias("hit_reads"),
            latency.filter(read & hit).mean().alias("hit_ns"),
            latency.filter(read & partial).mean().alias("partial_ns"),
            latency.filter(read & ~hit & ~partial).mean().alias("miss_ns"),
            latency.filter(read).mean().alias("read_ns"),
            latency.filter(write).mean().alias("write_ns"),
        )
        .collect(engine="streaming")
        .row(0, named=True)
    )


def _of(
    means: dict[str, dict[str, Any]], baseline: str | None, policy: str, name: str
) -> float | None:
    return None if baseline in (None, policy) else means[str(baseline)][name]


def _gain(value: float | None, baseline: float | None) -> float | None:
    return None if value is None or not baseline else 1 - value / baseline


def _flag(flag: IoFlag) -> pl.Expr:
    return (pl.col("flags").cast(pl.Int64) & int(flag)) != 0
