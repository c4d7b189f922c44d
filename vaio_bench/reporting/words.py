"""Figures and verdicts in words: units that fit, and sentences that someone in a hurry can read."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from vaio_bench.analyses.intervals import Verdict
from vaio_bench.analyses.overhead import Comparison, Overhead
from vaio_bench.analyses.rpo import is_cut_short
from vaio_bench.analyses.sweep import Swept
from vaio_bench.store import BASELINE
from vaio_bench.units import round_up

_NONE = "–"  # noqa: RUF001  an en dash: nothing to tell
MINUS = "−"  # noqa: RUF001  the typographic minus is as wide as the plus

# What a metric is called in a table, in the order of its rows.
METRICS: dict[str, str] = {
    "latency_p50_ns": "latency, median",
    "latency_p95_ns": "latency, p95",
    "latency_p99_ns": "latency, p99",
    "latency_p999_ns": "latency, p99.9",
    "latency_max_ns": "latency, longest",
    "iops": "I/Os per second",
    "bytes_per_s": "throughput",
    "rate_achieved": "rate against the recorded one",
    "cpu_ns_per_io": "CPU per I/O",
    "cpu_user_ns_per_io": "CPU per I/O, user",
    "cpu_system_ns_per_io": "CPU per I/O, system",
    "context_switches_per_io": "context switches per I/O",
    "response_p50_ns": "response, median",
    "response_p95_ns": "response, p95",
    "response_p99_ns": "response, p99",
    "response_p999_ns": "response, p99.9",
    "response_max_ns": "response, longest",
}


def duration(ns: float | None) -> str:
    """Nanoseconds with three significant digits: `12.4 µs`."""
    return _NONE if ns is None else _scaled(ns, _TIMES)


def more(ns: float | None) -> str:
    """What something adds, of a difference of two measurements: below 0 it was too little to see.

    `22 ns more`, or `nothing that shows`.
    """
    return "nothing that shows" if ns is not None and ns <= 0 else f"{duration(ns)} more"


def layer_name(use: str) -> str:
    """What a layer is called where room is little: a library by its file, Python by its class.

    The name in full stands in tables.
    """
    if use.startswith("so:"):
        return use.rpartition("/")[2].removeprefix("so:")
    return use.rpartition(":")[2] if use.startswith("py:") else use


def seconds(value: float | None) -> str:
    """Seconds, up to days: `2.50 s`, `15 min`."""
    if value is None:
        return _NONE
    if 0 < abs(value) < 1:
        return duration(value * 1e9)
    return _scaled(value, _LONG_TIMES)


def size(count: float | None) -> str:
    """Bytes in powers of 1024: `3.20 GiB`."""
    return _NONE if count is None else _scaled(count, _SIZES)


def rate(bits_per_s: float | None) -> str:
    """Bits per second: `100 Mbit/s`."""
    return _NONE if bits_per_s is None else _scaled(bits_per_s, _RATES)


def rate_needed(bits_per_s: float) -> str:
    """The same rounded up: the bandwidth that is told is enough."""
    return rate(round_up(bits_per_s))


# From which value on a unit is used, how much one of it is, its name.
_Units = list[tuple[float, float, str]]
_TIMES: _Units = [(0, 1, "ns"), (1e3, 1e3, "µs"), (1e6, 1e6, "ms"), (1e9, 1e9, "s")]
_LONG_TIMES: _Units = [
    (0, 1, "s"),
    (120, 60, "min"),
    (7200, 3600, "h"),
    (172_800, 86_400, "days"),
]
_SIZES: _Units = [
    (1024.0**i if i else 0, 1024.0**i, unit)
    for i, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB", "PiB"))
]
_RATES: _Units = [
    (0, 1, "bit/s"),
    (1e3, 1e3, "kbit/s"),
    (1e6, 1e6, "Mbit/s"),
    (1e9, 1e9, "Gbit/s"),
]


def _scaled(value: float, units: _Units) -> str:
    if not math.isfinite(value):
        return _NONE
    _, factor, name = [unit for unit in units if abs(value) >= unit[0]][-1]
    return f"{digits(value / factor)} {name}"


def digits(value: float) -> str:
    """Three significant digits without an exponent; whole numbers below 1000 stay whole."""
    if value == int(value) and abs(value) < 1000:
        text = str(int(value))
    elif abs(value) >= 100:
        text = f"{value:,.0f}"
    else:
        decimals = 1 if abs(value) >= 10 else 2
        text = f"{value:.{decimals}f}"
    return text.replace("-", MINUS)


def count(value: float | None) -> str:
    """A whole number with thousands apart."""
    return _NONE if value is None else f"{value:,.0f}"


def share(value: float | None) -> str:
    """A share as per cent; never rounded up to 100 % nor down to 0 %."""
    if value is None:
        return _NONE
    if value in (0, 1) or 1 < value < 1.0005:
        return f"{value * 100:.0f} %"
    if 0 < value < 0.0001:
        return "< 0.01 %"
    if 0.9999 < value < 1:
        return "> 99.99 %"
    near_end = value < 0.01 or 0.99 < value < 1.01
    return f"{value * 100:.{2 if near_end else 1 if value < 1.5 else 0}f} %"


def change(ratio: float | None) -> str:
    """A ratio as a signed difference: 1.18 is `+18.0 %`, 12.5 is `x12.5`.

    Beyond a factor of 1,000, up or down, nothing is known but that it is so far.
    """
    if ratio is None:
        return _NONE
    if ratio > 1000:
        return "> ×1,000"  # noqa: RUF001
    if ratio >= 3:
        return f"×{digits(ratio)}"  # noqa: RUF001  the multiplication sign
    return f"{percent_points(ratio)} %"


def percent_points(ratio: float) -> str:
    """The signed number of `change`, without its sign of per cent."""
    if 0 < ratio < 0.001:
        return f"< {MINUS}99.9"
    percent = (ratio - 1) * 100
    text = f"{abs(percent):.{1 if abs(percent) >= 1 else 2}f}"
    sign = "+" if percent >= 0 else MINUS
    return "0" if float(text) == 0 else sign + text


def span(low: float | None, high: float | None) -> str:
    """An interval of a ratio as differences: `+15.1 to +21.0 %`."""
    if low is None or high is None:
        return "no interval"
    if high >= 3:
        return f"{change(low)} to {change(high)}"
    return f"{percent_points(low)} to {percent_points(high)} %"


def metric_value(metric: str, value: float | None) -> str:
    """A metric's value with its unit."""
    if value is None:
        return _NONE
    if metric.endswith(("_ns", "_ns_per_io")):
        return duration(value)
    if metric == "rate_achieved":
        return share(value)
    if metric == "bytes_per_s":
        return f"{size(value)}/s"
    return count(value) if value >= 100 else digits(value)


