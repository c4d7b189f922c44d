"""The rounds of a comparison: warm-up, baseline, until, and the state that each starts from."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from comparing.conftest import reads
from conftest import Ended
from replay_kit import Io, filters, policy_file, round_here, write_trace

import vaio_bench as vb
from vaio_bench import comparing, round_loop
from vaio_bench.analyses.hits import hits
from vaio_bench.analyses.summary import summary
from vaio_bench.cli.compare import show
from vaio_bench.errors import InputError
from vaio_bench.reporting.overhead_part import latencies
from vaio_bench.round_process import RoundLostError
from vaio_bench.store import open_run

Compare = Callable[..., dict[str, Any]]


def test_the_document_has_every_part(compare: Compare, tmp_path: Path) -> None:
    found = compare(reads(), policies=["pass", "crypt"])
    assert [policy["name"] for policy in found["policies"]] == ["pass", "crypt"]
    assert len(found["answers"]) == 2
    assert found["answers"][0].startswith("pass ")
    assert {layer["layer"] for layer in found["layers"] if layer["policy"] == "crypt"} == {
        "crypt",
        "mem",
    }
    assert [each["policy"] for each in found["layer_sums"]] == [
        "direct",
        "direct-again",
        "pass",
        "crypt",
    ]
    for each in found["layer_sums"]:
        assert each["adds_up"]
        assert each["off_max_ns"] == 0
        assert each["self_mean_ns"] == pytest.approx(each["latency_mean_ns"])
    assert found["harness"]["null_ns_per_io"] == 100.0
    assert open_run(tmp_path / "run").results()["compare"] == found


def test_warm_up_rounds_are_kept_apart(compare: Compare, tmp_path: Path) -> None:
    found = compare(reads(), warmup="2", rounds=3)
    run = open_run(tmp_path / "run")
    assert run.rounds("pass") == [0, 1, 2]
    assert found["rounds"] == 3
    assert run.scan_ios("pass").collect().height == 3 * 200
    parts = sorted((tmp_path / "run" / "warmup" / "ios" / "pass").rglob("part-*.parquet"))
    assert [part.parent.name for part in parts] == ["0", "1"]
    totals = found["warmup"]["totals"]["pass"]
    assert [totals[number]["ios"] for number in ("0", "1")] == [200, 200]


def test_a_warm_up_of_time_is_in_no_figure(compare: Compare, tmp_path: Path) -> None:
    # The first half of the trace is slow: what is measured is the second.
    ios = [Io(i * 100_000, "read" if i >= 100 else "write", 0, 4096) for i in range(200)]
    slow = policy_file(tmp_path, filters({"use": "delay", "write": "5ms"}), "slow")
    given = {"policies": [str(slow)], "rounds": 2, "settings": {"pace": "recorded"}}
    cold = compare(ios, out="cold", **given)
    warm = compare(ios, out="warm", warmup="10ms", **given)
    assert cold["policies"][0]["metrics"]["latency_p95_ns"]["value"] > 5e6
    assert warm["policies"][0]["metrics"]["latency_p95_ns"]["value"] < 5e6
    assert warm["warmup"]["time_ns"] == 10_000_000
    assert any("are warm-up" in note for note in warm["notes"])


def test_any_policy_can_be_the_baseline(compare: Compare, tmp_path: Path) -> None:
    found = compare(reads(), baseline="crypt", policies=["pass", "direct"])
    assert found["baseline"] == "crypt"
    assert [policy["name"] for policy in found["policies"]] == ["pass", "direct"]
    assert found["noise_floor_from"] == "a/a pair"
    assert open_run(tmp_path / "run").policies == ["crypt", "crypt-again", "pass", "direct"]


def test_rounds_are_added_until_the_interval_is_narrow(compare: Compare, tmp_path: Path) -> None:
    found = compare(reads(), until=0.99, rounds=2, rounds_max=40)
    assert found["until"]["reached"] is True
    # Of fewer, those that happen to lie close together would end it too often.
    assert found["rounds"] >= 8
    assert any("1.1 times as wide" in note for note in found["notes"])
    found = compare(reads(), out="never", policies=["crypt"], until=1e-9, rounds=2, rounds_max=9)
    assert found["until"]["reached"] is False
    run = open_run(tmp_path / "never")
    assert run.rounds("crypt") == list(range(9))
    assert run.manifest["rounds"] == 9
    order = [tuple(entry) for entry in run.manifest["order"]]
    assert order == round_loop.shuffled_rounds(list(run.manifest["policies"]), 9, 0)


def test_until_goes_on_for_the_others_when_one_loses_every_round(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(job: dict[str, Any], progress: Any) -> Any:
        if job["options"]["policy"] == "crypt":
            raise RoundLostError("crashed", [])
        return round_here(job, progress)

    monkeypatch.setattr(round_loop, "run_round", lose)
    given = {"policies": ["pass", "crypt"], "until": 1e-9, "rounds": 2, "rounds_max": 9}
    found = compare(reads(), **given)
    assert len(found["lost_rounds"]) == found["rounds"] == 9


def test_every_round_starts_from_the_same_state(
    compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "disk.img"
    seen = []

    def look(job: dict[str, Any], progress: Any) -> Any:
        fd = os.open(target, os.O_RDONLY)
        size = os.fstat(fd).st_size
        seen.append((os.lseek(fd, 0, os.SEEK_HOLE) == size, os.pread(fd, 4096, 0)))
        os.close(fd)
        return round_here(job, progress)

    monkeypatch.setattr(round_loop, "run_round", look)
    ios = [
        Io(0, "write", 0, 65536),
        Io(1_000, "discard", 0, 65536),
        Io(2_000, "write_zeroes", 131_072, 65536),
        Io(3_000, "read", 262_144, 4096),
    ]
    found = compare(ios, target=target, rounds=2, settings={"backend": "psync"})
    # No holes, so no write pays for allocation that another round did not.
    assert all(whole for whole, _ in seen), seen
    state = found["round_state"]
    assert state["fills"] is True
    assert any("discarded" in done for done in state["before_each_round"])
    totals = open_run(tmp_path / "run").manifest["totals"]
    filled = [each["refilled_bytes"] for of in totals.values() for each in of.values()]
    # The very first round found a file that was just made.
    assert sorted(filled)[0] == 0
    assert sorted(filled)[1] >= 65536


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_target_that_is_written_is_of_one_run_at_a_time(
    compare: Compare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_ours: bool
) -> None:
    target, alone, beside = tmp_path / "t.img", round_loop.run_round, []
    if not is_ours:
        target.write_bytes(bytes(1 << 20))  # Of the user's: only read, by any number of runs.

    def one(out: str) -> dict[str, Any]:
        return compare(reads(20), out=out, rounds=2, target=target, settings={"backend": "psync"})

    def run(job: dict[str, Any], progress: Any) -> Any:
        if not beside:
            beside.append("began")
            refused = pytest.raises(InputError, match="the target of another run")
            with refused if is_ours else nullcontext():
                beside.append(one("beside")["rounds"])
        return alone(job, progress)

    monkeypatch.setattr(round_loop, "run_round", run)
    assert one("first")["rounds"] == 2
    assert beside == (["began"] if is_ours else ["began", 2])
    assert (tmp_path / "beside").exists() != is_ours
    assert one("after")["rounds"] == 2


def test_a_file_of_the_users_is_not_filled(compare: Compare, tmp_path: Path) -> None:
    mine = tmp_path / "mine.img"
    with mine.open("wb") as file:
        file.truncate(1 << 20)
    found = compare(reads(), target=mine, rounds=2, settings={"backend": "psync"})
    assert found["round_state"]["fills"] is False
    assert mine.stat().st_blocks == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rounds": 1}, "--rounds: expected 2 or more"),
        ({"policies": []}, "expected at least one to compare with direct"),
        ({"policies": ["direct"]}, "the baseline runs by itself"),
        ({"warmup": "soon"}, "--warmup: expected a number of rounds or a time"),
        ({"until": 2.0}, "--until: expected a share"),
        ({"until": 0.1, "rounds_max": 2}, "--max-rounds: expected at least the 3"),
        ({"until": 0.1, "rounds_max": 7}, "--max-rounds: expected at least 8"),
        ({"settings": {"clock": "virtual"}}, "no overhead can be told"),
        ({"settings": {"backend": "sim"}}, "is a modelled device"),
    ],
)
def test_what_is_wrong_is_told(
    compare: Compare, given: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        compare(reads(), **given)
    assert not (tmp_path / "run").exists()


def test_no_rounds_are_not_the_default_number_of_rounds(
    here: Callable[..., Ended], tmp_path: Path
) -> None:
    trace = write_trace(tmp_path / "t.parquet", reads(10))
    ended = here("compare", trace, "--backend", "null", "--policy", "pass", "--rounds", "0",
                 "-o", tmp_path / "run")  # fmt: skip
    assert ended.exit_status == 2
    assert "--rounds: expected 2 or more" in ended.stderr


@pytest.mark.parametrize("text", ["1%", "±1%", "+-1 %", "0.01"])
def test_until_is_read_in_every_spelling(text: str) -> None:
    assert comparing.parse_until(text) == pytest.approx(0.01)


@pytest.mark.parametrize("text", ["narrow", "0", "100%", "-1%"])
def test_until_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--until"):
        comparing.parse_until(text)


def test_every_warning_is_in_the_document_and_printed(
    compare: Compare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"backend": "psync", "fit_to_bytes": 1 << 20}
    ios = [Io(i, "write", i << 20, 4096) for i in range(4)]
    found = compare(ios, target=tmp_path / "disk.img", rounds=2, settings=given)
    kept = open_run(found["run"]).manifest["warnings"]
    assert "fit-to-wrapped" in {each["code"] for each in kept}
    assert found["warnings"] == kept
    show(found)
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning:")]
    assert len(printed) == len(kept)
    assert any("laid on top of one another" in line for line in printed)
    apart = comparing.compare_stored([found["run"]], baseline="direct")
    assert apart["warnings"] == kept


def test_failed_ios_are_told_with_the_policy_and_the_first(
    in_process: None,
    here: Callable[..., Ended],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(job: dict[str, Any], progress: Any) -> Any:
        ended = round_here(job, progress)
        if (job["options"]["policy"], job["options"]["round"]) == ("pass", 1):
            ended.totals |= {"errors": 2, "told_errors": ["disk 0: write at 4096: ENOSPC", "b"]}
        return ended

    monkeypatch.setattr(round_loop, "run_round", fail)
    write_trace(tmp_path / "t.parquet", reads(20))
    options = ["--policy", "pass", "--rounds", "2", "--backend", "mem", "--pace", "asap"]
    ended = here("compare", "t.parquet", *options, "-o", "r", "--quiet")
    assert ended.exit_status == 1
    first = "round 2, disk 0: write at 4096: ENOSPC"
    assert f"r: policy pass: 2 I/Os failed: {first}" in ended.stderr
    note = f"note: policy pass: 2 of 40 I/Os failed ({first})"
    assert note in ended.stdout
    assert "latency, median" in ended.stdout
    assert note in here("compare", "r").stdout
    read_alike(ended, here)


def read_alike(made: Ended, here: Callable[..., Ended], run: str = "r") -> None:
    """Whoever reads a run ends as the comparison that made it, in the same words."""
    page = f"{run}-read.html"
    for words in (["compare", run], ["compare", run, "--json"]):
        read = here(*words)
        assert (read.exit_status, read.stderr) == (made.exit_status, made.stderr), words
    # A page that was written is a success, which says of what.
    report = here("report", run, "-o", page, "--json")
    failed = report.document["runs"][0]["failed"]
    assert made.stderr == f"vaio-bench: {run}: {failed}\n"
    warning = f"vaio-bench: warning: {run}: {failed}\n"
    assert (report.exit_status, report.stderr) == (0, warning)


def test_a_policy_that_loses_every_round_is_told(
    in_process: None,
    here: Callable[..., Ended],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lose(job: dict[str, Any], progress: Any) -> Any:
        policy, number = (job["options"][key] for key in ("policy", "round"))
        if policy == "crypt" or (policy, number) == ("delay", 1):
            raise RoundLostError('filter[0] "so:x.so" crashed in io_start (SIGSEGV)', [])
        return round_here(job, progress)

    monkeypatch.setattr(round_loop, "run_round", lose)
    write_trace(tmp_path / "t.parquet", reads(20))
    options = ["--backend", "mem", "--pace", "asap", "--rounds", "3", "--quiet"]
    policies = ["--policy", "pass", "--policy", "crypt", "--policy", "delay"]
    ended = here("compare", "t.parquet", *options, *policies, "-o", "r")
    assert ended.exit_status == 1
    why = 'filter[0] "so:x.so" crashed in io_start (SIGSEGV)'
    assert f"crypt lost all 3 rounds: {why}.\n" in ended.stdout
    assert "\ncrypt  lost all 3 rounds\n" in ended.stdout
    assert f"note: policy delay lost 1 of 3 rounds (2): {why}" in ended.stdout
    assert "r: 4 rounds lost: " in ended.stderr
    read_alike(ended, here)
    found = here("compare", "r", "--json").document
    assert [policy["name"] for policy in found["policies"]] == ["pass", "crypt", "delay"]
    assert [policy["lost"] and policy["lost"]["rounds"] for policy in found["policies"]] == [
        None, [0, 1, 2], [1]]  # fmt: skip
    answers = here("report", "r", "-o", "r.html").stdout
    assert f"crypt lost all 3 rounds: {why}." in answers
    assert "all of 3" in (tmp_path / "r.html").read_text()
    assert f"not kept: crypt lost all 3 rounds: {why}" in here("fidelity", "r").stdout
    # Alone it leaves nothing to compare, which is told all the same.
    ended = here("compare", "t.parquet", *options, "--policy", "crypt", "-o", "s", "--json")
    assert ended.exit_status == 1
    assert ended.document["policies"][0]["lost"]["of"] == 3
    read_alike(ended, here, "s")
    ended = here("compare", "t.parquet", *options, "--baseline", "crypt", "--policy", "pass",
                 "-o", "b")  # fmt: skip
    assert ended.exit_status == 1
    assert "the baseline crypt lost all 3 rounds" in ended.stderr
    read_alike(ended, here, "b")


def test_rows_of_a_lost_round_are_in_no_figure_of_its_policy(
    compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(job: dict[str, Any], progress: Any) -> Any:
        ended = round_here(job, progress)
        policy, number = (job["options"][key] for key in ("policy", "round"))
        if policy == "crypt" or (policy, number) in (("pass", 1), ("cache", 0)):
            raise RoundLostError("crashed", [])
        return ended

    monkeypatch.setattr(round_loop, "run_round", lose)
    found = compare(reads(50), policies=["pass", "crypt", "cache"], rounds=3)
    run = open_run(tmp_path / "run")
    # All rounds have left rows; two of pass and none of crypt are whole.
    assert run.scan_ios("pass").collect().height == 150
    assert {name: of.n for name, of in latencies(run).items()} == {
        "direct": 150, "direct-again": 150, "pass": 100, "cache": 100}  # fmt: skip
    ios = {each["policy"]: each["ios"] for each in found["layer_sums"]}
    assert ios == {"direct": 150, "direct-again": 150, "pass": 100, "cache": 100}
    assert [each.round for each in hits(run)] == [1, 2]
    assert "crypt" not in {each["policy"] for each in found["layers"]}
    assert summary(run, "pass")["ios"] == 100
    vb.report(run.path, tmp_path / "r.html")
