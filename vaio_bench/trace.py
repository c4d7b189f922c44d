"""The canonical trace: a Parquet file of I/Os in order of time, written and read here.

Columns (offsets and lengths in bytes, times in nanoseconds):

| column | type | meaning |
|---|---|---|
| `time_ns` | int64 | since the first I/O of the trace; never decreases |
| `disk` | dictionary(string) | virtual disk |
| `op` | dictionary(string) | `read`, `write`, `flush`, `discard`, `write_zeroes` |
| `offset_bytes`, `length_bytes` | int64 | range on the disk; 0 for a flush |
| `latency_ns` | int64, nullable | service time seen at capture |
| `flags` | uint32 | fua=1 sync=2 meta=4 readahead=8 preflush=16 |
| `stream` | uint32, nullable | process, CPU or initiator at capture |
| `content` | list(binary), nullable, optional | digest of each block of 4 KiB |

The file's metadata has, under the key `vaio_bench`, a JSON document that says where it is from.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vaio_bench.errors import InputError, WorkError

TRACE_SCHEMA_VERSION = 1
METADATA_KEY = b"vaio_bench"
ROW_GROUP_ROWS = 1 << 20
FLAGS = {"fua": 1, "sync": 2, "meta": 4, "readahead": 8, "preflush": 16}

_NAME = pa.dictionary(pa.int32(), pa.string())
_CONTENT = pa.field("content", pa.list_(pa.binary()))
SCHEMA = pa.schema(
    [
        pa.field("time_ns", pa.int64(), nullable=False),
        pa.field("disk", _NAME, nullable=False),
        pa.field("op", _NAME, nullable=False),
        pa.field("offset_bytes", pa.int64(), nullable=False),
        pa.field("length_bytes", pa.int64(), nullable=False),
        pa.field("latency_ns", pa.int64()),
        pa.field("flags", pa.uint32(), nullable=False),
        pa.field("stream", pa.uint32()),
    ]
)
REQUIRED = ("time_ns", "disk", "op", "offset_bytes", "length_bytes")
# What a replay reads, beside `content`.
COLUMNS = (*REQUIRED, "latency_ns", "flags")

# What an import costs beside decoding: a dictionary only where values repeat, differences for
# times, the fastest zstd. A third of the time and four fifths of the size of the defaults.
_ENCODING: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": ["disk", "op", "length_bytes", "flags", "stream", "content.list.element"],
    "column_encoding": {
        "time_ns": "DELTA_BINARY_PACKED",
        "offset_bytes": "PLAIN",
        "latency_ns": "DELTA_BINARY_PACKED",
    },
}


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0]


class TraceWriter:
    """Writes a canonical trace aside, and renames it when it is whole.

    Used as a context: leaving it by an error removes what was written. Rows must come in order
    of time, with `time_ns` from 0 on: the caller's duty, checked for every batch.
    """

    def __init__(self, path: str | Path, *, force: bool = False, content: bool = False) -> None:
        """Starts the file.

        Args:
            path: Where the trace is to be.
            force: Replace a file that is there.
            content: The batches have a `content` column.

        Raises:
            InputError: There is a file already and no `force`, or the folder is missing or
                cannot be written to.
        """
        self.path = Path(path)
        self.rows = 0
        self._force = force
        self._last_ns = 0
        self._refuse_existing()
        self._aside = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        schema = SCHEMA.append(_CONTENT) if content else SCHEMA
        try:
            self._writer = pq.ParquetWriter(self._aside, schema, **_ENCODING)
        except OSError as error:
            why = error.strerror or _reason(error)
            raise InputError(f"{self.path}: cannot be created: {why}") from None

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abandon()

    def _refuse_existing(self) -> None:
        if self.path.is_dir():
            raise InputError(f"{self.path}: expected the name of a file, got a folder")
        if self.path.exists() and not self._force:
            raise InputError(f"{self.path}: the file exists (--force replaces it)")

    def write(self, batch: pa.RecordBatch) -> None:
        """Adds the rows of a batch, as a row group of its own where it is large.

        Raises:
            WorkError: The file cannot be written (a full disk, an I/O error), or the batch goes
                back in time.
        """
        if batch.num_rows == 0:
            return
        first, last = batch.column("time_ns")[0].as_py(), batch.column("time_ns")[-1].as_py()
        if first < self._last_ns:
            raise WorkError(f"{self.path}: row {self.rows}: time goes back to {first} ns")
        self._last_ns = last
        schema = self._writer.schema
        fitting = batch if batch.schema.equals(schema) else batch.cast(schema)
        self._write(lambda: self._writer.write_batch(fitting))
        self.rows += batch.num_rows

    def close(self, metadata: dict[str, Any]) -> None:
        """Ends the file with its metadata and gives it its name.

        Args:
            metadata: What the `vaio_bench` document holds beside the schema's version.
        """
        document = {"schema_version": TRACE_SCHEMA_VERSION, "rows": self.rows, **metadata}
        text = json.dumps(document, allow_nan=False)
        self._write(lambda: self._writer.add_key_value_metadata({METADATA_KEY: text}))
        self._write(self._writer.close)
        # Another process may have been faster.
        self._refuse_existing()
        self._write(lambda: self._aside.replace(self.path))

    def abandon(self) -> None:
        """Removes what was written aside; nothing after `close`."""
        if self._writer.is_open:
            # On a full disk this fails too: the file goes all the same.
            with contextlib.suppress(OSError):
                self._writer.close()
        self._aside.unlink(missing_ok=True)

    def _write(self, action: Any) -> None:
        try:
            action()
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else _reason(error)
            raise WorkError(f"{self.path}: cannot be written: {why}") from None


@dataclass(frozen=True)
class Trace:
    """An opened canonical trace; close it, or use it as a context."""

    path: Path
    metadata: dict[str, Any]
    """The `vaio_bench` document; empty for a file that another tool wrote."""
    file: pq.ParquetFile = field(repr=False)

    @property
    def rows(self) -> int:
        """Number of I/Os."""
        return int(self.file.metadata.num_rows)

    @property
    def content(self) -> Path:
        """The file beside the trace that has what its writes wrote.

        Raises:
            InputError: the source did not tell, or the file is not there.
        """
        told = self.metadata.get("content")
        if not told:
            raise InputError(
                f"{self.path}: expected a trace that says what its writes wrote (of format "
                "dm-log-writes)"
            )
        path = self.path.with_name(str(told["file"]))
        if not path.is_file():
            raise InputError(f"{path}: expected what the writes of {self.path} wrote, found none")
        return path

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the file."""
        return self.file.schema_arrow

    @cached_property
    def disks(self) -> list[str]:
        """Names of the virtual disks, in order of first appearance."""
        names: dict[str, None] = {}
        for batch in self.batches(["disk"]):
            column = batch.column(0)
            texts = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
            names.update(dict.fromkeys(texts.dictionary.take(texts.indices.unique()).to_pylist()))
        return list(names)

    @cached_property
    def duration_ns(self) -> int:
        """Time from the first I/O to the last.

        Raises:
            InputError: The file is damaged.
        """
        groups = [
            at
            for at in range(self.file.num_row_groups)
            if self.file.metadata.row_group(at).num_rows
        ]
        if not groups:
            return 0
        try:
            first = self.file.read_row_group(groups[0], ["time_ns"]).column(0)[0].as_py()
            last = self.file.read_row_group(groups[-1], ["time_ns"]).column(0)[-1].as_py()
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self.path}: damaged: {_reason(error)}") from None
        return max(0, int(last or 0) - int(first or 0))

    def batches(
        self, columns: Sequence[str] | None = None, batch_rows: int = 1 << 16
    ) -> Iterator[pa.RecordBatch]:
        """The rows in order, in batches of at most `batch_rows`.

        Args:
            columns: Only these; those that the file lacks (they are optional) are left out.
            batch_rows: Bounds the memory.

        Raises:
            InputError: The file is damaged.
        """
        names = self._names(columns)
        try:
            yield from self.file.iter_batches(batch_size=batch_rows, columns=names)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self.path}: damaged: {_reason(error)}") from None

    def reader(
        self, columns: Sequence[str] | None = None, batch_rows: int = 1 << 16
    ) -> pa.RecordBatchReader:
        """As `batches`, as an Arrow stream for the engine."""
        schema = pa.schema([self.schema.field(name) for name in self._names(columns)])
        return pa.RecordBatchReader.from_batches(schema, self.batches(columns, batch_rows))

    def _names(self, columns: Sequence[str] | None) -> list[str]:
        known = self.schema.names
        return [name for name in known if columns is None or name in columns]

    def close(self) -> None:
        """Closes the file."""
        self.file.close()

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_trace(path: str | Path) -> Trace:
    """Opens a canonical trace and checks its columns.

    Raises:
        InputError: There is no such file, it is no Parquet, a column is missing or of another
            type, or a newer version of this tool wrote it; names the file and the column.
    """
    path = Path(path)
    try:
        footer = pq.read_metadata(path)
        names = [name for name in ("disk", "op") if name in footer.schema.names]
        file = pq.ParquetFile(path, metadata=footer, read_dictionary=names)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError) as error:
        hint = "expected a canonical trace (Parquet; `vaio-bench import` makes one)"
        raise InputError(f"{path}: {hint}: {_reason(error)}") from None
    try:
        _check_columns(path, file.schema_arrow)
        return Trace(path, _metadata(path, file), file)
    except InputError:
        file.close()
        raise