def overhead_sentence(
    name: str,
    metrics: dict[str, Comparison],
    found: Overhead,
    inside_ns: dict[str, int] | None = None,
) -> str:
    """What a policy does to the median I/O, its tail and the CPU, in one sentence or two.

    Where the rounds leave that open, also how long an I/O is inside its filters (`inside_ns`, by
    policy): the noise of the device is not in that.
    """
    median = metrics.get("latency_p50_ns")
    if median is None:
        lost = found.lost.get(name)
        if lost is not None and lost.is_all:
            return f"{name} {lost}".rstrip(".") + "."
        return f"{name}: there is no latency to compare."
    text = f"{name} {_effect(median, 'the median I/O', found)}"
    tail = metrics.get("latency_p99_ns")
    if tail is not None:
        text += f"; {_tail(tail, median)}"
    cpu = metrics.get("cpu_ns_per_io")
    if cpu is not None and cpu.verdict in ("slower", "faster"):
        more = "more" if cpu.interval.ratio > 1 else "less"
        text += (
            f". It takes {duration(abs(cpu.added))} {more} CPU per I/O "
            f"({change(cpu.interval.ratio)})"
        )
    own_ns = (inside_ns or {}).get(name)
    if own_ns is not None and median.verdict == "no difference shown" and median.baseline > 0:
        text += (
            f". Inside its filters an I/O spends {duration(own_ns)} (median, by the chain's own "
            f"clock), {share(own_ns / median.baseline)} of the {found.baseline} path's median"
        )
    return text + "."


def _effect(of: Comparison, what: str, found: Overhead) -> str:
    interval = span(of.interval.low, of.interval.high)
    differs = f"{change(of.interval.ratio)}, "
    differs += interval if of.interval.low is None else f"95 % interval {interval}"
    floor = "none" if of.floor is None else share(of.floor)
    if of.verdict in ("slower", "faster"):
        does, where = ("adds", "to") if of.added > 0 else ("takes", "off")
        return (
            f"{does} {_added(of)} {where} {what} ({change(of.interval.ratio)}), above the noise "
            f"floor of {floor}"
        )
    if of.verdict == "equivalent":
        against = "the direct path" if found.baseline == BASELINE else found.baseline
        return f"is equivalent to {against} for {what}, within {share(found.margin)} ({differs})"
    if of.interval.low is None:
        return f"was measured in one round, which proves nothing about {what} ({differs})"
    return f"shows no difference in {what} ({differs}; the noise floor is {floor})"


