"""What the verbs of fio print of a run: a line a cell, and the comparison where there is one."""

from __future__ import annotations

from typing import Any

from vaio_bench.analyses.rounds import round_figures
from vaio_bench.errors import InputError
from vaio_bench.store import Run

_FIGURES = ("iops", "bytes_per_s", "cpu_ns_per_io")
_LEVELS = ("p50", "p95", "p99", "p999", "max")


def document(run: Run) -> dict[str, Any]:
    """The document of `fio run`, `fio import` and `fio replay`; figures are medians of rounds.

    Returns:
        `{"run", "fio_version", "exit", "cells": [{"name", "rounds", "ios", "bytes", "errors",
        "latency_from", "latency_ns": {...}, "iops", ...}], "comparison"}`.
    """
    from vaio_bench.comparing import stored_comparison

    known = run.manifest.get("fio") or {}
    figures = round_figures(run)
    cells = []
    for name in run.policies:
        own = [row for row in figures.to_dicts() if row["policy"] == name]
        totals = [run.totals(name, number) for number in run.rounds(name)]
        cells.append(
            {
                "name": name,
                "rounds": len(totals),
                "ios": sum(of.get("ios", 0) for of in totals),
                "bytes": sum(of.get("bytes", 0) for of in totals),
                "errors": sum(of.get("errors", 0) for of in totals),
                "latency_from": next((of.get("latency_from") for of in totals), None),
                "latency_ns": {
                    level: _median([row[f"latency_{level}_ns"] for row in own]) for level in _LEVELS
                },
                **{figure: _median([row[figure] for row in own]) for figure in _FIGURES},
                "rows": name in run.policies_with_rows,
            }
        )
    found: dict[str, Any] = {
        "run": str(run.path),
        "fio_version": known.get("version"),
        "exit": run.exit,
        "cells": cells,
        "comparison": None,
        "warnings": [warning["code"] for warning in run.manifest.get("warnings", [])],
    }
    if run.manifest.get("comparison"):
        try:
            found["comparison"] = stored_comparison(run)
        except InputError as error:
            found["no_comparison"] = str(error)
    return found


def _median(values: list[Any]) -> float | None:
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    middle = len(known) // 2
    return float(known[middle] if len(known) % 2 else (known[middle - 1] + known[middle]) / 2)
