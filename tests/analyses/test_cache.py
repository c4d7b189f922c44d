"""Counts by hand: what a request is, what is invalidated, what is dirty, and for how long."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import vaio_bench as vb
from tests.eviction.test_policies import skewed
from tests.eviction.traces import BLOCK, write_requests
from vaio_bench import _core
from vaio_bench.analyses.cache_curves import knee, recommendation, size_for
from vaio_bench.trace import REQUIRED, SCHEMA, TraceWriter, open_trace

K = 1024
Io = tuple[int, str, str, int, int]


def write_ios(path: Path, ios: Sequence[Io]) -> Path:
    """(second, disk, op, offset, length) a row."""
    names = [("time_ns", 0), ("disk", 1), ("op", 2), ("offset_bytes", 3), ("length_bytes", 4)]
    columns = {name: [io[at] for io in ios] for name, at in names}
    columns["time_ns"] = [second * 10**9 for second in columns["time_ns"]]
    columns |= {"latency_ns": [None] * len(ios), "stream": [None] * len(ios)}
    columns |= {"flags": [0] * len(ios)}
    with TraceWriter(path) as writer:
        writer.write(pa.RecordBatch.from_pydict(columns, schema=SCHEMA))
        writer.close({"source_format": "test"})
    return path


def one(trace: Path, **options: Any) -> dict[str, Any]:
    options = {"policies": ["lru"], "sizes": ["1MiB"], **options}
    (result,) = vb.cache(trace, **options).results
    return result


def test_requests_hits_and_bytes(tmp_path: Path) -> None:
    trace = write_ios(
        tmp_path / "t.parquet",
        [
            (0, "d", "write", 0, 12 * K),
            (1, "d", "read", 6 * K, 4 * K),  # half of blocks 1 and 2
            (2, "d", "flush", 0, 0),
            (3, "d", "read", 8 * K, 8 * K),  # block 2 hits, block 3 misses
            (4, "d", "write_zeroes", 512, 512),
            (5, "d", "read", 0, 0),
        ],
    )
    found = one(trace)
    assert (found["requests"], found["hits"], found["misses"]) == (8, 4, 4)
    assert (found["ios"], found["io_hits"], found["read_ios"], found["read_io_hits"]) == (
        4,
        2,
        2,
        1,
    )
    assert (found["read_requests"], found["read_hits"]) == (4, 3)
    assert (found["write_requests"], found["write_hits"]) == (4, 1)
    assert (found["bytes"], found["hit_bytes"]) == (24 * K + 512, 8 * K + 512)
    assert found["read_byte_hit_ratio"] == 8 / 12
    assert found["capacity_blocks"] == 256


def test_a_discard_invalidates_what_it_covers_whole(tmp_path: Path) -> None:
    ios = [
        (0, "d", "write", 0, 16 * K),
        (1, "d", "discard", 2 * K, 9 * K),  # only block 1
        (2, "d", "read", 0, 16 * K),
    ]
    trace = write_ios(tmp_path / "t.parquet", ios)
    for name in ("lru", "s3-fifo", "belady"):
        found = one(trace, policies=[name])
        assert (found["read_hits"], found["read_requests"]) == (3, 4), name


def test_write_around_updates_but_inserts_nothing(tmp_path: Path) -> None:
    ios = [(0, "d", "write", 0, 4 * K), (1, "d", "read", 0, 4 * K), (2, "d", "write", 0, 4 * K)]
    trace = write_ios(tmp_path / "t.parquet", [*ios, (3, "d", "read", 0, 4 * K)])
    around = one(trace, write_policy="around")
    assert (around["read_hits"], around["write_hits"]) == (1, 1)
    through = one(trace, write_policy="through")
    assert (through["read_hits"], through["write_hits"]) == (2, 1)


def test_write_back_is_dirty_until_flushed_or_evicted(tmp_path: Path) -> None:
    ios = [
        (0, "d", "read", 0, 4 * K),
        (10, "d", "write", 0, 8 * K),
        (20, "d", "write", 0, 4 * K),
        (40, "d", "flush", 0, 0),
        (50, "d", "write", 4 * K, 4 * K),
        (100, "d", "read", 0, 4 * K),
    ]
    found = one(write_ios(tmp_path / "t.parquet", ios), write_policy="back")
    back = found["write_back"]
    assert (back["dirty_bytes_max"], back["dirty_bytes_end"]) == (8 * K, 4 * K)
    assert (back["written_blocks"], back["destaged_blocks"]) == (4, 2)
    assert back["age_max_s"] == 50
    assert back["age_mean_s"] == pytest.approx((30**2 + 50**2) / 2 / 100)
    assert found["hits"] == one(tmp_path / "t.parquet")["hits"]


def test_the_warm_up_is_not_counted(tmp_path: Path) -> None:
    ios = [(second, "d", "read", second % 2 * 4 * K, 4 * K) for second in range(10)]
    trace = write_ios(tmp_path / "t.parquet", ios)
    assert one(trace)["hits"] == 8
    for warmup in ("50%", "5s"):
        found = one(trace, warmup=warmup)
        assert (found["requests"], found["hits"]) == (5, 5)
        assert sum(found["hits_over_time"]) == 8


def test_a_cache_for_each_disk_or_one_for_all(tmp_path: Path) -> None:
    ios = [
        (second, disk, "read", block * 4 * K, 4 * K)
        for second in range(4)
        for disk in ("a", "b")
        for block in (0, 1)
    ]
    trace = write_ios(tmp_path / "t.parquet", ios)
    assert one(trace, sizes=["8KiB"])["hits"] == 12
    assert one(trace, sizes=["8KiB"], shared=True)["hits"] == 0
    assert one(trace, sizes=["16KiB"], shared=True)["hits"] == 12
    assert one(trace, sizes=["50%"])["size_bytes"] == 8 * K


def test_the_stack_gives_the_hits_of_each_size(tmp_path: Path) -> None:
    blocks = skewed(20_000, 900, seed=9)
    trace = write_requests(tmp_path / "t.parquet", blocks)
    sizes = [size * BLOCK for size in (1, 30, 333, 900)]
    found = vb.cache(trace, policies=["lru"], sizes=sizes, curve=True).document
    (curve,) = found["curves"]
    at = dict(zip(curve["size_bytes"], curve["hit_ratio"], strict=True))
    assert curve["method"] == "exact"
    assert [at[each["size_bytes"]] for each in found["results"]] == [
        each["hit_ratio"] for each in found["results"]
    ]
    assert max(found["working_set"]["footprint_bytes"]) == found["footprint_bytes"]


def test_samples_are_near_and_say_how_far_off_they_are(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    blocks = (random.random(400_000) ** 3 * 60_000).astype(np.int64)
    trace = write_requests(tmp_path / "t.parquet", blocks)
    options = {"policies": ["arc", "lru"], "sizes": ["10%"], "curve": True}
    exact = vb.cache(trace, sample="100%", **options).document
    sampled = vb.cache(trace, sample="20%", **options).document
    all_of_it, part = (next(iter(found["curves"])) for found in (exact, sampled))
    assert (all_of_it["method"], part["method"]) == ("simulated", "sampled")
    away = np.abs(np.array(all_of_it["hit_ratio"]) - np.array(part["hit_ratio"]))
    assert 0 < away.mean() < 0.02
    assert 0 < part["error"]["mean"] < 0.02
    for shards in exact["shards"]:
        assert 0 < shards["error_mean"] < 0.02
        assert shards["salts"] == 8


def exact_and_sampled(trace: Path, groups: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Hit ratios at some sizes: exact, and by samples of groups of eight salts each."""
    with open_trace(trace) as opened:
        setting = {"block_bytes": BLOCK, "is_shared": False, "write_policy": "through"}
        setting |= {"warmup_ios": 0, "warmup_ns": 0, "bucket_ns": opened.duration_ns // 240 + 1}
        setting |= {"keep_bytes": 1 << 30, "threads": 0}
        engine = _core.CacheTrace(lambda: opened.reader(REQUIRED), "t", json.dumps(setting))
        requests = sum(each["requests"] for each in json.loads(engine.summary())["streams"])
        plan = {"salts": list(range(100, 100 + 8 * groups)), "rate": 0.1, "blocks": 3000}
        found = json.loads(engine.lru_curve([300, 1000, 3000, 9000, 20_000], json.dumps(plan)))
    exact = np.array([hits[0] for hits in found["exact"]]) / requests
    rows = {key: np.array(found[key]).reshape(groups, 8, 5) for key in ("fixed_rate", "fixed_size")}
    return exact, rows


@pytest.mark.parametrize("disks", [1, 2])
def test_the_error_bar_of_shards_covers(tmp_path: Path, disks: int) -> None:
    """Of 60 curves of eight salts, 95 % intervals by Student's t cover the exact one.

    Fewer than 51 of 60 have a chance of 1 in 2,000 where 95 % are covered. The mean over all 480
    salts lies within five standard errors: there is no bias to speak of.
    """
    random = np.random.default_rng(8)
    ios = []
    for at in range(disks):
        blocks = (random.random(120_000) ** 3 * 30_000).astype(np.int64)
        ios += [(second, f"d{at}", "read", int(block) * BLOCK, BLOCK)
                for second, block in enumerate(blocks)]  # fmt: skip
    trace = write_ios(tmp_path / "t.parquet", sorted(ios, key=lambda io: io[0]))
    exact, rows = exact_and_sampled(trace, 60)
    for method, by_salt in rows.items():
        mean, deviation = by_salt.mean(axis=1), by_salt.std(axis=1, ddof=1)
        covered = np.abs(mean - exact) <= 2.365 * deviation / np.sqrt(8)
        assert (covered.sum(axis=0) >= 51).all(), (method, covered.sum(axis=0))
        every = by_salt.reshape(-1, 5)
        error = np.abs(every.mean(axis=0) - exact)
        assert (error <= 5 * every.std(axis=0) / np.sqrt(len(every)) + 1e-3).all(), method


def test_the_knee_and_the_size_that_is_enough() -> None:
    bent = [(0.0, 0.0), (1.0, 0.6), (2.0, 0.75), (10.0, 0.8)]
    assert knee(bent) == (2.0, 0.75) or knee(bent) == (1.0, 0.6)
    assert size_for(bent, 0.9) == 2.0
    assert knee([(float(at), at / 10) for at in range(1, 11)]) is None
    assert knee([]) is None
    assert size_for([(1.0, 0.0)], 0.9) is None


def test_of_equals_the_simplest_is_recommended() -> None:
    def curve(name: str, ratios: list[float]) -> dict[str, Any]:
        return {"policy": name, "size_bytes": [10, 20, 40, 80], "hit_ratio": ratios}

    curves = [curve("arc", [0.1, 0.55, 0.58, 0.6]), curve("lru", [0.1, 0.55, 0.57, 0.6])]
    advice = recommendation([*curves, curve("belady", [0.5, 0.6, 0.6, 0.6])], 80)
    assert advice is not None
    assert (advice["policy"], advice["size_bytes"]) == ("lru", 20)
    advice = recommendation([curves[0], curve("lru", [0.1, 0.3, 0.54, 0.6])], 80)
    assert advice is not None
    assert advice["policy"] == "arc"
    assert "lru needs 40 B" in advice["reason"]
    assert recommendation([curve("lru", [0.0, 0.0, 0.0, 0.0])], 80) is None


def test_a_trace_of_one_request(tmp_path: Path) -> None:
    trace = write_ios(tmp_path / "t.parquet", [(0, "d", "read", 0, 4 * K)])
    found = vb.cache(trace, curve=True, write_policy="back").document
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["recommendation"] is None
    assert {"block_bytes", "unit", "results"} <= found.keys()


def test_real_block_requests(traces_dir: Path, tmp_path: Path) -> None:
    """Misses at shares of the footprint as libCacheSim and an independent model count them."""
    source = traces_dir / "public" / "cloudPhysicsIO.vscsi"
    if not source.is_file():
        pytest.skip("requires public/cloudPhysicsIO.vscsi")
    trace = tmp_path / "t.parquet"
    vb.import_trace([source], trace)
    found = vb.cache(trace, policies=["lru", "2q"], sizes=["20%", "40%"], curve=True).document
    first = found["results"][0]
    assert (first["requests"], first["read_requests"]) == (1_141_869, 485_700)
    assert found["footprint_bytes"] == 269_210 * 4096
    at_40 = found["results"][1]
    assert round(at_40["miss_ratio"], 3) == 0.600
    assert round(found["results"][2]["miss_ratio"], 3) == 0.724
    for shards in found["shards"]:
        assert shards["error_mean"] < 0.02
        assert shards["error_mean"] <= shards["error_bar"]
