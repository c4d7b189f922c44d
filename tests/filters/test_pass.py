"""`pass` changes nothing: neither times on a modelled device, nor data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_every_io_takes_the_time_of_the_direct_path(
    write_trace: Callable[..., Path], replay: Callable[..., Any], mixed_ios: list[Any]
) -> None:
    trace = write_trace(mixed_ios)
    direct = replay(trace, depth=8)
    passed = replay(trace, 'use = "pass"', depth=8)
    times = ["seq", "submit_ns", "complete_ns", "status"]
    assert passed.rows.select(times).equals(direct.rows.select(times))
    assert passed.summary["verified"] is True
    assert passed.rows["self_ns"].list.len().unique().to_list() == [2]
