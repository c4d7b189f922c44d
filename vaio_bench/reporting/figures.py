"""The charts, as plotly figures in plain JSON: data thinned before it gets here or here.

Colours are names of the page's CSS variables (`var(--policy-1)`): the page puts in the values of
the light or dark scheme, and the same policy has the same colour in every chart.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import polars as pl

from vaio_bench.analyses.layers import Layer
from vaio_bench.analyses.overhead import Comparison, Overhead
from vaio_bench.analyses.quantiles import Distribution
from vaio_bench.reporting import words
from vaio_bench.store import BASELINE, again_of

Trace = dict[str, Any]

_COLOURS = 7
# Lines that cross are told apart by more than colour.
_DASHES = ("solid", "dash", "dashdot", "dot", "longdash", "longdashdot")
# As many points as a chart of this width can show.
MAX_POINTS = 700
# Below this share a ladder of percentiles is all but flat, and nobody asks for it.
_LADDER_FROM = 0.1
# A bar's text is left out where its part is less than this share of the longest bar.
_TEXT_FROM = 0.12


@dataclass(frozen=True)
class Figure:
    """One chart: its caption, plotly traces and layout, and its height in pixels."""

    title: str
    note: str
    data: list[Trace]
    layout: dict[str, Any]
    height: int = 380
    wide: bool = False

    def to_dict(self) -> dict[str, Any]:
        """What the page's script draws."""
        return {"data": self.data, "layout": self.layout}


@dataclass
class Palette:
    """Hands each policy its colour and dash, once for the whole page."""

    seen: dict[str, int] = field(default_factory=dict)
    baseline: str = BASELINE

    def colour(self, policy: str) -> str:
        """The CSS variable of a policy's (or a layer's) colour; the baselines are grey."""
        if policy in (self.baseline, again_of(self.baseline)):
            return "var(--baseline)"
        return f"var(--policy-{self._index(policy) % _COLOURS})"

    def dash(self, policy: str) -> str:
        """A line's dash: solid for the first colours, another once they come round again."""
        if policy == again_of(self.baseline):
            return "dot"
        turn = 0 if policy == self.baseline else self._index(policy) // _COLOURS
        return _DASHES[turn % len(_DASHES)]

    def line(self, policy: str, width: float = 2.0) -> dict[str, Any]:
        """The line of a policy."""
        return {"color": self.colour(policy), "dash": self.dash(policy), "width": width}

    def _index(self, policy: str) -> int:
        return self.seen.setdefault(policy, len(self.seen))


def packed(values: Sequence[float] | np.ndarray, dtype: str = "f4") -> dict[str, str]:
    """Numbers as plotly's base64 typed array: a third of the size of a list."""
    raw = np.ascontiguousarray(np.asarray(values), dtype=np.dtype(dtype).newbyteorder("<"))
    return {"dtype": dtype, "bdata": base64.b64encode(raw.tobytes()).decode("ascii")}


def thin(x: np.ndarray, y: np.ndarray, points: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most about `points` of a curve, spread evenly along what is seen of it; both ends stay."""
    if len(x) <= points:
        return x, y
    reach_x, reach_y = float(np.ptp(x)) or 1.0, float(np.ptp(y)) or 1.0
    steps = np.hypot(np.diff(x) / reach_x, np.diff(y) / reach_y)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    cells = (along / max(along[-1], 1e-12) * (points - 1)).astype(int)
    keep = np.flatnonzero(np.diff(cells, prepend=-1))
    keep = np.unique(np.concatenate([keep, [len(x) - 1]]))
    return x[keep], y[keep]


def time_unit(largest_ns: float) -> tuple[float, str]:
    """The unit of a chart's axis of times (its nanoseconds and name), by the largest on it."""
    if largest_ns < 1e7:
        return 1e3, "µs"
    return (1e6, "ms") if largest_ns < 1e10 else (1e9, "s")


def _axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title}, **more}


def ecdf(spread: dict[str, Distribution], palette: Palette, kind: str) -> Figure:
    """Share of I/Os at or below each time, on a logarithmic axis."""
    data = []
    factor, unit = time_unit(max(float(of.upper[-1]) for of in spread.values()))
    for policy, of in spread.items():
        values, share = of.ecdf()
        x, y = thin(np.log10(np.maximum(values, 1) / factor), share)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": policy,
                "x": packed(10.0**x),
                "y": packed(y * 100),
                "line": palette.line(policy) | {"shape": "hv"},
                "hovertemplate": f"%{{y:.2f}} % within %{{x:.4~g}} {unit}",
            }
        )
    layout = {
        "xaxis": _axis(f"{kind} ({unit})", type="log"),
        "yaxis": _axis("share of I/Os (%)", range=[0, 100.5]),
    }
    note = "Further left is faster. Rounds are pooled; every point is exact."
    return Figure(f"Distribution of {kind}", note, data, layout)


