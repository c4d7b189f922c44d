"""Charts of an RPO plan beside its modes, and what a run's own replication gave."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from vaio_bench.analyses.overhead import Overhead
from vaio_bench.analyses.rpo import is_cut_short
from vaio_bench.analyses.run_rpo import Replicated, RunRpo
from vaio_bench.reporting import figures, words
from vaio_bench.reporting.figures import Figure, Palette
from vaio_bench.reporting.model import Cell, Line, Table

# More shaded stretches than this are drawn as one where close together.
_MOST_SHADED = 120


def frontier(plan: dict[str, Any], palette: Palette) -> Figure | None:
    """RPO against bandwidth, every mode on one chart; None where the plan has no such points."""
    modes = [mode for mode in plan["modes"] if mode.get("frontier")]
    if not modes:
        return None
    data = []
    for mode in modes:
        name = words.mode_name(mode)
        at = [point["bandwidth_bps"] / 1e6 for point in mode["frontier"]]
        for step, label, dash in (("max", "worst", "solid"), ("p95", "p95", "dot")):
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers" if step == "max" else "lines",
                    "name": f"{name}, {label}",
                    "x": at,
                    "y": [max(point["rpo_s"][step], 1e-6) for point in mode["frontier"]],
                    "line": {"color": palette.colour(name), "dash": dash, "width": 2},
                    "marker": {"size": 5},
                    "hovertemplate": "%{y:.4~g} s at %{x:.4~g} Mbit/s",
                }
            )
    shapes, notes = [], []
    link, target = plan.get("link", {}).get("bandwidth_bps"), plan.get("target_s")
    if target:
        shapes.append(line_at(y=target, colour="var(--bad)"))
        notes.append(_label(f"target {words.seconds(target)}", "var(--bad)", y=math.log10(target)))
    if link:
        shapes.append(line_at(x=link / 1e6, colour="var(--text)"))
        notes.append(_label(f"link {words.rate(link)}", "var(--text)", x=math.log10(link / 1e6)))
    layout = {
        "xaxis": {"type": "log", "title": {"text": "bandwidth (Mbit/s)"}},
        "yaxis": {"type": "log", "title": {"text": "RPO (s)"}},
        "shapes": shapes,
        "annotations": notes,
        "hovermode": "closest",
    }
    note = "Below the dashed line the target is held. What each way of replicating makes of a link."
    return Figure("RPO against bandwidth", note, data, layout, 400, True)


def line_at(
    *, colour: str = "var(--bad)", x: float | None = None, y: float | None = None
) -> dict[str, Any]:
    """A dashed line across a chart, at a value of one of its axes."""
    line = {"color": colour, "width": 1.5, "dash": "dash"}
    if x is None:
        return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}
    return {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x, "line": line}


def _label(
    text: str, colour: str, *, x: float | None = None, y: float | None = None
) -> dict[str, Any]:
    """A name at a line; coordinates of a logarithmic axis are exponents."""
    place = (
        {"xref": "paper", "x": 1, "y": y, "xanchor": "right", "yanchor": "bottom"}
        if x is None
        else {"yref": "paper", "y": 1, "x": x, "xanchor": "left", "yanchor": "top"}
    )
    return {"text": text, "showarrow": False, "font": {"color": colour}, **place}


def folding(plan: dict[str, Any], palette: Palette) -> Figure | None:
    """Bandwidth against the window in which a block is sent once: the trade-off curve B(w)."""
    curve = plan.get("folding") or []
    if len(curve) < 2:
        return None
    x = [at["window_s"] for at in curve]
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": label,
            "x": x,
            "y": [at[key] / 1e6 for at in curve],
            "customdata": [
                f"{at['gain']:.3%} saved" if at["gain"] >= 5e-5 else "nothing saved" for at in curve
            ],
            "line": {"color": palette.colour("folding"), "dash": dash, "width": 2},
            "hovertemplate": "%{y:.4~g} Mbit/s, %{customdata}",
        }
        for key, label, dash in (
            ("bandwidth_bps", "mean, B(w)", "solid"),
            ("bandwidth_peak_bps", "busiest window", "dot"),
        )
    ]
    layout = {
        "xaxis": {"type": "log", "title": {"text": "each block sent once in (s)"}},
        "yaxis": {"type": "log", "title": {"text": "bandwidth (Mbit/s)"}},
        "hovermode": "closest",
    }
    note = "A longer window sends less, since blocks are written again, and loses more."
    if any(at["gain"] < 0 for at in curve):
        note += " A block is sent as a whole: more than the writes were, where nothing is saved."
    return Figure("What folding saves", note, data, layout, 340, True)


def distribution(plan: dict[str, Any], palette: Palette) -> Figure | None:
    """Share of the time within each RPO, a line a mode."""
    data = []
    for mode in plan["modes"]:
        spread = mode.get("distribution") or {}
        if not spread.get("rpo_s"):
            continue
        name = mode.get("name") or words.mode_name(mode)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": [max(value, 1e-6) for value in spread["rpo_s"]],
                "y": [share * 100 for share in spread["share"]],
                "line": palette.line(name),
                "hovertemplate": "%{y:.3f} % of the time within %{x:.4~g} s",
            }
        )
    if not data:
        return None
    target = plan.get("target_s")
    layout: dict[str, Any] = {
        "xaxis": {"type": "log", "title": {"text": "RPO (s)"}},
        "yaxis": {"title": {"text": "share of the time (%)"}, "range": [0, 101]},
        "hovermode": "closest",
    }
    if target:
        layout["shapes"] = [line_at(x=target, colour="var(--bad)")]
    note = "Over time, not over points; dashed: the target. Further left is better."
    return Figure("Distribution of RPO", note, data, layout, 340, True)


def shaded(spans: list[tuple[float, float]], colour: str = "var(--bad)") -> list[dict[str, Any]]:
    """Stretches of time as shapes behind a chart over time; close ones are drawn as one."""
    spans = sorted(spans)
    gap = (spans[-1][1] - spans[0][0]) / _MOST_SHADED if len(spans) > _MOST_SHADED else 0.0
    merged: list[tuple[float, float]] = []
    for start, end in spans:
        if merged and start - merged[-1][1] < gap:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return [
        {"type": "rect", "layer": "below", "yref": "paper", "y0": 0, "y1": 1, "x0": start,
         "x1": end, "fillcolor": colour, "opacity": 0.14, "line": {"width": 0}}
        for start, end in merged
    ]  # fmt: skip


def loads_table(plan: dict[str, Any]) -> Table | None:
    """Rates of disks and groups, and what is too hot for a product."""
    loads = plan.get("loads") or []
    if not loads or not plan.get("duration_s"):
        return None
    if len([load for load in loads if load["kind"] == "disk"]) == 1:
        loads = [load for load in loads if load["kind"] != "disk" or load["exceeded"]]
    rows: list[list[Cell | str]] = []
    for load in loads:
        rate = load["written_bytes_per_s"]
        needed = load["bandwidth_for_target_bps"].get("100")
        reasons = "; ".join(f"{e['product']}: {e['reason']}" for e in load["exceeded"])
        rows.append(
            [
                load["name"],
                words.size(load["written_bytes"]),
                *[words.rate(rate[step] * 8) for step in ("mean", "percentile", "peak")],
                words.rate(load["sum_of_peaks_bytes_per_s"] * 8),
                words.count(load["iops"]["peak"]),
                "not at any bandwidth" if needed is None else words.rate_needed(needed),
                reasons or "–",  # noqa: RUF001  an en dash: nothing to tell
            ]
        )
    inputs = plan.get("inputs", {})
    percentile = f"p{100 * inputs.get('percentile', 0.95):g}"
    columns = ["disks", "written", "written, mean", percentile, "peak", "sum of the disks' peaks"]
    columns += ["I/Os per second, peak", "target needs", "too hot for"]
    window = words.seconds(inputs.get("rate_window_s"))
    caption = f"What disks and groups ask for, over windows of {window}"
    return Table(columns, rows, caption=caption, collapsed="disks and groups")


def rto_table(found: dict[str, Any] | None) -> Table | None:
    """How long a recovery took, by age of the point, as `recover --by-age` measured it."""
    if not found or not found.get("points"):
        return None
    rows: list[list[Cell | str]] = [
        [
            words.seconds(each["age_ns"] / 1e9) if each["age_ns"] else "the newest",
            str(each["point"]),
            words.duration(each["rto_ns"]),
        ]
        for each in found["points"]
    ]
    caption = f"Recovery time (RTO) of {words.size(found['image_bytes'])} of disks, by age of point"
    return Table(["Age", "Point", "RTO"], rows, caption=caption)


def capacity_notes(plan: dict[str, Any]) -> list[str]:
    """Initial synchronisation, catching up and the journal, a sentence each."""
    first, catch_up, journal = (plan.get(n) for n in ("initial_sync", "catch_up", "journal"))
    if not (first and catch_up and journal):
        return []

    def time(value: float | None) -> str:
        return "never" if value is None else words.seconds(value)

    return [
        f"The initial synchronisation of {words.size(first['bytes'])} ends after "
        f"{time(first['seconds'])}; to end within {words.seconds(first['within_s'])} it needs "
        f"{words.rate_needed(first['bandwidth_bps'])}.",
        f"After an outage of {words.seconds(catch_up['outage_s'])} "
        f"{words.size(catch_up['backlog_bytes'])} wait; the link has caught up after "
        f"{time(catch_up['seconds'])} (by changed blocks: {time(catch_up['changed_seconds'])}).",
        f"A journal for {words.seconds(journal['retention_s'])} takes "
        f"{words.size(journal['bytes'])}, with over-retention "
        f"{words.size(journal['with_over_retention_bytes'])}.",
        *_long_term(journal.get("long_term")),
    ]


def _long_term(kept: dict[str, Any] | None) -> list[str]:
    if not kept:
        return []
    return [
        f"{words.count(kept['points'])} long-term points, one every "
        f"{words.seconds(kept['every_s'])} for {words.seconds(kept['retention_s'])}, take "
        f"{words.size(kept['bytes'])} more."
    ]


def initial_sync(plan: dict[str, Any], palette: Palette) -> Figure | None:
    """How long the initial synchronisation takes, against the bandwidth."""
    first = plan.get("initial_sync") or {}
    at = [each for each in first.get("at") or [] if each["seconds"]]
    if len(at) < 2:
        return None
    x, y = [each["bandwidth_bps"] / 1e6 for each in at], [each["seconds"] / 3600 for each in at]
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "initial synchronisation",
            "x": x,
            "y": y,
            "line": palette.line("initial synchronisation"),
            "hovertemplate": "%{y:.4~g} h over %{x:.4~g} Mbit/s",
        }
    ]
    layout = {
        "xaxis": {"type": "log", "title": {"text": "bandwidth (Mbit/s)"}},
        "yaxis": {"type": "log", "title": {"text": "time (h)"}},
        "shapes": [line_at(y=first["within_s"] / 3600)],
        "hovermode": "closest",
    }
    note = f"Of {words.size(first['bytes'])}, and what is written meanwhile; dashed: within "
    note += (
        f"{words.seconds(first['within_s'])}. Where there is no point, the link never catches up."
    )
    return Figure("Initial synchronisation", note, data, layout, 300, True)


def measured_lines(measured: RunRpo) -> list[Line]:
    """What a run's replication gave, a sentence a policy and disk."""
    lines = []
    for each in worst(measured.found):
        one = each.document
        text = f"{name_of(each, measured.found)}, as measured: {_oldest(one)}"
        if one["met_time"] is None:
            why = f"no verdict: {measured.refused}" if measured.refused else "no target was set"
            lines.append(Line("measured", "neutral", f"{text}; {why}."))
            continue
        if is_cut_short(one, one["duration_s"]):
            lasted = words.seconds(one["duration_s"])
            name = name_of(each, measured.found)
            text = f"{name}, as measured: no restore point was recoverable within {lasted}."
            lines.append(Line("too short to tell", "neutral", text))
            continue
        share = words.share(one["met_time"])
        good = one["met_time"] == 1
        held = f"RPO of {words.seconds(one['target_s'])} held {share} of the time"
        badge = "target met" if good else f"{share} of the time"
        lines.append(Line(badge, "good" if good else "bad", f"{text}; {held}."))
    return lines


