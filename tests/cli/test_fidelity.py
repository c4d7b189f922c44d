"""`fidelity`: a run against its trace, on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from conftest import Ended
from replay_kit import Io, mixed, round_here, write_trace

from vaio_bench import round_loop, runner
from vaio_bench.store import part_folder

Here = Callable[..., Ended]


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(round_loop, "run_round", round_here)
    monkeypatch.setattr(runner._core, "harness_floor", lambda: None)


@pytest.fixture
def replayed(tmp_path: Path, here: Here) -> Path:
    """A trace whose I/Os took 2 ms at capture, 1,000 a second: two in flight."""
    ios = [Io(i * 1_000_000, "read", i * 4096, 4096, latency_ns=2_000_000) for i in range(300)]
    write_trace(tmp_path / "t.parquet", ios)
    (tmp_path / "device.toml").write_text('[[filter]]\nuse = "delay"\nread = "2ms"\n')
    options = ["--backend", "null", "--clock", "virtual", "--policy", "device.toml"]
    assert here("replay", "t.parquet", "-o", "run", *options).exit_status == 0
    return tmp_path / "run"


def test_a_trace_that_was_kept(replayed: Path, here: Here) -> None:
    ended = here("fidelity", "run", "--strict", "--json")
    assert ended.exit_status == 0, ended.stderr
    found = ended.document
    assert found == json.loads((replayed / "results" / "fidelity.json").read_text())
    assert found["faults"] == []
    assert found["trace_at_hand"]
    [each] = found["rounds"]
    assert (each["missing"], each["altered"], each["out_of_order"]) == (0, 0, 0)
    assert each["late_share"] == 0
    assert each["rate_error"] == pytest.approx(0, abs=1e-6)
    # Little: 1,000 a second for 2 ms each.
    assert each["in_flight_recorded_mean"] == pytest.approx(2.0, rel=0.01)
    assert each["in_flight_mean"] == pytest.approx(2.0, rel=0.01)
    assert each["in_flight_error"] == pytest.approx(0, abs=0.02)
    text = here("fidelity", "run").stdout
    assert "the trace was kept" in text
    assert "device, round 1" in text


def test_the_trace_is_found_from_any_folder(
    replayed: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = replayed.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    ended = here("fidelity", replayed, "--json")
    assert ended.document["trace_at_hand"]
    assert ended.document["rounds"][0]["missing"] == 0


def test_rows_that_are_missing_or_other_are_counted(replayed: Path, here: Here) -> None:
    [part] = part_folder(replayed, "device", 0).glob("*.parquet")
    rows = pl.read_parquet(part)
    other = pl.when(pl.col("seq") == 7).then(8192).otherwise(pl.col("length_bytes"))
    rows.filter(pl.col("seq") != 9).with_columns(other.alias("length_bytes")).write_parquet(part)
    ended = here("fidelity", "run", "--strict", "--json")
    assert ended.exit_status == 1
    [each] = ended.document["rounds"]
    assert (each["missing"], each["altered"]) == (1, 1)
    assert "1 I/Os of the trace were not replayed" in ended.stderr
    assert "1 more" in ended.stderr


def test_lateness_fails_only_when_it_is_asked_to(tmp_path: Path, here: Here) -> None:
    ios = [Io(i * 1_000, "read", i * 4096, 4096) for i in range(50)]
    write_trace(tmp_path / "t.parquet", ios)
    (tmp_path / "slow.toml").write_text('[[filter]]\nuse = "delay"\nread = "20ms"\n')
    options = ["--backend", "null", "--clock", "virtual", "--policy", "slow.toml"]
    here("replay", "t.parquet", "-o", "run", *options, "--inflight", "1")
    assert here("fidelity", "run").exit_status == 0
    ended = here("fidelity", "run", "--strict")
    assert ended.exit_status == 1
    assert "slow, round 1: 98.0% of the I/Os were issued late" in ended.stdout
    assert "were issued late" in ended.stderr
    assert here("fidelity", "run", "--strict", "--late-after", "1h").exit_status == 1  # the rate


def test_ios_that_wait_for_one_they_overlap_are_not_out_of_order(
    tmp_path: Path, here: Here
) -> None:
    write_trace(tmp_path / "t.parquet", mixed(3, 400))
    options = ["--backend", "sim", "--clock", "virtual"]
    here("replay", "t.parquet", "-o", "run", *options)
    [each] = here("fidelity", "run", "--json").document["rounds"]
    assert each["conflict_waited"] > 0
    assert each["out_of_order"] == 0
    assert (each["missing"], each["altered"]) == (0, 0)


def test_without_its_trace_the_rest_is_told(replayed: Path, here: Here, tmp_path: Path) -> None:
    (tmp_path / "t.parquet").unlink()
    found = here("fidelity", "run", "--json").document
    assert not found["trace_at_hand"]
    assert found["rounds"][0]["missing"] is None
    assert "rows were not compared" in here("fidelity", "run").stdout


def test_a_window_of_the_trace_is_compared_with_that_window(tmp_path: Path, here: Here) -> None:
    disks = ("a", "b", "c")
    write_trace(tmp_path / "t.parquet", mixed(4, 400, disks=disks))
    options = ["--backend", "null", "--clock", "virtual", "--disk", "a", "--disk", "c"]
    here("replay", "t.parquet", "-o", "run", *options, "--skip", "20", "--limit", "100")
    [each] = here("fidelity", "run", "--json").document["rounds"]
    assert each["ios"] == 100
    assert (each["missing"], each["altered"]) == (0, 0)


def test_what_is_no_run_is_refused(here: Here, tmp_path: Path) -> None:
    ended = here("fidelity", tmp_path)
    assert ended.exit_status == 2
    assert "expected a run folder" in ended.stderr
