"""Rules of thumb that replication products publish, as functions; rates in bits per second.

They know means and percentiles only, not when the writes come: `rpo` plans from the trace. Shares
are fractions, 0.4 for 40 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable


def mean_rate_bps(size_bytes: float, duration_s: float) -> float:
    """Bits per second that carry so many bytes in so many seconds: 1 TB a day is 92.6 Mbit/s."""
    return size_bytes * 8 / duration_s


def wire_rate(rate: float, reduction: float) -> float:
    """What is left of a rate, in its unit, after a reduction by compression and the like."""
    return rate * (1 - reduction)


def with_headroom(rates: Iterable[float], headroom: float = 0.2) -> float:
    """The rates of several servers and some more, in their unit (AWS DRS asks for 20 %)."""
    return sum(rates) * (1 + headroom)


def appliances(peak_bps: float, reduction: float, each_bytes_per_s: float = 20e6) -> int:
    """Replication appliances for a 98th-percentile rate, each good for 20 MB/s (Zerto ZCA)."""
    return math.ceil(wire_rate(peak_bps, reduction) / 8 / each_bytes_per_s)


def journal_bytes(rate_bps: float, rollback_s: float) -> float:
    """Journal for a rollback window by RecoverPoint's rule: 20 % reserved, 5 % on top."""
    return rate_bps * rollback_s / (1 - 0.2) * 1.05 / 8


def latest_start_s(sync_s: float, rpo_s: float) -> float:
    """When, after the start of the last sync, the next must start at the latest to keep an RPO.

    An instance reflects the state at its sync's start and is replaced when the next sync ends
    (vSphere Replication). Below `sync_s` when no schedule keeps the RPO.
    """
    return rpo_s - sync_s


def violation_share(sync_s: float, rpo_s: float) -> float:
    """Share of the time beyond the RPO when syncs of equal length follow each other at once.

    The age of the newest instance goes from one sync length to two: none while
    `2 sync_s <= rpo_s`, else `min(1, (2 sync_s - rpo_s) / sync_s)`.
    """
    return max(0.0, min(1.0, (2 * sync_s - rpo_s) / sync_s))
