"""What the tests of replay share: small traces, and runs without a process for each round."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from vaio_bench import round_child, round_process
from vaio_bench import trace as traces
from vaio_bench.errors import InputError, ServerLostError, ServerSilentError, VaioBenchError
from vaio_bench.store import Run

OPS = ("read", "write", "flush", "discard", "write_zeroes")
FUA, PREFLUSH = traces.FLAGS["fua"], traces.FLAGS["preflush"]


@dataclass(frozen=True)
class Io:
    """One I/O of a trace."""

    time_ns: int
    op: str
    offset: int = 0
    length: int = 0
    disk: str = "disk"
    flags: int = 0
    latency_ns: int | None = None


def write_trace(path: Path, ios: Sequence[Io]) -> Path:
    """Writes a canonical trace."""
    rows = {
        "time_ns": [io.time_ns for io in ios],
        "disk": [io.disk for io in ios],
        "op": [io.op for io in ios],
        "offset_bytes": [io.offset for io in ios],
        "length_bytes": [io.length for io in ios],
        "latency_ns": [io.latency_ns for io in ios],
        "flags": [io.flags for io in ios],
        "stream": [None] * len(ios),
    }
    with traces.TraceWriter(path) as writer:
        writer.write(pa.RecordBatch.from_pydict(rows, schema=traces.SCHEMA))
        writer.close({})
    return path


def mixed(
    seed: int,
    ios: int = 250,
    *,
    reach: int = 1 << 20,
    align: int = 1,
    longest: int = 100 << 10,
    gap_ns: int = 20_000,
    disks: Sequence[str] = ("disk",),
    ops: Sequence[str] = ("read", "read", "write", "write", *OPS),
) -> list[Io]:
    """Every kind of I/O in a small area, so that they overlap; with FUA and preflush."""
    draw = random.Random(seed)
    found = []
    for number in range(ios):
        op = draw.choice(ops)
        disk = draw.choice(list(disks))
        flags = draw.choice((0, 0, FUA, PREFLUSH, FUA | PREFLUSH)) if op == "write" else 0
        offset = length = 0
        if op != "flush":
            short = draw.random() < 0.5
            length = draw.randint(1, max(1, (16 << 10 if short else longest) // align)) * align
            offset = draw.randrange(0, (reach - length) // align + 1) * align
        # Bursts: several at the same time.
        found.append(Io(number // 4 * gap_ns, op, offset, length, disk, flags))
    return found


def rows_of(run: Run, policy: str = "direct", round_: int = 0) -> pl.DataFrame:
    """A round's rows in the order of the trace."""
    frame = run.scan_ios(policy, round_).collect()
    return frame.sort("disk", "seq", "trace_offset_bytes").with_columns(
        pl.col("disk", "op", "policy").cast(pl.String)
    )


def policy_file(folder: Path, text: str, name: str = "chain") -> Path:
    """Writes a policy of `[[filter]]` tables."""
    path = folder / f"{name}.toml"
    path.write_text(f'[policy]\nname = "{name}"\n{text}', encoding="utf-8")
    return path


def filters(*uses: str | dict[str, Any]) -> str:
    """`[[filter]]` tables, by name or as their keys."""
    text = ""
    for use in uses:
        keys = {"use": use} if isinstance(use, str) else use
        text += "\n[[filter]]\n" + "".join(f"{k} = {_toml(v)}\n" for k, v in keys.items())
    return text


class Raw(str):
    """A value of a policy that is TOML as it stands, such as a table."""

    __slots__ = ()


def _toml(value: Any) -> str:
    return str(value) if isinstance(value, int | float | Raw) else f'"{value}"'


def child_of(process: subprocess.Popen[str]) -> int:
    """The process of the round that a running replay is in."""
    folder = Path(f"/proc/{process.pid}/task")
    children = [(task / "children").read_text().split() for task in folder.iterdir()]
    [pid] = [int(pid) for pids in children for pid in pids]
    return pid


def in_flight_max(rows: pl.DataFrame) -> int:
    """The most I/Os that were in flight at one time, by their times alone."""
    return max(_depths(zip(rows["submit_ns"], rows["complete_ns"], strict=True)), default=0)


def _depths(spans: Iterable[tuple[int, int]]) -> Iterable[int]:
    moments = []
    for start, end in spans:
        moments += [(start, 1), (end, -1)]
    depth = 0
    # One that ends makes room for one that starts at the same time.
    for _, step in sorted(moments):
        depth += step
        yield depth


def round_here(job: dict[str, Any], progress: Any) -> round_process.Ended:
    """A round in this process: what `round_process.run_round` does in one of its own."""
    events: list[dict[str, Any]] = []

    def hear(document: dict[str, Any]) -> None:
        events.extend(document.get("events", []))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(round_child, "_say", hear)
        patch.setattr(round_child, "_stop_when_told", lambda round_: None)
        try:
            result = round_child.run(job)
        except ServerLostError as error:
            is_silent = isinstance(error, ServerSilentError)
            lost = round_process.RoundLostError(str(error), events, is_silent=is_silent)
            raise lost from None
        except VaioBenchError as error:
            kind = type(error) if isinstance(error, InputError) else VaioBenchError
            raise round_process.RoundError(kind, str(error)) from None
    return round_process.Ended(result["totals"], result["settled"], events)