def _oldest(one: dict[str, Any]) -> str:
    """How old the newest point came to be, or that there was none."""
    first_s, oldest_s = one["first_point_s"], one["rpo_s"]["max"]
    if oldest_s is not None:
        return f"the newest point was {words.seconds(oldest_s)} old at worst"
    if first_s is None:
        return "no restore point was made, the initial sync was not done"
    return f"there was no restore point for the first {words.seconds(first_s)} (initial sync)"


def name_of(each: Replicated, among: list[Replicated]) -> str:
    """The policy, with its disk where there are several."""
    return f"{each.policy}, {each.disk}" if len({e.disk for e in among}) > 1 else each.policy


def worst(found: list[Replicated]) -> list[Replicated]:
    """Of each policy and disk the round with the worst moment."""
    kept: dict[tuple[str, str], Replicated] = {}
    for each in found:
        key = (each.policy, each.disk)
        if key not in kept or _max(each) > _max(kept[key]):
            kept[key] = each
    return list(kept.values())


def _max(each: Replicated) -> float:
    found = each.document["rpo_s"]["max"]
    return math.inf if found is None else float(found)


def measured_table(measured: RunRpo, overhead: Overhead | None) -> Table | None:
    """Guest latency added, lag and holes of each replicating policy, always together."""
    if not measured.found:
        return None
    columns = ["policy", "disk", "RPO median", "p95", "p99", "worst", "worst exposure"]
    columns += ["time in target", "points in target", "sessions in time", "time without points"]
    columns += ["points", "sent", "again after holes", "stuns, longest", "added to the median I/O"]
    columns += ["to the response at p99"]
    rows: list[list[Cell | str]] = []
    for each in worst(measured.found):
        one = each.document
        stuns = f"{one['stuns']}, {words.seconds(one['stun_s_max'])}" if one["stuns"] else "0"
        rows.append(
            [
                each.policy,
                each.disk,
                *[_age(one["rpo_s"][step]) for step in ("p50", "p95", "p99", "max")],
                words.seconds(one["exposure_s"]["max"]),
                words.share(one["met_time"]),
                words.share(one["met_sessions"]),
                words.share(one["completed_sessions"]),
                words.share(one["no_restore_point_time"]),
                words.count(one["points"]),
                words.size(one["sent_bytes"]),
                words.size(sum(hole["resync_bytes"] for hole in one["holes"])),
                stuns,
                *[_added(overhead, each.policy, step) for step in _ADDED],
            ]
        )
    caption = "As measured: the round with the worst moment"
    return Table(columns, rows, caption=caption)


