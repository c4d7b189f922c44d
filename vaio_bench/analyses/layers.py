"""Where an I/O's time goes: self time and CPU of each layer of a chain, from the rows' lists.

`self_ns` of a layer is its span less the union of its children's spans, so the layers' means add
up to the mean latency wherever children of one layer do not overlap one another.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from vaio_bench.analyses import quantiles
from vaio_bench.store import Run, open_run


@dataclass(frozen=True)
class Layer:
    """One layer of one policy over all its rounds; `position` counts from the guest."""

    policy: str
    position: int
    layer: str
    ios: int
    self_mean_ns: float
    self_p50_ns: int
    self_p99_ns: int
    cpu_mean_ns: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def layers(run: Run | str | Path) -> list[Layer]:
    """Each layer of each policy, in chain order, over the I/Os that succeeded.

    An I/O answered above a layer counts there as zero: the means are per I/O of the guest.
    """
    run = run if isinstance(run, Run) else open_run(run)
    found: list[Layer] = []
    for policy in run.pooled_policies:
        rows = quantiles.completed(run.pooled_ios(policy))
        width = rows.select(pl.col("self_ns").list.len().max()).collect(engine="streaming").item()
        names = run.layers(policy)
        for position in range(width or 0):
            own = _at("self_ns", position)
            spread = quantiles.distributions(rows, own)[()]
            p50, p99 = quantiles.refine(rows, own, {(): spread}, [0.5, 0.99])[()]
            cpu = rows.select(_at("cpu_ns", position).mean()).collect(engine="streaming").item()
            name = names[position] if position < len(names) else f"layer {position}"
            found.append(Layer(policy, position, name, spread.n, spread.mean, p50, p99, float(cpu)))
    return found


@dataclass(frozen=True)
class LayerSum:
    """Whether the layers' self times of each I/O of one policy add up to its latency.

    `tolerance_ns` is the clock's error: one reading's time for each layer's two stamps.
    `beyond` counts I/Os whose sum is further off than that.
    """

    policy: str
    ios: int
    latency_mean_ns: float
    self_mean_ns: float
    off_max_ns: int
    tolerance_ns: float
    beyond: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with the verdict `adds_up`."""
        return {**asdict(self), "adds_up": self.beyond == 0}


def layer_sums(run: Run | str | Path) -> list[LayerSum]:
    """The sum over the layers against the latency, I/O by I/O, of each policy with rows."""
    run = run if isinstance(run, Run) else open_run(run)
    clock_ns = run.clock_ns or 1.0
    found: list[LayerSum] = []
    for policy in run.pooled_policies:
        tolerance = 2 * clock_ns * max(len(run.layers(policy)), 1)
        whole = pl.col("self_ns").list.sum()
        off = (whole - quantiles.LATENCY_NS).abs()
        row = (
            quantiles.completed(run.pooled_ios(policy))
            .select(
                pl.len().alias("ios"),
                quantiles.LATENCY_NS.mean().alias("latency"),
                whole.mean().alias("self"),
                off.max().alias("off"),
                (off > tolerance).sum().alias("beyond"),
            )
            .collect(engine="streaming")
            .to_dicts()[0]
        )
        if row["ios"]:
            found.append(
                LayerSum(policy, row["ios"], row["latency"], row["self"], row["off"], tolerance,
                         row["beyond"])
            )  # fmt: skip
    return found


def inside_ns(run: Run | str | Path) -> dict[str, int]:
    """Median time that an I/O passes inside each policy's filters, the backend left out, in ns.

    The sum of their self times, I/O by I/O, by the chain's own clock. A device's noise is not in
    it, nor is what a filter does to the device (other offsets, more I/Os, a hit).
    """
    run = run if isinstance(run, Run) else open_run(run)
    found: dict[str, int] = {}
    for policy in run.pooled_policies:
        filters = len(run.layers(policy)) - 1
        if filters < 1:
            continue
        rows = quantiles.completed(run.pooled_ios(policy))
        own = pl.col("self_ns").list.head(filters).list.sum()
        spread = quantiles.distributions(rows, own).get(())
        if spread is not None:
            found[policy] = quantiles.refine(rows, own, {(): spread}, [0.5])[()][0]
    return found


def _at(column: str, position: int) -> pl.Expr:
    return pl.col(column).list.get(position, null_on_oob=True).fill_null(0)
