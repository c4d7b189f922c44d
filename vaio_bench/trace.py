"""Reading canonical traces."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vaio_bench.errors import InputError


@dataclass(frozen=True)
class Trace:
    path: Path
    metadata: dict[str, Any]
    rows: int

    @cached_property
    def disks(self) -> list[str]:
        names: dict[str, None] = {}
        for batch in pq.ParquetFile(self.path).iter_batches(columns=["disk"]):
            names.update(dict.fromkeys(batch.column(0).unique().dictionary.to_pylist()))
        return list(names)

    def reader(self, columns: list[str]) -> pa.RecordBatchReader:
        file = pq.ParquetFile(self.path)
        columns = [name for name in columns if name in file.schema_arrow.names]
        schema = pa.schema([file.schema_arrow.field(name) for name in columns])
        return pa.RecordBatchReader.from_batches(
            schema, file.iter_batches(columns=columns, batch_size=1 << 16)
        )


def open_trace(path: str | Path) -> Trace:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: {error}") from None
    metadata = json.loads((file.schema_arrow.metadata or {}).get(b"vaio_bench", b"{}"))
    return Trace(Path(path), metadata, file.metadata.num_rows)
