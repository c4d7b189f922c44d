"""A comparison that was interrupted goes on where it stopped, and comes to the same rounds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from comparing.conftest import reads
from conftest import Ended
from replay_kit import round_here, write_trace

from vaio_bench import comparing, engine_build, round_loop
from vaio_bench.analyses import fidelity
from vaio_bench.errors import InputError
from vaio_bench.round_process import RoundLostError
from vaio_bench.run_writer import RunWriter
from vaio_bench.store import open_run

Compare = Callable[..., dict[str, Any]]


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[tuple[str, int]]]:
    """Ctrl-C in the n-th round from now on; the list of rounds as they are run."""

    def after(count: int) -> list[tuple[str, int]]:
        ran: list[tuple[str, int]] = []

        def run(job: dict[str, Any], progress: Any) -> Any:
            ran.append((job["options"]["policy"], job["options"]["round"]))
            ended = round_here(job, progress)
            ended.interrupted = len(ran) == count
            return ended

        monkeypatch.setattr(round_loop, "run_round", run)
        return ran

    return after


def test_the_rounds_are_those_of_a_run_left_alone(
    compare: Compare, interrupt: Callable[..., Any], tmp_path: Path
) -> None:
    whole = compare(reads(), out="whole", rounds=4)
    ran = interrupt(5)
    with pytest.raises(KeyboardInterrupt):
        compare(reads(), rounds=4)
    path = tmp_path / "run"
    assert open_run(path).exit == "interrupted"
    assert len(ran) == 5
    again = interrupt(0)
    found = comparing.resume(path)
    run = open_run(path)
    assert run.exit == "ok"
    # Three arms: round 0 was whole, of round 1 one arm had ended and one was stopped.
    assert {number for _, number in again} == {1, 2, 3}
    assert run.manifest["resumed"][0]["rounds_run_again"] == [1]
    order = [tuple(entry) for entry in run.manifest["order"]]
    assert ran[:3] + again == order
    assert order == [tuple(e) for e in open_run(tmp_path / "whole").manifest["order"]]
    for policy in run.policies:
        assert run.rounds(policy, complete_only=True) == [0, 1, 2, 3]
        assert run.scan_ios(policy).collect().height == 4 * 200
    timeline = run.timeline()
    assert timeline["ios"].sum() == 3 * 4 * 200
    assert found["rounds"] == whole["rounds"] == 4


def test_a_round_that_was_stopped_is_in_no_figure(
    compare: Compare, interrupt: Callable[..., Any], tmp_path: Path
) -> None:
    interrupt(7)
    with pytest.raises(KeyboardInterrupt):
        compare(reads(), rounds=4)
    found = comparing.compare_stored([tmp_path / "run"])
    assert found["rounds"] == 2
    assert any("cut short" in note for note in found["notes"])


def test_rounds_are_added_to_a_run_that_has_ended(compare: Compare, tmp_path: Path) -> None:
    compare(reads(), rounds=2, warmup="1")
    found = comparing.resume(tmp_path / "run", rounds=4)
    run = open_run(tmp_path / "run")
    assert found["rounds"] == 4
    order = [tuple(entry) for entry in run.manifest["order"]]
    assert order == round_loop.shuffled_rounds(list(run.manifest["policies"]), 4, 0)
    assert set(run.manifest["warmup"]["totals"]["pass"]) == {"0"}


def test_what_cannot_be_gone_on_with_is_refused(compare: Compare, tmp_path: Path) -> None:
    compare(reads(), rounds=2)
    path = tmp_path / "run"
    with pytest.raises(InputError, match="at least the 2 of the run"):
        comparing.resume(path, rounds=1)
    with (
        RunWriter.reopen(open_run(path)).held(),
        pytest.raises(InputError, match="another process is writing"),
    ):
        comparing.resume(path, rounds=3)
    (tmp_path / "run.parquet").unlink()
    write_trace(tmp_path / "run.parquet", reads(199))
    with pytest.raises(InputError, match="expected the trace of the run's first rounds"):
        comparing.resume(path, rounds=3)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["tool_version"] = "0.0.1"
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"begun with 0\.0\.1"):
        comparing.resume(path, rounds=3)
    manifest["comparison"] = None
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="found one of a replay"):
        comparing.resume(path)


def test_another_build_of_the_engine_goes_on_by_force_alone(
    compare: Compare, here: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = engine_build.build_id()
    compare(reads(20), rounds=2)
    monkeypatch.setattr(engine_build, "build_id", lambda: "another")
    ended = here("compare", "--resume", "run", "--rounds", "3", "--quiet")
    assert ended.exit_status == 2
    assert ended.stderr == (
        f"vaio-bench: run: expected the build of the engine that began it ({first}), this is "
        "another, and figures of two builds are no one sample: begin anew, or go on with --force, "
        "which marks it\n"
    )
    assert open_run(tmp_path / "run").manifest["rounds"] == 2
    ended = here("compare", "--resume", "run", "--rounds", "3", "--force", "--json")
    assert ended.exit_status == 0, ended.stderr
    assert ended.document["rounds"] == 3
    [told] = [each for each in ended.document["warnings"] if each["code"] == "mixed-builds"]
    assert told["seen"] == "rounds were taken by 2 builds of the engine"
    # It is one of those that took its rounds now.
    assert comparing.resume(tmp_path / "run", rounds=4)["rounds"] == 4
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    del manifest["engine_build"], manifest["resumed"]
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"began it \(one that it does not name\), this is"):
        comparing.resume(tmp_path / "run", rounds=5)


def test_the_command_says_how_to_go_on(
    compare: Compare, here: Callable[..., Ended], interrupt: Callable[..., Any], tmp_path: Path
) -> None:
    write_trace(tmp_path / "t.parquet", reads())
    interrupt(2)
    options = ["--policy", "pass", "--rounds", "2", "--backend", "mem", "--pace", "asap"]
    ended = here("compare", "t.parquet", *options, "-o", "r", "--quiet")
    assert ended.exit_status == 130
    assert "go on with: vaio-bench compare --resume r" in ended.stderr
    interrupt(0)
    ended = here("compare", "--resume", "r", "--quiet")
    assert ended.exit_status == 0, ended.stderr
    assert ended.stdout.startswith("pass ")
    assert "2 rounds; noise floor (a/a pair)" in ended.stdout


def test_it_goes_on_from_any_folder(
    here: Callable[..., Ended],
    interrupt: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_trace(tmp_path / "t.parquet", reads())
    (tmp_path / "key").write_bytes(bytes(range(64)))
    (tmp_path / "p.toml").write_text('[[filter]]\nuse = "crypt"\nkey = "file:key"\n')
    options = ["--policy", "p.toml", "--rounds", "2", "--backend", "psync", "--pace", "asap"]
    interrupt(2)
    ended = here("compare", "t.parquet", *options, "--target", "t.img", "-o", "r", "--quiet")
    assert ended.exit_status == 130
    interrupt(0)
    other = tmp_path / "elsewhere"
    other.mkdir()
    monkeypatch.chdir(other)
    (tmp_path / "t.parquet").rename(tmp_path / "moved.parquet")
    with pytest.raises(InputError) as raised:
        comparing.resume("../r")
    assert str(raised.value) == (
        f"../r: expected its trace at {tmp_path}/t.parquet, where nothing is any more (it was "
        f"begun in {tmp_path}): put it back, or begin anew"
    )
    (tmp_path / "moved.parquet").rename(tmp_path / "t.parquet")
    found = comparing.resume("../r")
    assert (found["run"], found["rounds"]) == ("../r", 2)
    assert Path.cwd() == other
    assert not list(other.iterdir())
    assert open_run("../r").exit == "ok"


def test_a_lost_round_that_was_run_again_is_lost_no_more(
    compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = {("pass", 1), ("direct", 1), ("direct-again", 1), ("pass", 2)}
    crash = {"disk": 0, "layer": 0, "kind": "filter_crash", "time_ns": 0,
             "detail": json.dumps({"reason": "crashed"})}  # fmt: skip

    def lose(job: dict[str, Any], progress: Any) -> Any:
        which = (job["options"]["policy"], job["options"]["round"])
        ended = round_here(job, progress)
        if which in lost:
            raise RoundLostError(f"{which} crashed", [crash])
        return ended

    def codes() -> list[str]:
        return [each["code"] for each in open_run(path).manifest["warnings"]]

    monkeypatch.setattr(round_loop, "run_round", lose)
    monkeypatch.setattr(fidelity, "LATE_SHARE_MAX", -1.0)
    path = tmp_path / "run"
    given = {"rounds": 3, "settings": {"pace": "recorded", "backend": "mem"}}
    found = compare(reads(20), **given)
    assert len(found["lost_rounds"]) == 4
    lost -= {("direct", 1), ("direct-again", 1), ("pass", 1)}
    found = comparing.resume(path)
    assert [each["round"] for each in found["lost_rounds"]] == [2]
    assert codes().count("rounds-lost") == codes().count("device-too-slow") == 1
    lost.clear()
    found = comparing.resume(path)
    assert (found["lost_rounds"], found["rounds"]) == ([], 3)
    run = open_run(path)
    assert run.exit == "ok"
    assert codes().count("rounds-lost") == 0
    assert codes().count("device-too-slow") == 1
    assert run.events().is_empty()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--resume", "r", "--limit", "5"], "--limit: expected no such option beside --resume r"),
        (["--resume", "r", "--max-rounds", "9"], "--max-rounds: expected --until beside it"),
        (["r", "--rounds", "50"], "--rounds: expected no such option beside runs"),
        (["t.parquet", "-o", "x", "--max-rounds", "9"], "--max-rounds: expected --until beside it"),
        (["r", "--margin", "many"], '--margin: expected a share such as "2%", got "many"'),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    in_process: None, here: Callable[..., Ended], tmp_path: Path, words: list[str], told: str
) -> None:
    write_trace(tmp_path / "t.parquet", reads(20))
    options = ["--policy", "pass", "--rounds", "2", "--backend", "mem", "--pace", "asap"]
    assert here("compare", "t.parquet", *options, "-o", "r", "--quiet").exit_status == 0
    ended = here("compare", *words)
    assert ended.exit_status == 2
    assert told in ended.stderr
    assert here("compare", "r", "--margin", "2%", "--json").document["margin"] == 0.02
