"""Overhead of policies against the direct path, from the rounds of a stored run.

For each round and policy the exact quantiles, the rate and the CPU time are taken from the rows
(CPU from the totals of the round's process); the comparison is then over rounds: ratios paired by
round, their interval, a noise floor from the A/A pair, and a word for each (`intervals.verdict`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from vaio_bench import servers
from vaio_bench.analyses import intervals
from vaio_bench.analyses.failed import Losses, failures, listed, losses
from vaio_bench.analyses.rounds import RATE_SHARE, round_figures
from vaio_bench.errors import InputError
from vaio_bench.store import Run, again_of, open_run

# Metrics of which more is better; of all others less is.
RATES = frozenset({"iops", "bytes_per_s"})
MORE_IS_BETTER = RATES | {"rate_achieved"}
DEFAULT_MARGIN = 0.02


@dataclass(frozen=True)
class Comparison:
    """One metric of one policy: geometric means over the rounds, ratio, interval and verdict.

    `bootstrap` is the second interval of the ratio (see `intervals`); `outliers` counts rounds
    that stand apart, which are all in the figures.
    """

    baseline: float
    value: float
    interval: intervals.RatioInterval
    floor: float | None
    p_adjusted: float | None
    verdict: intervals.Verdict
    bootstrap: tuple[float, float] | None = None
    outliers: int = 0

    @property
    def added(self) -> float:
        """What the policy adds to the baseline's figure, in its unit."""
        return self.baseline * (self.interval.ratio - 1)

    @property
    def added_interval(self) -> tuple[float, float] | None:
        """The ratio's interval in the figure's unit, over the baseline's geometric mean."""
        if self.interval.low is None or self.interval.high is None:
            return None
        return self.baseline * (self.interval.low - 1), self.baseline * (self.interval.high - 1)

    def to_dict(self) -> dict[str, Any]:
        """The shape of a metric in `compare --json`."""
        added_low, added_high = self.added_interval or (None, None)
        bootstrap_low, bootstrap_high = self.bootstrap or (None, None)
        return {
            "baseline": self.baseline,
            "value": self.value,
            "ratio": self.interval.ratio,
            "ci_low": self.interval.low,
            "ci_high": self.interval.high,
            "verdict": self.verdict,
            "added": self.added,
            "added_low": added_low,
            "added_high": added_high,
            "p": self.interval.p,
            "p_holm": self.p_adjusted,
            "floor": self.floor,
            "bootstrap_low": bootstrap_low,
            "bootstrap_high": bootstrap_high,
            "outlier_rounds": self.outliers,
        }


@dataclass(frozen=True)
class Overhead:
    """The comparison of every policy of a run with its baseline.

    `policies` maps policy to metric to comparison. `noise_floor` maps metric to the relative
    half-width of the A/A interval, or of several runs how far their baselines lie apart at most;
    it is empty where there is neither. `floor_from` says which of them stands behind the floor.
    `lost` has the policies that lost rounds; one that lost all has no metrics.
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
    floor_from: str
    lost: Mapping[str, Losses] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The document of `compare --json`."""
        return {
            "baseline": self.baseline,
            "policies": [
                {
                    "name": name,
                    "metrics": {key: found.to_dict() for key, found in metrics.items()},
                    "lost": self.lost[name].to_dict() if name in self.lost else None,
                }
                for name, metrics in self.policies.items()
            ],
            "noise_floor": self.noise_floor,
            "noise_floor_from": self.floor_from,
            "rounds": self.rounds,
            "margin": self.margin,
            "confidence": intervals.CONFIDENCE,
            "paired": self.paired,
            "notes": self.notes,
        }


