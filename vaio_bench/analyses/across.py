"""Overhead across run folders: rounds that were not interleaved, so they cannot be paired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from vaio_bench.analyses.overhead import (
    DEFAULT_MARGIN,
    Overhead,
    check_margin,
    check_measured,
    compare_figures,
    failures,
    overhead,
)
from vaio_bench.analyses.rounds import round_figures
from vaio_bench.errors import InputError
from vaio_bench.store import Run, again_of, open_run


def overhead_of_runs(
    runs: Sequence[Run | str | Path], *, baseline: str | None = None, margin: float = DEFAULT_MARGIN
) -> Overhead:
    """Compare the policies of stored runs with the first run's `baseline` (default: its own).

    One run is compared within itself, paired by round. Of several runs, the policies are named
    `<run folder>:<policy>`; the interval is Welch's, as their rounds were not interleaved, and a
    note says so.

    Raises:
        InputError: a run is under the virtual clock, lacks complete rounds or replayed another
            trace than the first; two folders have one name; or as `overhead` raises.
    """
    opened = [run if isinstance(run, Run) else open_run(run) for run in runs]
    if not opened:
        raise InputError("expected at least one run folder")
    if len(opened) == 1:
        return overhead(opened[0], baseline=baseline, margin=margin)
    check_margin(margin)
    names = [run.path.resolve().name for run in opened]
    if len(set(names)) < len(names):
        raise InputError(f"expected run folders of different names, got {', '.join(names)}")
    tables = []
    for name, run in zip(names, opened, strict=True):
        check_measured(run)
        check_same_trace(opened[0], run)
        figures = round_figures(run)
        if figures.is_empty():
            raise InputError(f"{run.path}: expected at least one complete round, found none")
        figures = figures.with_columns((pl.lit(f"{name}:") + pl.col("policy")).alias("policy"))
        tables.append(figures)
    baseline = baseline or opened[0].baseline
    reference = f"{names[0]}:{baseline}"
    figures = pl.concat(tables, how="vertical_relaxed")
    found = list(dict.fromkeys(figures["policy"].to_list()))
    if reference not in found:
        raise InputError(f'{opened[0].path}: expected complete rounds of baseline "{baseline}"')
    others = [name for name in found if name not in (reference, again_of(reference))]
    failed = [
        str(replace(each, policy=f"{name}:{each.policy}"))
        for name, run in zip(names, opened, strict=True)
        for each in failures(run)
    ]
    note = (
        "the runs were taken one after the other, not interleaved: what changed on the machine "
        "between them is part of every ratio"
    )
    clock_ns = max(run.clock_ns for run in opened)
    return compare_figures(
        figures, others, reference, margin, [note, *failed], paired=False, clock_ns=clock_ns
    )


def check_same_trace(first: Run, other: Run) -> None:
    """Raise InputError where two runs say that they replayed different traces."""
    ours, theirs = first.manifest.get("trace", {}), other.manifest.get("trace", {})
    for key in ("sha256", "ios", "duration_s"):
        if key in ours and key in theirs and ours[key] != theirs[key]:
            raise InputError(
                f"{other.path}: expected a run of the same trace as {first.path}, but its "
                f"{key} is {theirs[key]}, not {ours[key]}"
            )
