"""How a run ends that was not left to end: Ctrl-C, and a process that dies, on either side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from replay_kit import Io, child_of, write_trace

from vaio_bench.store import open_run

ROOT = Path(__file__).resolve().parent.parent.parent
Started = subprocess.Popen[str]


def _trace(folder: Path, seconds: float) -> Path:
    count = int(seconds * 200)
    ios = [Io(i * 5_000_000, "read" if i % 3 else "write", i * 4096, 4096) for i in range(count)]
    return write_trace(folder / "t.parquet", ios)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts `vaio-bench replay` and ends what is left of it."""
    started: list[Started] = []

    def run(*args: str | Path) -> Started:
        command = [sys.executable, "-c", "from vaio_bench.cli import main; main()", "replay"]
        process = subprocess.Popen(
            [*command, *map(str, args), "-o", "run", "--backend", "mem"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _wait(found: Callable[[], object], process: Started | None = None) -> None:
    until = time.monotonic() + 60
    while not found():
        assert time.monotonic() < until
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)


def _manifest(tmp_path: Path) -> dict[str, object]:
    document = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def _rows_are_sound(tmp_path: Path) -> int:
    run = open_run(tmp_path / "run")
    assert run.unreadable == ()
    rows = pl.read_parquet(tmp_path / "run" / "ios" / "direct" / "0" / "part-*.parquet")
    # From the first on, without a gap.
    assert rows["seq"].sort().to_list() == list(range(rows.height))
    return rows.height


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_told_to_end_it_keeps_what_there_is(
    start: Callable, tmp_path: Path, cli: Callable, told: signal.Signals
) -> None:
    process = start(_trace(tmp_path, 60), "--rounds", "3")
    _wait(lambda: list(tmp_path.glob("run/ios/direct/0/*.partial")), process)
    process.send_signal(told)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stdout == ""
    where, word = stderr.splitlines()
    assert where.startswith("vaio-bench: what was replayed is in ")
    assert where.endswith("run")
    assert word == "vaio-bench: interrupted"
    assert _manifest(tmp_path)["exit"] == "interrupted"
    assert 0 < _rows_are_sound(tmp_path) < 12_000
    assert list(tmp_path.rglob("*.partial")) == []
    ended = cli("report", "run", "-o", "r.html")
    assert ended.exit_status == 0, ended.stderr
    assert "interrupted" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_ctrl_c_before_the_first_row(start: Callable, tmp_path: Path) -> None:
    process = start(_trace(tmp_path, 60))
    _wait((tmp_path / "run" / "manifest.json").exists, process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stdout == ""
    assert stderr.splitlines()[-1] == "vaio-bench: interrupted"
    assert _manifest(tmp_path)["exit"] == "interrupted"


def test_the_parent_killed_leaves_readable_parts(
    start: Callable, tmp_path: Path, cli: Callable
) -> None:
    process = start(_trace(tmp_path, 60))
    _wait(lambda: list(tmp_path.glob("run/ios/direct/0/*.partial")), process)
    child = child_of(process)
    process.kill()
    process.wait()
    # The child sees that its parent is gone, writes what it has and ends.
    _wait(lambda: not Path(f"/proc/{child}/exe").exists())
    assert _manifest(tmp_path)["exit"] == "running"
    assert _rows_are_sound(tmp_path) > 0
    ended = cli("report", "run", "-o", "r.html")
    assert ended.exit_status == 0, ended.stderr


def test_a_killed_round_is_named_and_the_rounds_before_it_kept(
    start: Callable, tmp_path: Path
) -> None:
    # A round's folder is there with its first rows, a second after its start.
    process = start(_trace(tmp_path, 3), "--rounds", "3", "--json")
    _wait((tmp_path / "run" / "ios" / "direct" / "1").exists, process)
    os.kill(child_of(process), signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert stdout == ""
    [line] = stderr.splitlines()
    for word in ("SIGKILL", "policy direct", "round 2"):
        assert word in line
    assert str(_manifest(tmp_path)["exit"]).startswith("failed: policy direct, round 2")
    assert _rows_are_sound(tmp_path) == 600
    run = open_run(tmp_path / "run")
    assert run.rounds("direct", complete_only=True) == [0]


def test_strict_fails_when_the_pace_was_not_kept(cli: Callable, tmp_path: Path) -> None:
    # One at a time through a filter that holds each for 20 ms: all but the first are late.
    ios = [Io(i * 1000, "read", i * 4096, 4096) for i in range(20)]
    trace = write_trace(tmp_path / "t.parquet", ios)
    (tmp_path / "slow.toml").write_text('[[filter]]\nuse = "delay"\nread = "20ms"\n')
    options = ["--backend", "mem", "--policy", "slow.toml", "--inflight", "1"]
    loose = cli("replay", trace, "-o", "loose", *options, "--json")
    assert loose.exit_status == 0
    assert loose.document["gate"] is not None
    strict = cli("replay", trace, "-o", "strict", *options, "--json", "--strict")
    assert strict.exit_status == 1
    assert strict.document["gate"] is not None
    assert "pace was not kept" in strict.stderr
    assert _exit(tmp_path / "strict") == "ok"


def _exit(run: Path) -> str:
    return open_run(run).exit