def overhead(
    run: Run | str | Path, *, baseline: str | None = None, margin: float = DEFAULT_MARGIN
) -> Overhead:
    """Compare every policy of `run` with `baseline`, pairing rounds by their number.

    Args:
        run: a run folder under the wall clock.
        baseline: the policy to compare with, by default the run's; the policy of the same name
            with `-again` is its A/A pair.
        margin: relative difference that is called equivalent, above 0 and below 1.

    Raises:
        InputError: the run's clock is virtual, it lacks the baseline or a policy to compare
            with it, no round is complete in both, or the margin is no such share.
    """
    run = run if isinstance(run, Run) else open_run(run)
    check_margin(margin)
    check_measured(run)
    baseline = baseline or run.baseline
    again = again_of(baseline)
    lost = losses(run)
    others = [name for name in run.attempted if name not in (baseline, again)]
    known = ", ".join(run.policies) or "none"
    if len(run.attempted) == 1:
        raise InputError(f"{run.path}: {alone(run.attempted[0])}")
    if baseline in lost and lost[baseline].is_all:
        raise InputError(f"{run.path}: its baseline {baseline} {lost[baseline]}")
    if baseline not in run.policies:
        raise InputError(
            f'{run.path}: expected rows of baseline "{baseline}", found: {known} (--baseline '
            "names another)"
        )
    if not others:
        raise InputError(f'{run.path}: expected a policy to compare with "{baseline}", found none')
    figures = round_figures(run)
    gone = [name for name in others if name in lost and lost[name].is_all]
    is_measured = bool(gone and run.rounds(baseline, complete_only=True))
    if not is_measured and not any(shared_rounds(figures, name, baseline) for name in others):
        raise InputError(f'{run.path}: no round is complete both with "{baseline}" and without it')
    notes = [
        f"policy {name}, round {number + 1}: cut short, left out"
        for name in run.policies
        for number in run.cut_short(name)
    ]
    notes += [f"policy {name} {each}" for name, each in lost.items() if not each.is_all]
    notes += [str(each) for each in failures(run)]
    notes += [
        f"CPU and context switches of policy {name} are not told: what its NBD server took is not "
        "known, and the client's alone would tell nothing of filters in the server"
        for name in run.policies
        if run.manifest["policies"].get(name, {}).get("servers")
    ]
    notes += servers.state_notes(run.manifest["policies"], figures["round"].n_unique())
    if run.warmup_ns:
        notes.append(
            f"the first {run.warmup_ns / 1e9:g} s of each round are warm-up and in no latency or "
            "rate; CPU and context switches are of whole rounds"
        )
    if run.until is None:
        return compare_figures(
            figures, others, baseline, margin, notes, clock_ns=run.clock_ns, lost=lost
        )
    notes.append(
        f"rounds were added until the interval was narrow (--until): intervals are "
        f"{intervals.UNTIL_WIDER:g} times as wide as of a number of rounds set beforehand, and so "
        "hold at 95 %"
    )
    return compare_figures(
        figures, others, baseline, margin, notes, clock_ns=run.clock_ns,
        wider=intervals.UNTIL_WIDER, lost=lost,
    )  # fmt: skip


def alone(policy: str) -> str:
    """What is to be said of a run of one policy."""
    return (
        f"holds one policy, {policy}, and nothing to compare it with: `vaio-bench compare` replays "
        "a trace with and without policies"
    )


def check_margin(margin: float) -> None:
    """Raise InputError unless `margin` is a share above 0 and below 1."""
    if not 0 < margin < 1:
        raise InputError(f"--margin: expected a share above 0 and below 1, got {margin}")


def check_measured(run: Run) -> None:
    """Raise InputError for a run whose times were modelled: its clock or its device."""
    if run.virtual_clock:
        raise InputError(
            f"{run.path}: its clock is virtual, which charges no CPU: no overhead can be told "
            "from it (replay with --clock wall)"
        )
    if (run.manifest.get("backend") or {}).get("used") == "sim":
        raise InputError(
            f"{run.path}: its device was modelled (backend sim): no overhead can be told from it"
        )


