"""The contract of a run folder, recomputed from its files alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from replay_kit import filters, mixed, policy_file, rows_of

from vaio_bench import schemas

MANIFEST_KEYS = {
    "trace", "policies", "seed", "clock", "backend", "pacing", "fit_to", "harness",
    "environment", "warnings", "tool_version", "totals", "exit", "schema_version",
}  # fmt: skip
CHAIN = filters(
    {"use": "cache", "capacity": "256KiB"},
    {"use": "delay", "read": "20us", "write": "50us"},
    {"use": "crypt", "key": "random"},
)
FREE = 'framework = "free"\n'


@pytest.fixture
def chained(engine: Callable, tmp_path: Path) -> Callable:
    policy = policy_file(tmp_path, FREE + CHAIN)

    def run(**settings: object) -> object:
        return engine(mixed(5), policy=policy, rounds=2, **settings)

    return run


@pytest.mark.parametrize("clock", ["wall", "virtual"])
def test_rows_have_the_columns_and_types_of_the_contract(chained: Callable, clock: str) -> None:
    run = chained(clock=clock, backend="sim").run
    parts = sorted((run.path / "ios").rglob("*.parquet"))
    assert [str(part.relative_to(run.path)) for part in parts] == [
        "ios/chain/0/part-0.parquet",
        "ios/chain/1/part-0.parquet",
    ]
    for part in parts:
        schema = pq.read_schema(part)
        assert schema.names == schemas.IOS.names
        for field in schemas.IOS:
            found = schema.field(field.name).type
            if pa.types.is_dictionary(field.type):
                assert pa.types.is_dictionary(found) or pa.types.is_string(found), field.name
            else:
                assert found == field.type, field.name
        assert all(column.null_count == 0 for column in pq.read_table(part).columns)


def test_the_manifest_says_what_was_run(chained: Callable) -> None:
    run = chained(backend="sim", seed=9).run
    manifest = json.loads((run.path / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest) >= MANIFEST_KEYS
    assert manifest["exit"] == "ok"
    assert manifest["policies"]["chain"]["layers"] == ["cache", "delay", "crypt", "sim"]
    assert manifest["seed"] == 9
    assert manifest["rounds"] == 2
    assert manifest["trace"]["ios"] == 250
    assert set(manifest["totals"]["chain"]) == {"0", "1"}
    assert not list(run.path.rglob("*.partial"))


@pytest.mark.parametrize("clock", ["wall", "virtual"])
@pytest.mark.parametrize("backend", ["mem", "sim", "null"])
def test_self_times_sum_to_the_latency_exactly(chained: Callable, clock: str, backend: str) -> None:
    run = chained(clock=clock, backend=backend, pace="asap", depth=16).run
    layers = len(run.manifest["policies"]["chain"]["layers"])
    for round_ in (0, 1):
        rows = rows_of(run, "chain", round_)
        assert rows.height == 250
        assert (rows["self_ns"].list.len() == layers).all()
        assert (rows["cpu_ns"].list.len() == layers).all()
        assert (rows["self_ns"].list.min() >= 0).all()
        latency = rows["complete_ns"] - rows["submit_ns"]
        assert (rows["self_ns"].list.sum() == latency).all()


def test_the_timeline_holds_every_io_once(chained: Callable) -> None:
    run = chained(backend="sim").run
    lines = run.timeline()
    rows = run.scan_ios().collect()
    interval = lines["interval_ns"].unique().to_list()
    assert len(interval) == 1
    expected = (
        rows.with_columns(start_ns=pl.col("complete_ns") // interval[0] * interval[0])
        .group_by("round", "start_ns")
        .agg(
            ios=pl.len(),
            read_bytes=pl.col("length_bytes").filter(pl.col("op").cast(pl.String) == "read").sum(),
            latency_max_ns=(pl.col("complete_ns") - pl.col("submit_ns")).max(),
            hit_blocks=pl.col("hit_blocks").sum(),
        )
        .sort("round", "start_ns")
    )
    busy = lines.filter(pl.col("ios") > 0).sort("round", "start_ns").select(expected.columns)
    assert busy.cast(expected.schema).equals(expected)


def test_totals_are_those_of_the_rows(chained: Callable) -> None:
    replayed = chained(backend="sim")
    rows = rows_of(replayed.run, "chain", 0)
    totals = replayed.totals
    moved = rows.filter(pl.col("op").is_in(["read", "write"]))
    assert totals["ios"] == rows.height
    assert totals["bytes"] == moved["length_bytes"].sum()
    assert replayed.found["ios"] == 2 * rows.height
    assert (
        replayed.found["latency_ns"]["max"]
        == (replayed.run.scan_ios().select(m=pl.col("complete_ns") - pl.col("submit_ns")).max())
        .collect()
        .item()
    )
    by_rank = (rows_all := replayed.run.scan_ios().collect()).select(
        latency=(pl.col("complete_ns") - pl.col("submit_ns")).sort()
    )["latency"]
    # Nearest rank: the smallest value with at least half of the rows at or below it.
    assert replayed.found["latency_ns"]["p50"] == by_rank[-(-rows_all.height // 2) - 1]
