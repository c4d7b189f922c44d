"""`fio run`: grids and job files in interleaved rounds, kept and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ended, requires
from vaio_bench.reporting import grid_part
from vaio_bench.store import open_run

GRID = ("--target", "t.img", "--size", "4MiB", "--bs", "4k", "--option", "number_ios=200")


@requires("fio")
def test_a_grid_runs_in_interleaved_rounds(here: Callable[..., Ended]) -> None:
    lists = ("--rw", "randread,randwrite", "--iodepth", "1,4")
    ended = here("fio", "run", *GRID, *lists, "--rounds", "3", "-o", "run", "--json")
    assert ended.exit_status == 0, ended.stderr
    found = ended.document
    names = [cell["name"] for cell in found["cells"]]
    assert names[:2] == ["randread-bs4k-iodepth1", "randread-bs4k-iodepth1-again"]
    assert len(found["cells"]) == 5
    assert all(cell["ios"] == 600 and cell["latency_from"] == "lat" for cell in found["cells"])
    assert "latency_p50_ns" in found["comparison"]["noise_floor"]
    run = open_run("run")
    order = run.manifest["order"]
    assert sorted(map(tuple, order[:5])) == sorted((name, 0) for name in run.policies)
    assert [name for name, _ in order[:5]] != [name for name, _ in order[5:10]]
    assert run.manifest["fio"]["version"].startswith("fio-")
    assert here("report", "run", "-o", "r.html").exit_status == 0
    page = Path("r.html").read_text()
    for title in ("Latency, median over the grid", "I/Os per second over the grid"):
        assert title in page
    made = grid_part.section(run)
    assert made is not None
    [trace] = made.figures[0].data
    assert trace["x"] == ["1", "4"]
    assert trace["y"] == ["randread", "randwrite"]
    assert [len(row) for row in trace["z"]] == [2, 2]
    kept = Path("run", "fio", run.policies[0], "2")
    assert json.loads((kept / "output.json").read_text())["jobs"]
    assert "iodepth=1" in (kept / "job.fio").read_text()


@requires("fio")
def test_rows_of_single_ios(here: Callable[..., Ended]) -> None:
    ended = here("fio", "run", *GRID, "--rw", "randread", "--rounds", "1", "--per-io", "-o", "run",
                 "--json")  # fmt: skip
    assert ended.exit_status == 0, ended.stderr
    rows = open_run("run").scan_ios().collect()
    assert rows.height == 200
    assert set(rows["length_bytes"].to_list()) == {4096}
    assert min((rows["complete_ns"] - rows["submit_ns"]).to_list()) > 0
    assert not list(Path("run").rglob("*.log"))


@requires("fio")
def test_a_job_file_keeps_its_own_words(here: Callable[..., Ended], tmp_path: Path) -> None:
    (tmp_path / "mine.fio").write_text(
        "[one]\nrw=randread\nfilename=own.img\nsize=1m\nnumber_ios=50\n[two]\nstonewall\n"
        "rw=write\nfilename=own.img\nsize=1m\nbs=64k\n"
    )
    ended = here("fio", "run", "mine.fio", "--rounds", "2", "-o", "run", "--json")
    assert ended.exit_status == 0, ended.stderr
    (cell,) = ended.document["cells"]
    assert (cell["name"], cell["ios"], cell["rounds"]) == ("mine", 2 * (50 + 16), 2)
    again = here("fio", "run", "mine.fio", "--rounds", "2", "-o", "other")
    assert again.exit_status == 2
    assert "--destroy-data" in again.stderr


@requires("fio")
def test_what_fio_says_is_told(here: Callable[..., Ended]) -> None:
    ended = here("fio", "run", *GRID, "--rw", "sideways", "--rounds", "1", "-o", "run")
    assert ended.exit_status == 1
    assert "round 1: fio ended with status" in ended.stderr
    assert "sideways" in ended.stderr
    assert open_run("run").exit.startswith("failed")


@requires("fio")
def test_more_rounds_are_added(here: Callable[..., Ended]) -> None:
    here("fio", "run", *GRID, "--rw", "randread", "--rounds", "1", "-o", "run", "--json")
    ended = here("fio", "run", "--resume", "run", "--rounds", "3", "--json")
    assert ended.document["cells"][0]["rounds"] == 3
    assert ended.document["cells"][0]["ios"] == 600
    few = here("fio", "run", "--resume", "run", "--rounds", "1")
    assert (few.exit_status, "at least the 3" in few.stderr) == (2, True)


@requires("fio")
def test_ctrl_c_keeps_the_rounds_before_it(here: Callable[..., Ended], tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from vaio_bench.cli import main; main()", "fio", "run",
               "--target", "t.img", "--size", "4MiB", "--rw", "randread", "--runtime", "1s",
               "--rounds", "50", "-o", "run"]  # fmt: skip
    root = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": root})
    done = tmp_path / "run" / "fio" / "randread" / "0" / "output.json"
    deadline = time.monotonic() + 60
    while not done.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    run = open_run(tmp_path / "run")
    assert run.exit == "interrupted"
    held = len(run.rounds("randread", complete_only=True))
    assert 1 <= held < 50
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    manifest["rounds"] = held
    manifest["order"] = manifest["order"][:held]
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    assert here("fio", "run", "--resume", "run", "--json").document["exit"] == "ok"


def test_without_fio_its_package_is_named(
    here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    ended = here("fio", "run", *GRID, "--rw", "read", "-o", "run")
    assert ended.exit_status == 2
    assert "package fio" in ended.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-o", "run"), "expected job files, or --target"),
        (("--target", "t.img", "-o", "run"), "add --size"),
        (("--target", "t.img", "--size", "1MiB", "--bs", "4k,4k", "-o", "run"), "each once"),
        (("--option", "bs", "-o", "run"), "KEY=VALUE"),
        (("no.fio", "-o", "run"), "no.fio: cannot be read"),
        (("--resume", "x", "--bs", "4k"), "beside it"),
        (("--resume", "x", "--runtime", "9s"), "--runtime: expected no such option beside"),
    ],
)
@requires("fio")
def test_wrong_words(here: Callable[..., Ended], words: tuple[str, ...], said: str) -> None:
    ended = here("fio", "run", *words)
    assert ended.exit_status == 2
    assert said in ended.stderr
    assert not Path("run").exists()