def ladder(spread: dict[str, Distribution], palette: Palette, kind: str) -> Figure:
    """Time against percentile, the tail spread out by nines."""
    data = []
    most = 1.0
    factor, unit = time_unit(max(float(of.upper[-1]) for of in spread.values()))
    for policy, of in spread.items():
        values, share = of.ecdf()
        # The largest value has no percentile below 1: it stands where half of one I/O is left.
        nines = -np.log10(np.maximum(1 - share, 0.5 / of.n))
        most = max(most, float(nines[-1]))
        seen = share >= _LADDER_FROM
        x, y = thin(nines[seen], np.log10(np.maximum(values[seen], 1) / factor))
        percentile = 100 * (1 - 10.0**-x)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": policy,
                "x": packed(x),
                "y": packed(10.0**y),
                "customdata": packed(percentile, "f8"),
                "line": palette.line(policy),
                "hovertemplate": f"p%{{customdata:.7~g}}: %{{y:.4~g}} {unit}",
            }
        )
    steps = [(0.30103, "50 %"), (1, "90 %"), (2, "99 %"), (3, "99.9 %"), (4, "99.99 %")]
    steps += [(5, "99.999 %"), (6, "99.9999 %"), (7, "99.99999 %")]
    shown = [step for step in steps if step[0] <= most + 0.2]
    layout = {
        "xaxis": _axis(
            "percentile",
            tickvals=[at for at, _ in shown],
            ticktext=[name for _, name in shown],
            range=[-np.log10(1 - _LADDER_FROM), most + 0.1],
        ),
        "yaxis": _axis(f"{kind} ({unit})", type="log"),
    }
    note = "Lower is faster; to the right is the tail: each step on, a tenth of the I/Os is left."
    return Figure(f"Percentiles of {kind}", note, data, layout)


_FOREST = ("latency_p50_ns", "latency_p95_ns", "latency_p99_ns", "latency_p999_ns", "iops")


# Beyond this factor, up or down, an interval's end is at the chart's edge.
_FOREST_EDGE = 100.0
_PERCENT_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
_FACTORS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def forest(found: Overhead, palette: Palette) -> Figure:
    """Each policy's ratio with its interval, over the band of the noise floor; logarithmic."""
    names = [*_FOREST, "cpu_ns_per_io"]
    rows = [name for name in names if any(name in each for each in found.policies.values())]
    place = {metric: len(rows) - 1 - at for at, metric in enumerate(rows)}
    floors = {m: next(e[m].floor for e in found.policies.values() if m in e) for m in rows}
    ends = [_position(1 + floor) for floor in floors.values() if floor is not None]
    ends += [-end for end in ends]
    data = []
    count = len(found.policies)
    for number, (policy, metrics) in enumerate(found.policies.items()):
        shift = 0.0 if count == 1 else 0.5 * (0.5 - number / (count - 1))
        own = [(metric, metrics[metric]) for metric in rows if metric in metrics]
        data.append(_ratios(policy, own, [place[metric] + shift for metric, _ in own], palette))
        for _, each in own:
            of = each.interval
            ends += [_position(end) for end in (of.ratio, of.low, of.high) if end is not None]
    bands = [
        {
            "type": "rect",
            "layer": "below",
            "x0": -_position(1 + floor),
            "x1": _position(1 + floor),
            "y0": place[metric] - 0.42,
            "y1": place[metric] + 0.42,
            "fillcolor": "var(--band)",
            "line": {"width": 0},
        }
        for metric, floor in floors.items()
        if floor is not None
    ]
    low, high = min(ends, default=-0.01), max(ends, default=0.01)
    margin = 0.04 * max(high - low, 0.004)
    ticks = _ratio_ticks(low - margin, high + margin)
    layout = {
        "xaxis": _axis(
            f"against {found.baseline}, logarithmic",
            range=[low - margin, high + margin],
            tickvals=[at for at, _ in ticks],
            ticktext=[text for _, text in ticks],
            zeroline=True,
        ),
        "yaxis": {
            "tickvals": [place[metric] for metric in rows],
            "ticktext": [words.METRICS[metric] for metric in rows],
            "range": [-0.6, len(rows) - 0.4],
            "zeroline": False,
            "showgrid": False,
        },
        "shapes": bands,
        "hovermode": "closest",
    }
    note = (
        "Points are ratios over the rounds, bars their 95 % intervals. Within the grey band "
        "(the noise floor) the machine differs from itself as much. Of I/Os per second more is "
        "better, of all else less."
    )
    return Figure("Overhead with its uncertainty", note, data, layout, 90 + 62 * len(rows), True)


