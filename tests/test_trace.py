"""The canonical file: writer, reader, and what they refuse."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vaio_bench import InputError, WorkError, open_trace
from vaio_bench.trace import METADATA_KEY, SCHEMA, TraceWriter


def batch(times: list[int], disk: str = "d") -> pa.RecordBatch:
    n = len(times)
    columns = [times, [disk] * n, ["read"] * n, [0] * n, [512] * n, [None] * n, [0] * n, [1] * n]
    arrays = [pa.array(c, pa.string()) if isinstance(c[0], str) else pa.array(c) for c in columns]
    arrays = [a.dictionary_encode() if pa.types.is_string(a.type) else a for a in arrays]
    fitting = [a.cast(f.type) for a, f in zip(arrays, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(fitting, schema=SCHEMA)


def test_a_trace_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with TraceWriter(path) as writer:
        writer.write(batch([0, 5]))
        writer.write(batch([5, 9], disk="another"))
        assert not path.exists()
        writer.close({"source_format": "none"})
    assert os.listdir(tmp_path) == ["t.parquet"]
    with open_trace(path) as trace:
        assert trace.metadata == {"schema_version": 1, "rows": 4, "source_format": "none"}
        assert trace.schema.field("disk").type == SCHEMA.field("disk").type
        table = pa.Table.from_batches(trace.batches(["time_ns", "disk"], batch_rows=3))
        assert table.to_pydict() == {"time_ns": [0, 5, 5, 9], "disk": ["d", "d", *["another"] * 2]}
        assert trace.reader(["op"]).read_all().num_rows == 4


def test_rows_that_go_back_are_refused(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t.parquet") as writer:
        writer.write(batch([0, 5]))
        with pytest.raises(WorkError, match="row 2: time goes back to 4 ns"):
            writer.write(batch([4]))
    assert os.listdir(tmp_path) == []


def test_what_is_no_trace_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(InputError, match=r"t\.parquet: no such file"):
        open_trace(path)
    path.write_text("no Parquet")
    with pytest.raises(InputError, match="expected a canonical trace"):
        open_trace(path)
    table = pa.Table.from_batches([batch([0])])
    pq.write_table(table.drop_columns(["op"]), path)
    with pytest.raises(InputError, match=r"t\.parquet: expected column op"):
        open_trace(path)
    pq.write_table(table.set_column(0, "time_ns", pa.array([0.5])), path)
    with pytest.raises(InputError, match="column time_ns: expected int64, got double"):
        open_trace(path)
    for document, message in [("{", "JSON"), ("{}", "schema_version"), ("9", "schema_version")]:
        pq.write_table(table.replace_schema_metadata({METADATA_KEY: document}), path)
        with pytest.raises(InputError, match=message):
            open_trace(path)
    newer = json.dumps({"schema_version": 2})
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: newer}), path)
    with pytest.raises(InputError, match="version 1 or older, got 2"):
        open_trace(path)


def test_files_of_other_tools_open(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    plain = {"time_ns": [0], "disk": ["a"], "op": ["read"], "offset_bytes": [0]}
    pq.write_table(pa.table({**plain, "length_bytes": [512], "extra": [1]}), path)
    with open_trace(path) as trace:
        assert trace.metadata == {}
        assert next(trace.batches()).num_rows == 1
