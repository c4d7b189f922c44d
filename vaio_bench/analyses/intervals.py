"""Intervals of a ratio from a handful of rounds, and the words that may be said of it.

Rounds are the unit, never I/Os: I/Os of a round queue behind one another and are not independent.
Everything is on natural logarithms, where a ratio and its inverse are equally far from none.
The interval is Student's t over the rounds' paired log ratios: over a dozen rounds a bootstrap of
percentiles is too narrow, this one has the stated coverage where log ratios are near normal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

Verdict = Literal["no difference shown", "equivalent", "slower", "faster"]

CONFIDENCE = 0.95


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


def paired(value: Sequence[float], baseline: Sequence[float]) -> RatioInterval:
    """Geometric mean of `value[i] / baseline[i]`, with a paired t interval.

    Args:
        value: one positive figure a round.
        baseline: the same rounds' figures of the baseline.
    """
    ratios = np.log(np.asarray(value, float)) - np.log(np.asarray(baseline, float))
    n = len(ratios)
    error = float(np.std(ratios, ddof=1)) / math.sqrt(n) if n > 1 else None
    return _interval(float(np.mean(ratios)), error, n - 1)


def unpaired(value: Sequence[float], baseline: Sequence[float]) -> RatioInterval:
    """Ratio of geometric means with Welch's t interval: for rounds that were not interleaved."""
    ours, theirs = np.log(np.asarray(value, float)), np.log(np.asarray(baseline, float))
    mean = float(np.mean(ours) - np.mean(theirs))
    if min(len(ours), len(theirs)) < 2:
        return _interval(mean, None, 0)
    a, b = np.var(ours, ddof=1) / len(ours), np.var(theirs, ddof=1) / len(theirs)
    if a + b == 0:
        return _interval(mean, 0.0, len(ours) + len(theirs) - 2)
    # Welch and Satterthwaite: the degrees of freedom of a sum of two estimated variances.
    freedom = (a + b) ** 2 / (a**2 / (len(ours) - 1) + b**2 / (len(theirs) - 1))
    return _interval(mean, math.sqrt(a + b), float(freedom))


def scatter_floor(baseline: Sequence[float]) -> float | None:
    """Relative half-width that two batches of rounds like `baseline` would show of each other.

    What stands in for an A/A pair where there is none: t times s * sqrt(2 / n), of the logs.
    """
    n = len(baseline)
    if n < 2:
        return None
    error = float(np.std(np.log(np.asarray(baseline, float)), ddof=1)) * math.sqrt(2 / n)
    return math.expm1(_quantile(n - 1) * error)


def _interval(mean: float, error: float | None, freedom: float) -> RatioInterval:
    if error is None:
        return RatioInterval(math.exp(mean), None, None, None)
    reach = _quantile(freedom) * error
    if error == 0.0:
        p = 1.0 if mean == 0.0 else 0.0
    else:
        p = float(2 * stats.t.sf(abs(mean) / error, freedom))
    return RatioInterval(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach), p)


def _quantile(freedom: float) -> float:
    return float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom))


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
    3. `slower` or `faster` (worse or better, whatever the metric): the whole interval lies
       beyond the noise floor, so it leaves out 1, and so does the p value adjusted for the number
       of policies. The floor of a few rounds is itself uncertain: a ratio that only just reaches
       over it, on a machine as noisy as that, is no claim.
    4. `no difference shown`.
    """
    if interval.low is None or interval.high is None or floor is None:
        return "no difference shown"
    if abs(math.log(interval.ratio)) < math.log1p(floor):
        return "no difference shown"
    if interval.low >= 1 / (1 + margin) and interval.high <= 1 + margin:
        return "equivalent"
    beyond = interval.low > 1 + floor or interval.high < 1 / (1 + floor)
    if beyond and p_adjusted is not None and p_adjusted < 1 - CONFIDENCE:
        return "faster" if (interval.ratio > 1) == more_is_better else "slower"
    return "no difference shown"
