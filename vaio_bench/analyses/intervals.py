"""Intervals of a ratio from a handful of rounds, and the words that may be said of it.

Rounds are the unit, never I/Os: I/Os of a round queue behind one another and are not independent.
Everything is on natural logarithms, where a ratio and its inverse are equally far from none.
The interval is Student's t over the rounds' paired log ratios: over a dozen rounds a bootstrap of
percentiles is too narrow, this one has the stated coverage where log ratios are near normal. The
studentised bootstrap beside it supposes no shape: where the two differ, a few rounds decide.
With `--until`, where the width itself ends the run, the standard error is taken `UNTIL_WIDER`
times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

Verdict = Literal["no difference shown", "equivalent", "slower", "faster"]

CONFIDENCE = 0.95
RESAMPLES = 4_000
# Fewer rounds than this have too few distinct resamples for a quantile at 2.5 %.
BOOTSTRAP_ROUNDS_MIN = 5
UNTIL_ROUNDS_MIN = 8
"""Where rounds are added until the interval is narrow, no fewer than these are judged."""
UNTIL_WIDER = 1.1
"""What such an interval is widened by. Rounds that happen to lie close together end a run early,
so that of plain intervals at 95 % only 92.7 % cover (from 8 rounds on; 90 % from 2): Y. S. Chow, H.
Robbins, On the asymptotic theory of fixed-width sequential confidence intervals, 1965, promise 95 %
for many rounds alone. By simulation (tests/analyses/test_intervals.py) this factor makes it 95 % or
more wherever the run ends, for log ratios that are near normal."""
# A modified z-score beyond this marks an outlier: B. Iglewicz, D. C. Hoaglin, How to Detect and
# Handle Outliers, 1993.
_OUTLIER_SCORE = 3.5
# The MAD of normal values is this share of their standard deviation.
_MAD_OF_NORMAL = 0.6745


@dataclass(frozen=True)
class RatioInterval:
    """A ratio with its interval at `CONFIDENCE`, and the two-sided p value of "no difference".

    With fewer than two rounds there is no interval: `low`, `high` and `p` are None.
    """

    ratio: float
    low: float | None
    high: float | None
    p: float | None

    @property
    def half_width(self) -> float | None:
        """Relative half-width: how far the interval reaches above the ratio, as a share of it."""
        return None if self.high is None else self.high / self.ratio - 1.0


def paired(
    value: Sequence[float],
    baseline: Sequence[float],
    *,
    resolution: float = 0.0,
    rounding: float = 0.0,
    wider: float = 1.0,
) -> RatioInterval:
    """Geometric mean of `value[i] / baseline[i]`, with a paired t interval.

    Args:
        value: one positive figure a round.
        baseline: the same rounds' figures of the baseline.
        resolution: what the figures are rounded to. All rounds may be rounded alike, and their
            scatter does not show it: the interval reaches so much further.
        rounding: the same as a share that is alike for all figures.
        wider: factor of the standard error, `UNTIL_WIDER` where the width said when to stop.
    """
    ratios = np.log(np.asarray(value, float)) - np.log(np.asarray(baseline, float))
    n = len(ratios)
    error = wider * float(np.std(ratios, ddof=1)) / math.sqrt(n) if n > 1 else None
    slack = _slack(value, baseline, resolution) + math.log1p(rounding)
    return _interval(float(np.mean(ratios)), error, n - 1, slack)


def unpaired(
    value: Sequence[float],
    baseline: Sequence[float],
    *,
    resolution: float = 0.0,
    rounding: float = 0.0,
    wider: float = 1.0,
) -> RatioInterval:
    """Ratio of geometric means with Welch's t interval: for rounds that were not interleaved.

    Arguments as of `paired`.
    """
    ours, theirs = np.log(np.asarray(value, float)), np.log(np.asarray(baseline, float))
    mean = float(np.mean(ours) - np.mean(theirs))
    slack = _slack(value, baseline, resolution) + math.log1p(rounding)
    if min(len(ours), len(theirs)) < 2:
        return _interval(mean, None, 0, slack)
    a, b = np.var(ours, ddof=1) / len(ours), np.var(theirs, ddof=1) / len(theirs)
    if a + b == 0:
        return _interval(mean, 0.0, len(ours) + len(theirs) - 2, slack)
    # Welch and Satterthwaite: the degrees of freedom of a sum of two estimated variances.
    freedom = (a + b) ** 2 / (a**2 / (len(ours) - 1) + b**2 / (len(theirs) - 1))
    return _interval(mean, wider * math.sqrt(a + b), float(freedom), slack)


def _slack(value: Sequence[float], baseline: Sequence[float], resolution: float) -> float:
    """How far rounding can move the mean log ratio: half a step in every figure, one way."""
    slack = 0.0
    for figures in (value, baseline):
        # A figure of a step or less is as good as unknown.
        shares = np.minimum(resolution / 2 / np.asarray(figures, float), 0.99)
        slack += float(np.mean(-np.log1p(-shares)))
    return slack


def bootstrap(
    value: Sequence[float], baseline: Sequence[float], *, seed: int = 0
) -> tuple[float, float] | None:
    """The studentised bootstrap interval of the paired ratio at `CONFIDENCE`.

    Rounds are resampled, never I/Os; a resample's mean is judged by its own standard error (the
    bootstrap-t of B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap, 1993, 12.5).

    Args:
        value: one positive figure a round.
        baseline: the same rounds' figures of the baseline.
        seed: of the resampling.

    Returns:
        Low and high of the ratio; None with fewer than `BOOTSTRAP_ROUNDS_MIN` rounds.
    """
    ratios = np.log(np.asarray(value, float)) - np.log(np.asarray(baseline, float))
    n = len(ratios)
    if n < BOOTSTRAP_ROUNDS_MIN:
        return None
    mean, error = float(np.mean(ratios)), float(np.std(ratios, ddof=1)) / math.sqrt(n)
    if error == 0.0:
        return math.exp(mean), math.exp(mean)
    drawn = ratios[np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))]
    errors = np.std(drawn, axis=1, ddof=1) / math.sqrt(n)
    # A resample of one round alone, n times, has no error to be judged by.
    usable = errors > 0
    scores = (np.mean(drawn, axis=1)[usable] - mean) / errors[usable]
    below, above = np.quantile(scores, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return math.exp(mean - above * error), math.exp(mean - below * error)


def outliers(value: Sequence[float], baseline: Sequence[float]) -> int:
    """How many rounds' log ratios stand apart from the others'; they are kept all the same."""
    ratios = np.log(np.asarray(value, float)) - np.log(np.asarray(baseline, float))
    away = np.abs(ratios - np.median(ratios))
    spread = float(np.median(away))
    if spread == 0.0:
        return int((away > 0).sum()) if len(ratios) > 2 else 0
    return int((_MAD_OF_NORMAL * away / spread > _OUTLIER_SCORE).sum())


def scatter_floor(baseline: Sequence[float]) -> float | None:
    """Relative half-width that two batches of rounds like `baseline` would show of each other.

    What stands in for an A/A pair where there is none: t times s * sqrt(2 / n), of the logs.
    """
    n = len(baseline)
    if n < 2:
        return None
    error = float(np.std(np.log(np.asarray(baseline, float)), ddof=1)) * math.sqrt(2 / n)
    return math.expm1(_quantile(n - 1) * error)


def _interval(mean: float, error: float | None, freedom: float, slack: float) -> RatioInterval:
    if error is None:
        return RatioInterval(math.exp(mean), None, None, None)
    reach = _quantile(freedom) * error + slack
    beyond = max(abs(mean) - slack, 0.0)
    if error == 0.0:
        p = 1.0 if beyond == 0.0 else 0.0
    else:
        p = 2 * float(special.stdtr(freedom, -beyond / error))
    return RatioInterval(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach), p)


def _quantile(freedom: float) -> float:
    return float(special.stdtrit(freedom, 0.5 + CONFIDENCE / 2))


def rounds_for(width: float, rounds: int, wanted: float, most: int = 1_000) -> int | None:
    """How many rounds would narrow an interval from a relative half-width to another.

    Of the scatter that `rounds` show; None where more than `most` are needed.
    """
    scatter = math.log1p(width) * math.sqrt(rounds) / _quantile(rounds - 1)
    reach = math.log1p(wanted)
    return next(
        (n for n in range(2, most + 1) if _quantile(n - 1) * scatter / math.sqrt(n) <= reach), None
    )


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjustment: p values that hold for all the comparisons together.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    adjusted: dict[str, float] = {}
    running = 0.0
    for at, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        running = max(running, min(1.0, p * (len(p_values) - at)))
        adjusted[name] = running
    return adjusted


def verdict(
    interval: RatioInterval,
    *,
    floor: float | None,
    margin: float,
    p_adjusted: float | None,
    more_is_better: bool,
) -> Verdict:
    """What may be said, tried in this order.

    1. `no difference shown`: there is no interval, or the ratio is nearer to 1 than the noise
       floor (`floor`, relative; None: there is none to compare with, so nothing is claimed).
    2. `equivalent`: the whole interval lies within 1/(1+margin) to 1+margin, even if it leaves
       out 1. As the interval holds at 95 %, this is two one-sided tests at 2.5 % each.
    3. `slower` or `faster` (worse or better, whatever the metric): the interval leaves out 1, and
       so does the p value adjusted for the number of policies.
    4. `no difference shown`.
    """
    if interval.low is None or interval.high is None or floor is None:
        return "no difference shown"
    if abs(math.log(interval.ratio)) < math.log1p(floor):
        return "no difference shown"
    if interval.low >= 1 / (1 + margin) and interval.high <= 1 + margin:
        return "equivalent"
    differs = interval.low > 1 or interval.high < 1
    if differs and p_adjusted is not None and p_adjusted < 1 - CONFIDENCE:
        return "faster" if (interval.ratio > 1) == more_is_better else "slower"
    return "no difference shown"
