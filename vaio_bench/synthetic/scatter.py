"""Seeded bijections of 0..n-1, computed, not stored.

On the next power of two, adding, multiplying by an odd number and xor-ing with a shift of itself
are each a bijection; four rounds of them scatter neighbours. A value that leaves 0..n-1 is sent
through again until it is back (cycle walking: Black and Rogaway 2002), at most twice on average.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_ROUNDS = 4


class Scatter:
    """One bijection of 0..n-1 for each of `disks` disks."""

    def __init__(self, n: int, disks: int, seed: np.random.SeedSequence) -> None:
        self.n = n
        bits = max(1, (n - 1).bit_length())
        self._mask = np.uint64(2**bits - 1)
        self._shift = np.uint64((bits + 1) // 2)
        words = seed.generate_state(2 * _ROUNDS * disks, np.uint64)
        self._add = words[: _ROUNDS * disks].reshape(_ROUNDS, disks)
        self._times = words[_ROUNDS * disks :].reshape(_ROUNDS, disks) | np.uint64(1)

    def apply(self, values: Ints, disk: Ints) -> Ints:
        """Where each of `values` (in 0..n-1) goes under the bijection of its disk."""
        x = self._rounds(values.astype(np.uint64), disk)
        outside = np.flatnonzero(x >= self.n)
        while len(outside):
            x[outside] = self._rounds(x[outside], disk[outside])
            outside = outside[x[outside] >= self.n]
        return x.astype(np.int64)

    def _rounds(self, x: NDArray[np.uint64], disk: Ints) -> NDArray[np.uint64]:
        one_disk = self._add.shape[1] == 1
        for add, times in zip(self._add, self._times, strict=True):
            x = x + (add[0] if one_disk else add[disk])
            x *= times[0] if one_disk else times[disk]
            x &= self._mask
            x ^= x >> self._shift
        return x
