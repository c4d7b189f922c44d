"""pieces: functions of time made of pieces of slope one, as RPO and exposure are.

A piece is `t - origin` on `[start, end)`; where there is none the value is zero. Figures over time
follow from the pieces exactly: while one lasts, its value passes from `start - origin` to
`end - origin` at one second a second. The engine's planner has the same in
`rust/core/src/planner/ramps.rs`; this is for what a run has stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ns = npt.NDArray[np.int64]

_UNBOUNDED_NS = 1 << 60
"""An age beyond every time of a run: of a point that never was."""


@dataclass(frozen=True)
class Pieces:
    """Pieces in order of time that do not overlap; int64 arrays in ns."""

    start: Ns
    end: Ns
    origin: Ns

    @property
    def low(self) -> Ns:
        """Values where the pieces begin."""
        low: Ns = self.start - self.origin
        return low

    @property
    def high(self) -> Ns:
        """Values they come up to."""
        high: Ns = self.end - self.origin
        return high


def _kept(start: Ns, end: Ns, origin: Ns) -> Pieces:
    some = start < end
    return Pieces(start[some], end[some], origin[some])


def between_points(cuts: Ns, recoverable: Ns, end: int) -> Pieces:
    """Age of the newest recoverable point; a point cut at 0 is there from the start.

    `recoverable` ascends, `cuts` is the newest cut recoverable by then; ns.
    """
    since = np.concatenate([[0], np.clip(recoverable, 0, end)])
    origin = np.concatenate([[0], cuts])
    return _kept(since, np.concatenate([since[1:], [end]]), origin)


def exposure(cuts: Ns, recoverable: Ns, writes: Ns, end: int) -> Pieces:
    """Age of the oldest write acknowledged at or after the newest recoverable cut.

    `writes` are acknowledgements in ascending order.
    """
    since = np.concatenate([[0], np.clip(recoverable, 0, end)])
    cut = np.concatenate([[0], cuts])
    until = np.concatenate([since[1:], [end]])
    first = np.searchsorted(writes, cut, side="left")
    none = first == len(writes)
    lacks = np.where(none, end, writes[np.minimum(first, len(writes) - 1)] if len(writes) else end)
    return _kept(np.maximum(since, lacks), until, lacks)


def without_point(of: Pieces, until: int) -> Pieces:
    """The same with no point at all before `until`: the age is unbounded then."""
    later = _kept(np.maximum(of.start, until), of.end, of.origin)
    first = _kept(*(np.array([ns], np.int64) for ns in (0, until, -_UNBOUNDED_NS)))
    start, end, origin = (
        np.concatenate([getattr(first, name), getattr(later, name)])
        for name in ("start", "end", "origin")
    )
    return Pieces(start, end, origin)


def seconds(ns: float) -> float | None:
    """An age in seconds; None for an unbounded one."""
    return ns / 1e9 if ns < _UNBOUNDED_NS else None


def session_ages(cuts: Ns, recoverable: Ns, end: int) -> Ns:
    """Ages at which points were replaced by a newer one, by the end; ns."""
    cut = np.concatenate([[0], cuts])
    newer = (np.diff(cut) > 0) & (recoverable <= end)
    ages: Ns = (recoverable - cut[:-1])[newer]
    return ages


def distribution(of: Pieces, total: int) -> dict[str, float | None]:
    """p50, p95, p99 and max over `total` ns, in seconds; None where unbounded.

    A quantile is the smallest value that is not exceeded for more than its share of the time.
    """
    steps = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    top = float(of.high.max()) if len(of.high) else 0.0
    values = quantiles(of, total, list(steps.values()))
    found = {name: seconds(value) for name, value in zip(steps, values, strict=True)}
    return {**found, "max": seconds(top)}


def quantile(of: Pieces, total: int, share: float) -> float:
    """The smallest value that is not exceeded for more than `1 - share` of `total`, ns."""
    return quantiles(of, total, [share])[0]


def quantiles(of: Pieces, total: int, shares: Sequence[float]) -> list[float]:
    """`quantile` of several shares."""
    values = np.concatenate([of.high, of.low])
    change = np.concatenate([np.ones(len(of.high)), -np.ones(len(of.low))])
    order = np.argsort(-values, kind="stable")
    values, rising = values[order], np.cumsum(change[order])
    if not len(values):
        return [0.0] * len(shares)
    # Time spent above each value, from the largest down.
    above = np.concatenate([[0.0], np.cumsum(rising[:-1] * -np.diff(values))])
    found = []
    for share in shares:
        allowed = (1 - share) * total
        at = int(np.searchsorted(above, allowed, side="right"))
        inside = at < len(values)
        found.append(
            float(values[at - 1] - (allowed - above[at - 1]) / rising[at - 1]) if inside else 0.0
        )
    return found


def beyond(of: Pieces, target: int) -> list[tuple[int, int]]:
    """Maximal intervals above the target, ns."""
    start = np.maximum(of.start, of.origin + target)
    late = start < of.end
    spans: list[tuple[int, int]] = []
    for since, until in zip(start[late].tolist(), of.end[late].tolist(), strict=True):
        joins = spans and since <= spans[-1][1]
        spans.append((spans.pop()[0] if joins else since, until))
    return spans


def covered(spans: Iterable[tuple[int, int]]) -> int:
    """Time inside at least one of some spans."""
    total, reached = 0, 0
    for start, end in sorted(spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def series(of: Pieces, end: int, intervals: int) -> tuple[list[float], list[float | None]]:
    """Starts of equal intervals and the largest value in each, seconds; None where unbounded."""
    if end <= 0:
        return [], []
    edges = np.linspace(0, end, intervals + 1)
    largest = np.zeros(intervals)
    if len(of.start):
        # Within a piece the value is largest at its end, or where the interval ends.
        at = np.clip(np.searchsorted(edges, of.end, side="left") - 1, 0, intervals - 1)
        np.maximum.at(largest, at, of.high.astype(float))
        inside = np.searchsorted(of.start, edges[1:], side="left") - 1
        known = (inside >= 0) & (of.end[inside] >= edges[1:])
        largest = np.maximum(largest, np.where(known, edges[1:] - of.origin[inside], 0))
    return (edges[:-1] / 1e9).tolist(), [seconds(ns) for ns in largest.tolist()]
