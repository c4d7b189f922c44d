"""The part on simulated caches: what `cache -o RUN` left in results/cache.json."""

from __future__ import annotations

from typing import Any

from vaio_bench.reporting import figures, words
from vaio_bench.reporting.figures import Figure, Palette
from vaio_bench.reporting.model import Cell, Section, Table

_MIB = float(1 << 20)


def add_simulated(section: Section, study: dict[str, Any], palette: Palette) -> None:
    """Puts a study's advice, tables and charts into the section on hit ratios."""
    if study.get("answer"):
        section.notes.append(f"Simulated: {study['answer']}.")
    section.notes += [f"Simulated: {warning}." for warning in study.get("warnings") or []]
    section.tables.append(_results(study))
    section.figures += [
        figure
        for figure in (
            _curves(study, palette),
            _over_time(study, palette),
            _working_set(study),
            _dirty(study, palette),
        )
        if figure
    ]
    found = (_knees(study), _dirty_ages(study), _shards(study))
    section.tables += [table for table in found if table]


def _results(study: dict[str, Any]) -> Table:
    rows: list[list[Cell | str]] = [
        [
            str(each.get("policy")),
            words.size(each.get("size_bytes")),
            words.count(each.get("requests")),
            words.count(each.get("hits")),
            words.share(None if each.get("miss_ratio") is None else 1 - each["miss_ratio"]),
            words.share(each.get("read_hit_ratio")),
            words.share(each.get("byte_hit_ratio")),
        ]
        for each in study["results"]
    ]
    columns = ["eviction policy", "cache size", "requests", "hits", "hit ratio", "of reads"]
    return Table([*columns, "of bytes"], rows, caption="Simulated (vaio-bench cache)")


def _knees(study: dict[str, Any]) -> Table | None:
    rows: list[list[Cell | str]] = []
    for each in study.get("curves") or []:
        knee = each["knee"]
        how = each["method"]
        if how == "sampled":
            error = (each.get("error") or {}).get("mean")
            how = f"on {words.share(each['rate'])} of the blocks"
            how += "" if error is None else f", off by {error:.4f}"
        rows.append(
            [
                each["policy"],
                words.size(knee["size_bytes"] if knee else None),
                words.share(knee["hit_ratio"] if knee else None),
                words.size(each["size_for_90_percent_bytes"]),
                how,
            ]
        )
    columns = ["eviction policy", "knee", "hit ratio there", "size for 90 % of its best", "curve"]
    return Table(columns, rows, caption="What the curves say") if rows else None


def _dirty_ages(study: dict[str, Any]) -> Table | None:
    rows: list[list[Cell | str]] = []
    for each in study["results"]:
        of = each.get("write_back")
        if of:
            ages = sorted(of["age_s_over_time"])
            rows.append(
                [
                    each["policy"],
                    words.size(each["size_bytes"]),
                    words.size(of["dirty_bytes_max"]),
                    words.count(of["written_blocks"]),
                    words.count(of["destaged_blocks"]),
                    words.seconds(of["age_mean_s"]),
                    *[words.seconds(ages[round(q * (len(ages) - 1))]) for q in (0.5, 0.95, 0.99)],
                    words.seconds(of["age_max_s"]),
                ]
            )
    columns = ["eviction policy", "cache size", "dirty, most", "blocks written", "blocks destaged"]
    columns += ["mean age", "p50", "p95", "p99", "oldest"]
    caption = (
        "Write-back: what losing the cache loses, as the age of the oldest dirty data (percentiles "
        "over windows of time, of the worst in each)"
    )
    return Table(columns, rows, caption=caption) if rows else None


def _shards(study: dict[str, Any]) -> Table | None:
    rows: list[list[Cell | str]] = [
        [
            each["method"],
            words.share(each["rate"]),
            f"{each['error_mean']:.4f}",
            f"{each['error_max']:.4f}",
            f"{each['error_bar']:.4f}",
        ]
        for each in study.get("shards") or []
    ]
    columns = ["SHARDS", "of the blocks", "mean error", "largest", "error bar"]
    caption = "LRU's curve from samples of the blocks, against the exact one (hit ratio)"
    return Table(columns, rows, caption=caption, collapsed=caption) if rows else None