def compare_figures(
    figures: pl.DataFrame,
    others: Sequence[str],
    baseline: str,
    margin: float,
    notes: Sequence[str] = (),
    *,
    paired: bool = True,
    clock_ns: float = 0.0,
    apart: Mapping[str, str | None] | None = None,
    wider: float = 1.0,
    lost: Mapping[str, Losses] | None = None,
) -> Overhead:
    """The comparison from a table of `round_figures`.

    Args:
        figures: of the baseline, perhaps its A/A pair, and the others.
        others: the policies to compare.
        baseline: what they are compared with.
        margin: relative difference that is called equivalent.
        notes: what else is to be told.
        paired: the rounds were interleaved.
        clock_ns: the clock's resolution: a difference of times below it is none.
        apart: policies of other runs than the baseline's, each with the baseline's twin in its own
            run (None: there is none), which tells what changed from run to run.
        wider: factor of the standard errors (`intervals.UNTIL_WIDER`).
        lost: the rounds that policies lost; one that lost all is in `others`, without figures.
    """
    rules = _Rules(baseline, margin, paired, clock_ns, apart or {}, wider)
    again = again_of(baseline) if again_of(baseline) in figures["policy"].to_list() else None
    metrics = [name for name in figures.columns if name not in ("policy", "round", RATE_SHARE)]
    policies: dict[str, dict[str, Comparison]] = {name: {} for name in others}
    a_a: dict[str, intervals.RatioInterval] = {}
    widths: dict[str, float] = {}
    for metric in metrics:
        pair = rules.interval(figures, metric, again, paired=True) if again else None
        if pair is not None:
            a_a[metric] = pair
        floors = rules.floors(figures, metric, others, pair)
        for name, of in rules.compared(figures, metric, others, floors).items():
            policies[name][metric] = of
        of_a_a = [None if pair is None else pair.half_width]
        known = [width for width in (map(floors.get, rules.apart) if apart else of_a_a)
                 if width is not None]  # fmt: skip
        if known:
            widths[metric] = max(known)
    found_notes = [*notes, *_zeroes(figures, metrics, [baseline, *others])]
    found_notes += _notes(a_a, again, baseline)
    rounds = max(len(shared_rounds(figures, name, baseline)) for name in others)
    if not rounds and again:
        rounds = len(shared_rounds(figures, again, baseline))
    if rounds < 2:
        found_notes.append("one round has no interval: take five rounds or more")
    floor_from = "a/a pair" if a_a else "scatter of the baseline's rounds"
    return Overhead(
        baseline, policies, widths, a_a, rounds, margin, paired, found_notes, figures,
        "the baselines of the runs" if apart else floor_from, lost or {},
    )  # fmt: skip


_Pair = tuple[list[float], list[float]]


@dataclass(frozen=True)
class _Rules:
    """How figures are compared; the fields are arguments of `compare_figures`."""

    baseline: str
    margin: float
    paired: bool
    clock_ns: float
    apart: Mapping[str, str | None]
    wider: float

    def interval(
        self, figures: pl.DataFrame, metric: str, name: str, *, paired: bool
    ) -> intervals.RatioInterval | None:
        """Of a policy's metric against the baseline's; None where there is no ratio."""
        pair = _pair_of(figures, metric, name, self.baseline, paired)
        return None if pair is None else self._of(figures, metric, name, pair, paired=paired)

    def _of(
        self, figures: pl.DataFrame, metric: str, name: str, pair: _Pair, *, paired: bool
    ) -> intervals.RatioInterval:
        of = intervals.paired if paired else intervals.unpaired
        is_time = metric.startswith(("latency_", "response_"))
        return of(
            *pair,
            resolution=self.clock_ns if is_time else 0.0,
            rounding=_rounding(figures, name, self.baseline) if metric in RATES else 0.0,
            wider=self.wider,
        )

    def floors(
        self,
        figures: pl.DataFrame,
        metric: str,
        others: Sequence[str],
        pair: intervals.RatioInterval | None,
    ) -> dict[str, float | None]:
        """By policy, the relative difference below which nothing is claimed."""
        own = _floor(figures, metric, self.baseline, pair)
        beside: dict[str | None, float | None] = {None: None}
        for twin in dict.fromkeys(self.apart.values()):
            if twin is not None:
                between = self.interval(figures, metric, twin, paired=False)
                beside[twin] = None if between is None else _reach(between)
        return {name: beside[self.apart[name]] if name in self.apart else own for name in others}

    def compared(
        self,
        figures: pl.DataFrame,
        metric: str,
        others: Sequence[str],
        floors: Mapping[str, float | None],
    ) -> dict[str, Comparison]:
        """The comparisons of a metric, p values adjusted for the number of policies."""
        tried = {name: _pair_of(figures, metric, name, self.baseline, self.paired)
                 for name in others}  # fmt: skip
        pairs = {name: pair for name, pair in tried.items() if pair is not None}
        known = {name: self._of(figures, metric, name, pair, paired=self.paired)
                 for name, pair in pairs.items()}  # fmt: skip
        adjusted = intervals.holm({name: of.p for name, of in known.items() if of.p is not None})
        made = {}
        for name, interval in known.items():
            pair = pairs[name]
            word = intervals.verdict(
                interval,
                floor=floors[name],
                margin=self.margin,
                p_adjusted=adjusted.get(name),
                more_is_better=metric in MORE_IS_BETTER,
            )
            made[name] = Comparison(
                _geometric_mean(pair[1]),
                _geometric_mean(pair[0]),
                interval,
                floors[name],
                adjusted.get(name),
                word,
                intervals.bootstrap(*pair) if self.paired else None,
                intervals.outliers(*pair) if self.paired else 0,
            )
        return made


