"""`delay` adds its time to what it names, in the `self_ns` of its own layer, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import vaio_bench as vb


def test_the_time_is_added_exactly(
    write_trace: Callable[..., Path], replay: Callable[..., Any], mixed_ios: list[Any]
) -> None:
    trace = write_trace(mixed_ios)
    direct = replay(trace)
    delayed = replay(trace, 'use = "delay"\nread = "100us"\nwrite = "1ms"')
    assert delayed.summary["verified"] is True
    latency = pl.col("complete_ns") - pl.col("submit_ns")
    added = delayed.rows.select(latency) - direct.rows.select(latency)
    held = (
        pl.col("op")
        .cast(pl.String)
        .replace_strict({"read": 100_000, "flush": 0}, default=1_000_000, return_dtype=pl.Int64)
    )
    expected = delayed.rows.select(held.alias("complete_ns"))
    assert added.equals(expected)
    own = delayed.rows.select(pl.col("self_ns").list.first().alias("complete_ns"))
    assert own.equals(expected)


def test_a_distribution_repeats_with_its_seed(
    write_trace: Callable[..., Path], replay: Callable[..., Any]
) -> None:
    trace = write_trace([(i, "read", i * 4096, 4096) for i in range(20_000)])
    policy = 'use = "delay"\nread = { distribution = "exponential", mean = "1ms" }'
    first, again, other = (replay(trace, policy, seed=seed) for seed in (1, 1, 2))
    assert first.rows["complete_ns"].equals(again.rows["complete_ns"])
    assert not first.rows["complete_ns"].equals(other.rows["complete_ns"])
    own = first.rows["self_ns"].list.first()
    # 20,000 draws: the mean is within 3 % of 1 ms with more than four standard errors to spare.
    assert own.mean() == pytest.approx(1e6, rel=0.03)


def test_mistakes_are_named_with_their_paths(
    write_trace: Callable[..., Path], replay: Callable[..., Any]
) -> None:
    trace = write_trace([(0, "read", 0, 4096)])
    with pytest.raises(vb.InputError) as caught:
        replay(trace, 'use = "delay"\nread = 5\nwrite = { distribution = "normal", mean = "x" }')
    lines = str(caught.value).splitlines()
    assert 'filter[0].read: expected a time such as "100us"' in lines[0]
    assert 'filter[0].write.mean: expected a time such as "100us"' in lines[1]
