"""The sections on RPO (from `results/rpo.json`) and on the hit ratio."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from vaio_bench.analyses import hits
from vaio_bench.analyses.overhead import Overhead
from vaio_bench.analyses.rpo import is_cut_short
from vaio_bench.analyses.run_rpo import RunRpo
from vaio_bench.reporting import figures, link_part, replication_part, words
from vaio_bench.reporting.cache_part import add_simulated
from vaio_bench.reporting.figures import Figure, Palette
from vaio_bench.reporting.gain_part import add_gained
from vaio_bench.reporting.model import Answer, Cell, Line, Section, Table
from vaio_bench.reporting.planned_part import add_against_planner
from vaio_bench.reporting.simulated_part import add_against_simulation
from vaio_bench.store import Run

_SHARES = ("100", "99.9", "99", "95", "90")
# Violations beyond this many are drawn as one where less than a pixel apart.
_MOST_VIOLATIONS = 400


def rpo_answer(plan: dict[str, Any] | None, measured: RunRpo) -> Answer:
    """Which RPO each mode of replication gives: the plan in a sentence, then one a mode."""
    given = Answer("Which RPO does it give?")
    given.lines += replication_part.measured_lines(measured)
    if not plan or not plan.get("modes"):
        if given.lines:
            return given
        given.absent = "nothing was planned: `vaio-bench rpo TRACE --link RATE -o RUN`"
        return given
    short = [mode for mode in plan["modes"] if is_cut_short(mode, plan.get("duration_s"))]
    if plan.get("answer"):
        met = plan["modes"][0].get("met_time")
        good = met == 1
        badge = "planned" if met is None else "target met" if good else f"{words.share(met)}"
        line = Line(badge, "good" if good else "bad", f"{plan['answer']}.")
        if plan["modes"][0] in short:
            # It says so of the first mode: that is once for all of them.
            line = _too_short(" ".join([line.text, *_none_of(short[1:])]))
        given.lines.insert(0, line)
    for mode in plan["modes"]:
        if mode in short:
            continue
        met = mode.get("met_time")
        good = met is not None and met == 1
        badge = "target met" if good else f"{words.share(met)} of the time"
        given.lines.append(Line(badge, "good" if good else "bad", words.rpo_sentence(plan, mode)))
    if short and not (plan.get("answer") and plan["modes"][0] in short):
        given.lines.append(_too_short(words.too_short(plan, short)))
    return given


def _too_short(text: str) -> Line:
    """No verdict: the trace was too short for one."""
    return Line("too short to tell", "neutral", text)


def _none_of(modes: list[dict[str, Any]]) -> list[str]:
    """The other modes of which no point was recoverable."""
    if not modes:
        return []
    return [f"None of {' or of '.join(map(words.mode_name, modes))} was recoverable either."]


def rpo_section(
    run: Run,
    plan: dict[str, Any] | None,
    palette: Palette,
    measured: RunRpo,
    overhead: Overhead | None,
) -> Section:
    """RPO as measured and by mode, the bandwidth it would need, and when it was violated."""
    made = Section("rpo", "Recovery point (RPO)")
    of_link = link_part.charts(run, plan, palette)
    table = replication_part.measured_table(measured, overhead)
    chart = replication_part.measured_chart(measured, palette)
    if table is not None:
        made.tables.append(table)
        if measured.refused:
            made.notes.append(f"No verdict on the RPO of this run: {measured.refused}.")
        add_against_planner(made, run)
    spread = link_part.distribution(measured, palette)
    made.figures += [drawn for drawn in (chart, spread) if drawn] + of_link
    recovered = replication_part.rto_table(run.results().get("rto"))
    made.tables += [recovered] if recovered else []
    if not plan or not plan.get("modes"):
        if not of_link and table is None:
            made.absent = (
                "no plan in results/rpo.json, and no filter of the run replicates. "
                "Plan one: vaio-bench rpo TRACE --link 100Mbit/s,20ms --target-rpo 5s -o RUN"
            )
        return made
    link = plan.get("link", {})
    made.lead = (
        f"Over a link of {words.rate(link.get('bandwidth_bps'))} with a round trip of "
        f"{words.seconds(link.get('rtt_s'))}; the target is {words.seconds(plan.get('target_s'))}. "
        "RPO(t) is the age, at t, of the newest point that could be recovered; exposure the age "
        "of the oldest acknowledged write that no such point holds."
    )
    modes = plan["modes"]
    made.tables += [_modes_table(plan), _bandwidth_table(modes)]
    loads = replication_part.loads_table(plan)
    made.tables += [loads] if loads else []
    made.figures.append(_rpo_chart(plan, palette))
    for chart in (
        replication_part.frontier(plan, palette),
        replication_part.distribution(plan, palette),
        replication_part.folding(plan, palette),
        replication_part.initial_sync(plan, palette),
        _violations_chart(modes, palette),
        *_series_charts(modes, plan.get("target_s"), palette),
    ):
        if chart is not None:
            made.figures.append(chart)
    made.notes += [str(_text_of(each)) for each in plan.get("warnings", [])]
    made.notes += replication_part.capacity_notes(plan)
    inputs = {k: v for k, v in (plan.get("inputs") or {}).items() if isinstance(v, int | float)}
    if inputs:
        named = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in inputs.items())
        made.notes.append(f"Planned with: {named}.")
    return made


def _text_of(warning: Any) -> str:
    if not isinstance(warning, dict):
        return str(warning)
    text = warning.get("text") or ". ".join(
        str(warning[key]) for key in ("seen", "why", "remedy") if warning.get(key)
    )
    return str(text or warning.get("code", ""))


def _modes_table(plan: dict[str, Any]) -> Table:
    columns = ["replication", "RPO median", "p95", "p99", "worst", "worst exposure"]
    columns += ["time in target", "points in target", "time without points", "violations"]
    columns += ["backlog, most", "written", "sent"]
    rows: list[list[Cell | str]] = []
    for mode in plan["modes"]:
        is_short = is_cut_short(mode, plan.get("duration_s"))
        rpo, exposure = mode.get("rpo_s") or {}, mode.get("exposure_s") or {}
        continuous = mode.get("mode") == "cdp" and not mode.get("point_interval_s")
        rows.append(
            [
                words.mode_name(mode),
                *[words.seconds(rpo.get(step)) for step in ("p50", "p95", "p99", "max")],
                words.seconds(exposure.get("max")),
                "too short to tell" if is_short else words.share(mode.get("met_time")),
                "continuous" if continuous else words.share(mode.get("met_sessions")),
                words.share(mode.get("no_restore_point_time")),
                words.count(mode.get("violations_count", len(mode.get("violations") or []))),
                words.size(mode.get("backlog_bytes_max")),
                words.size(mode.get("written_bytes")),
                words.size(mode.get("sent_bytes")),
            ]
        )
    return Table(columns, rows)


def _bandwidth_table(modes: list[dict[str, Any]]) -> Table:
    rows: list[list[Cell | str]] = []
    for mode in modes:
        needed = mode.get("bandwidth_for_target_bps") or {}
        cells = [
            "not at any bandwidth" if needed.get(key) is None else words.rate_needed(needed[key])
            for key in _SHARES
        ]
        rows.append([words.mode_name(mode), *cells])
    columns = ["to be in target for", *[f"{key} % of the time" for key in _SHARES]]
    return Table(columns, rows, caption="Bandwidth that the target needs")


def _rpo_chart(plan: dict[str, Any], palette: Palette) -> Figure:
    modes = plan["modes"]
    names = [words.mode_name(mode) for mode in modes]
    symbols = {"p50": "circle", "p95": "diamond", "p99": "square", "max": "x"}
    labels = {"p50": "median", "p95": "p95", "p99": "p99", "max": "worst"}
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": _positive([(mode.get("rpo_s") or {}).get(step) for step in ("p50", "max")]),
            "y": [name, name],
            "line": {"color": palette.colour(name), "width": 8},
            "opacity": 0.6,
            "hoverinfo": "skip",
            "showlegend": False,
        }
        for name, mode in zip(names, modes, strict=True)
    ]
    data += [
        {
            "type": "scatter",
            "mode": "markers",
            "name": labels[step],
            "x": _positive([(mode.get("rpo_s") or {}).get(step) for mode in modes]),
            "y": names,
            "marker": {"symbol": symbol, "size": 9, "color": "var(--text)"},
            "hovertemplate": "%{y}: %{x:.4~g} s",
        }
        for step, symbol in symbols.items()
    ]
    target = plan.get("target_s")
    shapes, annotations = [], []
    if target:
        line = {"color": "var(--bad)", "width": 1.5, "dash": "dash"}
        across = {"yref": "paper", "y0": 0, "y1": 1}
        shapes.append({"type": "line", "x0": target, "x1": target, "line": line, **across})
        annotations.append(
            {
                "x": math.log10(target),  # an annotation on a logarithmic axis takes the exponent
                "y": 1,
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "top",
                "text": f"target {words.seconds(target)}",
                "showarrow": False,
                "font": {"color": "var(--bad)"},
            }
        )
    layout = {
        "xaxis": {"type": "log", "title": {"text": "RPO (s)"}},
        # Room above the first mode for the target's name.
        "yaxis": {"range": [len(modes) - 0.5, -0.8], "ticksuffix": "  "},
        "shapes": shapes,
        "annotations": annotations,
        "hovermode": "closest",
    }
    note = "Left of the dashed line is within the target. From the median to the worst moment."
    return Figure("RPO by mode of replication", note, data, layout, 150 + 42 * len(modes), True)


def _positive(values: list[float | None]) -> list[float | None]:
    # A logarithmic axis has no zero: an RPO of nothing is drawn at a microsecond.
    return [None if value is None else max(value, 1e-6) for value in values]


def _violations_chart(modes: list[dict[str, Any]], palette: Palette) -> Figure | None:
    with_any = [mode for mode in modes if mode.get("violations")]
    if not with_any:
        return None
    end = max(v["end_s"] for mode in with_any for v in mode["violations"])
    data = []
    for mode in with_any:
        name = words.mode_name(mode)
        merged = merge_close(mode["violations"], end / _MOST_VIOLATIONS)
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": name,
                "y": [name] * len(merged),
                "base": figures.packed([start for start, _ in merged], "f8"),
                "x": figures.packed([stop - start for start, stop in merged], "f8"),
                "marker": {"color": palette.colour(name), "line": {"width": 0}},
                "hovertemplate": "from %{base:.4~g} s for %{x:.4~g} s",
            }
        )
    layout = {
        "xaxis": {"title": {"text": "time in the trace (s)"}, "range": [0, end * 1.02]},
        "yaxis": {"ticksuffix": "  ", "autorange": "reversed"},
        "barmode": "overlay",
        "showlegend": False,
        "hovermode": "closest",
    }
    note = "Every bar is a stretch of time in which the RPO was over the target."
    height = 110 + 36 * len(with_any)
    return Figure("When the target was missed", note, data, layout, height, True)


def merge_close(
    violations: list[dict[str, float]], nearer_than_s: float
) -> list[tuple[float, float]]:
    """Spans of violations; of more than can be drawn, those with less between them are joined."""
    spans = sorted((each["start_s"], each["end_s"]) for each in violations)
    if len(spans) <= _MOST_VIOLATIONS:
        return spans
    merged = [spans[0]]
    for start, end in spans[1:]:
        if start - merged[-1][1] < nearer_than_s:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _series_charts(
    modes: list[dict[str, Any]], target_s: float | None, palette: Palette
) -> list[Figure]:
    """RPO over time, for modes of a plan that carry it as `series {time_s, rpo_s}`."""
    tables = []
    for mode in modes:
        found = mode.get("series") or {}
        if found.get("time_s") and found.get("rpo_s"):
            x, y = figures.thin(
                pl.Series(found["time_s"], dtype=pl.Float64).to_numpy(),
                pl.Series(found["rpo_s"], dtype=pl.Float64).to_numpy(),
            )
            name = pl.lit(words.mode_name(mode)).alias("policy")
            tables.append(pl.DataFrame({"time_s": x, "rpo_s": y}).with_columns(name))
    if not tables:
        return []
    table = pl.concat(tables)
    note = "The age of the newest point that could be recovered; dashed: the target; shaded: "
    note += f"{words.mode_name(modes[0])} is over it."
    chart = figures.series(table, "rpo_s", "RPO over time", "s", palette, note)
    chart.layout["xaxis"] = {"title": {"text": "time in the trace (s)"}}
    missed = [(v["start_s"], v["end_s"]) for v in modes[0].get("violations") or []]
    chart.layout["shapes"] = replication_part.shaded(missed) if missed else []
    if target_s:
        line = {"color": "var(--bad)", "width": 1.5, "dash": "dash"}
        across = {"xref": "paper", "x0": 0, "x1": 1}
        chart.layout["shapes"] += [
            {"type": "line", "y0": target_s, "y1": target_s, "line": line, **across}
        ]
    return [chart]


def hits_answer(
    run: Run, found: list[hits.Hits], simulated: dict[str, Any] | None = None
) -> Answer:
    """What the cache of each policy hit, a sentence a policy, and which one to take."""
    given = Answer("What does the cache hit?")
    why = hits.refused(run)
    if why or not found:
        given.absent = f"refused: {why}" if why else "no policy of this run has a cache"
        return given
    for policy in dict.fromkeys(each.policy for each in found):
        pooled = pool(found, policy)
        ratio = words.share(pooled["block_hit_ratio"])
        reads = words.share(pooled["read_block_hit_ratio"])
        given.lines.append(
            Line(
                f"{ratio} hit",
                "neutral",
                f"{policy} answered {ratio} of the blocks asked for from its cache "
                f"({reads} of those read); {words.share(pooled['byte_hit_ratio'])} of the bytes.",
            )
        )
    advice = (simulated or {}).get("recommendation")
    if advice:
        name = f"{advice['policy']}, {words.size(advice['size_bytes'])}"
        given.lines.append(Line(name, "neutral", f"Recommended: {advice['reason']}."))
    return given


def pool(found: list[hits.Hits], policy: str) -> dict[str, Any]:
    """The counts of a policy summed over its rounds, with their ratios."""
    own = [each for each in found if each.policy == policy]
    fields = [name for name in hits.Hits.__dataclass_fields__ if name not in ("policy", "round")]
    sums = {name: sum(getattr(each, name) for each in own) for name in fields}
    return hits.Hits(policy=policy, round=own[0].round, **sums).to_dict()


def hits_section(
    run: Run, found: list[hits.Hits], simulated: dict[str, Any] | None, palette: Palette,
    over_time: pl.DataFrame,
) -> Section:  # fmt: skip
    """Hit ratios of the run and of the simulator, where there are any."""
    made = Section("hits", "Hit ratio")
    if found:
        made.lead = "Counted from the rows; a request is one block touched by one I/O."
        rows: list[list[Cell | str]] = []
        for policy in dict.fromkeys(each.policy for each in found):
            of = pool(found, policy)
            row = [policy, words.count(of["blocks"]), words.count(of["hit_blocks"])]
            ratios = ["block_hit_ratio", "read_block_hit_ratio", "read_hit_ratio"]
            ratios += ["write_hit_ratio", "byte_hit_ratio"]
            rows.append([*row, *[words.share(of[name]) for name in ratios]])
        columns = ["policy", "requests", "hits", "of requests", "of blocks read"]
        columns += ["of whole reads", "of whole writes", "of bytes"]
        made.tables.append(Table(columns, rows, caption="Hits of the run"))
        if over_time["hit_percent"].is_not_null().any():
            made.figures.append(figures.series(
                over_time, "hit_percent", "Hit ratio over time", "%", palette,
                "Of blocks, as the cache warms up."))  # fmt: skip
        add_gained(made, run)
        add_against_simulation(made, run)
        why = hits.refused(run)
        if why:
            made.notes.append(f"No verdict on these ratios: {why}.")
    if simulated and simulated.get("results"):
        add_simulated(made, simulated, palette)
    if not made.tables:
        made.absent = "no policy of this run has a cache, and results/cache.json is not there"
    return made
