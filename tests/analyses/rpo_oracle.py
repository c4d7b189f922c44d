"""The planner once more, as slow and plain as can be: fractions, lists, and no shared idea.

Restore points are listed with their cut and the time they become recoverable; RPO and exposure
are looked up between any two moments at which something happens. Times in ns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
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
    outages: list[tuple[int, int]] = field(default_factory=list)
    """From, to; in no order, and they may overlap."""
    rates: list[tuple[int, Fraction]] = field(default_factory=list)
    """From when on which share of the bandwidth is left, by time."""

    def steps(self, start: Fraction) -> list[tuple[Fraction, Fraction | None, Fraction, bool]]:
        """From `start` on: spans in which nothing changes, share of the bandwidth, whether open."""
        changes = {t for span in self.outages for t in span} | {at for at, _ in self.rates}
        edges: list[Fraction | None] = [*sorted(Fraction(t) for t in changes if t > start), None]
        found, now = [], start
        for edge in edges:
            is_open = all(not a <= now < b for a, b in self.outages)
            share = ([Fraction(1)] + [share for at, share in self.rates if at <= now])[-1]
            found.append((now, edge, share, is_open))
            now = edge if edge is not None else now
        return found

    def after(self, start: Fraction, work: Fraction, *, wire: bool) -> Fraction:
        """When so many ns of work are done: on the wire, which may be slower, or on the way."""
        for now, edge, share, is_open in self.steps(start):
            speed = (share if wire else Fraction(1)) if is_open else Fraction(0)
            if edge is None or work <= (edge - now) * speed:
                return now + (work / speed if work else 0)
            work -= (edge - now) * speed
        raise AssertionError

    def sent(self, start: Fraction, size: int) -> Fraction:
        return self.after(start, Fraction(size * 8 * 10**9, self.bps), wire=True)

    def landed(self, sent: Fraction) -> Fraction:
        return self.after(sent, Fraction(self.rtt, 2), wire=False)

    def heard(self, said: Fraction) -> Fraction:
        """When the far end hears of what takes no time to send: what is on its way, later, too."""
        spans = [(a - Fraction(self.rtt, 2), b) for a, b in self.outages]
        while ends := [b for a, b in spans if a <= said < b]:
            if not any(a < said <= b for a, b in spans):
                return said
            said = Fraction(max(ends))
        return said

    def arrivals(self) -> list[Fraction]:
        """When each write is recoverable."""
        found, free = [], Fraction(0)
        for write in self.writes:
            free = self.sent(max(free, Fraction(write.time)), write.length)
            found.append(self.landed(free))
        return found

    def backlog_max(self) -> Fraction:
        """Bytes under way just after each write has come."""
        most, free = Fraction(0), Fraction(0)
        for write in self.writes:
            free = self.sent(max(free, Fraction(write.time)), write.length)
            waiting = Fraction(0)
            for now, edge, share, is_open in self.steps(Fraction(write.time)):
                until = free if edge is None else min(edge, free)
                waiting += max(until - now, 0) * share * is_open
            most = max(most, waiting * self.bps / (8 * 10**9))
        return most

    def cuts(self, interval: int) -> list[tuple[Fraction, Fraction]]:
        """(cut, recoverable) of every point of cdp."""
        arrivals, points = self.arrivals(), [(Fraction(0), Fraction(0))]
        for k in range(1, self.end // interval + 1):
            cut = Fraction(k * interval)
            inside = [a for w, a in zip(self.writes, arrivals, strict=True) if w.time < cut]
            points.append((cut, max([self.heard(cut), *inside])))
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
            ready = self.landed(self.sent(start, sizes[-1])) if blocks else self.heard(start)
            points.append((start, ready))


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
    return beyond(of(replace(oracle, bps=bps)), target)
