"""planned: the RPO of a run's replication beside what the planner says of the same writes.

## What it does

Takes the writes of a run from its rows, each at the time at which it was acknowledged, and plans
their replication over the link, and with the points, that the policy declares (`explain rpo`). The
run's own RPO is that of `run_rpo`, of all disks that share points together. `replay` tells both,
`report` shows them.

## What the figures mean

- *difference_s* is the run's RPO less the planner's, at p95, p99 and the maximum. `agrees` says
  whether each is within 5 % of the planner's or one round trip of the link, whichever is larger.
- `why` says what the run had that the planner has not: a bounded journal that went over to a
  bitmap (holes), a window too small for the round trip, lags too short for continuous points
  to show (`resolution_s` of `rpo`), synchronous writes, stuns and merging, the wall clock. Faults
  of the line are planned with.
- `write_zeroes` count with their length to the planner; `cdp` sends their range alone.

## When nothing is planned

A run that was not paced as recorded, one without a filter of replication, and more than a hundred
million rows, which are sorted in memory.

## References

The planner's rules: `explain rpo`. The run's: `explain run_rpo`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from vaio_bench.analyses import quantiles
from vaio_bench.analyses.rpo import plan_rows
from vaio_bench.analyses.run_rpo import Replicated, refused, replication_of, run_rpo
from vaio_bench.store import Run, open_run
from vaio_bench.units import format_time, parse_rate_bps, parse_size, parse_time_ns

STEPS = ("p95", "p99", "max")
_SHARE = 0.05
_ROWS_MAX = 100_000_000
_BATCH_ROWS = 1 << 17


@dataclass(frozen=True)
class Planned:
    """RPO in seconds of one policy and round: `run` and `planner` by step (`STEPS`)."""

    policy: str
    round: int
    mode: str
    disks: str
    """The disk, or how many that share points."""
    rtt_s: float
    run_rpo_s: dict[str, float | None]
    """None where there was no point yet: the initial synchronisation went on."""
    planner_rpo_s: dict[str, float]
    why: str | None

    @property
    def agrees(self) -> bool:
        """Whether every step is within 5 % or a round trip."""
        return all(
            less is not None and abs(less) <= max(_SHARE * self.planner_rpo_s[step], self.rtt_s)
            for step, less in self._difference_s().items()
        )

    def _difference_s(self) -> dict[str, float | None]:
        had = self.run_rpo_s
        return {
            step: None if (of_run := had[step]) is None else of_run - said
            for step, said in self.planner_rpo_s.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with `agrees` and `difference_s`."""
        return asdict(self) | {"agrees": self.agrees, "difference_s": self._difference_s()}


def planned(run: Run | str | Path) -> list[Planned]:
    """Each complete round of a policy that replicates, the run beside the planner."""
    run = run if isinstance(run, Run) else open_run(run)
    if refused(run):
        return []
    found = []
    for each in run_rpo(run, together=True).found:
        use = replication_of(run, each.policy)
        rows = run.scan_ios(each.policy, each.round).filter(quantiles.issued())
        if use is None or each.round not in run.rounds(each.policy, complete_only=True):
            continue
        if use["use"] == "snapshot":
            rows = rows.filter(pl.col("disk").cast(pl.String) == each.disk)
        if rows.select(pl.len()).collect(engine="streaming").item() <= _ROWS_MAX:
            found.append(_of_round(run, each, use, rows))
    return found


