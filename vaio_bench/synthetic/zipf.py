"""Bounded Zipf numbers, exact for any exponent, without a table of the ranks.

Rejection-inversion: W. Hörmann and G. Derflinger, "Rejection-inversion to generate variates from
monotone discrete distributions", ACM TOMACS 6(3), 1996. The hat is the integral H of x^-alpha;
at least four of five proposals are accepted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Zipf:
    """Ranks 0..n-1; rank k has the probability (k + 1)^-alpha over the sum of all."""

    def __init__(self, n: int, alpha: float) -> None:
        self.n = n
        self.alpha = alpha
        self._high = float(self._integral(np.float64(n + 0.5)))
        self._low = float(self._integral(np.float64(1.5))) - 1.0
        # Proposals this close to their rank are accepted without computing H again.
        self._near = 2.0 - float(
            self._inverse(self._integral(np.float64(2.5)) - np.float64(2.0**-alpha))
        )

    def sample(self, rng: np.random.Generator, size: int) -> Ints:
        """`size` independent ranks from 0."""
        ranks = np.empty(size, np.int64)
        todo = np.arange(size)
        while len(todo):
            u = self._high + rng.random(len(todo)) * (self._low - self._high)
            x = self._inverse(u)
            k = np.clip(np.floor(x + 0.5), 1.0, self.n)
            accepted = k - x <= self._near
            far = np.flatnonzero(~accepted)
            if len(far):
                accepted[far] = u[far] >= self._integral(k[far] + 0.5) - k[far] ** -self.alpha
            ranks[todo[accepted]] = k[accepted].astype(np.int64) - 1
            todo = todo[~accepted]
        return ranks

    def _integral(self, x: Floats | np.float64) -> Floats:
        """H(x) = (x^(1 - alpha) - 1) / (1 - alpha), the logarithm where alpha is 1."""
        log_x = np.log(x)
        slope = 1.0 - self.alpha
        if abs(slope) < 1e-12:
            return np.asarray(log_x)
        return np.asarray(np.expm1(slope * log_x) / slope)

    def _inverse(self, y: Floats) -> Floats:
        slope = 1.0 - self.alpha
        if abs(slope) < 1e-12:
            return np.asarray(np.exp(y))
        # Rounding may take the argument a hair below -1, where the logarithm ends.
        return np.asarray(np.exp(np.log1p(np.maximum(slope * y, -1.0 + 1e-16)) / slope))
