"""The chapter on a sweep: the table of cells, heat maps and lines over the depth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaio_bench.analyses.overhead import MORE_IS_BETTER, Comparison
from vaio_bench.analyses.sweep import Swept, SweptCell, open_sweep, swept, warnings_of
from vaio_bench.errors import InputError
from vaio_bench.reporting import run_part, words
from vaio_bench.reporting.figures import Figure, Palette
from vaio_bench.reporting.model import Answer, Cell, Chapter, Line, Section, Table, Tone
from vaio_bench.store import open_run

# Cells that failed, as far as they are told one by one.
_TOLD = 5
_MAPPED = ("latency_p50_ns", "latency_p99_ns", "iops", "cpu_ns_per_io")
_TONES: dict[str, Tone] = {"slower": "bad", "faster": "good", "equivalent": "good"}
# Heat maps are grey at no change; this much and more has the full colour.
_FULL_COLOUR_PERCENT = 50.0
_COLOURS = ((0.0, "var(--good)"), (0.5, "var(--neutral-bg)"), (1.0, "var(--bad)"))


def chapter(path: Path, palette: Palette) -> Chapter:
    """Everything about one sweep folder."""
    document = open_sweep(path)
    problems = []
    if document["exit"] != "ok":
        problems.append(f"This sweep ended as: {document['exit']}. What there is of it is shown.")
    try:
        found = swept(path)
    except InputError as error:
        absent = str(error)
        made = Section("sweep", "Sweep", absent=absent)
        given = Answer("What does it cost?", absent=absent)
        return Chapter(path.resolve().name, _facts(document), problems, [given], [made])
    for policy in found.policies:
        palette.colour(policy)
    problems += [f"Cell {name}: {why}." for name, why in list(found.failed.items())[:_TOLD]]
    if len(found.failed) > _TOLD:
        problems.append(f"{len(found.failed) - _TOLD} more cells failed.")
    return Chapter(
        path.resolve().name, _facts(document), problems, [_answer(found)],
        [_section(found, palette), _environment(found)],
    )  # fmt: skip


def _facts(document: dict[str, Any]) -> list[tuple[str, str]]:
    head = document["experiment"]["experiment"]
    facts = [
        ("Experiment", head["name"]),
        ("About", head["description"]),
        ("Cells", str(len(document["cells"]))),
        ("Rounds", f"{head['rounds']} of each policy in each cell"),
        ("Backend", document["experiment"]["target"]["backend"]),
        ("Target", document["target"] or ""),
        ("Tool", f"vaio-bench {document['tool_version']}"),
    ]
    return [(name, value) for name, value in facts if value]


def _answer(found: Swept) -> Answer:
    given = Answer("What does it cost?")
    for name, text in zip(found.policies, words.sweep_sentences(found), strict=True):
        verdicts = [
            cell.found.policies[name]["latency_p50_ns"].verdict
            for cell in found.cells
            if "latency_p50_ns" in cell.found.policies.get(name, {})
        ]
        if not verdicts:
            given.lines.append(Line("lost", "problem", text))
            continue
        badge = "slower" if "slower" in verdicts else verdicts[0]
        given.lines.append(Line(badge, _TONES.get(badge, "neutral"), text))
    return given


def _section(found: Swept, palette: Palette) -> Section:
    made = Section("sweep", "Sweep")
    baseline = found.cells[0].found.baseline
    floor = " The policy pass is the framework's floor: a filter that does nothing." if (
        "pass" in found.policies) else ""  # fmt: skip
    made.lead = (
        f"Each cell compares every policy with {baseline} in interleaved rounds of its own, with "
        "an A/A pair of its own. Slower and faster are said at 95 % for all cells and policies of "
        f"a metric together (Holm).{floor}"
    )
    made.tables = [_table(found, metric) for metric in _MAPPED if _has(found, metric)]
    made.figures = [
        _heat_map(found, policy, metric)
        for policy in found.policies
        for metric in _MAPPED
        if _grid(found, policy, metric)
    ]
    if len(_depths(found)) > 1:
        made.figures += [
            _lines(found, policy, palette)
            for policy in found.policies
            if _grid(found, policy, _MAPPED[0])
        ]
    if found.missing:
        made.notes.append(f"Not run, or without a whole round: {', '.join(found.missing)}.")
    return made


def _environment(found: Swept) -> Section:
    """The machine as the first cell found it, the warnings of all, and each cell's noise floor."""
    first = open_run(found.cells[0].run)
    warnings = [
        {**each, "seen": f"in {each['cells']} of {len(found.cells)} cells: {each['seen']}"}
        if "seen" in each else each
        for each in warnings_of(found.cells)
    ]  # fmt: skip
    made = run_part.environment_section(first, warnings)
    floors = [cell.found.noise_floor.get(_MAPPED[0]) for cell in found.cells]
    known = [floor for floor in floors if floor is not None]
    harness = first.manifest.get("harness") or {}
    told = [made.lead] if made.lead else []
    told.append("The machine, the target and the harness's own cost are those of the first cell.")
    if known:
        told.append(
            f"The noise floor of the median latency is {words.share(min(known))} in the quietest "
            f"cell and {words.share(max(known))} in the noisiest."
        )
    if harness.get("null_ns_per_io") is not None:
        told.append(
            f"The harness itself costs {words.duration(harness['null_ns_per_io'])} per I/O (null "
            f"backend), a pass filter {words.more(harness.get('pass_ns_per_io'))}."
        )
    made.lead = " ".join(told)
    made.tables.insert(1 if warnings else 0, _floors(found))
    return made


