"""I/Os that overlap one in flight: ordered, let through or left out, and always counted."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest
from replay_kit import Io, mixed, rows_of

from vaio_bench.schemas import IoFlag

CHANGES = ("write", "discard", "write_zeroes")


def _overlaps(rows: pl.DataFrame, *, from_column: str) -> list[bool]:
    """Of each row: whether it overlaps one that started before it and was still in flight."""
    ios = rows.select(
        "op", "offset_bytes", "length_bytes", start=from_column, end="complete_ns"
    ).rows()
    found = []
    for i, (op, offset, length, start, _) in enumerate(ios):
        found.append(
            any(
                (op in CHANGES or other_op in CHANGES)
                and offset < other_offset + other_length
                and other_offset < offset + length
                and end > start
                for other_op, other_offset, other_length, _, end in ios[:i]
            )
        )
    return found


def _flagged(rows: pl.DataFrame, flag: IoFlag) -> list[bool]:
    return ((rows["flags"] & flag) != 0).to_list()


@pytest.mark.parametrize("clock", ["virtual", "wall"])
def test_order_never_lets_overlapping_ios_pass_each_other(engine: Callable, clock: str) -> None:
    replayed = engine(mixed(21, align=512), backend="sim", clock=clock)
    rows = rows_of(replayed.run)
    assert not any(_overlaps(rows, from_column="submit_ns"))
    waited = _flagged(rows, IoFlag.CONFLICT_WAITED)
    assert any(waited)
    assert sum(waited) == replayed.found["conflicts"]
    if clock == "virtual":
        assert waited == _overlaps(rows, from_column="due_ns")


def test_allow_counts_and_does_not_wait(engine: Callable) -> None:
    replayed = engine(mixed(21, align=512), backend="sim", conflicts="allow", verify=True)
    rows = rows_of(replayed.run)
    overlapping = _overlaps(rows, from_column="submit_ns")
    assert sum(overlapping) == replayed.found["conflicts"] > 0
    assert rows["submit_ns"].to_list() == rows["due_ns"].to_list()
    assert not any(_flagged(rows, IoFlag.CONFLICT_WAITED))
    # Nothing is claimed of data that two writes may have left in either order.
    assert replayed.found["verified"] is True
    assert replayed.found["unverified_bytes"] > 0


def test_drop_leaves_out_what_overlaps_and_says_so(engine: Callable) -> None:
    replayed = engine(mixed(21, align=512), backend="sim", conflicts="drop", verify=True)
    rows = rows_of(replayed.run)
    dropped = _flagged(rows, IoFlag.DROPPED)
    assert sum(dropped) == replayed.found["dropped"] == replayed.found["conflicts"] > 0
    issued = rows.filter((pl.col("flags") & IoFlag.DROPPED) == 0)
    assert not any(_overlaps(issued, from_column="submit_ns"))
    assert rows.height == 250
    assert replayed.found["verified"] is True


def test_reads_do_not_wait_for_reads_nor_flushes_for_anybody(engine: Callable) -> None:
    ios = [Io(0, "read", 0, 65536), Io(0, "read", 4096, 65536), Io(0, "flush")]
    replayed = engine(ios, backend="sim")
    assert replayed.found["conflicts"] == 0
    assert rows_of(replayed.run)["submit_ns"].to_list() == [0, 0, 0]


def test_disks_do_not_conflict(engine: Callable) -> None:
    ios = [Io(0, "write", 0, 4096, disk) for disk in ("a", "b", "c")]
    assert engine(ios, backend="sim").found["conflicts"] == 0
