"""A sweep's cells side by side: what each policy costs over disks, depth and block size.

Each cell is a comparison of its own (`overhead`). Cells are many tests of one question, so for each
metric p values are adjusted (Holm) over all cells and policies before anything is called slower or
faster.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vaio_bench import engine_build
from vaio_bench.analyses import intervals
from vaio_bench.analyses.failed import shortfall
from vaio_bench.analyses.overhead import MORE_IS_BETTER, Comparison, Overhead, overhead
from vaio_bench.errors import InputError, WorkError
from vaio_bench.experiment import shown
from vaio_bench.store import open_run
from vaio_bench.warnings import WarningKind

SWEEP_FILE = "sweep.json"
SWEEP_SCHEMA_VERSION = 1
FAILED = "failed: "
"""How the `exit` of a cell, a run or a sweep begins whose work was not all done."""


@dataclass(frozen=True)
class SweptCell:
    """A cell: where it lies on each axis, its run folder, and its comparison."""

    id: str
    at: dict[str, Any]
    run: Path
    found: Overhead


@dataclass(frozen=True)
class Swept:
    """The cells of a sweep that have something to compare, and the ids of those that do not.

    `failed` maps the cells that lost rounds, or of which I/Os failed, to how they ended.
    """

    name: str
    description: str
    axes: dict[str, list[Any]]
    cells: list[SweptCell]
    missing: list[str]
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def policies(self) -> list[str]:
        """Every policy that is compared in some cell, in the order of the experiment."""
        return list(dict.fromkeys(name for cell in self.cells for name in cell.found.policies))

    def place(self, at: dict[str, Any], without: str | None = None) -> str:
        """Where a cell lies, by the axes that vary: `2 disks, depth 8, 64KiB`."""
        parts = []
        for axis, values in self.axes.items():
            if axis == without or len(values) < 2:
                continue
            value = shown(axis, at[axis])
            words = {
                "disks": f"{value} disk" if value == "1" else f"{value} disks",
                "depth": f"depth {value}",
                "read": f"{float(at['read']):.0%} reads" if axis == "read" else "",
            }
            parts.append(words.get(axis) or value)
        return ", ".join(parts) or ("the one workload" if without else "the one cell")


def is_sweep(path: str | Path) -> bool:
    """Whether a folder is a sweep's."""
    return (Path(path) / SWEEP_FILE).is_file()


def open_sweep(path: str | Path) -> dict[str, Any]:
    """The document `sweep.json` of a sweep folder.

    Raises:
        InputError: it is none.
    """
    file = Path(path) / SWEEP_FILE
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{path}: expected a sweep folder, with a {SWEEP_FILE} in it") from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SWEEP_SCHEMA_VERSION:
        raise InputError(f"{file}: expected schema_version {SWEEP_SCHEMA_VERSION}, got {version}")
    return dict(document)


def swept(path: str | Path) -> Swept:
    """Reads the cells of a sweep and adjusts their verdicts for being many.

    Raises:
        InputError: it is no sweep, or no cell has rounds to compare yet.
        WorkError: every cell failed, so that none has.
    """
    document = open_sweep(path)
    cells, missing = [], []
    for each in document["cells"]:
        folder = Path(path) / "cells" / each["id"]
        try:
            found = overhead(open_run(folder), margin=document["margin"])
        except InputError:
            missing.append(each["id"])
            continue
        cells.append(SweptCell(each["id"], each["at"], folder, found))
    failed = _failed(path, document)
    if not cells and failed:
        raise WorkError(f"{path}: {_shortfall(failed, len(missing))}")
    if not cells:
        raise InputError(f"{path}: no cell of the sweep has a round to compare yet")
    axes: dict[str, list[Any]] = {}
    for each in document["cells"]:
        for axis, value in each["at"].items():
            if value not in axes.setdefault(axis, []):
                axes[axis].append(value)
    head = document["experiment"]["experiment"]
    return Swept(head["name"], head["description"], axes, _adjusted(cells), missing, failed)


def _failed(path: str | Path, document: dict[str, Any]) -> dict[str, str]:
    """By cell, why the work of it was not all done, as a comparison of its own would say."""
    failed = {}
    for each in document["cells"]:
        try:
            run = open_run(Path(path) / "cells" / each["id"])
            ended, why = run.exit, shortfall(run)
        except InputError:
            ended, why = str(each.get("exit", "")), None
        if why is None and ended.startswith(FAILED):
            why = ended.removeprefix(FAILED)
        if why is not None:
            failed[each["id"]] = why
    return failed


def _shortfall(failed: dict[str, str], of: int) -> str:
    cell, why = next(iter(failed.items()))
    return f"{len(failed)} of {of} cells failed, first {cell}: {why}"


def sweep_shortfall(path: str | Path) -> str | None:
    """What of a sweep's work was not done, as the command that made it ended; None: it all was.

    Raises:
        InputError: it is no sweep.
    """
    document = open_sweep(path)
    failed = _failed(path, document)
    return _shortfall(failed, len(document["cells"])) if failed else None


def sweep_document(path: str | Path) -> dict[str, Any]:
    """The document of `sweep --json`."""
    found = swept(path)
    return {
        "sweep": str(path),
        "name": found.name,
        "axes": found.axes,
        "policies": found.policies,
        "missing": found.missing,
        "failed": [{"cell": name, "reason": why} for name, why in found.failed.items()],
        "cells": [
            {"id": cell.id, "at": cell.at, "run": str(cell.run), **cell.found.to_dict()}
            for cell in found.cells
        ],
        "warnings": warnings_of(found.cells),
    }


def warnings_of(cells: list[SweptCell]) -> list[dict[str, Any]]:
    """The warnings of all cells, once a kind: the first of it, with the number of its `cells`."""
    kinds: dict[str, dict[str, Any]] = {}
    builds: set[str | None] = set()
    for cell in cells:
        manifest = open_run(cell.run).manifest
        builds |= set(engine_build.builds_of(manifest))
        own = {each["code"]: each for each in manifest.get("warnings") or []}
        for code, warning in own.items():
            kinds.setdefault(code, {**warning, "cells": 0})["cells"] += 1
    if len(builds) > 1:
        mixed = WarningKind.MIXED_BUILDS.of(builds=len(builds))
        kinds[mixed.code] = {**mixed.to_dict(), "cells": len(cells)}
    return list(kinds.values())


def _each(cells: list[SweptCell]) -> Iterator[tuple[int, str, str, Comparison]]:
    for number, cell in enumerate(cells):
        for policy, metrics in cell.found.policies.items():
            for metric, of in metrics.items():
                yield number, policy, metric, of


def _adjusted(cells: list[SweptCell]) -> list[SweptCell]:
    p_values: dict[str, dict[str, float]] = {}
    for number, policy, metric, of in _each(cells):
        if of.interval.p is not None:
            p_values.setdefault(metric, {})[f"{number} {policy}"] = of.interval.p
    adjusted = {metric: intervals.holm(of) for metric, of in p_values.items()}
    made = [{name: dict(of) for name, of in cell.found.policies.items()} for cell in cells]
    for number, policy, metric, of in _each(cells):
        p = adjusted.get(metric, {}).get(f"{number} {policy}")
        word = intervals.verdict(
            of.interval,
            floor=of.floor,
            margin=cells[number].found.margin,
            p_adjusted=p,
            more_is_better=metric in MORE_IS_BETTER,
        )
        made[number][policy][metric] = replace(of, p_adjusted=p, verdict=word)
    return [
        replace(cell, found=replace(cell.found, policies=policies))
        for cell, policies in zip(cells, made, strict=True)
    ]
