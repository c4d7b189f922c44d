"""A canonical trace as fio's I/O log, version 2 or 3, for `read_iolog=`.

Version 3 is `timestamp_us file action [offset length]`, version 2 `file action [offset length]`
with `file wait ms`, which is the time since the start of the job, as fio itself takes it. A name
holds no blank; `add` and `open` come before the first I/O, else fio crashes (fio#1567).
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import polars as pl

from vaio_bench.errors import InputError, WorkError
from vaio_bench.trace import Trace

FILE = "disk"
_ACTIONS = {"read": "read", "write": "write", "discard": "trim", "flush": "sync"}


@dataclass(frozen=True)
class Exported:
    """What a log holds, and what of the trace it does not."""

    path: Path
    version: int
    ios: dict[str, int]
    bytes: dict[str, int]
    left_out: dict[str, int]


def export(
    trace: Trace,
    path: Path,
    *,
    disk: str | None = None,
    version: int = 3,
    flushes_after: int = 0,
    force: bool = False,
) -> Exported:
    """Writes a trace's I/Os of one disk as an I/O log, aside first and then renamed.

    Args:
        trace: canonical trace.
        path: the log to make.
        disk: of a trace of several, the one to write.
        version: 2 or 3 (fio 3.31 and later).
        flushes_after: so many flushes at the end. fio leaves out of its bytes and latencies what is
            in flight when its log ends: as many flushes as that may be, and it is they.
        force: replace a file that is there.

    Raises:
        InputError: the file is there, the version is no such, or the disk is not in the trace.
        WorkError: the file cannot be written.
    """
    if version not in (2, 3):
        raise InputError(f"--iolog-version: expected 2 or 3, got {version}")
    if path.exists() and not force:
        raise InputError(f"{path}: the file exists (--force replaces it)")
    known = trace.disks
    if disk is None and len(known) > 1:
        raise InputError(f"{trace.path}: has {len(known)} disks: name one with --disk")
    if disk is not None and disk not in known:
        raise InputError(f"--disk: {trace.path} has no disk {disk}, but {', '.join(known[:10])}")
    ios: Counter[str] = Counter()
    moved: Counter[str] = Counter()
    left: Counter[str] = Counter()
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    stamp = "0 " if version == 3 else ""
    last_ms = 0
    try:
        with aside.open("w", encoding="ascii") as file:
            file.write(f"fio version {version} iolog\n{stamp}{FILE} add\n{stamp}{FILE} open\n")
            for batch in trace.batches(["time_ns", "disk", "op", "offset_bytes", "length_bytes"]):
                rows = _rows(batch, disk)
                counts = rows.group_by("op").agg(pl.len(), pl.col("length_bytes").sum())
                for op, count, length in counts.iter_rows():
                    (ios if op in _ACTIONS else left)[op] += count
                    moved[op] += length if op in _ACTIONS else 0
                rows = rows.filter(pl.col("op").is_in(list(_ACTIONS)))
                last_ms = _write(file, rows, version, last_ms)
            end = f"{last_ms * 1000} " if version == 3 else ""
            file.write(f"{end}{FILE} sync 0 0\n" * flushes_after + f"{end}{FILE} close\n")
        os.replace(aside, path)
    except OSError as error:
        raise WorkError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        aside.unlink(missing_ok=True)
    return Exported(path, version, dict(ios), dict(moved), dict(left))


def _rows(batch: Any, disk: str | None) -> pl.DataFrame:
    rows = pl.from_arrow(batch)
    assert isinstance(rows, pl.DataFrame)
    rows = rows.with_columns(pl.col("op", "disk").cast(pl.String))
    return rows if disk is None else rows.filter(pl.col("disk") == disk)


def _write(file: TextIO, rows: pl.DataFrame, version: int,
           last_ms: int) -> int:  # fmt: skip
    """Appends rows; returns the time in milliseconds that the log has come to."""
    lines = []
    for time_ns, op, offset, length in rows.select(
        "time_ns", "op", "offset_bytes", "length_bytes"
    ).iter_rows():
        if version == 3:
            last_ms = -(-time_ns // 1_000_000)
            lines.append(f"{time_ns // 1000} {FILE} {_ACTIONS[op]} {offset} {length}\n")
            continue
        if time_ns // 1_000_000 > last_ms:
            last_ms = time_ns // 1_000_000
            lines.append(f"{FILE} wait {last_ms} 0\n")
        lines.append(f"{FILE} {_ACTIONS[op]} {offset} {length}\n")
    file.write("".join(lines))
    return last_ms
