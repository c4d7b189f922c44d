"""Where the I/Os of a stream go: uniform, zipf, hotset, sequential."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vaio_bench.synthetic.scatter import Scatter
from vaio_bench.synthetic.spec import Address
from vaio_bench.synthetic.zipf import Zipf

Ints = NDArray[np.int64]


class Addresses(Protocol):
    """The addresses of one stream on all disks."""

    def offsets(self, rng: np.random.Generator, disk: Ints, length: Ints) -> Ints:
        """Byte offsets of the next I/Os, in order; `disk` and `length` (bytes) per I/O."""


def addresses(spec: Address, disks: int, seed: np.random.SeedSequence) -> Addresses:
    """The generator that `spec.pattern` names."""
    if spec.pattern == "sequential":
        return _Sequential(spec, disks)
    return _Drawn(spec, disks, seed)


class _Drawn:
    """Blocks drawn independently: uniform, zipf or hotset."""

    def __init__(self, spec: Address, disks: int, seed: np.random.SeedSequence) -> None:
        self._spec = spec
        self._blocks = spec.footprint // spec.block
        self._hot_blocks = max(1, round(self._blocks * spec.hot_share))
        skewed = spec.pattern != "uniform" and spec.scatter
        self._scatter = Scatter(self._blocks, disks, seed) if skewed else None
        self._zipf = Zipf(self._blocks, spec.alpha) if spec.pattern == "zipf" else None

    def offsets(self, rng: np.random.Generator, disk: Ints, length: Ints) -> Ints:
        block = self._draw(rng, len(disk))
        if self._scatter is not None:
            block = self._scatter.apply(block, disk)
        spec = self._spec
        # The last place where an I/O of this length fits, aligned to the block.
        last = (spec.footprint - length) // spec.block
        return spec.start + np.minimum(block, last) * spec.block

    def _draw(self, rng: np.random.Generator, count: int) -> Ints:
        if self._zipf is not None:
            return self._zipf.sample(rng, count)
        if self._spec.pattern == "uniform":
            return rng.integers(0, self._blocks, count)
        hot = rng.random(count) < self._spec.hot_access
        block = rng.integers(0, self._hot_blocks, count)
        cold_blocks = self._blocks - self._hot_blocks
        if cold_blocks:
            cold = rng.integers(self._hot_blocks, self._blocks, count)
            block = np.where(hot, block, cold)
        return block


class _Sequential:
    """Each disk has a cursor that runs through the footprint and starts over."""

    def __init__(self, spec: Address, disks: int) -> None:
        self._spec = spec
        self._cursor = [0] * disks

    def offsets(self, rng: np.random.Generator, disk: Ints, length: Ints) -> Ints:
        del rng  # nothing is drawn: the order of the I/Os is the address
        offsets = np.empty(len(disk), np.int64)
        for number in range(len(self._cursor)):
            rows = np.flatnonzero(disk == number)
            offsets[rows] = self._walk(number, length[rows])
        return offsets

    def _walk(self, disk: int, length: Ints) -> Ints:
        spec = self._spec
        # A length that is no multiple of the block leaves a gap up to the next block.
        steps = -(-length // spec.block) * spec.block
        ends = np.cumsum(steps)
        offsets = np.empty(len(length), np.int64)
        done = 0
        while done < len(length):
            start = self._cursor[disk] - (int(ends[done - 1]) if done else 0)
            fits = int(np.searchsorted(ends, spec.footprint - start, side="right"))
            if fits <= done:
                self._cursor[disk] = 0
                continue
            offsets[done:fits] = ends[done:fits] - steps[done:fits] + start
            self._cursor[disk] = int(ends[fits - 1]) + start
            done = fits
        return offsets + spec.start
