"""`fio replay` and `fio export`: fio's own replay of a trace beside ours."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from replay_kit import Io, mixed, write_trace

from tests.conftest import Ended, requires
from vaio_bench import import_trace, open_trace
from vaio_bench.analyses.rounds import round_figures
from vaio_bench.fio.crosscheck import _latency
from vaio_bench.fio.iolog import export
from vaio_bench.store import open_run


def rows_of_trace(path: Path) -> list[tuple[int, str, int, int]]:
    with open_trace(path) as trace:
        return [
            (row["time_ns"], row["op"], row["offset_bytes"], row["length_bytes"])
            for batch in trace.batches()
            for row in batch.to_pylist()
        ]


@pytest.mark.parametrize("version", [2, 3])
def test_what_is_exported_is_imported_alike(tmp_path: Path, version: int) -> None:
    ios = [Io(0, "write", 0, 4096), Io(2_000_000, "read", 0, 4096), Io(5_000_000, "flush", 0, 0),
           Io(7_000_000, "discard", 4096, 8192)]  # fmt: skip
    trace = write_trace(tmp_path / "t.parquet", ios)
    with open_trace(trace) as opened:
        made = export(opened, tmp_path / "t.iolog", version=version)
    assert made.ios == {"write": 1, "read": 1, "flush": 1, "discard": 1}
    back = import_trace([tmp_path / "t.iolog"], tmp_path / "back.parquet")
    assert back.format == "fio-iolog"
    assert rows_of_trace(tmp_path / "back.parquet") == rows_of_trace(trace)


def test_what_a_log_cannot_hold_is_counted(tmp_path: Path, here: Callable[..., Ended]) -> None:
    write_trace(tmp_path / "t.parquet", [Io(0, "write", 0, 4096), Io(0, "write_zeroes", 0, 4096)])
    found = here("fio", "export", "t.parquet", "-o", "t.iolog", "--json").document
    assert (found["ios"], found["left_out"]) == ({"write": 1}, {"write_zeroes": 1})
    assert here("fio", "export", "t.parquet", "-o", "t.iolog").exit_status == 2


@requires("fio")
@pytest.mark.parametrize(("depth", "align"), [(1, 512), (8, 4096), (4, 1)])
def test_counts_and_bytes_are_equal(
    tmp_path: Path, here: Callable[..., Ended], depth: int, align: int
) -> None:
    ios = [*mixed(3, 400, align=align), Io(10**9, "write_zeroes", 0, 4096)]
    write_trace(tmp_path / "t.parquet", ios)
    words = ("--target", "t.img", "--depth", str(depth), "--rounds", "2", "-o", "run", "--json")
    ended = here("fio", "replay", "t.parquet", *words)
    assert ended.exit_status == 0, ended.stderr
    found = ended.document
    assert found["equal"]
    assert found["counts"]["ours"] == found["counts"]["fio"]
    assert found["bytes"]["ours"] == found["bytes"]["fio"]
    assert found["left_out"]["write_zeroes"] >= 1
    assert found["latency"]["latency_p50_ns"]["noise_floor"] > 0
    run = open_run("run")
    # The flushes that fill fio's queue at the end of its log are no I/Os of the trace.
    assert {run.totals(name, 0)["ios"] for name in run.policies} == {
        sum(found["counts"]["ours"].values())
    }
    fio = run.totals("fio", 0)
    wall_s = fio["wall_ns"] / 1e9
    per_round = round_figures(run).filter(pl.col("policy") == "fio")
    assert per_round["iops"][0] == pytest.approx(fio["ios"] / wall_s)
    assert found["latency"]["iops"]["rounded_share"] == max(per_round["rate_share"])
    assert run.policies == ["direct", "direct-again", "fio"]
    assert len(run.manifest["order"]) == 6
    assert here("report", "run", "-o", "r.html").exit_status == 0


# fio, whose document lacks the bytes of one I/O the first `FORGETS` times.
_FORGETFUL = """#!{python}
import json, os, subprocess, sys
from pathlib import Path
status = subprocess.run([{fio!r}, *sys.argv[1:]]).returncode
output = [word[9:] for word in sys.argv if word.startswith("--output=")]
runs = Path({runs!r})
if output and status == 0:
    runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
    if len(runs.read_text()) <= {forgets}:
        document = json.loads(Path(output[0]).read_text())
        document["jobs"][0]["write"]["io_bytes"] -= 4096
        Path(output[0]).write_text(json.dumps(document))
sys.exit(status)
"""


@requires("fio")
@pytest.mark.parametrize(("forgets", "repeated", "equal"), [(2, 2, True), (99, 4, False)])
def test_a_run_of_fio_that_leaves_bytes_out_of_its_totals_is_done_again(
    tmp_path: Path, here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch,
    forgets: int, repeated: int, equal: bool,
) -> None:  # fmt: skip
    fio = tmp_path / "bin" / "fio"
    fio.parent.mkdir()
    fio.write_text(
        _FORGETFUL.format(
            python=sys.executable, fio=shutil.which("fio"), runs=str(tmp_path / "runs"),
            forgets=forgets,
        )
    )  # fmt: skip
    fio.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fio.parent}:{os.environ['PATH']}")
    write_trace(tmp_path / "t.parquet", [Io(0, "write", 0, 4096), Io(0, "read", 0, 4096)])
    words = ("--target", "t.img", "--depth", "1", "--rounds", "1", "-o", "run", "--json")
    ended = here("fio", "replay", "t.parquet", *words)
    found = ended.document
    assert (found["equal"], found["repeated"]) == (equal, repeated)


@requires("fio")
def test_one_disk_at_a_time(tmp_path: Path, here: Callable[..., Ended]) -> None:
    write_trace(
        tmp_path / "t.parquet", [Io(0, "write", 0, 4096, disk="a"), Io(0, "read", 0, 512, disk="b")]
    )
    ended = here("fio", "replay", "t.parquet", "--target", "t.img", "-o", "run")
    assert ended.exit_status == 2
    assert "--disk" in ended.stderr


@pytest.mark.parametrize(
    ("ratio", "floor", "within"),
    # On logarithms a half is as far as a double.
    [(1.9, 1.0, True), (0.51, 1.0, True), (0.45, 1.0, False), (5.0, 8.6, None), (1.0, None, None)],
)
def test_what_is_within_the_noise(ratio: float, floor: float | None, within: bool | None) -> None:
    of = {"floor": floor, "baseline": 1.0, "value": ratio, "ratio": ratio}
    assert _latency("iops", of, 0.0)["within"] is within
