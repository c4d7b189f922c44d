"""Figures over pieces of slope one against the slow recount in fractions."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.analyses import rpo_oracle as plain
from vaio_bench.analyses import pieces


@st.composite
def replications(draw: st.DrawFn) -> tuple[list[tuple[int, int]], list[int], int]:
    """Restore points (cut, recoverable), acknowledgements of writes, and the end."""
    gaps = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 30)), max_size=8))
    cuts = list(accumulate(gap for gap, _ in gaps))
    ready = accumulate((c + d for c, (_, d) in zip(cuts, gaps, strict=True)), max)
    points = list(zip(cuts, ready, strict=True))
    writes = sorted(draw(st.lists(st.integers(0, 60), max_size=12)))
    return points, writes, draw(st.integers(max([60, *writes]), 80))


@given(made=replications(), target=st.integers(1, 30))
def test_figures_agree_with_the_recount(
    made: tuple[list[tuple[int, int]], list[int], int], target: int
) -> None:
    points, writes, end = made
    cuts = np.array([cut for cut, _ in points], np.int64)
    ready = np.array([at for _, at in points], np.int64)
    oracle = plain.Oracle([plain.Write(t, "d", 0, 1) for t in writes], end, 10**18, 0)
    listed = [(Fraction(a), Fraction(b)) for a, b in [(0, 0), *points]]
    rpo, exposure = plain.pieces(oracle, listed)
    found = pieces.between_points(cuts, ready, end)
    exposed = pieces.exposure(cuts, ready, np.array(writes, np.int64), end)
    for got, expected in ((found, rpo), (exposed, exposure)):
        for value in (0, 0.5, 3, 17):
            above = np.maximum(0, got.end - np.maximum(got.start, got.origin + value)).sum()
            assert above == pytest.approx(float(plain.time_above(expected, value)))
        for share in (0.5, 0.95, 0.99):
            value = pieces.quantile(got, end, share)
            allowed = (1 - share) * end
            assert plain.time_above(expected, value) <= allowed + 1e-6
            assert value < 1e-6 or plain.time_above(expected, value - 1e-6) > allowed - 1e-6
        top = max((e - o for _, e, o in expected), default=0)
        assert pieces.distribution(got, end)["max"] * 1e9 == pytest.approx(float(top))
        assert max(pieces.series(got, end, 7)[1]) * 1e9 == pytest.approx(float(top))
    missed = sum(b - a for a, b in pieces.beyond(found, target))
    assert missed == plain.time_above(rpo, target)


def test_the_series_rises_through_intervals() -> None:
    of = pieces.between_points(np.array([4]) * 10**9, np.array([9]) * 10**9, 12 * 10**9)
    assert pieces.series(of, 12 * 10**9, 4) == ([0, 3, 6, 9], [3, 6, 9, 8])


def test_sessions_count_replacements_only() -> None:
    # The second cut at 5 replaces nothing, the last comes after the end.
    cuts, ready = np.array([5, 5, 8, 20]), np.array([7, 9, 12, 31])
    assert pieces.session_ages(cuts, ready, 30).tolist() == [7, 7]


def test_time_in_spans_counts_once() -> None:
    assert pieces.covered([(5, 9), (0, 3), (2, 4), (8, 9)]) == 8
    assert pieces.covered([]) == 0


def test_nothing_gives_zeros() -> None:
    nothing = np.array([], np.int64)
    of = pieces.exposure(nothing, nothing, nothing, 100)
    assert pieces.distribution(of, 100) == {"p50": 0, "p95": 0, "p99": 0, "max": 0}
    assert pieces.series(of, 0, 3) == ([], [])
