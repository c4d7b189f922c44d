"""Miss counts against libCacheSim itself, where it is installed (`make oracle` does)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vaio_bench as vb
from tests.eviction.models import lirs
from tests.eviction.test_policies import skewed
from tests.eviction.traces import BLOCK, write_requests

lcs = pytest.importorskip("libcachesim", reason="requires libcachesim (make oracle installs it)")

SAME = {
    "lru": "LRU",
    "fifo": "FIFO",
    "clock": "Clock",
    "lfu": "LFU",
    "sieve": "Sieve",
    "arc": "ARC",
    "2q": "TwoQ",
    "s3-fifo": "S3FIFO",
    "belady": "Belady",
    "slru": "SLRU",
}
OTHERS = {"lirs": "LIRS"}
# Its segments are quarters, rounded down: only these sizes have four of the same on both sides.
SLRU_SIZES = [48, 332, 1_000, 3_000]


def next_requests(blocks: np.ndarray) -> np.ndarray:
    """Where each block is asked for next; -1: never."""
    found = np.full(len(blocks), -1)
    seen: dict[int, int] = {}
    for at in range(len(blocks) - 1, -1, -1):
        found[at] = seen.get(int(blocks[at]), -1)
        seen[int(blocks[at])] = at
    return found


def write_oracle_general(path: Path, blocks: np.ndarray) -> Path:
    """libCacheSim's binary trace; every object has the size 1."""
    row = np.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
    rows = np.zeros(len(blocks), row)
    rows["time"], rows["id"], rows["size"] = np.arange(len(blocks)), blocks + 1, 1
    rows["next"] = next_requests(blocks)
    rows.tofile(path)
    return path


def missed(name: str, trace: Path, size: int) -> int:
    reader = lcs.TraceReader(str(trace), lcs.TraceType.ORACLE_GENERAL_TRACE)
    ratio, _ = getattr(lcs, (SAME | OTHERS)[name])(cache_size=size).process_trace(reader)
    return round(ratio * reader.get_num_of_req())


@pytest.mark.parametrize("name", list(SAME))
def test_misses_are_the_same(name: str, tmp_path: Path) -> None:
    blocks = skewed(60_000, 4_000, seed=5)
    trace = write_requests(tmp_path / "t.parquet", blocks)
    oracle = write_oracle_general(tmp_path / "t.bin", blocks)
    sizes = SLRU_SIZES if name == "slru" else [50, 333, 1_000, 3_001]
    found = vb.cache(trace, policies=[name], sizes=[size * BLOCK for size in sizes])
    assert [each["misses"] for each in found.results] == [
        missed(name, oracle, size) for size in sizes
    ]


def test_lirs_differs_by_one_step(tmp_path: Path) -> None:
    blocks = skewed(60_000, 4_000, seed=5)
    trace = write_requests(tmp_path / "t.parquet", blocks)
    oracle = write_oracle_general(tmp_path / "t.bin", blocks)
    requests = [int(block) for block in blocks]
    for size in (50, 300, 1_000, 3_000):
        (found,) = vb.cache(trace, policies=["lirs"], sizes=[size * BLOCK]).results
        assert found["misses"] == lirs(requests, size)
        assert missed("lirs", oracle, size) == lirs(requests, size, demotes=True)
