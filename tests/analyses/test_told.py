"""Gauges and modes beside the timeline's intervals, against a walk through them by hand."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from run_folder import POLICIES, make_run

from vaio_bench import schemas
from vaio_bench.analyses import timeline
from vaio_bench.store import open_run, part_folder

TWO = {name: POLICIES[name] for name in ("direct", "cache")}
COLUMNS = ("dirty_bytes", "dirty_oldest_ns", "backlog_bytes", "lag_ns")


def gauge(time_ns: int, name: str, value: int, layer: int = 0, disk: str = "a") -> dict[str, Any]:
    return {
        "policy": "cache",
        "round": 0,
        "disk": disk,
        "time_ns": time_ns,
        "layer": f"layer{layer}",
        "layer_index": layer,
        "gauge": name,
        "value": value,
    }


def tell(run: Path, rows: list[dict[str, Any]], parts: int = 1) -> None:
    folder = part_folder(run, "cache", 0, "gauges")
    folder.mkdir(parents=True)
    for number in range(parts):
        table = pa.Table.from_pylist(rows[number::parts], schema=schemas.GAUGES)
        pq.write_table(table, folder / f"part-{number}.parquet")


def standing(rows: list[dict[str, Any]], disk: str, name: str, at_ns: int) -> dict[int, int]:
    """By layer, the value that stands at a moment."""
    found = {}
    for row in sorted(rows, key=lambda row: int(row["time_ns"])):
        if (row["disk"], row["gauge"]) == (disk, name) and row["time_ns"] <= at_ns:
            found[row["layer_index"]] = row["value"]
    return found


def test_each_interval_has_what_stood_at_its_end(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", policies=TWO, rounds=1, disks=("a", "b"), ios=4_000, parts=5)
    draw = random.Random(4)
    rows = [
        gauge(draw.randrange(700_000_000), name, draw.randrange(1 << 40), layer, disk)
        for name in (*COLUMNS, "cached_bytes")
        for layer in (0, 1)
        for disk in ("a", "b")
        for _ in range(9)
        if (name, disk) != ("backlog_bytes", "b")
    ]
    tell(path, rows, parts=3)
    timeline.append_round(path, "cache", 0)
    found = open_run(path).timeline()
    assert found.height > 10
    for row in found.to_dicts():
        for name in COLUMNS:
            values = standing(rows, row["disk"], name, row["start_ns"] + 100_000_000 - 1).values()
            across = max if name.endswith("_ns") else sum
            assert row[name] == (across(values) if values else None)
    assert found["backlog_bytes"].null_count() >= found.filter(pl.col("disk") == "b").height
    assert found["mode"].null_count() == found.height


def test_a_mode_stands_until_the_next(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", policies=TWO, rounds=1, disks=("a", "b"), ios=4_000)
    events = [
        {"policy": policy, "round": 0, "disk": "a", "time_ns": at, "layer": "cdp", "kind": kind}
        | {"detail": json.dumps({"mode": mode})}
        for policy, at, kind, mode in [
            ("cache", 150_000_000, "mode", "degraded"),
            ("cache", 310_000_000, "mode", "continuous"),
            ("cache", 320_000_000, "point", "not a mode"),
            ("direct", 0, "mode", "of another policy"),
        ]
    ]
    table = pa.Table.from_pylist(events, schema=schemas.EVENTS)
    pq.write_table(table, path / "events.parquet")
    timeline.append_round(path, "cache", 0)
    found = open_run(path).timeline()
    modes = found.filter(pl.col("disk") == "a").head(5)["mode"].to_list()
    assert modes == [None, "degraded", "degraded", "continuous", "continuous"]
    assert found.filter(pl.col("disk") == "b")["mode"].null_count() > 0


def test_the_age_of_a_group_is_that_of_each_disk_and_its_bytes_are_told_once(
    tmp_path: Path,
) -> None:
    path = make_run(tmp_path / "run", policies=TWO, rounds=1, disks=("a", "b"), ios=4_000)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["policies"]["cache"]["filters"] = [
        {"use": "cache", "params": {}, "scope": "group"},
        {"use": "crypt", "params": {"scope": "group"}, "scope": "disk"},
    ]
    (path / "manifest.json").write_text(json.dumps(manifest))
    names = ("dirty_bytes", "dirty_oldest_ns", "mode")
    rows = [{**gauge(0, name, 7), "layer": "cache"} for name in names]
    rows.append({**gauge(0, "lag_ns", 9, layer=1), "layer": "crypt"})
    tell(path, rows)
    timeline.append_round(path, "cache", 0)
    found = open_run(path).timeline()
    for disk, told in (("a", (7, 7, 9, "normal")), ("b", (None, 7, None, "normal"))):
        own = found.filter(pl.col("disk") == disk).select(
            "dirty_bytes", "dirty_oldest_ns", "lag_ns", "mode"
        )
        assert set(own.rows()) == {told}
