"""`fio plot`: the layout that fio-plot reads, and its charts."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from replay_kit import mixed, write_trace

from tests.conftest import Ended, requires

needs_fio_plot = pytest.mark.skipif(
    importlib.util.find_spec("fio_plot") is None, reason="requires fio-plot (the extra `fio`)"
)


def replayed(tmp_path: Path, here: Callable[..., Ended]) -> None:
    write_trace(tmp_path / "t.parquet", mixed(5, 300))
    words = ("--backend", "mem", "--pace", "asap", "--depth", "4", "-o", "ours")
    assert here("replay", "t.parquet", *words).exit_status == 0


def test_our_results_in_their_shape(tmp_path: Path, here: Callable[..., Ended]) -> None:
    replayed(tmp_path, here)
    found = here("fio", "plot", "ours", "-o", "out", "--no-charts", "--json").document
    assert found["data"] == ["out/data/ours/direct/randrw-4-1.json"]
    (job,) = json.loads(Path(found["data"][0]).read_text())["jobs"]
    assert job["job options"]["iodepth"] == "4"
    assert job["read"]["total_ios"] + job["write"]["total_ios"] > 100
    coarse = [of for unit in ("ns", "us", "ms") for of in job[f"latency_{unit}"].values()]
    assert sum(coarse) == pytest.approx(100)
    assert job["read"]["iops"] > 0


def test_a_round_that_was_cut_short_is_in_no_chart(
    tmp_path: Path, here: Callable[..., Ended]
) -> None:
    write_trace(tmp_path / "t.parquet", mixed(5, 300))
    words = ("--backend", "mem", "--pace", "asap", "--rounds", "2", "-o", "ours")
    assert here("replay", "t.parquet", *words).exit_status == 0

    def reads(out: str) -> int:
        (data,) = here("fio", "plot", "ours", "-o", out, "--no-charts", "--json").document["data"]
        (job,) = json.loads(Path(data).read_text())["jobs"]
        return int(job["read"]["total_ios"])

    of_both, path = reads("both"), tmp_path / "ours" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["totals"]["direct"]["1"]
    path.write_text(json.dumps(manifest))
    assert of_both == 2 * reads("one") > 0


def test_imported_results_are_laid_out(bench_fio: Path, here: Callable[..., Ended]) -> None:
    here("fio", "import", bench_fio, "-o", "run")
    ended = here("fio", "plot", "run", "-o", "out", "--no-charts", "--json")
    assert ended.exit_status == 0, ended.stderr
    assert sorted(Path(each).name for each in ended.document["data"]) == [
        "randread-8-1.json",
        "randread-8-1.json",
    ]
    (Path("run") / "fio" / "disk-4k-randread-1-1" / "0" / "output.json").unlink()
    (Path("run") / "fio" / "disk-4k-randread-8-1" / "0" / "output.json").unlink()
    ended = here("fio", "plot", "run", "-o", "none", "--no-charts")
    assert "run: nothing to draw: run: disk-4k-randread-1-1: its document" in ended.stderr


@requires("fio")
@needs_fio_plot
def test_charts_of_a_grid_and_of_ours(tmp_path: Path, here: Callable[..., Ended]) -> None:
    replayed(tmp_path, here)
    grid = ("--target", "t.img", "--size", "4MiB", "--rw", "randread", "--iodepth", "1,4")
    here("fio", "run", *grid, "--option", "number_ios=100", "--rounds", "2", "-o", "theirs")
    ended = here("fio", "plot", "ours", "theirs", "-o", "out", "--json")
    assert ended.exit_status == 0, ended.stderr
    names = [Path(chart).name for chart in ended.document["charts"]]
    assert "depths-randread-4k-1.png" in names
    assert "compare-randread-1-1.png" in names
    assert "histogram-ours-direct.png" in names
    for chart in ended.document["charts"]:
        assert Path(chart).read_bytes().startswith(b"\x89PNG")


def test_without_fio_plot_its_extra_is_named(
    tmp_path: Path, here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed(tmp_path, here)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ended = here("fio", "plot", "ours", "-o", "out")
    assert ended.exit_status == 2
    assert "pip install 'vaio-bench[fio]'" in ended.stderr