def _added(of: Comparison) -> str:
    """A time and its interval, without their sign: `3.10 µs [2.90, 3.40]`."""
    assert of.added_interval is not None
    ends = sorted(abs(end) for end in of.added_interval)
    _, factor, name = [unit for unit in _TIMES if abs(of.added) >= unit[0]][-1]
    low, high = (digits(end / factor) for end in ends)
    return f"{digits(abs(of.added) / factor)} {name} [{low}, {high}]"


def _tail(tail: Comparison, median: Comparison) -> str:
    if tail.verdict in ("slower", "faster"):
        joined = "it adds " if tail.added > 0 else "it takes off "
        verb = "" if median.verdict == tail.verdict else joined
        return f"at the 99th percentile {verb}{_added(tail)} ({change(tail.interval.ratio)})"
    if tail.verdict == "equivalent":
        return "the 99th percentile is equivalent"
    return "no difference is shown at the 99th percentile"


def sweep_sentences(found: Swept) -> list[str]:
    """What each policy costs over the cells of a sweep, a sentence each."""
    return [_sweep_sentence(found, name) for name in found.policies]


def _sweep_sentence(found: Swept, name: str) -> str:
    metric = "latency_p50_ns"
    own = [(cell, cell.found.policies[name][metric]) for cell in found.cells
           if metric in cell.found.policies.get(name, {})]  # fmt: skip
    gone = [cell.found.lost[name] for cell in found.cells if name in cell.found.lost]
    gone = [each for each in gone if each.is_all]
    told_lost = f"lost all rounds in {len(gone)} cells ({gone[0].reason})" if gone else ""
    if not own:
        return f"{name} {told_lost or 'has no latency to compare'}."
    counts = Counter(of.verdict for _, of in own)
    told = ", ".join(f"{word} in {counts[word]}" for word in _VERDICTS if counts[word])
    low, high = (pick(of.interval.ratio for _, of in own) for pick in (min, max))
    text = f"{name}: the median I/O changes by {span(low, high)} over {len(own)} cells ({told})"
    slower = [(cell, of) for cell, of in own if of.verdict == "slower"]
    if slower:
        cell, worst = max(slower, key=lambda each: each[1].interval.ratio)
        text += f"; most at {found.place(cell.at)}, where it adds {_added(worst)}"
    return text + (f"; it {told_lost}" if told_lost else "") + "."


_VERDICTS: tuple[Verdict, ...] = ("slower", "faster", "equivalent", "no difference shown")


def mode_name(mode: dict[str, Any]) -> str:
    """What an `rpo` mode is called: `CDP, a point every 2.50 s`."""
    kind = str(mode.get("mode", "replication"))
    if kind == "cdp":
        every = mode.get("point_interval_s")
        return f"CDP, a point every {seconds(every)}" if every else "CDP, continuous"
    if kind == "snapshot":
        return f"snapshots every {seconds(mode.get('every_s'))}"
    return kind


def too_short(plan: dict[str, Any], modes: list[dict[str, Any]]) -> str:
    """What is said of modes that had no recoverable point within the trace."""
    return (
        f"{' and '.join(map(mode_name, modes))}: no point was recoverable within the trace of "
        f"{seconds(plan.get('duration_s'))}, too short to tell how much of the time an RPO of "
        f"{seconds(plan.get('target_s'))} is held."
    )


def rpo_sentence(plan: dict[str, Any], mode: dict[str, Any]) -> str:
    """How well one mode keeps the target RPO over its link, and what the target would need."""
    target = plan.get("target_s")
    rpo = mode.get("rpo_s") or {}
    met = mode.get("met_time")
    worst = f"the worst moment is {seconds(rpo.get('max'))}"
    name = mode_name(mode)
    if is_cut_short(mode, plan.get("duration_s")):
        return too_short(plan, [mode])
    if met == 1:
        return f"{name} keeps the RPO within {seconds(target)} all the time; {worst}."
    text = f"{name} keeps the RPO within {seconds(target)} for {share(met)} of the time; {worst}"
    needed = (mode.get("bandwidth_for_target_bps") or {}).get("100")
    if needed is None:
        return text + "; no bandwidth would keep it all the time."
    return text + f"; keeping it all the time would need {rate_needed(needed)}."