def _check_columns(path: Path, schema: pa.Schema) -> None:
    for wanted in [*SCHEMA, _CONTENT]:
        if wanted.name not in schema.names:
            if wanted.name in REQUIRED:
                raise InputError(f"{path}: expected column {wanted.name} ({wanted.type})")
            continue
        found = schema.field(wanted.name).type
        is_text = wanted.type == _NAME and (
            pa.types.is_string(found)
            or pa.types.is_large_string(found)
            or (pa.types.is_dictionary(found) and pa.types.is_string(found.value_type))
        )
        is_list = wanted is _CONTENT and (pa.types.is_list(found) or pa.types.is_large_list(found))
        if found != wanted.type and not is_text and not is_list:
            raise InputError(f"{path}: column {wanted.name}: expected {wanted.type}, got {found}")


def _metadata(path: Path, file: pq.ParquetFile) -> dict[str, Any]:
    text = (file.metadata.metadata or {}).get(METADATA_KEY)
    if text is None:
        return {}
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: metadata vaio_bench: expected JSON: {error}") from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise InputError(f"{path}: metadata vaio_bench: expected a schema_version")
    if version > TRACE_SCHEMA_VERSION:
        raise InputError(
            f"{path}: expected schema version {TRACE_SCHEMA_VERSION} or older, got {version}"
        )
    return dict(document)
