"""`doctor`: what it says of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vaio_bench import environment, examining
from vaio_bench.warnings import WarningKind


def test_json(cli: Callable[..., Any], tmp_path: Path) -> None:
    ended = cli("doctor", "--json", "--target", tmp_path / "t.img")
    assert ended.exit_status == 0, ended.stderr
    found = ended.document
    assert found["fit"] == (not found["warnings"])
    assert found["environment"]["target"]["path"] == str(tmp_path / "t.img")
    assert {warning["code"] for warning in found["warnings"]} <= {kind.code for kind in WarningKind}
    floor = found["harness_floor"]
    assert 0 < floor["clock_ns"] < floor["null_ns_per_io"]
    # The difference of two measurements: on a noisy machine it may fall on either side of zero.
    assert abs(floor["pass_ns_per_io"]) < floor["null_ns_per_io"]


def test_for_people(cli: Callable[..., Any]) -> None:
    ended = cli("doctor")
    assert ended.exit_status == 0, ended.stderr
    assert "harness floor" in ended.stdout
    assert "fit to measure" in ended.stdout.rstrip().splitlines()[-1]


@pytest.mark.parametrize(
    ("busy", "last"),
    [
        (0.0, "fit to measure"),
        (0.1, "fit to measure with these warnings"),
        (0.97, "not fit to measure now: other programs take 97% of the processors' time"),
    ],
)
def test_a_machine_that_is_at_other_work(
    here: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, busy: float, last: str
) -> None:
    load = {"busy_share": busy, "steal_share": 0.0}
    found = environment.environment()
    found["load"] |= load
    monkeypatch.setattr(examining, "environment", lambda *_: found)
    told = [WarningKind.NOISY_CPU.of(busy=busy)] if busy else []
    monkeypatch.setattr(examining, "warnings_of", lambda _: told)
    floor = {"null_ns_per_io": 100.0, "pass_ns_per_io": -0.5, "clock_ns": 10.0}
    monkeypatch.setattr(examining._core, "harness_floor", lambda: floor)
    printed = here("doctor").stdout
    assert printed.rstrip().splitlines()[-1] == last
    assert "nothing that shows" in printed
