"""Every instant of a continuous stream that retention keeps is the source's, and none is older."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.replay.test_initial_sync import disk_of, replay, streamed, trace_of
from tests.replay_kit import Raw
from vaio_bench import recovering
from vaio_bench.errors import InputError
from vaio_bench.store import open_run


def test_every_instant_that_is_kept_is_the_source_s(
    tmp_path: Path, cli: Callable[..., Any]
) -> None:
    disk = disk_of(tmp_path / "disk.img", 8)
    with streamed(tmp_path, "--segment", "256KiB") as (link, _):
        run = replay(
            tmp_path, trace_of(tmp_path), "run", disk, link, point_interval="0s", retention="100ms"
        )
    store, image = tmp_path / "store", tmp_path / "x.img"
    instants = recovering.list_points(store)["instants"]
    from_ns, to_ns = instants["from_ns"], instants["to_ns"]
    # It keeps what it was asked for, and has given up the rest.
    assert from_ns > 100_000_000
    assert to_ns - from_ns >= 100_000_000
    journal = sum(part.stat().st_size for part in store.rglob("*") if "journal" in str(part))
    rows = open_run(run).scan_ios("chain", 0).collect()
    assert 0 < journal < rows["length_bytes"].sum() / 2
    draw = random.Random(8)
    times = [from_ns, to_ns, *(draw.randint(from_ns, to_ns) for _ in range(6))]
    for time_ns in times:
        found = recovering.recover(store=store, out=image, at=f"{time_ns}ns", run=run, force=True)
        assert found["checked"]["verified_bytes"] > 0
        # Only where a write was under way is the state not known: the trace has no discards.
        cut_ns = found["cut_ns"]
        under_way = rows.filter(pl.col("submit_ns") <= cut_ns, pl.col("complete_ns") > cut_ns)
        assert found["checked"]["unverified_bytes"] <= under_way["length_bytes"].sum()
    assert image.stat().st_size == disk.stat().st_size
    with pytest.raises(InputError, match=f"--at: expected {from_ns}ns or later"):
        recovering.recover(store=store, out=image, at=f"{from_ns - 1}ns", force=True)
    recovering.recover(store=store, out=image, run=run, force=True)
    assert image.read_bytes() == disk.read_bytes()
    assert "continuous: every moment from" in cli("recover", "--store", store).stdout


def test_a_continuous_stream_cannot_fold(tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "disk.img", 9)
    with pytest.raises(InputError, match="there is no point to fold up to"):
        replay(
            tmp_path,
            trace_of(tmp_path, ios=20),
            "run",
            disk,
            point_interval="0s",
            folding=Raw("true"),
        )
