"""What inspection filters found: writes that matched their rules, and those that were blocked.

The filters count themselves (gauges `scanned_bytes`, `matched_writes`, `blocked_writes`, whose last
value is the round's), here over the disks and complete rounds of a policy. The names of rules are
of the events of kind `match`, which a filter that only counts does not tell.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from vaio_bench.store import Run
from vaio_bench.units import format_size

_COUNTS = ("scanned_bytes", "matched_writes", "blocked_writes")
_CLASS = "inspection"
# Names of rules, as far as a line has them.
_RULES_TOLD = 3


@dataclass(frozen=True)
class Inspected:
    """Of one policy, all its complete rounds together; `rules` are those told, by name."""

    policy: str
    filter: str
    rounds: int
    scanned_bytes: int
    matched_writes: int
    blocked_writes: int
    rules: tuple[str, ...]

    def __str__(self) -> str:
        """A line for people."""
        over = "1 round" if self.rounds == 1 else f"{self.rounds} rounds"
        scanned = f"in {format_size(self.scanned_bytes)} written over {over}"
        if not self.matched_writes:
            return f"{self.filter} of policy {self.policy}: nothing found {scanned}"
        named = ", ".join(self.rules[:_RULES_TOLD])
        more = len(self.rules) - _RULES_TOLD
        named += f" and {more} other rules" if more > 0 else ""
        return (
            f"{self.filter} of policy {self.policy}: {self.matched_writes:,} writes matched"
            f"{f' ({named})' if named else ''}, {self.blocked_writes:,} were blocked, {scanned}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def inspected(run: Run) -> list[Inspected]:
    """What each policy with an inspection filter that counts has found."""
    found = []
    for policy in run.pooled_policies:
        uses = [
            str(each["use"])
            for each in (run.manifest.get("policies", {}).get(policy) or {}).get("filters", [])
            if isinstance(each, dict) and each.get("class") == _CLASS
        ]
        counts = _counts(run, policy) if uses else {}
        if counts:
            rounds = len(run.pooled_rounds(policy))
            values = {name: counts.get(name, 0) for name in _COUNTS}
            found.append(
                Inspected(policy, ", ".join(uses), rounds, rules=_rules(run, policy), **values)
            )
    return found


def _counts(run: Run, policy: str) -> dict[str, int]:
    """The sums of the last values of every round, disk and layer; empty where none is told."""
    sums: dict[str, int] = {}
    for number in run.pooled_rounds(policy):
        last = (
            run.gauges(policy, number)
            .with_columns(pl.col("disk", "gauge").cast(pl.String))
            .filter(pl.col("gauge").is_in(_COUNTS))
            .sort("time_ns", maintain_order=True)
            .group_by("disk", "layer_index", "gauge")
            .agg(pl.col("value").last())
            .group_by("gauge")
            .agg(pl.col("value").sum())
            .collect()
        )
        for name, value in last.rows():
            sums[name] = sums.get(name, 0) + int(value)
    return sums


def _rules(run: Run, policy: str) -> tuple[str, ...]:
    events = run.events().filter((pl.col("policy") == policy) & (pl.col("kind") == "match"))
    told = (json.loads(detail).get("rules") or [] for detail in events["detail"].unique())
    return tuple(sorted({str(rule) for rules in told for rule in rules}))
