"""What the blocks hold: a digest per 4 KiB block, partly common to the disks.

A block has a version, the number of writes to it so far. Whether a version is shared, and what it
holds, are functions of (seed, disk, block, version), so only the versions are kept in memory.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vaio_bench.synthetic.spec import CONTENT_BLOCK_BYTES, Content

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

DIGEST_BYTES = 16
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Contents:
    """The current content of every block of every disk."""

    def __init__(self, spec: Content, disks: int, reach_bytes: int, seed: int) -> None:
        self._shared = spec.shared
        self._pool_blocks = np.uint64(spec.pool // CONTENT_BLOCK_BYTES)
        self._disk_blocks = -(-reach_bytes // CONTENT_BLOCK_BYTES)
        self._versions = np.zeros(disks * self._disk_blocks, np.uint32)
        words = np.random.SeedSequence([seed, 0xC0]).generate_state(6, np.uint64)
        self._keys = tuple(words)

    def column(self, disk: Ints, is_data: NDArray[np.bool_], is_write: NDArray[np.bool_],
               offset: Ints, length: Ints) -> pa.Array:  # fmt: skip
        """The column `content` of the next I/Os, in order; null where there is no data."""
        count = np.where(is_data, length // CONTENT_BLOCK_BYTES, 0)
        ends = np.cumsum(count)
        row = np.repeat(np.arange(len(disk)), count)
        within = np.arange(len(row)) - np.repeat(ends - count, count)
        block = offset[row] // CONTENT_BLOCK_BYTES + within
        version = self._advance(disk[row] * self._disk_blocks + block, is_write[row])
        digests = self._digests(disk[row].astype(np.uint64), block.astype(np.uint64), version)
        # One value buffer, cut every 16 bytes: a binary column without a Python object a block.
        cuts = np.arange(len(row) + 1, dtype=np.int32) * DIGEST_BYTES
        buffers = [None, pa.py_buffer(cuts), pa.py_buffer(digests)]
        values = pa.Array.from_buffers(pa.binary(), len(row), buffers)
        starts = pa.array(np.concatenate(([0], ends)), pa.int32())
        return pa.ListArray.from_arrays(starts, values, mask=pa.array(~is_data))

    def _advance(self, key: Ints, is_write: NDArray[np.bool_]) -> Words:
        """Version of each touched block: after the write, or as a read finds it."""
        order = np.argsort(key, kind="stable")
        sorted_key, writes = key[order], is_write[order].astype(np.int64)
        written = np.cumsum(writes)
        is_first = np.ones(len(key), bool)
        is_first[1:] = sorted_key[1:] != sorted_key[:-1]
        first = np.flatnonzero(is_first)
        runs = np.diff(np.append(first, len(key)))
        before = np.repeat(written[first] - writes[first], runs)
        now = self._versions[sorted_key] + (written - before)
        last = np.append(first[1:], len(key)) - 1 if len(key) else first
        self._versions[sorted_key[last]] = now[last]
        version = np.empty(len(key), np.uint64)
        version[order] = now
        return version

    def _digests(self, disk: Words, block: Words, version: Words) -> Words:
        """Two words a block: of its pool entry where it is shared, else its own."""
        key = self._keys
        place = _hash(block ^ _hash(disk + key[0]))
        own = _hash(place + version * _GOLDEN + key[1])
        threshold = np.float64(self._shared)
        shared = (own >> np.uint64(11)).astype(np.float64) * 2.0**-53 < threshold
        # Version 0 depends on the address alone, as on clones of an image; a write moves on by a
        # step that is no multiple of the pool, so the entry always changes.
        start = _hash(block + key[2])
        step = np.uint64(1) + place % (self._pool_blocks - np.uint64(1))
        if self._shared > 0:
            # All disks must agree which never-written blocks come from the image.
            image = (_hash(block + key[3]) >> np.uint64(11)).astype(np.float64) * 2.0**-53
            shared = np.where(version == 0, image < threshold, shared)
        entry = (start % self._pool_blocks + version * step) % self._pool_blocks
        # Two words drawn apart: that two different blocks agree in both does not happen.
        first = np.where(shared, _hash(entry + key[4]), own)
        second = np.where(shared, _hash(entry ^ key[5]), _hash(_hash(place ^ key[5]) + version))
        return np.stack((first, second), axis=1)


def _hash(x: Words) -> Words:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection of 64 bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
