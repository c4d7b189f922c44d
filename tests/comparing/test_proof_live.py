"""Proof that the instrument works, on the machine at hand: slow, and it may be busy.

Nothing here is a limit on a time. Noise widens intervals and raises the floor; that equals are not
told apart and that the truth is covered must hold of a busy machine as of a quiet one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from comparing.conftest import reads
from replay_kit import policy_file, write_trace

from vaio_bench import comparing, spec
from vaio_bench.analyses.overhead import compare_figures
from vaio_bench.analyses.rounds import round_figures
from vaio_bench.runner import Plan, Settings, execute
from vaio_bench.store import open_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]

HERE, IN_PROCESSES, MODELLED = 180, 20, 15
METRIC = "latency_p50_ns"
Compare = Callable[..., dict[str, Any]]


def held(folder: Path, name: str, delay_us: int) -> str:
    """A policy of one delay, spun: exact on the wall clock."""
    text = f'[[filter]]\nuse = "delay"\nread = "{delay_us}us"\nspin = true\n'
    return str(policy_file(folder, text, name))


def found_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    policies = {policy["name"]: policy["metrics"] for policy in document["policies"]}
    metrics: dict[str, Any] = policies[name][METRIC]
    return metrics


def is_accused(of: dict[str, Any]) -> bool:
    return of["verdict"] in ("slower", "faster")


def covers(of: dict[str, Any], added_ns: float) -> bool:
    return bool(of["added_low"] <= added_ns <= of["added_high"])


def test_of_200_comparisons_of_equals_on_a_real_file_at_most_18_differ(
    compare: Compare, tmp_path: Path
) -> None:
    empty = str(policy_file(tmp_path, "", "empty"))
    five = held(tmp_path, "five", 5)
    trace = write_trace(tmp_path / "t.parquet", reads(300))
    accused = covered = 0
    for number in range(HERE):
        document = compare(
            trace,
            out=f"here{number}",
            policies=[empty, five],
            rounds=4,
            target=tmp_path / "disk.img",
            settings={"backend": "uring", "seed": number},
        )
        accused += is_accused(found_of(document, "empty"))
        # The framework's call of the filter comes on top of what it spins.
        covered += covers(found_of(document, "five"), 5_100)
    assert covered >= 0.9 * HERE, f"{covered} of {HERE}"
    # Twenty more with a process a round are in the next test: these 180 have 14 of the 18.
    assert accused <= 14, f"{accused} of {HERE}"


def test_of_20_comparisons_with_a_process_a_round_at_most_4_differ(tmp_path: Path) -> None:
    empty = policy_file(tmp_path, "", "empty")
    trace = write_trace(tmp_path / "t.parquet", reads(1_000))
    accused = 0
    for number in range(IN_PROCESSES):
        document = comparing.compare(
            trace,
            policies=[empty],
            out=tmp_path / f"run{number}",
            target=tmp_path / "disk.img",
            rounds=8,
            settings=Settings(pace="asap", depth=1, seed=number),
        )
        accused += is_accused(found_of(document, "empty"))
    assert accused <= 4, f"{accused} of {IN_PROCESSES}"


def test_known_costs_on_a_modelled_device_of_50_us(compare: Compare, tmp_path: Path) -> None:
    device = held(tmp_path, "device", 50)
    truth = {"twin": 0, "plus1": 1, "plus5": 5, "plus20": 20}
    policies = [held(tmp_path, name, 50 + added) for name, added in truth.items()]
    trace = write_trace(tmp_path / "t.parquet", reads(300))
    covered = intervals = 0
    for number in range(MODELLED):
        document = compare(
            trace, out=f"run{number}", baseline=device, policies=policies, rounds=12,
            settings={"backend": "null", "seed": number},
        )  # fmt: skip
        for name, added in truth.items():
            of = found_of(document, name)
            covered += covers(of, added * 1_000)
            intervals += 1
        assert found_of(document, "plus5")["verdict"] == "slower"
        assert found_of(document, "plus20")["verdict"] == "slower"
        # Two filters of equal cost are never ranked.
        assert not is_accused(found_of(document, "twin"))
    assert covered >= 0.9 * intervals, f"{covered} of {intervals}"


def test_the_direct_path_and_a_policy_without_filters_are_equivalent(
    in_process: None, tmp_path: Path
) -> None:
    """On the wall clock and a modelled device of 80 us, which keeps its times on a busy machine."""
    arms = comparing.arms(spec.direct(), [spec.load_policy(policy_file(tmp_path, "", "empty"))])
    trace = write_trace(tmp_path / "t.parquet", reads(300))
    settings = Settings(pace="asap", depth=1, backend="sim")
    run = execute(trace, arms, Plan(12, baseline="direct"), settings, None, tmp_path / "run")
    # The verb refuses verdicts of a modelled device: the same figures, the same code below it.
    figures = round_figures(open_run(run))
    found = compare_figures(figures, ["empty"], "direct", 0.02, clock_ns=10).policies["empty"]
    of = found[METRIC]
    # Below the noise floor nothing is claimed, not even that; inside the margin it must lie.
    assert of.verdict in ("equivalent", "no difference shown")
    assert of.interval.low is not None
    assert of.interval.high is not None
    assert 1 / 1.02 <= of.interval.low <= of.interval.high <= 1.02