def _curves(study: dict[str, Any], palette: Palette) -> Figure | None:
    """Miss ratio by size: whole curves where there are, with the sizes asked for and knees."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for each in study.get("curves") or []:
        points = zip(each["size_bytes"], each["hit_ratio"], strict=True)
        lines[str(each["policy"])] = [(size, 1 - ratio) for size, ratio in points]
    marks: dict[str, list[tuple[float, float]]] = {}
    for each in study["results"]:
        if each.get("miss_ratio") is not None:
            point = (each["size_bytes"], each["miss_ratio"])
            marks.setdefault(str(each["policy"]), []).append(point)
    data = []
    for policy in dict.fromkeys([*lines, *marks]):
        line, own = sorted(lines.get(policy, [])), sorted(marks.get(policy, []))
        if line:
            data.append(_line(policy, line, palette, "lines"))
            data.append(_line(policy, own, palette, "markers") | {"showlegend": False})
        elif len(own) > 1:
            data.append(_line(policy, own, palette, "lines+markers"))
    knees = [each for each in study.get("curves") or [] if each["knee"]]
    if knees:
        data.append(_knee_marks(knees))
    if not data:
        return None
    layout = {
        "xaxis": {"type": "log", "title": {"text": "cache size (MiB)"}},
        "yaxis": {"rangemode": "tozero", "title": {"text": "requests missed (%)"}},
        "hovermode": "closest",
    }
    note = "Simulated on the trace. Points are the sizes asked for"
    note += "; diamonds the knees, beyond which size buys little." if knees else "."
    return Figure("Miss ratio by cache size", note, data, layout, 420, True)


def _line(
    policy: str, points: list[tuple[float, float]], palette: Palette, mode: str
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": mode,
        "name": policy,
        "legendgroup": policy,
        "x": figures.packed([size / _MIB for size, _ in points]),
        "y": figures.packed([ratio * 100 for _, ratio in points]),
        "line": palette.line(policy),
        "marker": {"color": palette.colour(policy), "size": 7},
        "hovertemplate": "%{y:.2f} % missed at %{x:.4~g} MiB",
    }


def _knee_marks(knees: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "knee",
        "x": figures.packed([each["knee"]["size_bytes"] / _MIB for each in knees]),
        "y": figures.packed([100 * (1 - each["knee"]["hit_ratio"]) for each in knees]),
        "text": [each["policy"] for each in knees],
        "marker": {"symbol": "diamond-open", "size": 11, "color": "var(--baseline)"},
        "hovertemplate": "knee of %{text}: %{y:.2f} % missed at %{x:.4~g} MiB",
    }


def _largest(study: dict[str, Any]) -> list[dict[str, Any]]:
    """The results at the largest size asked for that is below the footprint, one a policy."""
    footprint = study.get("footprint_bytes") or 0
    sizes = {each["size_bytes"] for each in study["results"]}
    below = [size for size in sizes if size < footprint]
    size = max(below or sizes)
    return [each for each in study["results"] if each["size_bytes"] == size]


def _over_time(study: dict[str, Any], palette: Palette) -> Figure | None:
    """Hit ratio by bucket of time: how the caches warm up."""
    series = study.get("series")
    own = [each for each in _largest(study) if each.get("hits_over_time")]
    if not series or not own:
        return None
    data = []
    for each in own:
        pairs = zip(series["time_s"], series["requests"], each["hits_over_time"], strict=True)
        kept = [(time_s, 100 * hits / asked) for time_s, asked, hits in pairs if asked]
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": each["policy"],
                "x": figures.packed([time_s for time_s, _ in kept]),
                "y": figures.packed([percent for _, percent in kept]),
                "line": palette.line(each["policy"], 1.6),
                "hovertemplate": "%{y:.2f} %",
            }
        )
    layout = _time_layout("requests hit (%)")
    note = f"Caches of {words.size(own[0]['size_bytes'])}, empty at the start."
    return Figure("Simulated hit ratio over time", note, data, layout, 320, True)


def _working_set(study: dict[str, Any]) -> Figure | None:
    found = study.get("working_set")
    if not found:
        return None
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": figures.packed(found["time_s"]),
            "y": figures.packed([size / _MIB for size in found[key]]),
            "line": {"color": colour, "width": 1.6},
            "hovertemplate": "%{y:.4~g} MiB",
        }
        for name, key, colour in (
            ("in each window", "bytes", "var(--policy-0)"),
            ("touched so far", "footprint_bytes", "var(--baseline)"),
        )
    ]
    note = f"Distinct blocks asked for; windows of {words.seconds(found['window_s'])}."
    return Figure("Working set over time", note, data, _time_layout("MiB"), 300, True)


def _dirty(study: dict[str, Any], palette: Palette) -> Figure | None:
    series = study.get("series")
    own = [each for each in _largest(study) if each.get("write_back")]
    if not series or not own:
        return None
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": each["policy"],
            "x": figures.packed(series["time_s"]),
            "y": figures.packed(each["write_back"]["age_s_over_time"]),
            "line": palette.line(each["policy"], 1.6),
            "hovertemplate": "%{y:.4~g} s",
        }
        for each in own
    ]
    note = "Age of the oldest write that only the cache holds: the RPO of losing it."
    title = "Write-back: age of the oldest dirty data"
    return Figure(title, note, data, _time_layout("s"), 300, True)


def _time_layout(unit: str) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": "time in the trace (s)"}},
        "yaxis": {"title": {"text": unit}, "rangemode": "tozero"},
        "hovermode": "x unified",
        "showlegend": True,
    }
