"""Parts hold what was written, in the encodings that keep them small."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_folder import make_run

from vaio_bench import schemas
from vaio_bench.analyses.timeline import append_round
from vaio_bench.errors import WorkError
from vaio_bench.run_writer import PartWriter, write_table

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


def test_a_table_that_cannot_be_written_is_one_error_that_names_it(tmp_path: Path) -> None:
    full = Path("/dev/full")
    table = schemas.EVENTS.empty_table()
    (tmp_path / "events.parquet.partial").symlink_to(full)
    with pytest.raises(WorkError, match=r"events\.parquet: cannot write: .*No space left"):
        write_table(tmp_path / "events.parquet", table)
    assert list(tmp_path.iterdir()) == []


def test_a_timeline_that_cannot_be_written_keeps_the_old_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ios=50, rounds=2)
    append_round(run, "direct", 0)
    before = (run / "timeline.parquet").read_bytes()
    (run / "timeline.parquet.partial").symlink_to("/dev/full")
    with pytest.raises(WorkError, match=r"timeline\.parquet: cannot write: .*No space left"):
        append_round(run, "direct", 1)
    assert (run / "timeline.parquet").read_bytes() == before
