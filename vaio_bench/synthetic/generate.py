"""The rows of a synthetic trace, batch by batch.

Random numbers are drawn for a chunk of rows of fixed size from a generator of its own, seeded by
(seed, chunk): so the rows depend neither on how many are asked for nor on the size of the batches
they are handed out in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vaio_bench.synthetic.address import addresses
from vaio_bench.synthetic.content import Contents
from vaio_bench.synthetic.spec import Spec, Stream, WeightedSize
from vaio_bench.trace import FLAGS, SCHEMA

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_OPS = ("read", "write", "flush", "discard", "write_zeroes")
_READ, _WRITE, _FLUSH = 0, 1, 2
_CHUNK_ROWS = 1 << 16
# With content a row may carry thousands of digests.
_CHUNK_ROWS_WITH_CONTENT = 1 << 12
# What the seed sequences of different purposes are told apart by.
_FOR_CHUNKS, _FOR_ADDRESSES = 1, 2

_CONTENT = pa.field("content", pa.list_(pa.binary()))


def schema(spec: Spec) -> pa.Schema:
    """The canonical columns; `content` only where the spec asks for it."""
    return SCHEMA.append(_CONTENT) if spec.content else SCHEMA


def batches(spec: Spec, rows: int | None = None) -> Iterator[pa.RecordBatch]:
    """The trace of `spec` in batches of the canonical columns, in order of time.

    Args:
        spec: What to make.
        rows: Rows a batch (the last may be shorter); by default as they are made.
    """
    if rows is None:
        yield from _chunks(spec)
        return
    pending: list[pa.RecordBatch] = []
    count = 0
    for chunk in _chunks(spec):
        pending.append(chunk)
        count += len(chunk)
        while count >= rows:
            whole = pa.concat_batches(pending)
            yield whole.slice(0, rows)
            pending, count = [whole.slice(rows)], count - rows
    if count:
        yield pa.concat_batches(pending)


def _chunks(spec: Spec) -> Iterator[pa.RecordBatch]:
    generator = _Generator(spec)
    chunk_rows = _CHUNK_ROWS_WITH_CONTENT if spec.content else _CHUNK_ROWS
    done = 0
    while spec.ios is None or done < spec.ios:
        chunk = generator.next_chunk(chunk_rows)
        keep = chunk_rows if spec.ios is None else min(chunk_rows, spec.ios - done)
        if spec.duration is not None:
            keep = min(keep, int(np.searchsorted(chunk.time_ns, spec.duration)))
        if keep:
            yield generator.batch(chunk.head(keep))
        done += keep
        if keep < chunk_rows:
            return


@dataclass(frozen=True)
class _Chunk:
    """Columns of one length; disk and stream are numbers."""

    time_ns: Ints
    disk: Ints
    stream: Ints
    op: Ints
    offset: Ints
    length: Ints
    flags: NDArray[np.uint32]

    def head(self, rows: int) -> _Chunk:
        """The first rows."""
        return _Chunk(*(getattr(self, name)[:rows] for name in self.__dataclass_fields__))


class _Generator:
    """The state that runs from chunk to chunk: clock, cursors, versions of blocks."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._chunks = 0
        self._rows = 0
        self._clock_ns = 0.0
        disks = len(spec.disks)
        self._disk_shares = _cumulative(spec.disk_weights or [1.0] * disks)
        self._stream_shares = _cumulative([s.share for s in spec.stream])
        self._addresses = [
            addresses(s.address, disks, np.random.SeedSequence([spec.seed, _FOR_ADDRESSES, i]))
            for i, s in enumerate(spec.stream)
        ]
        self._contents = (
            Contents(spec.content, disks, spec.reach_bytes, spec.seed) if spec.content else None
        )
        self._disk_names = pa.array(spec.disks, pa.string())
        self._op_names = pa.array(_OPS, pa.string())

    def next_chunk(self, rows: int) -> _Chunk:
        seed = np.random.SeedSequence([self._spec.seed, _FOR_CHUNKS, self._chunks])
        rng = np.random.Generator(np.random.PCG64(seed))
        self._chunks += 1
        time_ns = self._times(rng, rows)
        disk = _pick(rng, self._disk_shares, rows)
        stream = _pick(rng, self._stream_shares, rows)
        op = np.empty(rows, np.int64)
        offset = np.zeros(rows, np.int64)
        length = np.zeros(rows, np.int64)
        flags = np.zeros(rows, np.uint32)
        for number, kind in enumerate(self._spec.stream):
            mine = np.flatnonzero(stream == number)
            op[mine] = _ops(rng, kind, len(mine))
            rows_of_data = mine[op[mine] != _FLUSH]
            length[rows_of_data] = _lengths(rng, kind, op[rows_of_data])
            offset[rows_of_data] = self._addresses[number].offsets(
                rng, disk[rows_of_data], length[rows_of_data]
            )
            if kind.mix.fua:
                writes = mine[op[mine] == _WRITE]
                flags[writes[rng.random(len(writes)) < kind.mix.fua]] = FLAGS["fua"]
        return _Chunk(time_ns, disk, stream, op, offset, length, flags)

    def batch(self, chunk: _Chunk) -> pa.RecordBatch:
        """The chunk in the canonical columns."""
        rows = len(chunk.time_ns)
        columns = [
            pa.array(chunk.time_ns),
            pa.DictionaryArray.from_arrays(chunk.disk.astype(np.int32), self._disk_names),
            pa.DictionaryArray.from_arrays(chunk.op.astype(np.int32), self._op_names),
            pa.array(chunk.offset),
            pa.array(chunk.length),
            pa.nulls(rows, pa.int64()),
            pa.array(chunk.flags),
            pa.array(chunk.stream.astype(np.uint32)),
        ]
        if self._contents is not None:
            is_write = chunk.op == _WRITE
            is_data = is_write | (chunk.op == _READ)
            columns.append(
                self._contents.column(chunk.disk, is_data, is_write, chunk.offset, chunk.length)
            )
        return pa.RecordBatch.from_arrays(columns, schema=schema(self._spec))

    def _times(self, rng: np.random.Generator, rows: int) -> Ints:
        """Arrival times; the first of all is 0. Exact to the nanosecond for 104 days (2^53 ns)."""
        mean_gap_ns = 1e9 / self._spec.arrival.rate
        if self._spec.arrival.process == "constant":
            times = np.arange(self._rows, self._rows + rows) * mean_gap_ns
        else:
            gaps = -np.log1p(-rng.random(rows)) * mean_gap_ns
            if self._rows == 0:
                gaps[0] = 0.0
            times = self._clock_ns + np.cumsum(gaps)
            self._clock_ns = float(times[-1])
        self._rows += rows
        return times.astype(np.int64)


