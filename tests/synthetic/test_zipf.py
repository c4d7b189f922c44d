"""Zipf ranks against the exact probabilities."""

import numpy as np
import pytest
from scipy import stats

from vaio_bench.synthetic.zipf import Zipf


def exact(n: int, alpha: float) -> np.ndarray:
    weights = np.arange(1, n + 1, dtype=np.float64) ** -alpha
    return weights / weights.sum()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.99, 1.0, 1.0 + 1e-13, 1.001, 1.2, 2.5])
@pytest.mark.parametrize("n", [2, 10, 1000])
def test_every_rank_has_its_probability(n: int, alpha: float) -> None:
    draws = 300_000
    counts = np.bincount(Zipf(n, alpha).sample(np.random.default_rng(11), draws), minlength=n)
    expected = exact(n, alpha) * draws
    # Ranks too rare for the chi-square approximation are taken together.
    rare = expected < 10
    if rare.any():
        counts = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    # 24 cases: a limit of 1e-4 each is passed by chance in one of 400 choices of the seed.
    assert stats.chisquare(counts, expected * (counts.sum() / expected.sum())).pvalue > 1e-4


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.4])
def test_the_tail_of_a_large_range(alpha: float) -> None:
    n, draws = 10_000_000, 1_000_000
    ranks = Zipf(n, alpha).sample(np.random.default_rng(5), draws)
    assert ranks.min() >= 0
    assert ranks.max() < n
    edges = np.unique(np.geomspace(1, n, 40).astype(np.int64))
    cumulative = np.concatenate(([0.0], np.cumsum(exact(n, alpha))))
    expected = np.diff(cumulative[edges - 1], append=1.0) * draws
    counts = np.histogram(ranks, bins=np.append(edges - 1, n))[0]
    kept = expected >= 10
    chi_square = ((counts - expected) ** 2 / expected)[kept].sum()
    assert stats.chi2.sf(chi_square, kept.sum() - 1) > 1e-4


def test_one_rank_and_a_steep_exponent() -> None:
    rng = np.random.default_rng(1)
    assert set(Zipf(1, 1.0).sample(rng, 1000)) == {0}
    steep = Zipf(1_000_000, 20.0).sample(rng, 10_000)
    assert steep.max() <= 1
