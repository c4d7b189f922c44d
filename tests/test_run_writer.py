"""Parts hold what was written, in the encodings that keep them small."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from vaio_bench import schemas
from vaio_bench.run_writer import PartWriter

PACKED = ("seq", "offset_bytes", "due_ns", "complete_ns", "self_ns.list.element")
EXTREMES = [0, -1, 1 << 62, -(1 << 62), 5]


def batch() -> pa.RecordBatch:
    """Rows of two layers whose numbers jump as far as they can."""
    rows = len(EXTREMES)
    values: dict[str, object] = {}
    for field in schemas.IOS:
        if pa.types.is_dictionary(field.type):
            values[field.name] = ["name"] * rows
        elif pa.types.is_list(field.type):
            values[field.name] = [[value, -value] for value in EXTREMES]
        elif pa.types.is_int64(field.type):
            values[field.name] = EXTREMES
        else:
            values[field.name] = list(range(rows))
    return pa.RecordBatch.from_pydict(values, schema=schemas.IOS)


def test_parts_give_back_every_number(tmp_path: Path) -> None:
    writer = PartWriter(tmp_path / "parts", by_age=False)
    for _ in range(3):
        writer.write(batch())
    writer.close()
    (part,) = (tmp_path / "parts").iterdir()
    expected = pa.Table.from_batches([batch()] * 3)
    assert pq.read_table(part).equals(expected)
    assert pl.read_parquet(part).to_dicts() == pl.from_arrow(expected).to_dicts()


def test_numbers_that_grow_are_packed(tmp_path: Path) -> None:
    writer = PartWriter(tmp_path / "parts", by_age=False)
    writer.write(batch())
    writer.close()
    group = pq.ParquetFile(tmp_path / "parts" / "part-0.parquet").metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    encodings = {column.path_in_schema: column.encodings for column in columns}
    for name in PACKED:
        assert "DELTA_BINARY_PACKED" in encodings[name]