def _cumulative(weights: list[float]) -> Floats:
    sums = np.cumsum(np.asarray(weights, np.float64))
    return np.asarray(sums / sums[-1])


def _pick(rng: np.random.Generator, shares: Floats, rows: int) -> Ints:
    """Numbers 0.. drawn by cumulative `shares`."""
    if len(shares) == 1:
        return np.zeros(rows, np.int64)
    return np.searchsorted(shares, rng.random(rows), side="right").astype(np.int64)


def _ops(rng: np.random.Generator, kind: Stream, rows: int) -> Ints:
    mix = kind.mix
    data = 1.0 - (mix.flush + mix.discard + mix.write_zeroes)
    shares = [data * mix.read, data * (1 - mix.read), mix.flush, mix.discard, mix.write_zeroes]
    bounds = np.cumsum(np.maximum(shares, 0.0))
    # The bound of the last op that occurs is 1, whatever the rounding of the sum.
    bounds[max(i for i, share in enumerate(shares) if share > 0) :] = 1.0
    return np.searchsorted(bounds, rng.random(rows), side="right").astype(np.int64)


def _lengths(rng: np.random.Generator, kind: Stream, op: Ints) -> Ints:
    is_read = op == _READ
    if kind.size.read == kind.size.write:
        return _drawn_lengths(rng, kind.size.read, len(op))
    length = np.empty(len(op), np.int64)
    reads, others = np.flatnonzero(is_read), np.flatnonzero(~is_read)
    length[reads] = _drawn_lengths(rng, kind.size.read, len(reads))
    length[others] = _drawn_lengths(rng, kind.size.write, len(others))
    return length


def _drawn_lengths(rng: np.random.Generator, sizes: list[WeightedSize], count: int) -> Ints:
    values = np.asarray([s.size for s in sizes], np.int64)
    return values[_pick(rng, _cumulative([s.weight for s in sizes]), count)]
