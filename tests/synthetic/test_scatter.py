"""The bijections that scatter popular blocks."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vaio_bench.synthetic.scatter import Scatter


def scattered(n: int, disks: int, seed: int, disk: int) -> np.ndarray:
    scatter = Scatter(n, disks, np.random.SeedSequence(seed))
    return scatter.apply(np.arange(n), np.full(n, disk))


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 5000), disks=st.integers(1, 3), seed=st.integers(0, 2**63 - 1))
def test_it_is_a_bijection_on_every_disk(n: int, disks: int, seed: int) -> None:
    for disk in range(disks):
        assert np.array_equal(np.sort(scattered(n, disks, seed, disk)), np.arange(n))


def test_a_mixed_batch_is_what_each_disk_would_give() -> None:
    scatter = Scatter(1000, 2, np.random.SeedSequence(4))
    disk = np.arange(1000) % 2
    mixed = scatter.apply(np.arange(1000), disk)
    for number in range(2):
        mine = disk == number
        assert np.array_equal(mixed[mine], scattered(1000, 2, 4, number)[mine])


def test_popular_ranks_lie_anywhere_and_differ_by_disk_and_seed() -> None:
    n = 1_000_003
    scatter = Scatter(n, 2, np.random.SeedSequence(1))
    top = np.arange(2000)
    first = scatter.apply(top, np.zeros(2000, np.int64))
    second = scatter.apply(top, np.ones(2000, np.int64))
    assert stats.kstest(first / n, "uniform").pvalue > 1e-3
    assert stats.kstest(second / n, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.1
    assert (first == second).mean() < 0.01
    other = Scatter(n, 2, np.random.SeedSequence(2)).apply(top, np.zeros(2000, np.int64))
    assert (first == other).mean() < 0.01
