"""Runs of the engine without a process a round, which is what takes most of a small run's time.

The processes have tests of their own in `test_ends.py`, and every use of `cli` runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from replay_kit import Io, round_here, write_trace

from vaio_bench import replay, round_loop, runner
from vaio_bench.runner import Settings
from vaio_bench.store import Run, open_run


@dataclass(frozen=True)
class Replayed:
    """A run and the document that `replay` gave."""

    run: Run
    found: dict[str, Any]

    @property
    def totals(self) -> dict[str, Any]:
        """Those of the first round."""
        return self.run.totals(self.found["policy"], 0)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Replayed]:
    """Replays I/Os (or a trace) here and now: `engine(ios, target=..., policy=..., pace=...)`."""
    monkeypatch.setattr(round_loop, "run_round", round_here)
    monkeypatch.setattr(runner._core, "harness_floor", lambda: {"null_ns": 100.0})
    count = 0

    def run(
        ios: list[Io] | Path,
        *,
        target: Path | None = None,
        policy: Path | str | None = None,
        rounds: int = 1,
        **settings: Any,
    ) -> Replayed:
        nonlocal count
        count += 1
        trace = ios if isinstance(ios, Path) else write_trace(tmp_path / f"t{count}.parquet", ios)
        chosen = Settings(**{"backend": "mem", "clock": "virtual", **settings})
        found = replay(
            trace,
            out=tmp_path / f"run{count}",
            target=target,
            policy=policy,
            rounds=rounds,
            settings=chosen,
        )
        return Replayed(open_run(tmp_path / f"run{count}"), found)

    return run
