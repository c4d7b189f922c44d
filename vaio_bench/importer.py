"""import: any supported trace to the canonical form.

Files are read once, decoded by the engine on a thread of its own, and written as they come;
memory is bounded whatever their length.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from vaio_bench import _core
from vaio_bench.errors import InputError
from vaio_bench.trace import ROW_GROUP_ROWS, TraceWriter

_PER_CPU = re.compile(r"(?P<stem>.+\.blktrace)\.(?P<cpu>\d+)(?P<packed>\.(gz|zst|xz|bz2))?")
_HASH_CHUNK_BYTES = 1 << 20
WITH_CONTENT = "dm-log-writes"
"""The format that says what its writes wrote."""


@dataclass(frozen=True)
class Imported:
    """What an import made, and from what."""

    trace: str
    format: str
    ios: int
    duration_s: float
    disks: list[str]
    records: int
    """Rows or records of the source, whatever they held."""
    dropped: dict[str, int]
    """How many of them were left out, by reason."""
    warnings: list[str]
    sources: list[dict[str, Any]]
    """`file`, `size_bytes` and `sha256` of each source file."""

    def to_dict(self) -> dict[str, Any]:
        """The document of `import --json`."""
        return asdict(self)


def resolve_sources(sources: Sequence[str | Path]) -> list[Path]:
    """The files that the sources mean: themselves, or of a prefix its per-CPU blktrace files.

    Raises:
        InputError: Nothing matches, a folder or pipe is given, or a file is given twice.
    """
    files: list[Path] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            raise InputError(f"{path}: expected a trace file or a prefix, got a folder")
        if path.exists() and not path.is_file():
            raise InputError(
                f"{path}: expected a file, got a pipe or device: a trace is read twice"
            )
        files += [path] if path.exists() else _per_cpu_files(path)
    if not files:
        raise InputError("import: expected at least one source")
    seen: set[Path] = set()
    for path in files:
        if path.resolve() in seen:
            raise InputError(f"{path}: is given twice")
        seen.add(path.resolve())
    return files


def _per_cpu_files(prefix: Path) -> list[Path]:
    stem = str(prefix).removesuffix(".blktrace") + ".blktrace"
    matches = [
        (int(match["cpu"]), name)
        for name in glob.glob(glob.escape(stem) + ".*")
        if (match := _PER_CPU.fullmatch(name))
    ]
    if not matches:
        raise InputError(f"{prefix}: no such file, nor files {stem}.N of a capture")
    return [Path(name) for _, name in sorted(matches)]


def _missing_siblings(files: Sequence[Path]) -> list[str]:
    """A capture is one file a CPU: those that lie beside the given ones, and were not given."""
    warnings = []
    given = {path.name for path in files}
    for path in files:
        match = _PER_CPU.fullmatch(path.name)
        if match and match["cpu"] == "0" and len(files) == 1:
            names = {file.name for file in _per_cpu_files(path.parent / match["stem"])}
            warnings += [
                f"{name} lies beside {path.name} and was not given: a capture has one file a CPU, "
                f"and its prefix means them all"
                for name in sorted(names - given)
            ]
    return warnings


def _describe(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return {"file": path.name, "size_bytes": size, "sha256": digest.hexdigest()}


def import_trace(
    sources: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    format: str | None = None,  # noqa: A002
    event: str = "queue",
    columns: str | None = None,
    skip_bad: bool = False,
    force: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Imported:
    """Converts a trace to the canonical Parquet file.

    Args:
        sources: Files of one trace (compressed or not), or the prefix of a blktrace capture.
        output: The Parquet file to make.
        format: Name of a format (`vaio-bench explain`); by content if none.
        event: `queue` or `issue`: which event of a block-layer trace counts as the I/O.
        columns: Description of a text trace, for the `csv` format.
        skip_bad: Drop and count what is broken, instead of failing.
        force: Replace `output`.
        progress: Called with (bytes read, bytes in all) after every batch.

    Returns:
        What was made: I/Os, duration, disks, what was dropped and why.

    Raises:
        InputError: A source is missing, of no known format, damaged, or holds no I/O.
        WorkError: The output cannot be written.
    """
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    files = resolve_sources(given)
    target = Path(output)
    if target.resolve() in {path.resolve() for path in files}:
        raise InputError(f"{target}: is a source of this import")
    total = sum(path.stat().st_size for path in files)
    options = {"event": event, "columns": columns, "skip_bad": skip_bad}
    with ThreadPoolExecutor(1) as pool:
        hashes = pool.submit(lambda: [_describe(path) for path in files])
        for sort in (False, True):
            with TraceWriter(target, force=force) as writer:
                reader = _core.TraceReader(
                    files,
                    target.parent,
                    format=format,
                    event=event,
                    columns=columns,
                    skip_bad=skip_bad,
                    sort=sort,
                    batch_rows=ROW_GROUP_ROWS,
                )
                last_ns, disks = _copy(reader, writer, progress, total)
                report = json.loads(reader.report())
                if report["needs_sort"]:
                    continue
                if writer.rows == 0:
                    raise InputError(
                        f"{files[0]}: expected at least one I/O, got {report['records']} records "
                        f"of format {reader.format} without any"
                    )
                imported = Imported(
                    trace=str(target),
                    format=reader.format,
                    ios=writer.rows,
                    duration_s=last_ns / 1e9,
                    disks=disks,
                    records=report["records"],
                    dropped=report["dropped"],
                    warnings=report["warnings"] + _missing_siblings(files),
                    sources=hashes.result(),
                )
                content = _content(imported, files[0], target, skip_bad=skip_bad)
                writer.close({**_document(imported, options), "content": content})
                return imported
    raise AssertionError("a sorted reading is in order")


def _content(
    imported: Imported, log: Path, target: Path, *, skip_bad: bool
) -> dict[str, Any] | None:
    """Keeps what the writes wrote beside the trace, where the source tells; its description."""
    if imported.format != WITH_CONTENT:
        return None
    path = target.with_name(f"{target.name}.content")
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        rows, size = _core.copy_content(log, aside, skip_bad)
        if rows != imported.ios:
            raise InputError(f"{log}: changed while it was read")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return {"file": path.name, "rows": rows, "data_bytes": size}


def _copy(
    reader: _core.TraceReader,
    writer: TraceWriter,
    progress: Callable[[int, int], object] | None,
    total: int,
) -> tuple[int, list[str]]:
    """Writes every batch; the time of the last row, and the disks in order of first sight."""
    last_ns = 0
    disks: list[str] = []
    while (rows := reader.next_batch()) is not None:
        batch = pa.record_batch(rows)
        writer.write(batch)
        last_ns = batch.column("time_ns")[-1].as_py()
        disks = batch.column("disk").dictionary.to_pylist()
        if progress:
            progress(min(reader.bytes_read, total), total)
    return last_ns, disks


def _document(imported: Imported, options: dict[str, Any]) -> dict[str, Any]:
    """The metadata of the trace."""
    return {
        "tool_version": _core.VERSION,
        "source_format": imported.format,
        "sources": imported.sources,
        "options": options,
        "records": imported.records,
        "rows_dropped": imported.dropped,
        "warnings": imported.warnings,
        # What the source does not say is null; sectors are those of the formats themselves.
        "device": {"names": imported.disks, "size_bytes": None},
        "sector_bytes": 512,
        "seed": None,
        "spec": None,
    }
