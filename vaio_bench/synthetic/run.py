"""`synth`: makes a synthetic trace and writes it as canonical Parquet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from vaio_bench import _core
from vaio_bench.synthetic.generate import batches
from vaio_bench.synthetic.presets import find_spec
from vaio_bench.synthetic.spec import SECTOR_BYTES, Spec, check_spec, override
from vaio_bench.trace import ROW_GROUP_ROWS, TraceWriter

# With content a row group is also bounded by its bytes.
_ROW_GROUP_BYTES = 256 << 20


@dataclass(frozen=True)
class SynthResult:
    """What `synth` made; `spec` is the spec with every default and override filled in."""

    trace: str
    ios: int
    duration_s: float
    read_bytes: int
    write_bytes: int
    disks: list[str]
    seed: int
    spec: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """The document of `synth --json`."""
        return asdict(self)


def synth(
    spec: str | Path | dict[str, Any],
    out: str | Path,
    *,
    seed: int | None = None,
    ios: int | None = None,
    duration: str | None = None,
    footprint: str | int | None = None,
    rate: float | None = None,
    force: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> SynthResult:
    """Makes a synthetic trace.

    Args:
        spec: Name of a preset, path of a spec file, or a spec as a dict.
        out: The Parquet file to write; written aside and renamed when complete.
        seed: In place of the spec's.
        ios: Number of I/Os, in place of the spec's `ios` and `duration`.
        duration: Such as "60s", likewise; with `ios`, whichever comes first.
        footprint: Such as "4GiB": where the furthest stream ends; several shrink in proportion.
        rate: I/Os per second of the whole trace.
        force: Replace `out` if it exists.
        progress: Called with (rows done, rows expected) now and then.

    Raises:
        InputError: A wrong spec or value (one line each), `out` exists or its folder does not.
        WorkError: `out` cannot be written.
    """
    where = "spec" if isinstance(spec, dict) else str(spec)
    found = check_spec(spec, where) if isinstance(spec, dict) else find_spec(where)
    chosen = override(
        found, where, seed=seed, ios=ios, duration=duration, footprint=footprint, rate=rate
    )
    with TraceWriter(out, force=force, content=chosen.content is not None) as writer:
        result = _write(chosen, writer, progress)
        writer.close(_metadata(chosen))
    return result


def _write(
    spec: Spec, writer: TraceWriter, progress: Callable[[int, int], object] | None
) -> SynthResult:
    expected = _expected_rows(spec)
    done, last_ns = 0, 0
    totals = {"read": 0, "write": 0}
    group: list[pa.RecordBatch] = []
    for batch in batches(spec):
        group.append(batch)
        if _is_full(group):
            _flush(writer, group)
        done += len(batch)
        last_ns = batch.column("time_ns")[-1].as_py()
        _add_bytes(totals, batch)
        if progress:
            progress(done, expected)
    if group:
        _flush(writer, group)
    return SynthResult(
        trace=str(writer.path),
        ios=done,
        duration_s=last_ns / 1e9,
        read_bytes=totals["read"],
        write_bytes=totals["write"],
        disks=spec.disks,
        seed=spec.seed,
        spec=spec.stored(),
    )


def _is_full(group: list[pa.RecordBatch]) -> bool:
    rows = sum(len(batch) for batch in group)
    return rows >= ROW_GROUP_ROWS or sum(batch.nbytes for batch in group) >= _ROW_GROUP_BYTES


def _flush(writer: TraceWriter, group: list[pa.RecordBatch]) -> None:
    """Writes the batches as one row group."""
    writer.write(pa.concat_batches(group))
    group.clear()


def _add_bytes(totals: dict[str, int], batch: pa.RecordBatch) -> None:
    op = batch.column("op").indices.to_numpy()
    length = batch.column("length_bytes").to_numpy()
    totals["read"] += int(length[op == 0].sum())
    totals["write"] += int(length[op == 1].sum())


def _expected_rows(spec: Spec) -> int:
    by_time = spec.duration and round(spec.duration / 1e9 * spec.arrival.rate)
    bounds = [bound for bound in (spec.ios, by_time) if bound is not None]
    return min(bounds)


def _metadata(spec: Spec) -> dict[str, Any]:
    return {
        "tool_version": _core.VERSION,
        "source_format": "synth",
        "sources": [],
        "rows_dropped": {},
        "device": {"names": spec.disks, "size_bytes": spec.reach_bytes},
        "sector_bytes": SECTOR_BYTES,
        "seed": spec.seed,
        "spec": spec.stored(),
    }
