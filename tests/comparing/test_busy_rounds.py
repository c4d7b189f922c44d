"""What others made of the processors during the rounds: measured, stored and told."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from comparing.conftest import reads

from vaio_bench import environment, round_loop

BURN = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass"


def test_shares_are_of_what_neither_we_nor_our_children_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hertz = os.sysconf("SC_CLK_TCK")
    # User, nice, system, idle, iowait, irq, softirq, steal.
    ticks = iter([[0] * 8, [4 * hertz, 0, hertz, 3 * hertz, 0, hertz, 0, hertz]])
    own_s = itertools.count(0.0, 2.0)
    monkeypatch.setattr(environment, "_ticks", lambda: next(ticks))
    monkeypatch.setattr(environment, "_own_s", lambda: next(own_s))
    assert environment.ProcessorWatch().shares() == pytest.approx((0.3, 0.1))


def test_a_child_that_was_waited_for_is_our_own() -> None:
    before = environment._own_s()
    subprocess.run([sys.executable, "-c", BURN], check=True)
    assert environment._own_s() - before > 0.4


@pytest.mark.parametrize(("others", "is_warned"), [(0.01, False), (0.4, True)])
def test_a_run_tells_who_else_was_there(
    compare: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    others: float,
    is_warned: bool,
) -> None:
    class Watch:
        def shares(self) -> tuple[float, float]:
            return others, 0.0

    monkeypatch.setattr(round_loop, "ProcessorWatch", Watch)
    found = compare(reads(), policies=["pass"])
    told = [each for each in found["warnings"] if each["code"] == "busy-rounds"]
    assert len(told) == is_warned
    assert all("40%" in each["seen"] for each in told)