def _rounding(figures: pl.DataFrame, *names: str) -> float:
    """The share of a ratio of rates that lies in how run times are rounded."""
    if RATE_SHARE not in figures.columns:
        return 0.0
    shares = [
        figures.filter(pl.col("policy") == name)[RATE_SHARE].drop_nulls().to_list()
        for name in names
    ]
    return sum(max(each, default=0.0) for each in shares)


def _zeroes(figures: pl.DataFrame, metrics: Sequence[str], names: Sequence[str]) -> list[str]:
    """Notes on figures of 0, which have no ratio: nothing is left out in silence."""
    notes: list[str] = []
    always: dict[str, list[str]] = {}
    for metric in metrics:
        zeroes = figures.filter(pl.col(metric) <= 0)
        for name in names if zeroes.height else ():
            zero = zeroes.filter(pl.col("policy") == name)["round"].to_list()
            if zero:
                if len(zero) == figures.filter(pl.col("policy") == name).height:
                    always.setdefault(metric, []).append(name)
                    continue
                notes.append(
                    f"{metric}: {name} has 0 in round {listed(zero)}: there is no ratio to tell"
                )
    if always:
        told = "; ".join(f"{metric} of {', '.join(of)}" for metric, of in always.items())
        notes.append(f"0 in every round, so that there is no ratio to tell: {told}")
    return notes


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


def _pair_of(
    figures: pl.DataFrame, metric: str, name: str, baseline: str, paired: bool
) -> _Pair | None:
    """The rounds' figures of policy and baseline; None where one lacks or has no logarithm."""
    rounds = shared_rounds(figures, name, baseline) if paired else None
    ours = _values(figures, metric, name, rounds)
    theirs = _values(figures, metric, baseline, rounds)
    if not ours or not theirs or min(*ours, *theirs) <= 0:
        return None
    if paired and not len(ours) == len(theirs) == len(rounds or ()):
        return None
    return ours, theirs


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
    return _reach(pair)


def _reach(pair: intervals.RatioInterval) -> float | None:
    """The half-width of what should be 1, or, where its interval leaves out 1, its far end."""
    if pair.low is None or pair.high is None:
        return None
    if pair.low > 1 or pair.high < 1:
        return max(pair.high, 1 / pair.low) - 1
    return pair.half_width


def _notes(a_a: dict[str, intervals.RatioInterval], again: str | None, baseline: str) -> list[str]:
    if not again:
        return [
            f'no A/A pair in the run (a second baseline stored as "{again_of(baseline)}"): the '
            f"noise floor is absent, and nothing is claimed below the scatter of the rounds of "
            f'"{baseline}"'
        ]
    return [
        f"{metric}: the A/A pair itself differs (ratio {pair.ratio:.4f}): the machine was not "
        "steady, and the floor is raised to that"
        for metric, pair in a_a.items()
        if pair.low is not None and pair.high is not None and (pair.low > 1 or pair.high < 1)
    ]
