"""Every policy that has a plain model misses what the model misses, and what libCacheSim does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vaio_bench as vb
from tests.eviction.models import MODELS
from tests.eviction.traces import BLOCK, DISTINCT, write_requests, zipf
from vaio_bench import catalogue

# Misses of 10 M Zipf requests with a tenth of the distinct blocks cached, as libCacheSim 0.3.5
# counts them.
ZIPF_MISSES = {
    "lru": 2_462_348,
    "fifo": 2_769_265,
    "clock": 2_390_045,
    "arc": 2_071_710,
    "s3-fifo": 2_041_659,
    "sieve": 2_077_419,
    "2q": 2_163_030,
    "lfu": 2_077_419,
    "belady": 1_489_805,
}
ZIPF_CURVE = {
    762: (6_176_277, 5_133_325),
    7_626: (4_366_408, 3_559_432),
    38_133: (3_048_442, 2_486_860),
    152_532: (1_867_040, 1_613_327),
    305_065: (1_284_164, 1_192_692),
}


def skewed(requests: int, blocks: int, seed: int) -> np.ndarray:
    """Skewed popularity, with a scan and a loop in it."""
    random = np.random.default_rng(seed)
    hot = (random.random(requests) ** 3 * blocks).astype(np.int64)
    scan = np.arange(blocks, 2 * blocks)
    loop = np.tile(np.arange(blocks // 3), 4)
    half = requests // 2
    return np.concatenate([hot[:half], scan, loop, hot[half:]])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    blocks = skewed(3_000, 120, seed=3)
    path = write_requests(tmp_path_factory.mktemp("small") / "t.parquet", blocks)
    return path, [int(block) for block in blocks]


@pytest.mark.parametrize("name", list(MODELS))
def test_misses_are_those_of_the_model(name: str, small: tuple[Path, list[int]]) -> None:
    path, blocks = small
    sizes = [1, 2, 7, 20, 41, 100, 300]
    found = vb.cache(path, policies=[name], sizes=[size * BLOCK for size in sizes])
    expected = [MODELS[name](blocks, size) for size in sizes]
    assert [each["misses"] for each in found.results] == expected


def test_no_policy_beats_belady(small: tuple[Path, list[int]]) -> None:
    found = vb.cache(small[0], sizes=["3%", "20%", "70%"]).frame()
    best = {row["size"]: row["misses"] for row in found.to_dicts() if row["policy"] == "belady"}
    assert all(row["misses"] >= best[row["size"]] for row in found.to_dicts())
    assert found["policy"].n_unique() == 14


def test_all_policies_agree_when_nothing_must_leave(small: tuple[Path, list[int]]) -> None:
    path, blocks = small
    found = vb.cache(path, sizes=["1GiB"])
    assert {each["misses"] for each in found.results} == {len(set(blocks))}
    assert "above the footprint" in found.warnings[0]


@pytest.fixture(scope="module")
def zipf_trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    blocks = zipf()
    assert len(np.unique(blocks)) == DISTINCT
    return write_requests(tmp_path_factory.mktemp("zipf") / "t.parquet", blocks)


def test_zipf_misses_are_those_of_libcachesim(zipf_trace: Path) -> None:
    found = vb.cache(zipf_trace, policies=list(ZIPF_MISSES), sizes=[76_266 * BLOCK])
    assert {each["policy"]: each["misses"] for each in found.results} == ZIPF_MISSES


def test_zipf_misses_at_other_sizes(zipf_trace: Path) -> None:
    sizes = [size * BLOCK for size in ZIPF_CURVE]
    found = vb.cache(zipf_trace, policies=["lru", "s3-fifo"], sizes=sizes)
    misses = [each["misses"] for each in found.results]
    assert list(zip(misses[:5], misses[5:], strict=True)) == list(ZIPF_CURVE.values())


def test_the_names_are_those_of_the_contract() -> None:
    names = {kind.name for kind in catalogue.kinds() if kind.kind == "eviction"}
    contract = "fifo lru clock lfu 2q arc lirs s3-fifo sieve w-tinylfu slru lru-k random belady"
    assert names == set(contract.split())


def test_every_page_names_parameters_unsuitability_and_source() -> None:
    for kind in catalogue.kinds():
        if kind.kind == "eviction":
            for heading in ("Parameters", "Unsuitable for", "Counts", "Source"):
                assert f"## {heading}" in kind.page, kind.name
