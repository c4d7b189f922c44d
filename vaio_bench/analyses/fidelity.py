"""Replay fidelity: were all I/Os issued when the trace says, at its rate, in its order?

Issue error = submit - due, of every I/O, failed ones too, from rows; what was recorded beside it
(`against_trace`) from the trace file, where it is still there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from vaio_bench.analyses import quantiles
from vaio_bench.analyses.against_trace import Against, Recorded, against, recorded
from vaio_bench.analyses.failed import losses
from vaio_bench.schemas import IoFlag
from vaio_bench.store import Run, open_run

# Later than this counts as late: as long as a fast device's I/O takes several times over.
LATE_AFTER_NS = 1_000_000
# More late I/Os than this, or a rate further off, and the recorded pace was not kept.
LATE_SHARE_MAX = 0.01
RATE_ERROR_MAX = 0.01
# I/Os at either end of a round whose median lateness gives the drift.
_DRIFT_IOS = 1_000
# Rows may stand this far from their place in the order of `seq`, as parts are in the order of
# completion: far above any depth of I/Os in flight.
_DISORDER = 1 << 18


@dataclass(frozen=True)
class Fidelity:
    """Fidelity of one round.

    `rate_ratio` is the achieved over the recorded rate (span of due over span of submit times);
    `drift_ns` the median lateness of the last thousand I/Os less that of the first;
    `out_of_order` counts I/Os submitted before one of their disk with a lower `seq`, where neither
    had to wait for an I/O that it overlaps; `conflict_waited` counts those that had to.
    """

    policy: str
    round: int
    ios: int
    issue_error_p50_ns: int
    issue_error_p99_ns: int
    issue_error_max_ns: int
    late_share: float
    drift_ns: int
    rate_ratio: float | None
    out_of_order: int
    conflict_waited: int = 0
    beside: Against = field(default_factory=Against)

    @property
    def rate_error(self) -> float | None:
        """How far the achieved rate is from the recorded one, as a share of it."""
        return None if self.rate_ratio is None else self.rate_ratio - 1

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        own = asdict(self)
        return {**own, "rate_error": self.rate_error, **own.pop("beside")}


def document(run: Run | str | Path, *, late_after_ns: int = LATE_AFTER_NS) -> dict[str, Any]:
    """What `fidelity --json` prints: every round, and what of the trace was not kept.

    Raises:
        InputError: it is no run, or has no rows.
    """
    run = run if isinstance(run, Run) else open_run(run)
    run.scan_ios()
    trace = recorded(run)
    found = fidelity(run, late_after_ns=late_after_ns, trace=trace)
    pace = (run.manifest.get("pacing") or {}).get("mode")
    return {
        "run": str(run.path),
        "pace": pace,
        "late_after_ns": late_after_ns,
        "trace_at_hand": trace is not None,
        "rounds": [each.to_dict() for each in found],
        "faults": [
            *(f"{name} {lost}" for name, lost in losses(run).items()),
            *(fault for each in found for fault in faults(each, paced=pace == "recorded")),
        ],
    }


def faults(of: Fidelity, *, paced: bool) -> list[str]:
    """What a round did not keep of its trace; times count where it was `paced` as recorded."""
    said = []
    if paced and of.late_share > LATE_SHARE_MAX:
        said.append(f"{of.late_share:.1%} of the I/Os were issued late")
    if paced and of.rate_error is not None and abs(of.rate_error) > RATE_ERROR_MAX:
        said.append(f"the rate was {of.rate_error:+.1%} off the recorded one")
    if of.out_of_order:
        said.append(f"{of.out_of_order} I/Os were issued before an earlier one of their disk")
    if of.beside.missing:
        said.append(f"{of.beside.missing} I/Os of the trace were not replayed")
    if of.beside.altered:
        said.append(f"{of.beside.altered} I/Os were replayed with another operation or range")
    return [f"{of.policy}, round {of.round + 1}: {what}" for what in said]


def fidelity(
    run: Run | str | Path, *, late_after_ns: int = LATE_AFTER_NS, trace: Recorded | None = None
) -> list[Fidelity]:
    """Fidelity of each round of `run` that has rows, in the order of policies and rounds."""
    run = run if isinstance(run, Run) else open_run(run)
    return [
        found
        for policy in run.policies_with_rows
        for number in run.rounds(policy)
        if (found := round_fidelity(run, policy, number, late_after_ns, trace)) is not None
    ]


def round_fidelity(
    run: Run,
    policy: str,
    round_: int,
    late_after_ns: int = LATE_AFTER_NS,
    trace: Recorded | None = None,
) -> Fidelity | None:
    """Fidelity of one round, beside what was recorded; None when nothing of it was issued."""
    rows = run.scan_ios(policy, round_).filter(quantiles.issued())
    error = quantiles.ISSUE_ERROR_NS
    sums = (
        rows.select(
            pl.len().alias("ios"),
            (error > late_after_ns).sum().alias("late"),
            pl.col("due_ns").min().alias("due_first"),
            pl.col("due_ns").max().alias("due_last"),
            pl.col("submit_ns").min().alias("submit_first"),
            pl.col("submit_ns").max().alias("submit_last"),
            _conflict_waited().sum().alias("conflict_waited"),
        )
        .collect(engine="streaming")
        .to_dicts()[0]
    )
    if not sums["ios"]:
        return None
    p50, p99, largest = quantiles.exact_quantiles(rows, error, [0.5, 0.99, 1.0])[()]
    due_span = sums["due_last"] - sums["due_first"]
    submit_span = sums["submit_last"] - sums["submit_first"]
    return Fidelity(
        policy=policy,
        round=round_,
        ios=sums["ios"],
        issue_error_p50_ns=p50,
        issue_error_p99_ns=p99,
        issue_error_max_ns=largest,
        late_share=sums["late"] / sums["ios"],
        drift_ns=_drift(rows, error),
        rate_ratio=due_span / submit_span if submit_span > 0 else None,
        out_of_order=_out_of_order(run.parts_of[policy, round_]),
        conflict_waited=sums["conflict_waited"],
        beside=against(run, policy, round_, trace) if trace is not None else Against(),
    )


def _conflict_waited() -> pl.Expr:
    return (pl.col("flags").cast(pl.Int64) & int(IoFlag.CONFLICT_WAITED)) != 0


def _drift(rows: pl.LazyFrame, error: pl.Expr) -> int:
    timed = rows.select("due_ns", error.alias("error_ns"))
    ends = [
        timed.sort("due_ns", descending=last).head(_DRIFT_IOS).collect(engine="streaming")
        for last in (False, True)
    ]
    first, last = (float(np.median(end["error_ns"].to_numpy())) for end in ends)
    return round(last - first)


def _out_of_order(parts: list[Path]) -> int:
    """Rows whose submit time is below the largest of the rows before them by `seq`, per disk."""
    count = 0
    latest: dict[str, int] = {}
    for settled in _in_seq_order(parts):
        for (disk,), own in settled.group_by("disk", maintain_order=True):
            submit = own["submit_ns"].to_numpy()
            before = latest.get(str(disk), -1)
            running = np.maximum.accumulate(np.concatenate([[before], submit]))
            count += int((submit < running[:-1]).sum())
            latest[str(disk)] = int(running[-1])
    return count


def _in_seq_order(parts: list[Path]) -> Iterator[pl.DataFrame]:
    """The rows ordered by `seq`, part by part; the last `_DISORDER` wait for the next part."""
    waiting: pl.DataFrame | None = None
    for part in parts:
        own = (
            pl.scan_parquet(part, glob=False)
            .filter(quantiles.issued() & ~_conflict_waited())
            .select(pl.col("disk").cast(pl.String), "seq", "submit_ns")
            .collect()
        )
        waiting = (own if waiting is None else pl.concat([waiting, own])).sort("seq")
        if waiting.height > 2 * _DISORDER:
            yield waiting.head(waiting.height - _DISORDER)
            waiting = waiting.tail(_DISORDER)
    if waiting is not None:
        yield waiting
