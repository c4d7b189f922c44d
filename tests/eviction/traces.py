"""Requests with a known outcome, and traces made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from vaio_bench.trace import SCHEMA, TraceWriter

BLOCK = 4096
DISTINCT = 762_664


def zipf(requests: int = 10_000_000, blocks: int = 1_000_000) -> np.ndarray:
    """Block numbers, popularity falling with the rank to the power of 1."""
    weight = 1 / np.arange(1, blocks + 1)
    below = np.cumsum(weight / weight.sum())
    return np.searchsorted(below, np.random.default_rng(42).random(requests))


def write_requests(path: Path, blocks: np.ndarray, writes: np.ndarray | None = None) -> Path:
    """One I/O of a block each, a microsecond apart; all reads, or writes where told."""
    codes = np.zeros(len(blocks), np.int32) if writes is None else writes.astype(np.int32)
    disk = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(blocks), np.int32)), ["d"])
    columns = [
        pa.array(np.arange(len(blocks)) * 1000),
        disk,
        pa.DictionaryArray.from_arrays(pa.array(codes), ["read", "write"]),
        pa.array(blocks.astype(np.int64) * BLOCK),
        pa.array(np.full(len(blocks), BLOCK)),
        pa.nulls(len(blocks), pa.int64()),
        pa.array(np.zeros(len(blocks), np.uint32)),
        pa.nulls(len(blocks), pa.uint32()),
    ]
    with TraceWriter(path) as writer:
        writer.write(pa.record_batch(columns, schema=SCHEMA))
        writer.close({"source_format": "test"})
    return path