def _floors(found: Swept) -> Table:
    rows: list[list[Cell | str]] = [
        [
            found.place(cell.at),
            str(cell.found.rounds),
            *(words.share(cell.found.noise_floor.get(metric)) for metric in _MAPPED),
        ]
        for cell in found.cells
    ]
    columns = ["cell", "rounds", *(words.METRICS[metric] for metric in _MAPPED)]
    return Table(columns, rows, collapsed="The noise floor of each cell")


def _has(found: Swept, metric: str) -> bool:
    return any(metric in of for cell in found.cells for of in cell.found.policies.values())


def _depths(found: Swept) -> list[int]:
    return sorted({cell.at["depth"] for cell in found.cells})


def _row_of(found: Swept, cell: SweptCell) -> str:
    return found.place(cell.at, without="depth")


def _rows(found: Swept) -> list[str]:
    return list(dict.fromkeys(_row_of(found, cell) for cell in found.cells))


def _grid(found: Swept, policy: str, metric: str) -> dict[tuple[str, int], Comparison]:
    return {
        (_row_of(found, cell), cell.at["depth"]): cell.found.policies[policy][metric]
        for cell in found.cells
        if metric in cell.found.policies.get(policy, {})
    }


def _lost(found: Swept, policy: str) -> set[tuple[str, int]]:
    """Where a policy has lost every round."""
    return {
        (_row_of(found, cell), cell.at["depth"])
        for cell in found.cells
        if policy in cell.found.lost and cell.found.lost[policy].is_all
    }


def _table(found: Swept, metric: str) -> Table:
    depths = _depths(found)
    rows: list[list[Cell | str]] = []
    for policy in found.policies:
        grid, lost = _grid(found, policy, metric), _lost(found, policy)
        for row in _rows(found):
            cells: list[Cell | str] = [f"{policy}: {row}"]
            cells += [
                Cell("", "", "problem", "lost")
                if (row, depth) in lost
                else _verdict_cell(grid.get((row, depth)))
                for depth in depths
            ]
            rows.append(cells)
    name = words.METRICS[metric]
    columns = [name, *(f"depth {depth}" for depth in depths)]
    collapsed = "" if metric == _MAPPED[0] else f"The same of {name}"
    return Table(columns, rows, collapsed=collapsed)