def _of_round(run: Run, each: Replicated, use: dict[str, Any], rows: pl.LazyFrame) -> Planned:
    link = use["link"]
    rtt = link.get("rtt", "0s")
    is_cdp = use["use"] == "cdp"
    left = link.get("compression_ratio", 1) if "compression" in use else 1
    reader, table = _acknowledged(rows)
    plan = plan_rows(
        reader,
        f"{run.path}: rows of {each.policy}",
        link=f"{link['bandwidth']},{rtt}",
        target_rpo=use.get("rpo", "1h"),
        point_interval=use.get("point_interval") if is_cdp else None,
        snapshot_every=[] if is_cdp else [use["every"]],
        granularity=use.get("granularity", "4KiB"),
        compression=1 - left if is_cdp else link.get("compression", 0),
        link_efficiency=link.get("efficiency", 1),
        fold=bool(use.get("folding", False)),
        faults=link.get("faults", ()),
        timeout=link.get("timeout"),
    )
    mode = plan["modes"][0 if is_cdp else 1]
    said = mode["rpo_s"]
    rtt_s = max(parse_time_ns(time, "rtt") for time in [rtt, *_rtts(link)]) / 1e9
    return Planned(
        policy=each.policy,
        round=each.round,
        mode=use["use"],
        disks=each.disk,
        rtt_s=rtt_s,
        run_rpo_s={step: each.document["rpo_s"][step] for step in STEPS},
        planner_rpo_s={step: said[step] for step in STEPS},
        why="; ".join([*_apart(run, each, use, table), *_too_fine(mode, rtt_s)]) or None,
    )


def _acknowledged(rows: pl.LazyFrame) -> tuple[pa.RecordBatchReader, pa.Table]:
    """A trace of what was acknowledged, and when; of what failed only the time counts."""
    failed = pl.col("status") != 0
    ordered = rows.select(
        pl.col("complete_ns").alias("time_ns"),
        pl.col("disk").cast(pl.String).cast(pl.Categorical),
        pl.when(failed).then(pl.lit("flush")).otherwise(pl.col("op").cast(pl.String))
        .cast(pl.Categorical).alias("op"),
        "offset_bytes",
        pl.when(failed).then(0).otherwise(pl.col("length_bytes")).alias("length_bytes"),
    ).sort("time_ns").collect(engine="streaming")  # fmt: skip
    table = ordered.to_arrow()
    batches = table.to_batches(max_chunksize=_BATCH_ROWS)
    return pa.RecordBatchReader.from_batches(table.schema, batches), table


def _apart(run: Run, each: Replicated, use: dict[str, Any], table: pa.Table) -> list[str]:
    """What the run had that the planner knows nothing of."""
    document, reasons = each.document, []
    if document["first_point_s"] != 0:
        reasons.append("the run began with an initial sync, and had no point before its end")
    if any(hole["reason"] != "initial sync" for hole in document["holes"]):
        reasons.append("the run's journal has an end, and points paused while it was full")
    if _window_is_short(use["link"]):
        reasons.append("the link's window was too small for its round trip")
    if use.get("mode", "async") != "async":
        reasons.append("writes waited for the replica")
    if use.get("degrade") == "spill-backpressure-bitmap":
        reasons.append("writes may have been held back")
    if document["stuns"] or "merge" in use:
        reasons.append("the guest was held at cuts, and snapshots were merged")
    if "zeroes" in json.dumps(table["op"].unique().to_pylist()):
        reasons.append("write_zeroes count with their length to the planner alone")
    if not run.virtual_clock:
        reasons.append("the run was on the wall clock, with a real machine at both ends")
    return reasons


def _rtts(link: dict[str, Any]) -> list[str]:
    """The round trips that the link has later on."""
    return [fault["rtt"] for fault in link.get("faults", ()) if "rtt" in fault]


def _window_is_short(link: dict[str, Any]) -> bool:
    """Whether what may be under way does not fill the line; by default it does."""
    if "window" not in link:
        return False
    rtt_ns = max(parse_time_ns(time, "rtt") for time in [link.get("rtt", "0s"), *_rtts(link)])
    under_way = parse_rate_bps(link["bandwidth"], "bandwidth") / 8 * rtt_ns / 1e9
    return under_way > parse_size(link["window"], "window")


def _too_fine(mode: dict[str, Any], rtt_s: float) -> list[str]:
    """Whether lags are so short that continuous points do not show them."""
    resolution_s = mode.get("resolution_s", 0.0)
    if resolution_s <= max(_SHARE * mode["rpo_s"]["p95"], rtt_s):
        return []
    return [f"continuous points are told to within {format_time(resolution_s * 1e9)}"]
