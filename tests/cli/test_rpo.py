"""`vaio-bench rpo` as a command: the document, the sentence, the run folder, wrong input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.analyses.test_rpo import MS, store
from vaio_bench.analyses.run_rpo import Replicated, RunRpo
from vaio_bench.reporting import rpo_part, words

ROWS = [(i * 50 * MS, "d", "write", i % 64 * 4096, 16_384) for i in range(400)]
LINK = ("--link", "2Mbit/s,20ms")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return store(tmp_path / "t.parquet", ROWS)


def test_the_document_has_the_agreed_shape(cli: Any, trace: Path) -> None:
    ended = cli("rpo", trace, *LINK, "--target-rpo", "5s", "--json")
    assert ended.exit_status == 0
    # 20 s of trace hold no snapshot every 15 min.
    assert ended.stderr.count("\n") == 1
    assert "the trace of 19.95 s ends before the first snapshot" in ended.stderr
    found = ended.document
    assert found["link"] == {"bandwidth_bps": 2_000_000, "rtt_s": 0.02}
    assert found["target_s"] == 5
    cdp, snapshot = found["modes"]
    assert (cdp["mode"], cdp["point_interval_s"]) == ("cdp", 2.5)
    assert (snapshot["mode"], snapshot["every_s"]) == ("snapshot", 900)
    for mode in found["modes"]:
        assert {*mode} >= {
            "rpo_s", "exposure_s", "met_time", "met_sessions", "no_restore_point_time",
            "violations", "bandwidth_for_target_bps", "backlog_bytes_max", "sent_bytes",
            "written_bytes",
        }  # fmt: skip
        assert {*mode["rpo_s"]} == {*mode["exposure_s"]} == {"p50", "p95", "p99", "max"}
        assert {*mode["bandwidth_for_target_bps"]} == {"100", "99.9", "99", "95", "90"}


def test_options_are_echoed_in_their_mode(cli: Any, trace: Path) -> None:
    found = cli(
        "rpo", trace, *LINK, "--point-interval", "0", "--snapshot-every", "5s",
        "--snapshot-every", "2s", "--granularity", "64KiB", "--json",
    ).document  # fmt: skip
    cdp, *snapshots = found["modes"]
    assert (cdp["point_interval_s"], cdp["met_sessions"]) == (0, None)
    assert [mode["every_s"] for mode in snapshots] == [5, 2]
    assert [mode["granularity_bytes"] for mode in snapshots] == [65_536] * 2


def test_the_answer_comes_first(cli: Any, trace: Path) -> None:
    ended = cli("rpo", trace, *LINK, "--target-rpo", "5s", "--snapshot-every", "4s")
    assert ended.exit_status == 0
    answer = ended.stdout.strip().splitlines()[0]
    assert answer.startswith("RPO of 5 s held ")
    assert "% of the time over 2 Mbit/s; 2." in answer
    assert "Mbit/s would have held it throughout; snapshots every 4 s would have lost" in answer


def test_a_trace_without_a_recoverable_point_is_too_short_to_tell(
    cli: Any, trace: Path, tmp_path: Path
) -> None:
    # In sync at its start, any trace of 12 s holds 5 s for 5 of them.
    slow = ("--link", "1kbit/s", "--target-rpo", "5s", "--snapshot-every", "4s")
    ended = cli("rpo", trace, *slow)
    assert ended.stdout.startswith("No restore point was recoverable over 1 kbit/s within the")
    assert "too short to tell how much of the time an RPO of 5 s is held; " in ended.stdout
    assert "Mbit/s would have held it throughout" in ended.stdout
    [told] = [line for line in ended.stdout.splitlines() if "time in target" in line]
    assert told.count("too short to tell") == 2
    plan = cli("rpo", trace, *slow, "--json").document
    for mode in plan["modes"]:
        assert "too short to tell" in words.rpo_sentence(plan, mode)
    # The report says it once, for all modes together.
    nothing = RunRpo(None, [])
    [line] = rpo_part.rpo_answer(plan, nothing).lines
    assert line.badge == "too short to tell"
    none = "None of snapshots every 4 s was recoverable either."
    assert line.text == f"{plan['answer']}. {none}"
    [line] = rpo_part.rpo_answer({**plan, "answer": None}, nothing).lines
    assert line.text.startswith("CDP, a point every 2.50 s and snapshots every 4 s: no point was")
    # What a run had is as short.
    had = {"duration_s": 20.0, "rpo_s": {"max": 20.0}, "met_time": 0.25, "target_s": 5.0}
    run = Replicated("cdp", 0, "", {**had, "first_point_s": 0.0})
    [line, measured] = rpo_part.rpo_answer(plan, RunRpo(None, [run])).lines
    assert measured.badge == "too short to tell"
    assert measured.text == "cdp, as measured: no restore point was recoverable within 20 s."
    # A mode that has points keeps its line.
    quick = cli("rpo", trace, *LINK, "--target-rpo", "5s", "--json").document
    lines = rpo_part.rpo_answer(quick, nothing).lines
    assert [line.badge for line in lines[1:]] == ["79.0 % of the time", "too short to tell"]
    # Shorter than the target, it would be held without any link.
    ended = cli("rpo", trace, "--link", "1kbit/s", "--target-rpo", "1h")
    assert ended.stdout.splitlines()[0].endswith("an RPO of 1 h is held.")


def test_what_saves_nothing_is_told_so(cli: Any, trace: Path) -> None:
    """Blocks of 64 KiB for writes of 16 KiB, of which no block is written again in 2.5 s."""
    coarse = ("--granularity", "64KiB", "--point-interval", "100ms")
    assert (
        min(at["gain"] for at in cli("rpo", trace, *LINK, *coarse, "--json").document["folding"])
        < 0
    )
    text = cli("rpo", trace, *LINK, *coarse).stdout
    [row] = [line for line in text.splitlines() if line.startswith(" 100 ms ")]
    assert " none " in row
    assert "-" not in row
    assert "more than the writes were, where nothing is saved" in text
    assert "nothing is saved" not in cli("rpo", trace, *LINK, "--granularity", "4KiB").stdout


def test_a_cell_is_told_in_full(cli: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = [(i * 50 * MS, f"disk-{i % 3}", "write", i * 4096, 16_384) for i in range(400)]
    trace = store(tmp_path / "three.parquet", rows)
    # Below the round trip: at no bandwidth.
    text = cli("rpo", trace, *LINK, "--target-rpo", "1ms").stdout
    of_rates = text[text.index("rates") :]
    assert of_rates.count("bandwidth") == 4
    assert "bandwid\u2026" not in text


def test_a_bandwidth_that_is_told_is_enough(cli: Any, trace: Path) -> None:
    link, target = ("--link", "2.1234Mbit/s,20ms"), ("--target-rpo", "5s")
    needed = cli("rpo", trace, *link, *target, "--json").document["modes"][0]
    needed_bps = needed["bandwidth_for_target_bps"]["99.9"]
    assert needed_bps % 10_000, "a figure that loses by rounding"
    text = cli("rpo", trace, *link, *target).stdout
    assert " over 2.1234 Mbit/s; " in text
    [told] = [line.split() for line in text.splitlines() if "99.9 % needs" in line]
    assert told[7] == "Mbit/s"
    assert needed_bps <= float(told[6]) * 1e6 < needed_bps * 1.01


def test_a_run_folder_keeps_the_document(cli: Any, trace: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "manifest.json").write_text('{"schema_version": 1}')
    first = cli("rpo", trace, *LINK, "-o", run, "--json")
    assert first.exit_status == 0
    assert json.loads((run / "results" / "rpo.json").read_text()) == first.document
    again = cli("rpo", trace, "--link", "3Mbit/s", "-o", run, "--json")
    assert (again.exit_status, again.stdout) == (2, "")
    assert f"{run}/results/rpo.json: the file exists (--force replaces it)" in again.stderr
    forced = cli("rpo", trace, "--link", "3Mbit/s", "-o", run, "--force", "--json")
    assert json.loads((run / "results" / "rpo.json").read_text()) == forced.document
    nowhere = cli("rpo", trace, *LINK, "-o", tmp_path / "none", "--json")
    assert nowhere.exit_status == 2


def test_a_target_below_the_round_trip_is_answered_with_a_warning(cli: Any, trace: Path) -> None:
    ended = cli("rpo", trace, "--link", "1Gbit/s,20ms", "--target-rpo", "5ms", "--json")
    assert ended.exit_status == 0
    assert "below the link's round trip" in ended.stderr
    assert ended.document["warnings"][0] in ended.stderr
    assert ended.document["modes"][0]["bandwidth_for_target_bps"]["100"] is None


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--link", "0Mbit/s"], '--link: expected a bandwidth above zero, got "0Mbit/s"'),
        (["--link", "0.1bit/s"], '--link: expected a bandwidth above zero, got "0.1bit/s"'),
        (["--link", "100"], '--link: expected a rate such as "100Mbit/s", got "100"'),
        (["--link", "fast"], '--link: expected a rate such as "100Mbit/s", got "fast"'),
        (["--link", "1Mbit/s,x"], '--link (round trip): expected a time such as "5s", got "x"'),
        ([*LINK, "--target-rpo", "soon"], '--target-rpo: expected a time such as "5s"'),
        ([*LINK, "--target-rpo", "0s"], "target-rpo: expected a time above zero, got 0"),
        ([*LINK, "--snapshot-every", "0s"], "snapshot-every: expected a time above zero, got 0"),
        ([*LINK, "--granularity", "3000"], "granularity: expected a power of two from 512"),
        ([*LINK, "--compression", "1"], "compression: expected a share from 0 to below 1, got 1"),
        ([*LINK, "--growth", "much"], '--growth: expected a share such as "40%" or 0.4'),
        ([*LINK, "--link-efficiency", "0"], "link-efficiency: expected a share above 0"),
        ([*LINK, "--fault", "at=1s"], "--fault: expected KIND,KEY=VALUE such as"),
        ([*LINK, "--fault", "outage,5s"], "--fault: expected KIND,KEY=VALUE such as"),
        ([*LINK, "--fault", "flood,at=1s"], 'faults[0].kind: expected one of "outage", "reset"'),
        ([*LINK, "--fault", "outage,at=x,for=1s"], 'faults[0].at: expected a time such as "100us"'),
        ([*LINK, "--fault", "outage,at=1s"], "faults[0].for: expected how long it lasts, such as"),
        ([*LINK, "--fault", "outage,for=1s"], "faults[0]: missing field"),
        ([*LINK, "--fault", "outage,at=1s,for=1s,to=3s"], "faults[0].to: unknown key: expected"),
        (
            [*LINK, "--fault", "reset,at=1s", "--fault", "bandwidth,at=1s,bandwidth=0Mbit/s"],
            'faults[1].bandwidth: expected a rate such as "100Mbit/s"',
        ),
    ],
)
def test_wrong_options_are_named(cli: Any, trace: Path, args: list[str], message: str) -> None:
    ended = cli("rpo", trace, *args, "--json")
    assert (ended.exit_status, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    assert message in ended.stderr


def test_wrong_files_are_named(cli: Any, tmp_path: Path) -> None:
    none = tmp_path / "none.parquet"
    text = tmp_path / "text.parquet"
    text.write_text("time_ns,op\n0,write\n")
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), other)
    back = store(tmp_path / "back.parquet", [*ROWS[:20], (5, "d", "write", 0, 512)])
    negative = store(tmp_path / "negative.parquet", [*ROWS[:9], (S_LAST, "d", "write", -1, 512)])
    for path, message in (
        (none, "no such file"),
        (text, "expected a canonical trace"),
        (other, "expected"),
        (back, "row 20: time_ns: expected at least the row before, got 5"),
        (negative, "row 9: offset_bytes: expected 0 or more, got -1"),
    ):
        ended = cli("rpo", path, *LINK, "--json")
        assert (ended.exit_status, ended.stdout) == (2, "")
        assert ended.stderr.startswith(f"vaio-bench: {path}: ")
        assert message in ended.stderr
        assert ended.stderr.count("\n") == 1


S_LAST = ROWS[9][0]


@pytest.mark.parametrize("rows", [[], [(0, "d", "write", 0, 4096)], [(0, "d", "read", 0, 512)]])
def test_traces_without_duration_or_writes(cli: Any, tmp_path: Path, rows: Any) -> None:
    ended = cli("rpo", store(tmp_path / "t.parquet", rows), *LINK, "--json")
    assert ended.exit_status == 0
    assert "spans no time" in ended.stderr
    for mode in ended.document["modes"]:
        assert (mode["met_time"], mode["violations"]) == (1, [])


def test_a_trace_that_only_reads_needs_no_bandwidth(cli: Any, tmp_path: Path) -> None:
    rows = [(i * 1000 * MS, "d", "read", 0, 4096) for i in range(100)]
    found = cli("rpo", store(tmp_path / "t.parquet", rows), *LINK, "--json").document
    cdp = found["modes"][0]
    assert (cdp["bandwidth_for_target_bps"]["100"], cdp["sent_bytes"], cdp["met_time"]) == (0, 0, 1)
    assert cdp["rpo_s"]["max"] == 2.5
    assert cdp["exposure_s"]["max"] == 0


def test_only_writes_are_lost_and_only_to_snapshots_that_come(cli: Any, tmp_path: Path) -> None:
    for op, every, is_told in (
        ("write", "5s", True),
        ("read", "5s", False),
        ("write", "2min", False),
    ):
        rows = [(i * 1000 * MS + 1, "d", op, 4096 * i, 4096) for i in range(60)]
        trace = store(tmp_path / f"{op}.parquet", rows)
        told = cli("rpo", trace, *LINK, "--snapshot-every", every)
        assert ("would have lost up to" in told.stdout) == is_told


def test_faults_are_planned_with_and_echoed(cli: Any, trace: Path, tmp_path: Path) -> None:
    """20 writes come a second: of 6 s down, 120 wait at their end."""
    faults = [
        "--fault", "outage,at=2s,for=6s", "--fault", "bandwidth,at=3s,bandwidth=8Mbit/s",
        "--fault", "rtt,at=2s,rtt=1ms",
    ]  # fmt: skip
    link = ("--link", "4Mbit/s,20ms", "--point-interval", "0s")
    ended = cli("rpo", trace, *link, *faults, "--sheets", tmp_path / "plan", "--json")
    assert ended.exit_status == 0, ended.stderr
    assert "an outage of 6 s is longer than the target of 5 s" in ended.stderr
    assert ended.document["inputs"]["faults"] == [
        {"kind": "outage", "at_s": 2, "for_s": 6},
        {"kind": "bandwidth", "at_s": 3, "bandwidth_bps": 8_000_000},
        {"kind": "rtt", "at_s": 2, "rtt_s": 0.001},
    ]
    [outage] = ended.document["outages"]
    assert (outage["from_s"], outage["to_s"]) == (2, 8)
    assert outage["backlog_bytes"] == 120 * 16_384
    # 1 MB/s less the 328 kB/s that go on coming.
    assert outage["caught_up_s"] == pytest.approx(120 * 16_384 / (1e6 - 327_680), rel=0.01)
    assert ended.document["modes"][0]["rpo_s"]["max"] == pytest.approx(6, abs=0.1)
    assert ended.document["modes"][0]["bandwidth_for_target_bps"]["100"] is None
    assert (tmp_path / "plan" / "outages.csv").read_text().count("\n") == 2
    assert "Outage at 2 s for 6 s: 1.88 MiB behind" in cli("rpo", trace, *link, *faults).stdout
    # Without them there is nothing of it.
    plain = cli("rpo", trace, *link, "--json").document
    assert (plain["inputs"]["faults"], plain["outages"]) == ([], [])
    assert plain["modes"][0]["rpo_s"]["max"] < 0.1


def test_groups_and_sheets(cli: Any, trace: Path, tmp_path: Path) -> None:
    ended = cli("rpo", trace, *LINK, "--group", "vm=d", "--sheets", tmp_path / "plan", "--json")
    assert ended.exit_status == 0
    assert [load["name"] for load in ended.document["loads"]] == ["all disks", "vm", "d"]
    assert (tmp_path / "plan" / "loads.csv").read_text().count("\n") == 4
    again = cli("rpo", trace, *LINK, "--sheets", tmp_path / "plan", "--json")
    assert (again.exit_status, "(--force replaces it)" in again.stderr) == (2, True)
    wrong = cli("rpo", trace, *LINK, "--group", "vm", "--json")
    assert wrong.exit_status == 2
    assert '--group: expected NAME=DISK,DISK with a name once, got "vm"' in wrong.stderr
