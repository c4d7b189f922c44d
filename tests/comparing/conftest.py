"""Comparisons without a process a round: the rounds of `tests/replay`, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from replay_kit import Io, round_here, write_trace

from vaio_bench import comparing, round_loop, runner
from vaio_bench.runner import Settings

FLOOR = {"null_ns_per_io": 100.0, "pass_ns_per_io": 10.0, "clock_ns": 10.0}


def reads(count: int = 200) -> list[Io]:
    """Reads one after the other, all over a mebibyte."""
    return [Io(i * 1_000, "read", i * 7 % 256 * 4096, 4096) for i in range(count)]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds run here, and the harness's floor is not measured."""
    monkeypatch.setattr(round_loop, "run_round", round_here)
    monkeypatch.setattr(runner._core, "harness_floor", lambda: FLOOR)


@pytest.fixture
def compare(tmp_path: Path, in_process: None) -> Callable[..., dict[str, Any]]:
    """`compare(ios, policies=[...], ...)` into `tmp_path/run`, on `mem` as fast as it can."""

    def run(ios: list[Io] | Path, *, out: str = "run", **given: Any) -> dict[str, Any]:
        trace = ios if isinstance(ios, Path) else write_trace(tmp_path / f"{out}.parquet", ios)
        settings = {"backend": "mem", "pace": "asap", "depth": 1, **given.pop("settings", {})}
        given = {"policies": ["pass"], "rounds": 3, **given}
        return comparing.compare(trace, out=tmp_path / out, settings=Settings(**settings), **given)

    return run
