import math
import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from run_folder import make_run

from vaio_bench.analyses.layers import inside_ns
from vaio_bench.analyses.overhead import overhead
from vaio_bench.reporting import words
from vaio_bench.store import open_run


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (12_400, "12.4 µs"),
        (-3_000, "−3 µs"),  # noqa: RUF001
        (1_500_000, "1.50 ms"),
        (2.5e9, "2.50 s"),
        (None, "–"),  # noqa: RUF001
        (float("nan"), "–"),  # noqa: RUF001
    ],
)
def test_durations(ns: float | None, text: str) -> None:
    assert words.duration(ns) == text


def test_what_two_measurements_differ_by_is_never_less_than_nothing() -> None:
    assert words.more(22.0) == "22 ns more"
    assert words.more(-0.5) == "nothing that shows"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 s"),
        (0.02, "20 ms"),
        (90, "90 s"),
        (900, "15 min"),
        (7300, "2.03 h"),
        (1e6, "11.6 days"),
    ],
)
def test_long_times(value: float, text: str) -> None:
    assert words.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "100 %"),
        (0.99995, "> 99.99 %"),  # never rounded up to a promise
        (0.987, "98.7 %"),
        (0.0055, "0.55 %"),
        (0.00001, "< 0.01 %"),
        (0.0, "0 %"),
    ],
)
def test_shares(value: float, text: str) -> None:
    assert words.share(value) == text


def test_changes_sizes_and_rates() -> None:
    assert words.change(1.18) == "+18.0 %"
    assert words.change(0.5) == "−50.0 %"  # noqa: RUF001
    assert words.change(12.5) == "×12.5"  # noqa: RUF001
    assert words.change(1.0) == "0 %"
    assert words.span(1e-5, 1e8) == "< −99.9 % to > ×1,000"  # noqa: RUF001
    assert words.span(1.15, 1.21) == "+15.0 to +21.0 %"
    assert words.span(None, None) == "no interval"
    assert words.size(4096) == "4 KiB"
    assert words.size(0) == "0 B"
    assert words.rate(163.2e6) == "163 Mbit/s"
    assert words.rate_needed(163.2e6) == "164 Mbit/s"


def test_the_sentence_says_what_was_measured(tmp_path, make_example) -> None:
    found = overhead(make_example(tmp_path / "run"))
    text = words.overhead_sentence("crypt", found.policies["crypt"], found)
    assert text.startswith("crypt adds 1")
    assert re.search(r"adds [\d.]+ µs \[[\d.]+, [\d.]+\] to the median I/O \(\+1", text), text
    assert "above the noise floor of" in text
    assert "more CPU per I/O" in text


def test_rpo_sentences() -> None:
    plan = {"target_s": 5.0}
    met = {"mode": "cdp", "point_interval_s": 0, "met_time": 1.0, "rpo_s": {"max": 4.1}}
    assert words.rpo_sentence(plan, met) == (
        "CDP, continuous keeps the RPO within 5 s all the time; the worst moment is 4.10 s."
    )
    missed = {
        "mode": "snapshot",
        "every_s": 900.0,
        "met_time": 0.0055,
        "rpo_s": {"max": 1043.0},
        "bandwidth_for_target_bps": {"100": None},
    }
    assert words.rpo_sentence(plan, missed).endswith("no bandwidth would keep it all the time.")


def test_where_rounds_leave_it_open_the_time_inside_the_filters_is_told(
    tmp_path, make_example
) -> None:
    run = open_run(make_example(tmp_path / "run"))
    found = overhead(run)
    inside = inside_ns(run)
    of = found.policies["crypt"]
    assert "Inside its filters" not in words.overhead_sentence("crypt", of, found, inside)
    median = replace(of["latency_p50_ns"], verdict="no difference shown")
    text = words.overhead_sentence("crypt", {"latency_p50_ns": median}, found, inside)
    rows = run.measured_ios("crypt").filter(pl.col("status") == 0).collect()
    own = rows["self_ns"].list.to_array(2).arr.first().sort()
    assert inside["crypt"] == own[math.ceil(len(own) / 2) - 1]
    assert f"spends {words.duration(inside['crypt'])} (median" in text


def test_one_round_has_no_interval_and_says_so_once(tmp_path: Path) -> None:
    found = overhead(make_run(tmp_path / "run", rounds=1, ios=50))
    text = words.overhead_sentence("crypt", found.policies["crypt"], found)
    assert "was measured in one round, which proves nothing about the median I/O (" in text
    assert text.count("interval") == 1
    assert ", no interval)" in text
