"""`vaio-bench cache`: what it prints, keeps and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from run_folder import make_run

from tests.analyses.test_cache import write_ios


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    ios = [(i, "d", "read", (i * i) % 13 * 4096, 8192) for i in range(200)]
    return write_ios(tmp_path / "t.parquet", ios)


def test_json_has_a_document_for_each_policy_and_size(here: Any, trace: Path) -> None:
    ended = here("cache", trace, "--policy", "lru", "--policy", "arc", "--size", "20KiB",
                    "--size", "50%", "--json")  # fmt: skip
    document = json.loads(ended.stdout)
    keys = [(each["policy"], each["size_bytes"]) for each in document["results"]]
    assert [name for name, _ in keys] == ["lru", "lru", "arc", "arc"]
    assert keys[0][1] == 20_480
    for each in document["results"]:
        assert each["hits"] + each["misses"] == each["requests"] == 400
        assert each["miss_ratio"] == each["misses"] / 400
        assert {"read_requests", "read_hits"} <= each.keys()
    assert (document["unit"], document["block_bytes"]) == ("block", 4096)


def test_a_table_and_an_answer(here: Any, trace: Path) -> None:
    ended = here("cache", trace, "--curve", "--policy", "lru", "--policy", "belady")
    assert ended.exit_status == 0
    assert "size for 90 % of the best" in ended.stdout
    assert "For 90 % of the best hit ratio: lru with" in ended.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policy", "lur"], 'unknown eviction policy "lur": did you mean lru?'),
        (["--policy", "s3fifo"], "did you mean s3-fifo?"),
        (["--size", "0"], "--size: expected a size above zero"),
        (["--size", "1KiB"], "expected at least a block of 4 KiB"),
        (["--size", "lots"], '--size: expected a size such as "512MiB", got "lots"'),
        (["--block", "3000"], "expected a power of two"),
        (["--write-policy", "over"], "expected one of through, back, around"),
        (["--warmup", "100%"], "expected a share below 100%"),
        (["--curve", "--sample", "0"], "expected a share above zero"),
    ],
)
def test_bad_input(here: Any, trace: Path, options: list[str], message: str) -> None:
    ended = here("cache", trace, *options)
    assert ended.exit_status == 2
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_size_above_the_footprint_is_said(here: Any, trace: Path) -> None:
    ended = here("cache", trace, "--policy", "lru", "--size", "1TiB")
    assert ended.exit_status == 0
    assert "above the footprint of 44 KiB" in ended.stderr


def test_a_run_keeps_it_once(here: Any, trace: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rounds=1, ios=50)
    options = ["cache", trace, "--policy", "lru", "-o", run]
    assert here(*options).exit_status == 0
    assert json.loads((run / "results" / "cache.json").read_text())["results"]
    ended = here(*options)
    assert (ended.exit_status, "--force" in ended.stderr) == (2, True)
    assert here(*options, "--force").exit_status == 0
