"""What filters tell of the moment is in the run folder, whatever its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from replay_kit import filters, mixed, policy_file

from vaio_bench import schemas
from vaio_bench.store import Run

BLOCK = 4096


def last_of(run: Run, gauge: str) -> dict[str, int]:
    """The last value of a gauge, by disk."""
    told = run.gauges("chain", 0).filter(pl.col("gauge").cast(pl.String) == gauge)
    last = told.sort("time_ns", maintain_order=True).group_by(pl.col("disk").cast(pl.String)).last()
    return dict(last.select("disk", "value").collect().iter_rows())


@pytest.mark.parametrize("clock", ["virtual", "wall"])
def test_the_gauges_of_a_cache_end_at_its_counts(
    engine: Callable, tmp_path: Path, clock: str
) -> None:
    cache = {"use": "cache", "capacity": "64MiB", "block": "4KiB"}
    policy = policy_file(tmp_path, filters("pass", cache))
    ios = mixed(3, 900, align=512, disks=("a", "b"), gap_ns=2_000_000, ops=("read", "write"))
    run = engine(ios, policy=policy, backend="sim", clock=clock).run
    told = run.gauges("chain", 0).collect()
    assert told.columns == schemas.GAUGES.names
    assert set(told["layer"].cast(pl.String)) == {"cache"}
    assert set(told["layer_index"]) == {1}
    assert (told["time_ns"] >= 0).all()
    # Read in the middle of the run too, not at its end alone.
    assert told["time_ns"].n_unique() > 4
    rows = run.scan_ios("chain", 0).with_columns(pl.col("disk").cast(pl.String))
    counted = rows.group_by("disk").agg(pl.col("blocks").sum(), pl.col("hit_blocks").sum())
    expected = {disk: (blocks, hits) for disk, blocks, hits in counted.collect().iter_rows()}
    requests, hits = last_of(run, "cache_requests"), last_of(run, "cache_hits")
    assert {disk: (requests[disk], hits[disk]) for disk in requests} == expected
    # Nothing was evicted: what missed is what is held.
    misses = {disk: blocks - found for disk, (blocks, found) in expected.items()}
    assert last_of(run, "cached_bytes") == {disk: n * BLOCK for disk, n in misses.items()}
    changes = told.sort("time_ns", maintain_order=True).group_by("disk", "gauge").agg("value")
    for values in changes["value"]:
        assert (values.diff().drop_nulls() != 0).all()


def test_filters_that_tell_nothing_leave_no_file(engine: Callable, tmp_path: Path) -> None:
    policy = policy_file(tmp_path, filters("pass"))
    run = engine(mixed(1, 40), policy=policy).run
    assert run.gauges("chain", 0).collect().is_empty()
    assert not (run.path / "gauges").exists()
