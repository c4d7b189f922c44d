"""The shipped models of products: sources, the statement of what they are, and that they run."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import vaio_bench as vb
from vaio_bench import spec
from vaio_bench.explaining import explain
from vaio_bench.runner import Settings

MODELS = ("veeam-cdp", "zerto", "jetstream", "vsphere-replication", "veeam-snapshot")


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_has_its_source_in_a_comment(name: str) -> None:
    lines = spec.shipped()[name].read_text().splitlines()
    start = lines.index("[[filter]]") + 2  # `use` names the kind
    commented = False
    for line in lines[start:]:
        if line.startswith("#"):
            commented = True
        elif line:
            # A comment may speak of two parameters that follow each other.
            assert commented, f"{name}: {line}"
            commented = line.split("=")[0].strip() in ("rpo", "every", "stun")


@pytest.mark.parametrize("name", MODELS)
def test_its_page_says_that_it_is_a_model(name: str) -> None:
    (page,) = explain(name)
    assert page.group == "policy"
    assert page.summary.startswith("A model of the published design of ")
    assert page.summary.endswith(", not the product")
    assert tomllib.loads(page.text.split("```toml\n")[1].split("```")[0])["policy"]["name"] == name


@pytest.mark.parametrize("name", MODELS)
def test_a_model_makes_points(name: str, tmp_path: Path) -> None:
    minute = 60 * 10**9
    rows = [f"{i * minute // 4},write,{i % 50 * 4096},4096" for i in range(4 * 130)]
    table, trace = tmp_path / "t.csv", tmp_path / "t.parquet"
    table.write_text("\n".join(["time_ns,op,offset_bytes,length_bytes", *rows]) + "\n")
    vb.import_trace(table, trace)
    settings = Settings(pace="recorded", backend="sim", clock="virtual")
    vb.replay(trace, out=tmp_path / "run", policy=name, settings=settings)
    (one,) = vb.run_rpo(tmp_path / "run").to_dict()["modes"]
    assert one["points"] >= 2
    # With a point a period the newest is a period old and the time of its transfer.
    assert one["met_time"] > 0.97
    assert one["rpo_s"]["max"] < 1.05 * one["target_s"]
