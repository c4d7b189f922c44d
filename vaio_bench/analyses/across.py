"""Overhead across run folders: rounds that were not interleaved, so they cannot be paired."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from vaio_bench.analyses.failed import Losses, failures, losses
from vaio_bench.analyses.overhead import (
    DEFAULT_MARGIN,
    Overhead,
    check_margin,
    check_measured,
    compare_figures,
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
    note says so. The noise floor of another run's policies is what that run's own rounds of the
    baseline show against the first's; without any nothing is claimed of them.

    Raises:
        InputError: a run is under the virtual clock, lacks complete rounds, or replayed another
            trace than the first or that trace in another way; two folders have one name; or as
            `overhead` raises.
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
    tables, others = [], []
    baseline = baseline or opened[0].baseline
    reference = f"{names[0]}:{baseline}"
    apart: dict[str, str | None] = {}
    lost: dict[str, Losses] = {}
    for name, run in zip(names, opened, strict=True):
        check_measured(run)
        check_same_workload(opened[0], run)
        figures = round_figures(run)
        if figures.is_empty():
            raise InputError(f"{run.path}: expected at least one complete round, found none")
        figures = figures.with_columns((pl.lit(f"{name}:") + pl.col("policy")).alias("policy"))
        tables.append(figures)
        again = {again_of(run.baseline), again_of(baseline)}
        found = dict.fromkeys(figures["policy"].to_list())
        gone = {f"{name}:{each}": of for each, of in losses(run).items()}
        lost |= gone
        found |= dict.fromkeys(each for each in gone if each not in found)
        own = [each for each in found if each not in {reference, *(f"{name}:{a}" for a in again)}]
        others += own
        if run is not opened[0]:
            twin = (
                f"{name}:{baseline}" if _has_same(opened[0], run, baseline, found, name) else None
            )
            apart |= dict.fromkeys(own, twin)
    figures = pl.concat(tables, how="diagonal_relaxed")
    if reference not in figures["policy"].to_list():
        known = ", ".join(opened[0].policies) or "none"
        raise InputError(
            f'{opened[0].path}: expected complete rounds of baseline "{baseline}", found: {known} '
            "(--baseline names another)"
        )
    clock_ns = max(run.clock_ns for run in opened)
    return compare_figures(
        figures, others, reference, margin,
        [*_notes(names, opened, baseline, apart),
         *(f"policy {name} {each}" for name, each in lost.items() if not each.is_all)],
        paired=False, clock_ns=clock_ns, apart=apart, lost=lost,
    )  # fmt: skip


def _has_same(first: Run, other: Run, baseline: str, found: Container[str], name: str) -> bool:
    """Whether another run has rounds of the very baseline of the first."""
    ours, theirs = (
        (run.manifest.get("policies", {}).get(baseline) or {}).get("filters")
        for run in (first, other)
    )
    return f"{name}:{baseline}" in found and ours == theirs


def _notes(
    names: Sequence[str], opened: Sequence[Run], baseline: str, apart: dict[str, str | None]
) -> list[str]:
    notes = [
        "the runs were taken one after the other, not interleaved: what changed on the machine "
        "between them is part of every ratio, and nothing is claimed below what their baselines "
        "lie apart"
    ]
    for name, run in zip(names[1:], opened[1:], strict=True):
        if any(twin is None for each, twin in apart.items() if each.startswith(f"{name}:")):
            notes.append(
                f'{name} has no rounds of the same "{baseline}": nothing tells what changed from '
                "run to run, and nothing is claimed of its policies"
            )
        if run.manifest.get("engine_build") != opened[0].manifest.get("engine_build"):
            notes.append(
                f"{name} was taken by another build of the engine than {names[0]}, which is part "
                "of every ratio"
            )
        notes += [
            f"{name} differs from {names[0]} in its {what} ({theirs}, not {ours}), which is part "
            "of every ratio"
            for what, ours, theirs in _differing(opened[0], run, _CIRCUMSTANCES)
        ]
    return notes + [
        str(replace(each, policy=f"{name}:{each.policy}"))
        for name, run in zip(names, opened, strict=True)
        for each in failures(run)
    ]


# Another value of these is another workload.
_WORKLOAD = {
    "trace": ("sha256", "skip", "limit", "ios", "duration_s", "disks"),
    "pacing": ("mode", "speed", "depth", "inflight", "conflicts"),
    "fit_to": ("size_bytes",),
    "data": ("compressible", "dedupe", "content"),
}
# Another value of these may be what is compared.
_CIRCUMSTANCES = {
    "backend": ("used",),
    "target": ("path", "direct", "file_system"),
    "environment": ("host", "kernel", "cpu"),
}


def check_same_workload(first: Run, other: Run) -> None:
    """Raise InputError where two runs say that they replayed different traces, or in other ways."""
    for what, ours, theirs in _differing(first, other, _WORKLOAD):
        raise InputError(
            f"{other.path}: expected a run of the same trace as {first.path}, replayed alike, but "
            f"its {what} is {theirs}, not {ours}"
        )


def _differing(
    first: Run, other: Run, keys: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[str, Any, Any]]:
    """What two manifests tell differently, and each's value; what one does not tell is left out."""
    for part, names in keys.items():
        ours, theirs = (run.manifest.get(part) for run in (first, other))
        if part == "fit_to":
            ours, theirs = ours or {"size_bytes": None}, theirs or {"size_bytes": None}
        if not isinstance(ours, dict) or not isinstance(theirs, dict):
            continue
        asap = ours.get("mode") == "asap"
        for key in names:
            # Each pace has a bound of its own on the I/Os in flight.
            if key == ("inflight" if asap else "depth") and part == "pacing":
                continue
            if key not in ours or key not in theirs:
                continue
            here, there = (_plain(of[key]) for of in (ours, theirs))
            if here != there:
                what = part if key == "used" else key if part != "fit_to" else "--fit-to"
                yield what.replace("_", " "), here, there


def _plain(value: Any) -> Any:
    """What names a processor or a kernel, of all that is told of it."""
    return value.get("model") or value.get("release") if isinstance(value, dict) else value
