"""Sweeps: an experiment's cells, read, run, gone on with, and shown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from comparing.conftest import reads
from conftest import Ended
from replay_kit import filters, policy_file, round_here, write_trace
from run_folder import POLICIES, Policy, make_run

import vaio_bench
from vaio_bench import engine_build, experiment, round_loop, sweeping
from vaio_bench.analyses.sweep import SWEEP_FILE, sweep_document, swept
from vaio_bench.cli.sweep import show
from vaio_bench.errors import InputError
from vaio_bench.reporting import sweep_part
from vaio_bench.reporting.figures import Palette
from vaio_bench.round_process import RoundLostError
from vaio_bench.store import open_run

SMALL = """
[experiment]
name = "small"
policies = ["held.toml"]
rounds = 2
[grid]
depth = [1, 4]
block = ["4KiB", "16KiB"]
disks = [1, 2]
[workload]
size = "1MiB"
ios = 40
[target]
backend = "null"
"""


@pytest.fixture
def small(tmp_path: Path, in_process: None) -> Path:
    policy_file(tmp_path, filters({"use": "delay", "read": "300us", "spin": "true"}), "held")
    text = (tmp_path / "held.toml").read_text().replace('"true"', "true")
    (tmp_path / "held.toml").write_text(text)
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def test_every_cell_is_a_run_of_its_own(small: Path, tmp_path: Path) -> None:
    found = sweeping.sweep(small, out=tmp_path / "sweep")
    assert found["axes"] == {
        "disks": [1, 2],
        "depth": [1, 4],
        "block": [4096, 16384],
        "pattern": ["random"],
        "read": [1.0],
    }
    assert found["policies"] == ["pass", "held"]
    assert len(found["cells"]) == 8
    assert found["missing"] == []
    for cell in found["cells"]:
        run = open_run(cell["run"])
        assert run.policies == ["direct", "direct-again", "pass", "held"]
        assert run.manifest["pacing"]["depth"] == cell["at"]["depth"]
        assert len(run.manifest["trace"]["disks"]) == cell["at"]["disks"]
        rows = run.scan_ios("pass", 0).collect()
        assert rows.height == 40 * cell["at"]["disks"]
        assert set(rows["length_bytes"]) == {cell["at"]["block"]}
        held = next(policy for policy in cell["policies"] if policy["name"] == "held")
        assert held["metrics"]["latency_p50_ns"]["added"] > 290_000
    # A trace for each workload, whatever the depth.
    assert len(list((tmp_path / "sweep" / "traces").glob("*.parquet"))) == 4
    assert json.loads((tmp_path / "sweep" / "results" / "sweep.json").read_text()) == found


def test_a_sweep_goes_on_where_it_stopped(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Any] = []

    def stop_in_the_third_cell(job: dict[str, Any], progress: Any) -> Any:
        ran.append((job["folder"],))
        ended = round_here(job, progress)
        ended.interrupted = len(ran) == 2 * 8 + 6
        return ended

    monkeypatch.setattr(round_loop, "run_round", stop_in_the_third_cell)
    with pytest.raises(KeyboardInterrupt):
        sweeping.sweep(small, out=tmp_path / "sweep")
    document = json.loads((tmp_path / "sweep" / SWEEP_FILE).read_text())
    assert document["exit"] == "interrupted"
    assert [each.get("exit") for each in document["cells"]] == ["ok", "ok", *[None] * 6]
    found = sweeping.resume(tmp_path / "sweep")
    assert len(found["cells"]) == 8
    assert json.loads((tmp_path / "sweep" / SWEEP_FILE).read_text())["exit"] == "ok"
    # What had ended was not run again: of the third cell, the round that was cut short was.
    assert len(ran) == 8 * 8 + 2
    assert len(sweeping.resume(tmp_path / "sweep")["cells"]) == 8
    assert len(ran) == 8 * 8 + 2


def test_the_command_and_its_report(small: Path, tmp_path: Path, here: Callable) -> None:
    ended: Ended = here("sweep", small, "-o", "sweep", "--quiet")
    assert ended.exit_status == 0, ended.stderr
    first, second, *_ = ended.stdout.splitlines()
    assert first.startswith("pass: the median I/O changes by")
    assert second.startswith("held: the median I/O changes by")
    assert "depth" in ended.stdout
    written = vaio_bench.report(tmp_path / "sweep", tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text()
    assert '"type":"heatmap"' in html
    for part in ("The noise floor of each cell", "The machine", "The harness itself costs"):
        assert part in html
    assert written.answers[str(tmp_path / "sweep")]["What does it cost?"][0] == first
    ended = here("sweep", "--resume", "sweep", "--margin", "5%")
    assert ended.exit_status == 2
    assert "--margin: expected no such option beside --resume sweep" in ended.stderr
    # Beside a run, as a chapter of its own.
    cell = next((tmp_path / "sweep" / "cells").iterdir())
    both = vaio_bench.report([cell, tmp_path / "sweep"], tmp_path / "both.html")
    assert list(both.answers) == [str(cell), str(tmp_path / "sweep")]


def test_a_cell_that_loses_rounds_has_failed(
    small: Path, tmp_path: Path, here: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.write_text(SMALL.replace("disks = [1, 2]", "").replace('["4KiB", "16KiB"]', '["4KiB"]'))

    def lose(job: dict[str, Any], progress: Any) -> Any:
        if (job["options"]["policy"], job["options"]["depth"]) == ("held", 4):
            raise RoundLostError("crashed in io_start", [])
        return round_here(job, progress)

    monkeypatch.setattr(round_loop, "run_round", lose)
    ended: Ended = here("sweep", small, "-o", "sweep", "--quiet")
    assert ended.exit_status == 1
    bad = "depth=4"
    assert f"sweep: 1 of 2 cells failed, first disks=1,{bad}" in ended.stderr
    assert "it lost all rounds in 1 cells (crashed in io_start)." in ended.stdout
    assert "lost all 2 rounds\n" in ended.stdout
    document = json.loads((tmp_path / "sweep" / SWEEP_FILE).read_text())
    exits = [each["exit"] for each in document["cells"]]
    assert exits == ["ok", "failed: 2 rounds lost: crashed in io_start"]
    assert document["exit"] == "failed: 1 of 2 cells"
    report = here("report", "sweep", "-o", "r.html")
    told = ended.stderr.replace("vaio-bench: ", "vaio-bench: warning: ")
    assert (report.exit_status, report.stderr) == (0, told)
    html = (tmp_path / "r.html").read_text()
    assert "2 rounds lost: crashed in io_start" in html
    whole = sweep_part.chapter(tmp_path / "sweep", Palette()).sections[0]
    assert "held: median latency over the depth" in [chart.title for chart in whole.figures]
    # A policy without a figure has no empty chart.
    shutil.rmtree(tmp_path / "sweep" / "cells" / document["cells"][0]["id"])
    part = sweep_part.chapter(tmp_path / "sweep", Palette()).sections[0]
    assert not [chart.title for chart in part.figures if chart.title.startswith("held")]
    # Once the filter is mended, what is missing is run; another engine is not taken for this one.
    monkeypatch.setattr(round_loop, "run_round", round_here)
    monkeypatch.setattr(engine_build, "build_id", lambda: "another")
    ended = here("sweep", "--resume", "sweep")
    assert ended.exit_status == 2
    assert "sweep: expected the build of the engine that began it (" in ended.stderr
    ended = here("sweep", "--resume", "sweep", "--force", "--json")
    assert ended.exit_status == 0, ended.stderr
    assert ended.document["failed"] == []
    mixed = [each["cells"] for each in ended.document["warnings"] if each["code"] == "mixed-builds"]
    assert mixed == [2]


def test_a_cell_without_a_baseline_costs_itself_alone(
    small: Path, here: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.write_text(
        SMALL.replace("disks = [1, 2]", "").replace('["4KiB", "16KiB"]', '["4KiB"]')
        .replace("[1, 4]", "[1, 2, 4]")
    )  # fmt: skip

    def fail(job: dict[str, Any], progress: Any) -> Any:
        policy, depth = (job["options"][key] for key in ("policy", "depth"))
        if depth in bare and policy == "direct":
            raise RoundLostError("crashed in io_start", [])
        ended = round_here(job, progress)
        if (depth, policy) == (2, "held"):
            ended.totals |= {"errors": 1, "told_errors": ["disk 0: read at 4096: EIO"]}
        return ended

    monkeypatch.setattr(round_loop, "run_round", fail)
    bare = {1}
    ended: Ended = here("sweep", small, "-o", "sweep", "--quiet")
    first, second, third = sweeping.open_sweep("sweep")["cells"]
    none = "nothing to compare with: the baseline direct lost all 2 rounds: crashed in io_start"
    one = "policy held: 2 I/Os failed: round 1, disk 0: read at 4096: EIO"
    assert [each["exit"] for each in (first, second, third)] == [
        f"failed: {none}", f"failed: {one}", "ok"]  # fmt: skip
    assert ended.exit_status == 1
    told = f"2 of 3 cells failed, first {first['id']}: {none}"
    assert ended.stderr == f"vaio-bench: sweep: {told}\n"
    assert f"failed: cell {second['id']}: {one}\n" in ended.stdout
    # Where no cell has anything to compare, that is told alike.
    bare |= {2, 4}
    ended = here("sweep", small, "-o", "none", "--quiet")
    assert ended.exit_status == 1
    assert ended.stderr == f"vaio-bench: none: {told.replace('2 of', '3 of')}\n"


def test_a_sweep_whose_first_cell_cannot_begin_leaves_nothing(small: Path, tmp_path: Path) -> None:
    text = SMALL.replace("disks = [1, 2]", "read = [0.5]").replace('"null"', '"psync"')
    small.write_text(text)
    mine = tmp_path / "mine.img"
    mine.write_bytes(bytes(2 << 20))
    with pytest.raises(InputError, match="--destroy-data"):
        sweeping.sweep(small, out=tmp_path / "sweep", target=mine)
    assert not (tmp_path / "sweep").exists()
    assert mine.read_bytes() == bytes(2 << 20)


def test_warnings_are_told_once_a_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policies = {"direct": Policy(), "pass": Policy()}
    for number in range(3):
        seen = [{"code": "page-cache", "seen": f"file {number}", "why": "it hides", "remedy": "x"}]
        make_run(tmp_path / "cells" / str(number), policies=policies, rounds=2, ios=50,
                 warnings=seen if number else [])  # fmt: skip
    document = {
        "schema_version": 1,
        "margin": 0.02,
        "experiment": {"experiment": {"name": "warned", "description": ""}},
        "cells": [{"id": str(n), "at": {"depth": n + 1}} for n in range(3)],
    }
    (tmp_path / SWEEP_FILE).write_text(json.dumps(document))
    found = sweep_document(tmp_path)
    assert [(each["code"], each["cells"]) for each in found["warnings"]] == [("page-cache", 2)]
    show(found)
    assert "warning: in 2 of 3 cells: file 1: it hides. x.\n" in capsys.readouterr().out


def test_verdicts_are_adjusted_for_the_number_of_cells(tmp_path: Path) -> None:
    ids = [f"depth={depth}" for depth in range(1, 13)]
    plain = {"direct": Policy(), "direct-again": Policy(), "pass": Policy()}
    slow = {**plain, "pass": POLICIES["crypt"]}
    for number, name in enumerate(ids):
        (tmp_path / "cells").mkdir(exist_ok=True)
        policies = slow if number == 0 else plain
        make_run(tmp_path / "cells" / name, policies=policies, rounds=5, ios=150, seed=number)
    document = {
        "schema_version": 1,
        "margin": 0.0001,
        "experiment": {"experiment": {"name": "many", "description": ""}},
        "cells": [{"id": name, "at": {"depth": n + 1}} for n, name in enumerate(ids)],
    }
    (tmp_path / SWEEP_FILE).write_text(json.dumps(document))
    found = swept(tmp_path)
    verdicts = {
        cell.id: cell.found.policies["pass"]["latency_p50_ns"].verdict for cell in found.cells
    }
    assert verdicts.pop("depth=1") == "slower"
    assert not {"slower", "faster"} & set(verdicts.values())
    p = [cell.found.policies["pass"]["latency_p50_ns"] for cell in found.cells]
    assert all(each.p_adjusted >= each.interval.p for each in p)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("depth = [1, 4]", "depth = []"), "grid.depth: expected at least 1 of them"),
        (("depth = [1, 4]", "depth = [0]"), r"grid.depth\[0\]: expected a number of at least 1"),
        (("depth = [1, 4]", "depth = [4, 4]"), "depth: expected distinct values"),
        (("disks = [1, 2]", 'pattern = ["zigzag"]'), r"grid.pattern\[0\]: expected 'random' or"),
        (("ios = 40", "speed = 3"), "workload.speed: expected no such key"),
        (('size = "1MiB"', 'size = "8KiB"'), "workload.size: expected at least the largest block"),
        (("rounds = 2", "rounds = 1"), "experiment.rounds: expected a number of at least 2"),
        (('policies = ["held.toml"]', "floor = false"), "experiment.policies: expected at least"),
        (("ios = 40", 'trace = "t.parquet"'), "grid.block: expected no such key beside"),
        (("rounds = 2", "rounds ="), "expected TOML"),
        (('name = "small"', 'name = "../x"'), "experiment.name: expected a text like "),
        (
            ('"4KiB", "16KiB"', '"100", "4KiB"'),
            r"grid.block\[0\]: expected a multiple of 512 bytes",
        ),
        (("rounds = 2", 'warmup = "soon"'), "--warmup: expected a number of rounds or a time"),
        (("held.toml", "gone.toml"), "gone.toml: no such file"),
    ],
)
def test_a_wrong_experiment_is_told_before_anything_runs(
    small: Path, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    small.write_text(SMALL.replace(*change))
    with pytest.raises(InputError, match=message):
        sweeping.sweep(small, out=tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_folders_are_not_taken_by_mistake(small: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").touch()
    with pytest.raises(InputError, match="expected a new folder"):
        sweeping.sweep(small, out=tmp_path / "mine")
    with pytest.raises(InputError, match="expected a sweep folder"):
        sweeping.resume(tmp_path / "mine")
    small.write_text(SMALL.replace('"null"', '"psync"'))
    with pytest.raises(InputError, match="--target: expected a folder"):
        sweeping.sweep(small, out=tmp_path / "sweep")
    with pytest.raises(InputError, match="as cells have several disks"):
        sweeping.sweep(small, out=tmp_path / "sweep", target=small)


def test_disks_of_a_target_are_files_of_one_folder(small: Path, tmp_path: Path) -> None:
    text = SMALL.replace('"null"', '"psync"').replace("depth = [1, 4]", "depth = [2]")
    small.write_text(text.replace('block = ["4KiB", "16KiB"]', ""))
    sweeping.sweep(small, out=tmp_path / "sweep", target=tmp_path / "disks")
    assert sorted(path.name for path in (tmp_path / "disks").iterdir()) == [
        "disk0.img",
        "disk1.img",
    ]


def test_what_is_shipped_is_the_null_filter_study() -> None:
    found, path = experiment.load_experiment("null-filter")
    assert path == experiment.shipped()["null-filter"]
    assert found.experiment.policies == ["pass"]
    assert {(cell.at["depth"], cell.at["block"]) for cell in found.cells()} >= {
        (1, 4096),
        (64, 524_288),
    }
    ids = [cell.id for cell in found.cells()]
    assert len(set(ids)) == len(ids)


def test_a_trace_can_be_the_workload(small: Path, tmp_path: Path) -> None:
    write_trace(tmp_path / "t.parquet", reads(30))
    small.write_text(
        '[experiment]\nrounds = 2\n[grid]\ndepth = [1, 8]\n[target]\nbackend = "null"\n'
        '[workload]\ntrace = "t.parquet"\n'
    )
    found = sweeping.sweep(small, out=tmp_path / "again")
    assert found["axes"] == {"depth": [1, 8]}
    assert len(found["cells"]) == 2
    assert len(sweeping.resume(tmp_path / "again")["cells"]) == 2