def _ratios(
    policy: str, own: Sequence[tuple[str, Comparison]], at: list[float], palette: Palette
) -> Trace:
    """The points of one policy with their intervals."""
    middles = [_position(each.interval.ratio) for _, each in own]
    highs = [_position(each.interval.high or each.interval.ratio) for _, each in own]
    lows = [_position(each.interval.low or each.interval.ratio) for _, each in own]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": policy,
        "x": middles,
        "y": at,
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [high - middle for high, middle in zip(highs, middles, strict=True)],
            "arrayminus": [middle - low for low, middle in zip(lows, middles, strict=True)],
            "color": palette.colour(policy),
            "thickness": 2,
            "width": 4,
        },
        "marker": {"color": palette.colour(policy), "size": 9},
        "text": [
            f"{words.METRICS[m]}: {words.change(e.interval.ratio)} "
            f"({words.span(e.interval.low, e.interval.high)}), {e.verdict}"
            for m, e in own
        ],
        "hovertemplate": "%{text}",
    }


def _position(ratio: float) -> float:
    return float(np.log10(min(max(ratio, 1 / _FOREST_EDGE), _FOREST_EDGE)))


def _ratio_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Ticks between two logarithms of ratios: in per cent where these are near 1, else factors."""
    reach = max(10**high - 1, 1 - 10**low)
    if reach <= 1:
        step = next((each for each in _PERCENT_STEPS if each * 5 >= reach * 100), 20)
        percents = [number * step for number in range(-6, 7)]
        ratios = [(1 + percent / 100, f"{percent:+g} %") for percent in percents if percent > -100]
        named = [(ratio, "0" if ratio == 1 else text.replace("-", words.MINUS))
                 for ratio, text in ratios]  # fmt: skip
    else:
        named = [(factor, f"×{factor:g}") for factor in _FACTORS]  # noqa: RUF001
    return [(float(np.log10(ratio)), text) for ratio, text in named
            if low <= np.log10(ratio) <= high]  # fmt: skip


def stacked(found: Sequence[Layer], palette: Palette, quantity: str) -> Figure:
    """Mean self time or CPU per I/O of each layer, stacked by policy."""
    policies = list(dict.fromkeys(each.policy for each in found))
    by_layer: dict[tuple[str, int], dict[str, float]] = {}
    for each in found:
        from_below = sum(1 for other in found if other.policy == each.policy) - each.position
        value = each.self_mean_ns if quantity == "self" else each.cpu_mean_ns
        by_layer.setdefault((each.layer, from_below), {})[each.policy] = value
    longest = max(sum(of.get(policy, 0) for of in by_layer.values()) for policy in policies)
    factor, unit = time_unit(longest)
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": words.layer_name(layer),
            "y": policies,
            "x": [values.get(policy, 0) / factor for policy in policies],
            "text": [
                words.duration(values[p]) if values.get(p, 0) > _TEXT_FROM * longest else ""
                for p in policies
            ],
            "textposition": "inside",
            "textangle": 0,
            "insidetextanchor": "middle",
            "marker": {
                "color": "var(--backend)" if from_below == 1 else palette.colour(layer),
                "line": {"color": "var(--surface)", "width": 1},
            },
            "hovertemplate": f"{escape(layer)}<br>%{{y}}: %{{x:.4~g}} {unit}<extra></extra>",
        }
        for (layer, from_below), values in sorted(by_layer.items(), key=lambda i: i[0][1])
    ]
    what = "Time in each layer" if quantity == "self" else "CPU time in each layer"
    layout = {
        "barmode": "stack",
        "xaxis": _axis(f"mean per I/O ({unit})"),
        "yaxis": {"autorange": "reversed", "ticksuffix": "  "},
        "hovermode": "closest",
    }
    note = (
        "A layer's self time: its span less that of the layers below it."
        if quantity == "self"
        else "Inside the layers' own callbacks; the kernel's share is in CPU per I/O, above."
    )
    return Figure(what, note, data, layout, 110 + 46 * len(policies))


def series(
    table: pl.DataFrame, column: str, title: str, unit: str, palette: Palette, note: str = ""
) -> Figure:
    """A column over time, one line a policy; `table` has `policy, time_s` and the column."""
    data = []
    for (policy,), own in table.group_by("policy", maintain_order=True):
        kept = own.drop_nulls(column)
        if kept.is_empty():
            continue
        data.append(
            {
                "type": "scatter",
                # A line needs two points.
                "mode": "lines" if kept.height > 1 else "markers",
                "name": str(policy),
                "x": packed(kept["time_s"].to_numpy()),
                "y": packed(kept[column].to_numpy()),
                "line": palette.line(str(policy), 1.6),
                "hovertemplate": f"%{{y:.4~g}} {unit}".rstrip(),
            }
        )
    layout = {
        "xaxis": _axis("time since the start of the round (s)"),
        "yaxis": _axis(unit or title, rangemode="tozero"),
        "hovermode": "x unified",
        "showlegend": True,
    }
    return Figure(title, note, data, layout, 300, True)
