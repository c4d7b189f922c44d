"""The section on a grid of fio's jobs: what each cell did, as heat maps over the grid's options."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

from vaio_bench.analyses.rounds import round_figures
from vaio_bench.reporting import words
from vaio_bench.reporting.figures import Figure
from vaio_bench.reporting.model import Cell, Section, Table
from vaio_bench.store import Run

_MAPPED = ("latency_p50_ns", "latency_p99_ns", "iops", "bytes_per_s", "cpu_ns_per_io")
# Whichever of these varies first lies along the map; the others make its rows.
_ALONG = ("iodepth", "numjobs", "bs")
_SOURCE = "job file"
_COLOURS = [[0.0, "var(--surface)"], [1.0, "var(--accent)"]]


@dataclass(frozen=True)
class _Grid:
    """The cells by row and column, and what their rounds gave in the middle."""

    along: str
    columns: list[str]
    rows: list[str]
    figures: dict[tuple[str, str], dict[str, float]]
    rounds: int


def section(run: Run) -> Section | None:
    """Heat maps of a run of `fio run` whose cells vary in some option; None for any other."""
    grid = _grid(run)
    if grid is None:
        return None
    made = Section("grid", "Grid")
    made.lead = (
        "What each cell of the grid did: the median of its rounds. Nothing is compared here; what "
        "may be said of a difference stands in the table of verdicts."
    )
    shown = [metric for metric in _MAPPED if any(metric in of for of in grid.figures.values())]
    made.figures = [_heat_map(grid, metric) for metric in shown]
    made.tables = [_table(grid, metric) for metric in shown]
    return made


def _grid(run: Run) -> _Grid | None:
    known = run.manifest.get("fio") or {}
    # The baseline's second run is there for the noise, not for the grid.
    again = (run.manifest.get("comparison") or {}).get("again")
    at = {cell["name"]: _place(cell) for cell in known.get("cells", ()) if cell["name"] != again}
    varying = {
        axis: values
        for axis in dict.fromkeys(axis for of in at.values() for axis in of)
        if len(values := list(dict.fromkeys(of.get(axis, "") for of in at.values()))) > 1
    }
    if not varying:
        return None
    along = next((axis for axis in _ALONG if axis in varying), next(reversed(varying)))
    others = [axis for axis in varying if axis != along]
    figures: dict[tuple[str, str], dict[str, float]] = {}
    table = round_figures(run)
    if table.is_empty():
        return None
    records = table.to_dicts()
    for name, of in at.items():
        own = [each for each in records if each["policy"] == name]
        row = ", ".join(_told(axis, of.get(axis, "")) for axis in others)
        figures[row, of.get(along, "")] = {
            metric: median(told)
            for metric in _MAPPED
            if (told := [each[metric] for each in own if each.get(metric) is not None])
        }
    rows = list(dict.fromkeys(row for row, _ in figures))
    rounds = max((len(run.rounds(name)) for name in at), default=0)
    return _Grid(along, varying[along], rows, figures, rounds)


def _place(cell: dict[str, Any]) -> dict[str, str]:
    source = {} if cell.get("source") is None else {_SOURCE: cell["source"]}
    return {**source, **cell["at"]}


def _told(axis: str, value: str) -> str:
    return value if axis in ("rw", "bs", _SOURCE) else f"{axis} {value}"


def _heat_map(grid: _Grid, metric: str) -> Figure:
    known = [of[metric] for of in grid.figures.values() if of.get(metric, 0) > 0]
    values = [
        [_logarithm(grid.figures.get((row, column), {}).get(metric)) for column in grid.columns]
        for row in grid.rows
    ]
    texts = [
        [_label(grid.figures.get((row, column), {}), metric) for column in grid.columns]
        for row in grid.rows
    ]
    low, high = (math.log10(min(known)), math.log10(max(known))) if known else (0.0, 1.0)
    data = [
        {
            "type": "heatmap",
            "z": values,
            "x": grid.columns,
            "y": grid.rows,
            "text": texts,
            "texttemplate": "%{text}",
            "colorscale": _COLOURS,
            "zmin": low,
            "zmax": max(high, low + 0.05),
            "showscale": False,
            "xgap": 2,
            "ygap": 2,
            "hovertemplate": f"%{{y}}, {grid.along} %{{x}}: %{{text}}<extra></extra>",
        }
    ]
    layout = {
        "xaxis": {"title": {"text": grid.along}, "type": "category"},
        "yaxis": {"autorange": "reversed", "type": "category", "ticksuffix": "  "},
        "hovermode": "closest",
    }
    note = f"The darker, the more, on a logarithmic scale; the median of {grid.rounds} round(s)."
    name = words.METRICS[metric]
    title = f"{name[:1].upper()}{name[1:]} over the grid"
    return Figure(title, note, data, layout, 130 + 34 * len(grid.rows))


def _logarithm(value: float | None) -> float | None:
    return math.log10(value) if value is not None and value > 0 else None


def _label(of: dict[str, float], metric: str) -> str:
    return words.metric_value(metric, of[metric]) if metric in of else ""


def _table(grid: _Grid, metric: str) -> Table:
    name = words.METRICS[metric]
    rows: list[list[Cell | str]] = [
        [row or "all", *(_label(grid.figures.get((row, column), {}), metric) or "–"  # noqa: RUF001
                         for column in grid.columns)]
        for row in grid.rows
    ]  # fmt: skip
    columns = [name, *(f"{grid.along} {column}" for column in grid.columns)]
    return Table(columns, rows, collapsed=f"The figures of {name}")
