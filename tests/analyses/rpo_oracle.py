"""The planner once more, as slow and plain as can be: fractions, lists, and no shared idea.

Restore points are listed with their cut and the time they become recoverable; RPO and exposure
are looked up between any two moments at which something happens. Times in ns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise


@dataclass(frozen=True)
class Write:
    time: int
    disk: str
    offset: int
    length: int


@dataclass
class Oracle:
    writes: list[Write]
    end: int
    bps: int
    rtt: int

    def on_wire(self, size: int) -> Fraction:
        return Fraction(size * 8 * 10**9, self.bps)

    def arrivals(self) -> list[Fraction]:
        """When each write is recoverable."""
        found, free = [], Fraction(0)
        for write in self.writes:
            free = max(free, Fraction(write.time)) + self.on_wire(write.length)
            found.append(free + Fraction(self.rtt, 2))
        return found

    def backlog_max(self) -> Fraction:
        """Bytes under way just after each write has come."""
        most = Fraction(0)
        for now, write in enumerate(self.writes):
            waiting = self.arrivals()[now] - Fraction(self.rtt, 2) - write.time
            most = max(most, waiting / self.on_wire(1))
        return most

    def cuts(self, interval: int) -> list[tuple[Fraction, Fraction]]:
        """(cut, recoverable) of every point of cdp."""
        arrivals, points = self.arrivals(), []
        for k in range(self.end // interval + 1):
            cut = Fraction(k * interval)
            inside = [a for w, a in zip(self.writes, arrivals, strict=True) if w.time < cut]
            points.append((cut, max([cut, *inside])))
        return points

    def syncs(self, every: int, block: int) -> tuple[list[tuple[Fraction, Fraction]], list[int]]:
        """(start, recoverable) of every snapshot, and the bytes of each sync."""
        points, sizes = [(Fraction(0), Fraction(0))], []
        while True:
            cut, ready = points[-1]
            due = Fraction(0)
            while due <= cut:
                due += every
            start = max(due, ready)
            if start > self.end:
                return points, sizes
            blocks = set()
            for write in self.writes:
                if cut <= write.time < start:
                    first, last = write.offset // block, (write.offset + write.length - 1) // block
                    blocks |= {(write.disk, number) for number in range(first, last + 1)}
            sizes.append(len(blocks) * block)
            latency = Fraction(self.rtt, 2) if blocks else 0
            points.append((start, start + self.on_wire(sizes[-1]) + latency))


Piece = tuple[Fraction, Fraction, Fraction]
"""start, end, origin: the value is t - origin in between."""


def pieces(oracle: Oracle, points: list[tuple[Fraction, Fraction]] | None) -> tuple[
    list[Piece], list[Piece]
]:  # fmt: skip
    """RPO and exposure; `points` None is continuous replication."""
    arrivals = oracle.arrivals()
    moments = {Fraction(0), Fraction(oracle.end), *arrivals}
    moments |= {Fraction(w.time) for w in oracle.writes}
    moments |= {ready for _, ready in points or []}
    inside = sorted(m for m in moments if m <= oracle.end)
    rpo: list[Piece] = []
    exposure: list[Piece] = []
    for start, end in pairwise(inside):
        at = (start + end) / 2
        if points is None:
            late = [
                Fraction(w.time)
                for w, a in zip(oracle.writes, arrivals, strict=True)
                if w.time < at < a
            ]
            newest = min(late, default=None)
        else:
            newest = max(cut for cut, ready in points if ready <= at)
            late = [Fraction(w.time) for w in oracle.writes if newest <= w.time < at]
        if newest is not None:
            _extend(rpo, start, end, newest)
        if late:
            _extend(exposure, start, end, min(late))
    return rpo, exposure


def _extend(found: list[Piece], start: Fraction, end: Fraction, origin: Fraction) -> None:
    if found and found[-1][1:] == (start, origin):
        start = found.pop()[0]
    found.append((start, end, origin))


def time_above(found: list[Piece], value: float | Fraction) -> Fraction:
    value = Fraction(value)
    return sum((max(Fraction(0), e - max(s, o + value)) for s, e, o in found), Fraction(0))


def beyond(found: list[Piece], target: int) -> Fraction:
    """As `time_above`, but what misses the target by a ns at most (the trace's step) holds it."""
    return time_above([p for p in found if p[1] - p[2] > target + 1], target)


def missed(found: list[Piece], target: int) -> list[tuple[Fraction, Fraction]]:
    """Maximal intervals beyond the target."""
    spans: list[tuple[Fraction, Fraction]] = []
    for start, end, origin in found:
        since = max(start, origin + target)
        if end - origin <= target + 1:
            continue
        if spans and since - spans[-1][1] <= Fraction(1, 2):
            since = spans.pop()[0]
        spans.append((since, end))
    return spans


def sessions_met(points: list[tuple[Fraction, Fraction]], target: int) -> float | None:
    ages = [after[1] - point[0] for point, after in pairwise(points)]
    return sum(age <= target + 1 for age in ages) / len(ages) if ages else None


def holds(oracle: Oracle, bps: int, of: Callable[[Oracle], list[Piece]], target: int) -> Fraction:
    """Time beyond the target at another bandwidth."""
    return beyond(of(Oracle(oracle.writes, oracle.end, bps, oracle.rtt)), target)