def _age(value: float | None) -> str:
    return "no point" if value is None else words.seconds(value)


# The response has what an I/O waited for another before it was submitted: latency has not.
_ADDED = ("latency_p50_ns", "response_p99_ns")


def _added(overhead: Overhead | None, policy: str, metric: str) -> str:
    metrics = overhead.policies.get(policy, {}) if overhead else {}
    found = metrics.get(metric)
    return "not compared" if found is None else words.duration(found.value - found.baseline)


def measured_chart(measured: RunRpo, palette: Palette) -> Figure | None:
    """RPO over time of the run, with its violations and holes shaded."""
    found = worst(measured.found)
    tables = []
    for each in found:
        stored = each.document["series"]
        if any(value is not None for value in stored["rpo_s"]):
            name = name_of(each, found)
            of_run = {"time_s": stored["time_s"], "rpo_s": stored["rpo_s"]}
            table = pl.DataFrame(of_run, schema={"time_s": pl.Float64, "rpo_s": pl.Float64})
            tables.append(table.with_columns(pl.lit(name).alias("policy")))
    if not tables:
        return None
    note = "Shaded red: over the target; shaded grey: no point was being made (a hole)."
    chart = figures.series(
        pl.concat(tables), "rpo_s", "RPO of the run over time", "s", palette, note
    )
    missed = [(v["start_s"], v["end_s"]) for each in found for v in each.document["violations"]]
    holes = [(v["start_s"], v["end_s"]) for each in found for v in each.document["holes"]]
    shapes = shaded(missed) if missed else []
    shapes += shaded(holes, "var(--text)") if holes else []
    target = next((e.document["target_s"] for e in found if e.document["target_s"]), None)
    if target:
        shapes.append(line_at(y=target, colour="var(--bad)"))
    chart.layout["shapes"] = shapes
    return chart
