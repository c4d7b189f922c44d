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
    for policy in run.policies:
        rows = quantiles.completed(run.scan_ios(policy))
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


def _at(column: str, position: int) -> pl.Expr:
    return pl.col(column).list.get(position, null_on_oob=True).fill_null(0)
