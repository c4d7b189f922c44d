"""The interval covers, the A/A pair is not accused, and the words follow the rules."""

import math

import numpy as np
import pytest
from scipy import stats

from vaio_bench.analyses import intervals
from vaio_bench.analyses.intervals import RatioInterval, verdict

TRIALS = 2_000


def binomial_range(share: float) -> tuple[int, int]:
    """Counts that a right implementation leaves once in a million seeds."""
    low, high = stats.binom.interval(1 - 1e-6, TRIALS, share)
    return int(low), int(high)


@pytest.mark.parametrize("rounds", [3, 5, 12])
@pytest.mark.parametrize("ratio", [1.0, 1.18])
def test_the_paired_interval_covers_the_true_ratio(rounds: int, ratio: float) -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(TRIALS):
        shared = rng.normal(0, 0.2, rounds)  # what the machine does to a round, both halves alike
        baseline = 80_000 * np.exp(shared + rng.normal(0, 0.02, rounds))
        value = 80_000 * ratio * np.exp(shared + rng.normal(0, 0.02, rounds))
        found = intervals.paired(value, baseline)
        covered += found.low <= ratio <= found.high
    low, high = binomial_range(0.95)
    assert low <= covered <= high


def test_the_unpaired_interval_covers_too() -> None:
    rng = np.random.default_rng(12)
    covered = 0
    for _ in range(TRIALS):
        baseline = np.exp(rng.normal(0, 0.02, 6))
        value = 1.1 * np.exp(rng.normal(0, 0.05, 8))
        found = intervals.unpaired(value, baseline)
        covered += found.low <= 1.1 <= found.high
    low, high = binomial_range(0.95)
    # Welch's degrees of freedom are an approximation: allow it half a percent.
    assert low - TRIALS // 200 <= covered <= high + TRIALS // 200


def test_equal_policies_are_rarely_accused_however_many_there_are() -> None:
    rng = np.random.default_rng(13)
    accused = 0
    policies = 5
    for _ in range(TRIALS):
        baseline = np.exp(rng.normal(0, 0.05, 6))
        again = np.exp(rng.normal(0, 0.05, 6))
        found = {
            str(i): intervals.paired(np.exp(rng.normal(0, 0.05, 6)), baseline)
            for i in range(policies)
        }
        adjusted = intervals.holm({name: each.p for name, each in found.items()})
        floor = intervals.paired(again, baseline).half_width
        words = [
            verdict(
                each, floor=floor, margin=0.001, p_adjusted=adjusted[name], more_is_better=False
            )
            for name, each in found.items()
        ]
        accused += any(word in ("slower", "faster") for word in words)
    assert accused <= binomial_range(0.05)[1]


def test_equivalence_is_rarely_claimed_at_the_margin() -> None:
    rng = np.random.default_rng(14)
    claimed = 0
    for _ in range(TRIALS):
        baseline = np.exp(rng.normal(0, 0.003, 8))
        value = 1.02 * np.exp(rng.normal(0, 0.003, 8))
        found = intervals.paired(value, baseline)
        word = verdict(found, floor=1e-6, margin=0.02, p_adjusted=found.p, more_is_better=False)
        claimed += word == "equivalent"
    # The true ratio lies on the margin: one of the two one-sided tests errs at 2.5 %.
    assert claimed <= binomial_range(0.025)[1]


def test_a_paired_interval_by_hand() -> None:
    # Log ratios 0.1, 0.2, 0.3: mean 0.2, s 0.1, error 0.1/sqrt(3), t(2, 0.975) = 4.302653.
    found = intervals.paired([math.exp(0.1), math.exp(0.2), math.exp(0.3)], [1.0, 1.0, 1.0])
    reach = 4.302653 * 0.1 / math.sqrt(3)
    assert found.ratio == pytest.approx(math.exp(0.2))
    assert found.low == pytest.approx(math.exp(0.2 - reach), rel=1e-6)
    assert found.high == pytest.approx(math.exp(0.2 + reach), rel=1e-6)
    assert found.half_width == pytest.approx(math.exp(reach) - 1, rel=1e-6)
    assert found.p == pytest.approx(stats.ttest_1samp([0.1, 0.2, 0.3], 0).pvalue)


def test_welch_is_that_of_scipy() -> None:
    rng = np.random.default_rng(15)
    a, b = np.exp(rng.normal(0.1, 0.05, 5)), np.exp(rng.normal(0, 0.02, 9))
    found = intervals.unpaired(a, b)
    peer = stats.ttest_ind(np.log(a), np.log(b), equal_var=False)
    low, high = peer.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((math.exp(low), math.exp(high)))
    assert found.p == pytest.approx(peer.pvalue)


def test_holm_by_hand() -> None:
    found = intervals.holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert found == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})


def test_one_round_has_no_interval() -> None:
    assert intervals.paired([2.0], [1.0]) == RatioInterval(2.0, None, None, None)
    assert intervals.scatter_floor([1.0]) is None


@pytest.mark.parametrize(
    ("ratio", "low", "high", "floor", "p", "more_is_better", "word"),
    [
        (1.18, 1.15, 1.21, 0.01, 0.001, False, "slower"),
        (0.85, 0.80, 0.90, 0.01, 0.001, False, "faster"),
        (0.85, 0.80, 0.90, 0.01, 0.001, True, "slower"),
        (1.18, 1.15, 1.21, 0.01, 0.001, True, "faster"),
        (1.18, 1.15, 1.21, 0.20, 0.001, False, "no difference shown"),  # below the floor
        (0.84, 0.80, 0.90, 0.20, 0.001, False, "no difference shown"),  # 1/0.84 = 1.19
        (1.010, 1.005, 1.015, 0.001, 0.001, False, "equivalent"),  # though it leaves out 1
        (1.010, 1.005, 1.015, 0.02, 0.001, False, "no difference shown"),  # the floor goes first
        (1.00, 0.97, 1.03, 0.0, 0.9, False, "no difference shown"),
        (1.05, 1.02, 1.09, 0.01, 0.08, False, "no difference shown"),  # not after Holm
        (1.30, 1.21, 1.40, 0.26, 0.001, False, "no difference shown"),  # reaches into the floor
        (0.77, 0.72, 0.82, 0.26, 0.001, False, "no difference shown"),
        (1.05, 1.01, 1.09, None, 0.01, False, "no difference shown"),  # nothing to compare with
    ],
)
def test_the_words(
    ratio: float,
    low: float,
    high: float,
    *,
    floor: float | None,
    p: float,
    more_is_better: bool,
    word: str,
) -> None:
    found = verdict(
        RatioInterval(ratio, low, high, p),
        floor=floor,
        margin=0.02,
        p_adjusted=p,
        more_is_better=more_is_better,
    )
    assert found == word
