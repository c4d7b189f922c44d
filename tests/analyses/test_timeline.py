from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from run_folder import POLICIES, make_run, write_round

from vaio_bench import schemas
from vaio_bench.analyses import timeline
from vaio_bench.errors import InputError
from vaio_bench.store import open_run

TWO = {name: POLICIES[name] for name in ("direct", "cache")}


def by_hand(rows: pl.DataFrame, disk: str, start_ns: int) -> dict[str, float]:
    own = rows.filter(
        (pl.col("disk").cast(pl.String) == disk)
        & (pl.col("complete_ns") // 10**8 == start_ns // 10**8)
    )
    latency = (own["complete_ns"] - own["submit_ns"]).to_numpy()
    return {
        "ios": own.height,
        "iops": own.height * 10,
        "bytes_per_s": own["length_bytes"].sum() * 10,
        "latency_p50_ns": np.quantile(latency, 0.5, method="inverted_cdf"),
        "latency_p99_ns": np.quantile(latency, 0.99, method="inverted_cdf"),
        "latency_max_ns": latency.max(),
        "hit_blocks": own["hit_blocks"].sum(),
        "cpu_ns": sum(sum(each) for each in own["cpu_ns"].to_list()),
    }


@pytest.mark.parametrize("shuffled", [False, True])
def test_every_interval_is_that_of_its_rows(tmp_path: Path, shuffled: bool) -> None:
    path = make_run(tmp_path / "run", policies=TWO, rounds=1, disks=("a", "b"), ios=4_000, parts=5)
    rows = open_run(path).scan_ios("cache", 0).collect()
    if shuffled:  # parts that overlap in time, wholly
        table = rows.sample(fraction=1.0, shuffle=True, seed=1).to_arrow().cast(schemas.IOS)
        write_round(path, "cache", 0, table, parts=5)
    timeline.append_round(path, "cache", 0)
    found = open_run(path).timeline()
    assert found.select("disk", "start_ns").is_unique().all()
    assert found["ios"].sum() == 4_000
    assert found["start_ns"].is_sorted()
    for row in found.to_dicts():
        expected = by_hand(rows, row["disk"], row["start_ns"])
        assert {key: row[key] for key in expected} == pytest.approx(expected)


def test_rounds_are_added_and_replaced(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", policies=TWO, rounds=2, ios=500)
    for policy, round_ in [("direct", 0), ("cache", 0), ("direct", 1), ("direct", 0)]:
        timeline.append_round(path, policy, round_)
    found = open_run(path).timeline()
    sums = found.group_by("policy", "round").agg(pl.col("ios").sum()).sort("policy", "round")
    assert sums.rows() == [("cache", 0, 500), ("direct", 0, 500), ("direct", 1, 500)]
    assert pq.read_schema(path / "timeline.parquet").equals(schemas.TIMELINE)
    assert [file.name for file in path.glob("timeline*")] == ["timeline.parquet"]


def test_failed_ios_are_counted_apart(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", policies=TWO, rounds=1, ios=300)
    rows = open_run(path).scan_ios("direct", 0).collect()
    broken = rows.with_columns(
        pl.when(pl.col("seq") < 10).then(5).otherwise(0).cast(pl.Int32).alias("status")
    )
    write_round(path, "direct", 0, broken.to_arrow().cast(schemas.IOS))
    timeline.append_round(path, "direct", 0)
    found = open_run(path).timeline()
    assert (found["ios"].sum(), found["errors"].sum()) == (290, 10)


def test_a_round_without_rows_is_refused(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", policies=TWO, rounds=1, ios=30)
    with pytest.raises(InputError, match="no I/O rows"):
        timeline.append_round(path, "direct", 7)