def _verdict_cell(of: Comparison | None) -> Cell | str:
    if of is None:
        return words.duration(None)
    note = words.span(of.interval.low, of.interval.high)
    return Cell(
        words.change(of.interval.ratio), note, _TONES.get(of.verdict, "neutral"), of.verdict
    )


def _heat_map(found: Swept, policy: str, metric: str) -> Figure:
    grid, rows, depths = _grid(found, policy, metric), _rows(found), _depths(found)
    name = words.METRICS[metric]
    values = [[_claimed(grid.get((row, depth))) for depth in depths] for row in rows]
    texts = [[_label(grid.get((row, depth))) for depth in depths] for row in rows]
    # Bad is one colour whatever the metric: of rates less is worse.
    colours = _COLOURS if metric not in MORE_IS_BETTER else tuple(
        (1 - at, colour) for at, colour in reversed(_COLOURS))  # fmt: skip
    data = [
        {
            "type": "heatmap",
            "z": values,
            "x": [str(depth) for depth in depths],
            "y": rows,
            "text": texts,
            "texttemplate": "%{text}",
            "colorscale": [list(each) for each in colours],
            "zmid": 0,
            "zmin": -_FULL_COLOUR_PERCENT,
            "zmax": _FULL_COLOUR_PERCENT,
            "colorbar": {"title": {"text": "%"}, "thickness": 12},
            "xgap": 2,
            "ygap": 2,
            "hovertemplate": "%{y}, depth %{x}: %{text}<extra></extra>",
        }
    ]
    layout = {
        "xaxis": {"title": {"text": "I/Os in flight on each disk"}, "type": "category"},
        "yaxis": {"autorange": "reversed", "type": "category", "ticksuffix": "  "},
        "hovermode": "closest",
    }
    note = (
        "Red is worse, green better, full colour from 50 % on. Grey with a dot: no difference is "
        "shown."
    )
    return Figure(f"{policy}: {name}", note, data, layout, 130 + 34 * len(rows))


def _claimed(of: Comparison | None) -> float | None:
    """The change in per cent where something may be said of it: a colour is a claim."""
    if of is None:
        return None
    return 0.0 if of.verdict == "no difference shown" else (of.interval.ratio - 1) * 100


def _label(of: Comparison | None) -> str:
    if of is None:
        return ""
    mark = " ·" if of.verdict == "no difference shown" else ""
    return f"{words.change(of.interval.ratio)}{mark}"


def _lines(found: Swept, policy: str, palette: Palette) -> Figure:
    grid, depths = _grid(found, policy, "latency_p50_ns"), _depths(found)
    data = []
    for row in _rows(found):
        own = [(depth, grid[row, depth].interval) for depth in depths if (row, depth) in grid]
        ratios = [interval.ratio for _, interval in own]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": row,
                "x": [depth for depth, _ in own],
                "y": [(ratio - 1) * 100 for ratio in ratios],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": _reach([i.high for _, i in own], ratios),
                    "arrayminus": _reach([i.low for _, i in own], ratios),
                    "color": palette.colour(row),
                    "thickness": 1.2,
                },
                "line": palette.line(row, 1.8),
                "marker": {"color": palette.colour(row), "size": 7},
            }
        )
    layout = {
        "xaxis": {
            "title": {"text": "I/Os in flight on each disk"},
            "type": "log",
            "tickvals": depths,
            "ticktext": [str(depth) for depth in depths],
        },
        "yaxis": {"title": {"text": "change of the median latency (%)"}, "zeroline": True},
        "showlegend": True,
    }
    note = "Bars are the 95 % intervals of each cell."
    return Figure(f"{policy}: median latency over the depth", note, data, layout, 360, True)


def _reach(ends: Sequence[float | None], ratios: Sequence[float]) -> list[float]:
    return [
        0.0 if end is None else abs(end - ratio) * 100
        for end, ratio in zip(ends, ratios, strict=True)
    ]
