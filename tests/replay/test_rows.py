"""Rows tell the trace: every I/O once, as recorded, when it was due."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from replay_kit import Io, in_flight_max, mixed, rows_of

FILES = ("uring", "psync")
# (backend, clock)
WAYS = [
    ("uring", "wall"), ("psync", "wall"), ("mem", "wall"), ("null", "wall"), ("sim", "wall"),
    ("mem", "virtual"), ("null", "virtual"), ("sim", "virtual"),
]  # fmt: skip


@pytest.mark.parametrize(("backend", "clock"), WAYS)
def test_every_io_of_the_trace_is_a_row(
    engine: Callable, tmp_path: Path, backend: str, clock: str
) -> None:
    ios = mixed(11, gap_ns=5_000)
    run = engine(ios, backend=backend, clock=clock, target=tmp_path / "disk.img").run
    rows = rows_of(run)
    assert rows["seq"].to_list() == list(range(len(ios)))
    assert rows["op"].to_list() == [io.op for io in ios]
    for column in ("offset_bytes", "trace_offset_bytes"):
        assert rows[column].to_list() == [io.offset for io in ios]
    assert rows["length_bytes"].to_list() == [io.length for io in ios]
    assert rows["status"].unique().to_list() == [0]
    assert (rows["due_ns"] <= rows["submit_ns"]).all()
    assert (rows["submit_ns"] <= rows["complete_ns"]).all()
    assert run.manifest["backend"]["used"] == backend


@pytest.mark.parametrize("speed", [0.5, 1.0, 3.0, 1000.0])
@pytest.mark.parametrize(("backend", "clock"), [("mem", "wall"), ("sim", "virtual")])
def test_recorded_pace_is_due_at_the_recorded_time_over_speed(
    engine: Callable, speed: float, backend: str, clock: str
) -> None:
    ios = mixed(3, 100)
    rows = rows_of(engine(ios, backend=backend, clock=clock, speed=speed).run)
    assert rows["due_ns"].to_list() == [int(io.time_ns / speed) for io in ios]


def test_an_overlong_io_makes_itself_late_and_nothing_after_it(engine: Callable) -> None:
    # The second overlaps the first, which takes 30 us or more; the third is due before it ends.
    ios = [
        Io(0, "write", 0, 1 << 20),
        Io(1_000, "write", 4096, 4096),
        Io(2_000, "write", 8 << 20, 4096),
        Io(10_000_000, "write", 0, 4096),
    ]
    rows = rows_of(engine(ios, backend="sim").run)
    late = (rows["submit_ns"] - rows["due_ns"]).to_list()
    assert late[1] > 30_000
    assert late[0] == late[2] == late[3] == 0


def test_skip_and_limit_count_from_the_first_io_left(engine: Callable) -> None:
    ios = mixed(4, 80)
    rows = rows_of(engine(ios, skip=13, limit=50).run)
    assert rows["seq"].to_list() == list(range(13, 63))
    assert rows["due_ns"].to_list() == [io.time_ns - ios[13].time_ns for io in ios[13:63]]


@pytest.mark.parametrize("depth", [1, 3, 16])
@pytest.mark.parametrize(
    ("backend", "clock"), [("sim", "virtual"), ("sim", "wall"), ("psync", "wall")]
)
def test_asap_keeps_the_depth_and_is_due_when_submitted(
    engine: Callable, tmp_path: Path, depth: int, backend: str, clock: str
) -> None:
    # Apart from each other: nothing waits for an overlap.
    ios = [Io(i, "read" if i % 3 else "write", i * 8192, 4096) for i in range(120)]
    run = engine(
        ios, pace="asap", depth=depth, backend=backend, clock=clock, target=tmp_path / "d.img"
    ).run
    rows = rows_of(run)
    assert rows["due_ns"].to_list() == rows["submit_ns"].to_list()
    most = in_flight_max(rows)
    assert most <= depth
    if clock == "virtual":
        assert most == depth


def test_closed_waits_the_think_time_after_the_io_it_waited_for(engine: Callable) -> None:
    # Captured: 0 runs from 0 to 100 us, 1 from 10 to 30 us. 2 arrives at 50 us: it waited for 1,
    # and thought for 20 us. 3 arrives at 105 us, after 0, and thought for 5 us.
    us = 1_000
    ios = [
        Io(0, "read", 0, 4096, latency_ns=100 * us),
        Io(10 * us, "read", 1 << 20, 4096, latency_ns=20 * us),
        Io(50 * us, "read", 2 << 20, 4096, latency_ns=1_000 * us),
        Io(105 * us, "read", 3 << 20, 4096, latency_ns=10 * us),
    ]
    rows = rows_of(engine(ios, pace="closed", backend="sim").run)
    done, due = rows["complete_ns"].to_list(), rows["due_ns"].to_list()
    assert due == [0, 10 * us, done[1] + 20 * us, done[0] + 5 * us]
    half = rows_of(engine(ios, pace="closed", backend="sim", speed=2.0).run)
    done, due = half["complete_ns"].to_list(), half["due_ns"].to_list()
    assert due == [0, 5 * us, done[1] + 10 * us, done[0] + 2_500]


def test_closed_without_latencies_waits_for_the_io_before_and_warns(engine: Callable) -> None:
    ios = [Io(i * 10_000, "read", i << 20, 4096) for i in range(20)]
    replayed = engine(ios, pace="closed", backend="sim")
    rows = rows_of(replayed.run)
    done = rows["complete_ns"].to_list()
    assert rows["due_ns"].to_list() == [0, *(end + 10_000 for end in done[:-1])]
    assert "no_latencies" in str(replayed.found["warnings"]).lower().replace("-", "_")


@pytest.mark.parametrize("pace", ["recorded", "closed", "asap"])
def test_no_time_of_a_row_is_before_the_start(engine: Callable, pace: str) -> None:
    ios = [Io(io.time_ns, io.op, io.offset, io.length, io.disk, io.flags, 7_000) for io in mixed(8)]
    rows = rows_of(engine(ios, pace=pace, backend="sim", skip=20, inflight=4, depth=4).run)
    assert rows.select(pl.min_horizontal(pl.col("due_ns", "submit_ns").min())).item() >= 0


def test_the_limit_in_flight_holds_and_its_waits_are_flagged(engine: Callable) -> None:
    ios = [Io(i, "read", i << 20, 4096) for i in range(50)]
    rows = rows_of(engine(ios, backend="sim", inflight=4).run)
    assert in_flight_max(rows) == 4
    waited = (rows["flags"] & 64) != 0
    assert waited.to_list() == [False] * 4 + [True] * 46
    assert rows["due_ns"].to_list() == list(range(50))
    assert not ((rows_of(engine(ios, backend="sim").run)["flags"] & 64) != 0).any()
