"""`synth`: makes a synthetic trace and writes it as canonical Parquet."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vaio_bench import _core
from vaio_bench.errors import InputError, WorkError
from vaio_bench.synthetic.generate import batches, schema
from vaio_bench.synthetic.presets import find_spec
from vaio_bench.synthetic.spec import Spec, check_spec, override

_SCHEMA_VERSION = 1
_ROW_GROUP_ROWS = 1 << 20
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
        InputError: A wrong spec or value (one line each), or `out` exists.
        WorkError: `out` cannot be written.
    """
    where = "spec" if isinstance(spec, dict) else str(spec)
    found = check_spec(spec, where) if isinstance(spec, dict) else find_spec(where)
    chosen = override(
        found, where, seed=seed, ios=ios, duration=duration, footprint=footprint, rate=rate
    )
    path = Path(out)
    if path.exists() and not force:
        raise InputError(f"{path}: exists; --force replaces it")
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        result = _write(chosen, path, aside, progress)
        os.replace(aside, path)
    except (OSError, pa.ArrowException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise WorkError(f"{path}: {reason.splitlines()[0]}") from None
    finally:
        aside.unlink(missing_ok=True)
    return result


def _write(
    spec: Spec, path: Path, aside: Path, progress: Callable[[int, int], object] | None
) -> SynthResult:
    expected = _expected_rows(spec)
    done, last_ns = 0, 0
    totals = {"read": 0, "write": 0}
    file_schema = schema(spec).with_metadata({"vaio_bench": json.dumps(_metadata(spec))})
    group: list[pa.RecordBatch] = []
    with pq.ParquetWriter(aside, file_schema, **_parquet_options(spec)) as writer:
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
        trace=str(path),
        ios=done,
        duration_s=last_ns / 1e9,
        read_bytes=totals["read"],
        write_bytes=totals["write"],
        disks=spec.disks,
        seed=spec.seed,
        spec=spec.stored(),
    )


def _parquet_options(spec: Spec) -> dict[str, Any]:
    """Dictionaries only where values repeat: on addresses they cost time and give nothing."""
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": ["disk", "op", "length_bytes", "flags", "stream"],
        "column_encoding": {"time_ns": "DELTA_BINARY_PACKED"},
        "write_statistics": ["time_ns", "offset_bytes", "length_bytes"],
    } | ({"write_page_index": False} if spec.content else {})


def _is_full(group: list[pa.RecordBatch]) -> bool:
    rows = sum(len(batch) for batch in group)
    return rows >= _ROW_GROUP_ROWS or sum(batch.nbytes for batch in group) >= _ROW_GROUP_BYTES


def _flush(writer: pq.ParquetWriter, group: list[pa.RecordBatch]) -> None:
    writer.write_table(pa.Table.from_batches(group), row_group_size=_ROW_GROUP_ROWS)
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
        "schema_version": _SCHEMA_VERSION,
        "tool_version": _core.VERSION,
        "source_format": "synth",
        "sources": [],
        "sector_bytes": 512,
        "device_bytes": spec.reach_bytes,
        "dropped": {},
        "seed": spec.seed,
        "spec": spec.stored(),
    }
