"""Replays of small traces through one filter."""

from __future__ import annotations

import random
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import vaio_bench as vb
from vaio_bench.runner import Settings

Io = tuple[int, str, int, int]
"""`(time_ns, op, offset_bytes, length_bytes)`."""


@dataclass(frozen=True)
class Replayed:
    """What came of a replay."""

    summary: dict[str, Any]
    rows: pl.DataFrame
    """In order of the trace."""

    @property
    def events(self) -> pl.DataFrame:
        return vb.open_run(self.summary["run"]).events()


def make_importable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, source: str
) -> None:
    """Makes a module of this source importable, in child processes too."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / f"{module}.py").write_text(textwrap.dedent(source))
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.fixture
def write_trace(tmp_path: Path) -> Callable[[Sequence[Io]], Path]:
    """Writes a trace of one disk and gives its path."""

    def write(ios: Sequence[Io]) -> Path:
        table = tmp_path / "trace.csv"
        lines = ["time_ns,op,offset_bytes,length_bytes", *(",".join(map(str, io)) for io in ios)]
        table.write_text("\n".join(lines) + "\n")
        trace = tmp_path / "trace.parquet"
        vb.import_trace(table, trace, force=True)
        return trace

    return write


@pytest.fixture
def replay(tmp_path: Path) -> Callable[..., Replayed]:
    """Replays a trace through one filter table (None: directly); more settings by name."""
    runs = iter(range(1000))

    def run(
        trace: Path, policy: str | None = None, target: Path | None = None, **settings: Any
    ) -> Replayed:
        number = next(runs)
        file = None
        if policy is not None:
            file = tmp_path / f"policy-{number}.toml"
            file.write_text(f"[[filter]]\n{policy}\n")
        out = tmp_path / f"run-{number}"
        options = {"pace": "asap", "depth": 1, "verify": True, **settings}
        if target is None:
            options = {"backend": "sim", "clock": "virtual", **options}
        summary = vb.replay(
            trace, out=out, target=target, policy=file, settings=Settings(**options)
        )
        return Replayed(summary, vb.open_run(out).scan_ios().sort("seq").collect())

    return run


@pytest.fixture
def mixed_ios() -> list[Io]:
    """Reads, writes, zeroes, discards and flushes of 512-byte sectors that meet each other."""
    rng = random.Random(5)
    ops = ["read"] * 8 + ["write"] * 8 + ["write_zeroes", "discard", "flush"]
    ios: list[Io] = []
    for i in range(3000):
        op = rng.choice(ops)
        offset, length = 512 * rng.randrange(4096), 512 * rng.randrange(1, 80)
        ios.append((i * 1000, op, *((0, 0) if op == "flush" else (offset, length))))
    return ios


@pytest.fixture
def writes() -> list[Io]:
    """Sixty writes here and there."""
    rng = random.Random(2)
    return [(i * 1000, "write", 4096 * rng.randrange(256), 4096) for i in range(60)]
