"""`cache` counts the hits of an LRU cache, exactly, and gives back what was written."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from vaio_bench.schemas import IoFlag


def lru_hits(ios: Sequence[Any], blocks: int, block_bytes: int) -> list[int]:
    """Hits of each I/O, by the rules of the cache's page and a dictionary."""
    cache: OrderedDict[int, None] = OrderedDict()
    counted = []
    for _, op, offset, length in ios:
        hits = 0
        end = offset + length
        if op == "discard":
            for block in range(-(-offset // block_bytes), end // block_bytes):
                cache.pop(block, None)
        elif op != "flush":
            for block in range(offset // block_bytes, -(-end // block_bytes)):
                hits += block in cache
                cache[block] = None
                cache.move_to_end(block)
                if len(cache) > blocks:
                    cache.popitem(last=False)
        counted.append(hits)
    return counted


@pytest.mark.parametrize(
    ("capacity", "block"), [("1MiB", "4KiB"), ("130KiB", "512B"), ("64KiB", "64KiB")]
)
def test_hits_are_exact(
    write_trace: Callable[..., Path],
    replay: Callable[..., Any],
    mixed_ios: list[Any],
    capacity: str,
    block: str,
) -> None:
    sizes = {"1MiB": 1 << 20, "130KiB": 130 << 10, "64KiB": 64 << 10, "4KiB": 4096, "512B": 512}
    found = replay(
        write_trace(mixed_ios), f'use = "cache"\ncapacity = "{capacity}"\nblock = "{block}"'
    )
    assert found.summary["verified"] is True
    expected = lru_hits(mixed_ios, sizes[capacity] // sizes[block], sizes[block])
    assert found.rows["hit_blocks"].to_list() == expected
    assert 0 < sum(expected) < found.rows["blocks"].sum()


def test_hits_are_marked_and_spare_the_device(
    write_trace: Callable[..., Path], replay: Callable[..., Any]
) -> None:
    trace = write_trace(
        [
            (0, "write", 0, 8192),
            (1, "read", 0, 8192),
            (2, "read", 4096, 8192),
            (3, "read", 0, 12288),
        ]
    )
    rows = replay(trace, 'use = "cache"\ncapacity = "1MiB"').rows
    marks = rows["flags"].to_list()
    assert [bool(mark & IoFlag.HIT) for mark in marks] == [False, True, False, True]
    assert [bool(mark & IoFlag.PARTIAL_HIT) for mark in marks] == [False, False, True, False]
    backend_ns = rows["self_ns"].list.last().to_list()
    assert [ns > 0 for ns in backend_ns] == [True, False, True, False]


@pytest.mark.parametrize("depth", [1, 32])
def test_a_real_file_gives_back_what_was_written(
    write_trace: Callable[..., Path],
    replay: Callable[..., Any],
    mixed_ios: list[Any],
    tmp_path: Path,
    depth: int,
) -> None:
    found = replay(
        write_trace(mixed_ios),
        'use = "cache"\ncapacity = "512KiB"\nblock = "8KiB"',
        target=tmp_path / "disk.img",
        depth=depth,
    )
    assert found.summary["verified"] is True
    assert found.summary["errors"] == 0


@pytest.mark.parametrize(
    "keys",
    [
        'write_policy = "back"',
        'write_policy = "back"\ndirty_max = "32KiB"\ndestage_after = "0s"',
        'write_policy = "around"\nread_ahead = "64KiB"',
        "dedup = true",
    ],
)
@pytest.mark.parametrize("is_file", [False, True])
def test_every_way_of_writing_gives_back_what_was_written(
    write_trace: Callable[..., Path],
    replay: Callable[..., Any],
    mixed_ios: list[Any],
    tmp_path: Path,
    keys: str,
    is_file: bool,
) -> None:
    # The sweep at the end reads the disk: after a clean stop nothing is held back.
    found = replay(
        write_trace(mixed_ios),
        f'use = "cache"\ncapacity = "512KiB"\n{keys}',
        target=tmp_path / "disk.img" if is_file else None,
        depth=32,
    )
    assert found.summary["verified"] is True
    assert found.summary["errors"] == 0
