"""Overhead of policies against the direct path, from the rounds of a stored run.

For each round and policy the exact quantiles, the rate and the CPU time are taken from the rows
(CPU from the totals of the round's process); the comparison is then over rounds: ratios paired by
round, their interval, a noise floor from the A/A pair, and a word for each (`intervals.verdict`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from vaio_bench.analyses import intervals, quantiles
from vaio_bench.errors import InputError
from vaio_bench.store import BASELINE, BASELINE_AGAIN, Run, open_run

# Metrics of which more is better; of all others less is.
MORE_IS_BETTER = frozenset({"iops", "bytes_per_s"})
DEFAULT_MARGIN = 0.02

_FAMILIES = {"latency": quantiles.LATENCY_NS, "response": quantiles.RESPONSE_NS}


@dataclass(frozen=True)
class Comparison:
    """One metric of one policy: geometric means over the rounds, ratio, interval and verdict."""

    baseline: float
    value: float
    interval: intervals.RatioInterval
    floor: float | None
    p_adjusted: float | None
    verdict: intervals.Verdict

    def to_dict(self) -> dict[str, Any]:
        """The shape of a metric in `compare --json`."""
        return {
            "baseline": self.baseline,
            "value": self.value,
            "ratio": self.interval.ratio,
            "ci_low": self.interval.low,
            "ci_high": self.interval.high,
            "verdict": self.verdict,
            "p": self.interval.p,
            "p_holm": self.p_adjusted,
            "floor": self.floor,
        }


@dataclass(frozen=True)
class Overhead:
    """The comparison of every policy of a run with its baseline.

    `policies` maps policy to metric to comparison. `noise_floor` maps metric to the relative
    half-width of the A/A interval; it is empty where the run has no A/A pair.
    """

    baseline: str
    policies: dict[str, dict[str, Comparison]]
    noise_floor: dict[str, float]
    a_a: dict[str, intervals.RatioInterval]
    rounds: int
    margin: float
    paired: bool
    notes: list[str]
    per_round: pl.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """The document of `compare --json`."""
        return {
            "baseline": self.baseline,
            "policies": [
                {"name": name, "metrics": {key: found.to_dict() for key, found in metrics.items()}}
                for name, metrics in self.policies.items()
            ],
            "noise_floor": self.noise_floor,
            "noise_floor_from": "a/a pair" if self.a_a else "scatter of the baseline's rounds",
            "rounds": self.rounds,
            "margin": self.margin,
            "confidence": intervals.CONFIDENCE,
            "paired": self.paired,
            "notes": self.notes,
        }


def overhead(
    run: Run | str | Path, *, baseline: str = BASELINE, margin: float = DEFAULT_MARGIN
) -> Overhead:
    """Compare every policy of `run` with `baseline`, pairing rounds by their number.

    Args:
        run: a run folder under the wall clock.
        baseline: the policy to compare with; a policy `direct-again` is its A/A pair.
        margin: relative difference that is called equivalent, above 0 and below 1.

    Raises:
        InputError: the run's clock is virtual, it lacks the baseline or a policy to compare
            with it, no round is complete in both, or the margin is no such share.
    """
    run = run if isinstance(run, Run) else open_run(run)
    check_margin(margin)
    check_wall_clock(run)
    others = [name for name in run.policies if name not in (baseline, BASELINE_AGAIN)]
    known = ", ".join(run.policies) or "none"
    if baseline not in run.policies:
        raise InputError(f'{run.path}: expected rows of baseline "{baseline}", found: {known}')
    if not others:
        raise InputError(f'{run.path}: expected a policy to compare with "{baseline}", found none')
    figures = round_figures(run)
    if not any(shared_rounds(figures, name, baseline) for name in others):
        raise InputError(f'{run.path}: no round is complete both with "{baseline}" and without it')
    notes = [
        f"policy {name}, round {number}: cut short, left out"
        for name in run.policies
        for number in sorted(set(run.rounds(name)) - set(run.rounds(name, complete_only=True)))
    ]
    return compare_figures(figures, others, baseline, margin, notes)


def check_margin(margin: float) -> None:
    """Raise InputError unless `margin` is a share above 0 and below 1."""
    if not 0 < margin < 1:
        raise InputError(f"--margin: expected a share above 0 and below 1, got {margin}")


def check_wall_clock(run: Run) -> None:
    """Raise InputError for a run under the virtual clock: it charges no CPU."""
    if run.virtual_clock:
        raise InputError(
            f"{run.path}: its clock is virtual, which charges no CPU: no overhead can be told "
            "from it (replay with --clock wall)"
        )


def round_figures(run: Run) -> pl.DataFrame:
    """One row a complete round: `policy, round` and a column a metric (null: not known).

    Quantiles are over the I/Os that succeeded. The rate is their number over the time from the
    first due to the last completion; CPU is what the round's process used, user and system.
    """
    records: list[dict[str, Any]] = []
    for policy in run.policies:
        rounds = run.rounds(policy, complete_only=True)
        if not rounds:
            continue
        rows = quantiles.completed(run.scan_ios(policy)).filter(pl.col("round").is_in(rounds))
        ladders = {
            family: quantiles.exact_quantiles(
                rows, value, [*quantiles.LADDER.values(), 1.0], ["round"]
            )
            for family, value in _FAMILIES.items()
        }
        sums = _sums(rows)
        for number in rounds:
            record: dict[str, Any] = {"policy": policy, "round": number}
            names = [*quantiles.LADDER, "max"]
            for family, found in ladders.items():
                values = found.get((number,), [None] * len(names))
                record |= {
                    f"{family}_{name}_ns": value for name, value in zip(names, values, strict=True)
                }
            records.append(record | _rates(sums.get(number), run.totals(policy, number)))
    return pl.DataFrame(records, infer_schema_length=None)


def _sums(rows: pl.LazyFrame) -> dict[int, dict[str, Any]]:
    data = pl.col("op").cast(pl.String).is_in(["read", "write"])
    sums = (
        rows.group_by("round")
        .agg(
            pl.len().alias("ios"),
            pl.col("length_bytes").filter(data).sum().alias("bytes"),
            (pl.col("complete_ns").max() - pl.col("due_ns").min()).alias("wall_ns"),
        )
        .collect(engine="streaming")
    )
    return {row["round"]: row for row in sums.to_dicts()}


def _rates(sums: dict[str, Any] | None, totals: dict[str, Any]) -> dict[str, float | None]:
    if not sums or sums["wall_ns"] <= 0:
        return {"iops": None, "bytes_per_s": None, "cpu_ns_per_io": None}
    seconds = sums["wall_ns"] / 1e9
    used = [totals.get("cpu_user_ns"), totals.get("cpu_system_ns")]
    ios = totals.get("ios") or sums["ios"]
    known = [float(part) for part in used if part is not None]
    return {
        "iops": sums["ios"] / seconds,
        "bytes_per_s": sums["bytes"] / seconds,
        "cpu_ns_per_io": sum(known) / ios if len(known) == 2 else None,
    }


def compare_figures(
    figures: pl.DataFrame,
    others: Sequence[str],
    baseline: str,
    margin: float,
    notes: Sequence[str] = (),
    *,
    paired: bool = True,
) -> Overhead:
    """The comparison from a table of `round_figures`; `paired` = rounds were interleaved."""
    again = BASELINE_AGAIN if BASELINE_AGAIN in figures["policy"].to_list() else None
    metrics = [name for name in figures.columns if name not in ("policy", "round")]
    policies: dict[str, dict[str, Comparison]] = {name: {} for name in others}
    a_a: dict[str, intervals.RatioInterval] = {}
    found_notes = list(notes)
    for metric in metrics:
        raw = {name: _interval_of(figures, metric, name, baseline, paired) for name in others}
        known = {name: found for name, found in raw.items() if found is not None}
        p_values = {name: found[2].p for name, found in known.items() if found[2].p is not None}
        adjusted = intervals.holm(p_values)
        if again and (pair := _interval_of(figures, metric, again, baseline, paired=True)):
            a_a[metric] = pair[2]
        floor = _floor(figures, metric, baseline, a_a.get(metric))
        for name, (ours, theirs, interval) in known.items():
            word = intervals.verdict(
                interval,
                floor=floor,
                margin=margin,
                p_adjusted=adjusted.get(name),
                more_is_better=metric in MORE_IS_BETTER,
            )
            policies[name][metric] = Comparison(
                theirs, ours, interval, floor, adjusted.get(name), word
            )
    found_notes += _notes(a_a, again, baseline)
    rounds = max(len(shared_rounds(figures, name, baseline)) for name in others)
    if rounds < 2:
        found_notes.append("one round has no interval: take five rounds or more")
    half_widths = {
        metric: width for metric, pair in a_a.items() if (width := pair.half_width) is not None
    }
    return Overhead(
        baseline, policies, half_widths, a_a, rounds, margin, paired, found_notes, figures
    )


def shared_rounds(figures: pl.DataFrame, name: str, baseline: str) -> list[int]:
    """Rounds complete for both policies, ascending."""
    if figures.is_empty():
        return []
    of = {
        policy: set(figures.filter(pl.col("policy") == policy)["round"].to_list())
        for policy in (name, baseline)
    }
    return sorted(of[name] & of[baseline])


def _values(
    figures: pl.DataFrame, metric: str, policy: str, rounds: Sequence[int] | None
) -> list[float]:
    own = figures.filter(pl.col("policy") == policy).sort("round")
    if rounds is not None:
        own = own.filter(pl.col("round").is_in(list(rounds)))
    return [float(value) for value in own[metric].drop_nulls().to_list()]


def _interval_of(
    figures: pl.DataFrame, metric: str, name: str, baseline: str, paired: bool
) -> tuple[float, float, intervals.RatioInterval] | None:
    """Geometric means of policy and baseline and their ratio; None where a figure lacks."""
    rounds = shared_rounds(figures, name, baseline) if paired else None
    ours = _values(figures, metric, name, rounds)
    theirs = _values(figures, metric, baseline, rounds)
    if not ours or not theirs or min(*ours, *theirs) <= 0:
        return None
    if paired and not len(ours) == len(theirs) == len(rounds or ()):
        return None
    interval = (intervals.paired if paired else intervals.unpaired)(ours, theirs)
    return _geometric_mean(ours), _geometric_mean(theirs), interval


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(math.fsum(math.log(value) for value in values) / len(values))


def _floor(
    figures: pl.DataFrame, metric: str, baseline: str, pair: intervals.RatioInterval | None
) -> float | None:
    """Below this relative difference nothing is claimed.

    With an A/A pair: its half-width, or, where its interval leaves out 1 (the machine was not
    steady), as far as that interval reaches. Without: the scatter of the baseline's own rounds.
    """
    if pair is None or pair.low is None or pair.high is None:
        values = _values(figures, metric, baseline, None)
        return intervals.scatter_floor(values) if values and min(values) > 0 else None
    if pair.low > 1 or pair.high < 1:
        return max(pair.high, 1 / pair.low) - 1
    return pair.half_width


def _notes(a_a: dict[str, intervals.RatioInterval], again: str | None, baseline: str) -> list[str]:
    if not again:
        return [
            f'no A/A pair in the run (a second baseline stored as "{BASELINE_AGAIN}"): the noise '
            f"floor is absent, and nothing is claimed below the scatter of the rounds of "
            f'"{baseline}"'
        ]
    return [
        f"{metric}: the A/A pair itself differs (ratio {pair.ratio:.4f}): the machine was not "
        "steady, and the floor is raised to that"
        for metric, pair in a_a.items()
        if pair.low is not None and pair.high is not None and (pair.low > 1 or pair.high < 1)
    ]
