"""As many I/Os in flight as there may be: nothing waits that could go."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from replay_kit import Io, rows_of


def reads(count: int) -> list[Io]:
    """Reads of different blocks, all at once."""
    return [Io(0, "read", number * 4096, 4096) for number in range(count)]


def test_all_of_a_burst_is_issued_when_it_is_due(engine: Callable) -> None:
    rows = rows_of(engine(reads(100), backend="sim", clock="virtual").run)
    assert rows["submit_ns"].to_list() == [0] * 100


def test_asap_keeps_the_depth(engine: Callable) -> None:
    rows = rows_of(engine(reads(2000), backend="sim", clock="virtual", pace="asap", depth=32).run)
    span_ns = rows["complete_ns"].max() - rows["submit_ns"].min()
    in_flight = (rows["complete_ns"] - rows["submit_ns"]).sum() / span_ns
    assert 30 < in_flight <= 32


@pytest.mark.parametrize("backend", ["null", "mem"])
def test_no_time_is_before_the_start(engine: Callable, backend: str) -> None:
    replayed = engine(reads(2000), backend=backend, clock="wall", pace="asap", depth=32)
    rows = rows_of(replayed.run)
    assert rows["due_ns"].min() >= 0
    assert rows["submit_ns"].min() >= 0
    assert replayed.totals["wall_ns"] == rows["complete_ns"].max()
    assert replayed.totals["start_monotonic_ns"] > 0
