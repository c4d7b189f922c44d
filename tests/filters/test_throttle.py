"""`throttle` keeps its rates over a run, whatever the load above it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("policy", "ios_per_s"),
    [
        ("iops = 2000", 2000),
        ('bandwidth = "64MiB/s"', 64 * 1024 / 16),
        ('iops = 5000\nbandwidth = "16MiB/s"', 16 * 1024 / 16),
        ('iops = 500\nbandwidth = "16MiB/s"', 500),
    ],
)
def test_the_tighter_limit_is_kept(
    write_trace: Callable[..., Path],
    replay: Callable[..., Any],
    policy: str,
    ios_per_s: float,
) -> None:
    ios = 10_000
    trace = write_trace([(i, "write" if i % 2 else "read", i * 16384, 16384) for i in range(ios)])
    found = replay(trace, f'use = "throttle"\nburst = "10ms"\n{policy}', depth=32)
    assert found.summary["verified"] is True
    duration_s = (found.rows["complete_ns"].max() - found.rows["submit_ns"].min()) / 1e9
    # What the burst lets through at the start is not waited for; the last I/O ends on the device.
    assert duration_s == pytest.approx(ios / ios_per_s - 0.01, abs=0.002)


def test_below_the_limit_nothing_waits(
    write_trace: Callable[..., Path], replay: Callable[..., Any]
) -> None:
    trace = write_trace([(i * 1_000_000, "read", i * 4096, 4096) for i in range(2000)])
    direct = replay(trace, pace="recorded")
    throttled = replay(trace, 'use = "throttle"\niops = 1100', pace="recorded")
    assert throttled.rows["complete_ns"].equals(direct.rows["complete_ns"])
