"""run_rpo: which recovery point a run's replication gave, from its events and rows.

## What it does

Reads what a replication filter told while it ran (events of kind `restore_point` and `hole`) and
says for each policy, round and disk what `rpo` says of a plan, in the same keys: how old the
newest recoverable point was over time, for which share of the time and of the points the target
was held, when it was not, and in which stretches no point was being made.

## What the figures mean

- *RPO(t)* = t less the cut of the newest point recoverable at t. The round begins in sync at 0
  and ends with its last I/O. Where its initial synchronisation goes on while the trace runs (a
  hole of that reason tells), there is no point at all before the first of the round: until then
  RPO is unbounded, null in figures, and no target is held.
- *first_point_s*: from when on there was a point: 0 in sync, null where none ever was.
- *Exposure(t)* = age of the oldest acknowledged write that no recoverable point holds. A write is
  acknowledged at the completion in its row.
- *continuous* (`point_interval = 0`): every instant whose acknowledged writes have all arrived is
  a point, and RPO(t) equals exposure(t).
- Both are pieces of slope one; quantiles, the maximum and the shares of time come from those
  pieces, not from samples.
- *met_sessions*: share of points replaced while their age was within the target; null for
  continuous replication, and when no point was replaced.
- *completed_sessions*: share of points that were recoverable within the target of their cut: what
  Veeam reports as SLA of CDP (sync sessions completed within the RPO). It says how the transfers
  kept up. RPO(t) reaches a period more, so that with points once an RPO, as that product has them,
  all sessions may complete in time and *met_sessions* still be 0. Null for continuous
  replication; points that were cut too late to tell are left out.
- *no_restore_point_time*: share of the time inside a hole: dirty blocks were tracked, and there
  is no state between the points around it that could be recovered.
- *guest latency added* is not in here: it takes the direct path for comparison. Reports show it
  beside these figures (`overhead`).

Events carry, as JSON, `{"id", "cut_ns", "recoverable_ns", "bytes"}` (restore_point),
`{"from_ns", "to_ns", "reason", "resync_bytes", "resync_compared_bytes", "resync_equal_bytes"}`
(hole; of marked blocks what was sent, compared, and not sent because it was equal),
`{"duration_ns"}` (stun) and `{"mode"}` (mode); times count from the round's start.

## When it gives no verdict

A run that was not paced as recorded at speed 1 gives points at times that no guest would have
seen, and one whose trace wrapped around a smaller target folds writes together that were apart:
`refused` then says why, and shares and violations are left out.

## References

As `rpo`: vSphere Replication documentation; Azure Site Recovery deployment planner (by time);
Veeam Backup & Replication user guide, CDP session statistics (by session).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from vaio_bench.analyses import pieces, quantiles
from vaio_bench.analyses.pieces import Pieces
from vaio_bench.store import Run, open_run
from vaio_bench.units import parse_time_ns

SERIES_POINTS = 600
_REPLICATION = ("cdp", "snapshot")
# Of a hole's marked blocks: sent again, compared with the replica, and the same there.
_RESYNC = ("resync_bytes", "resync_compared_bytes", "resync_equal_bytes")
# Of the time, for the distribution.
_SHARES = [step / 200 for step in range(201)]
# The reason of a hole that says that the round did not begin in sync.
_INITIAL = "initial sync"


@dataclass(frozen=True)
class Replicated:
    """What the replication of one disk gave in one round; the key of `modes` in `to_dict`."""

    policy: str
    round: int
    disk: str
    document: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class RunRpo:
    """What `run_rpo` found: one document a policy, round and disk; `refused` where no verdict."""

    refused: str | None
    found: list[Replicated]

    def to_dict(self) -> dict[str, Any]:
        """As JSON: `refused` and `modes`, as those of `rpo --json` with policy, round and disk."""
        return {
            "refused": self.refused,
            "modes": [
                {"policy": each.policy, "round": each.round, "disk": each.disk, **each.document}
                for each in self.found
            ],
        }


def run_rpo(
    run: Run | str | Path, *, target: str | float | None = None, together: bool = False
) -> RunRpo:
    """The recovery points of a run.

    Args:
        run: A run folder.
        target: The RPO to hold; None for the one in the policy (`rpo` of its filter), and without
            that no shares or violations.
        together: Disks that share their points (those of `cdp`) as one, "N disks".

    Raises:
        InputError: `run` is no run folder, or the target is no time.
    """
    run = run if isinstance(run, Run) else open_run(run)
    why = refused(run)
    given = None if target is None else parse_time_ns(target, "target")
    events = run.events().filter(pl.col("kind").is_in(["restore_point", "hole", "stun"]))
    found = []
    for policy in run.policies:
        use = replication_of(run, policy)
        if use is None:
            continue
        target_ns = given or _time_of(use, "rpo")
        for round_ in run.pooled_rounds(policy):
            own = events.filter((pl.col("policy") == policy) & (pl.col("round") == round_))
            written = _acknowledged(run, policy, round_)
            # Each of them is told of every point that they share.
            told_to = {disk: disk for disk in written}
            if together and use["use"] == "cdp" and len(written) > 1:
                times = np.sort(np.concatenate([times_ns for times_ns, _ in written.values()]))
                first, (_, end_ns) = next(iter(written.items()))
                name = f"{len(written)} disks"
                written, told_to = {name: (times, end_ns)}, {name: first}
            for disk, (times_ns, end_ns) in written.items():
                told = own.filter(pl.col("disk") == told_to[disk])
                one = _Told.of(told, use, end_ns)
                document = _document(one, times_ns, None if why else target_ns)
                found.append(Replicated(policy, round_, disk, document))
    return RunRpo(why, found)


def refused(run: Run) -> str | None:
    """Why no RPO verdict may be given for `run`, or None."""
    pacing = run.manifest.get("pacing") or {}
    if pacing.get("mode") != "recorded":
        return f"the run was paced {pacing.get('mode', 'in a way not known')}, not as recorded"
    if pacing.get("speed", 1) != 1:
        return f"the run was paced at {pacing['speed']} times the recorded speed"
    fit_to = run.manifest.get("fit_to")
    if isinstance(fit_to, dict) and fit_to.get("wrapped"):
        return "the trace was folded onto a smaller target and wrapped: blocks share places"
    return None


def replication_of(run: Run, policy: str) -> dict[str, Any] | None:
    """The parameters of a policy's filter of replication, and its `use`; None without one."""
    filters = run.manifest.get("policies", {}).get(policy, {}).get("filters", [])
    own = (each for each in filters if each.get("use") in _REPLICATION)
    return next(({"use": each["use"], **each.get("params", {})} for each in own), None)


def _interval_ns(use: dict[str, Any]) -> int | None:
    """The interval of the points of cdp: half its target where the policy names none."""
    given, rpo_ns = _time_of(use, "point_interval"), _time_of(use, "rpo")
    return rpo_ns // 2 if given is None and rpo_ns is not None else given


def _time_of(use: dict[str, Any], key: str) -> int | None:
    value = use.get(key)
    return None if value is None else parse_time_ns(value, key)


def _acknowledged(run: Run, policy: str, round_: int) -> dict[str, tuple[np.ndarray, int]]:
    """Of each disk: when its writes were acknowledged, in order, and the round's last I/O, ns."""
    op = pl.col("op").cast(pl.String)
    rows = quantiles.completed(run.scan_ios(policy, round_))
    of_disk = rows.group_by(pl.col("disk").cast(pl.String)).agg(
        pl.col("complete_ns").filter(op.is_in(["write", "write_zeroes"])).sort().alias("writes"),
        pl.col("complete_ns").max().alias("end_ns"),
    )
    table = of_disk.sort("disk").collect(engine="streaming")
    # The disks of a round are planned to one end: that of its last I/O.
    end_ns = int(table["end_ns"].max() or 0)  # type: ignore[arg-type]
    return {row["disk"]: (np.asarray(row["writes"], np.int64), end_ns) for row in table.to_dicts()}


@dataclass(frozen=True)
class _Told:
    """What the filter of one disk told of one round; times in ns since the round's start."""

    use: dict[str, Any]
    end_ns: int
    cuts_ns: np.ndarray
    recoverable_ns: np.ndarray
    sent_bytes: int
    holes: list[dict[str, Any]]
    stuns_ns: list[int]
    sessions_ns: np.ndarray
    """Cut and arrival of every point."""

    @classmethod
    def of(cls, events: pl.DataFrame, use: dict[str, Any], end_ns: int) -> _Told:
        details: dict[str, list[dict[str, Any]]] = {"restore_point": [], "hole": [], "stun": []}
        for kind, detail in events.select("kind", "detail").iter_rows():
            details[kind].append(json.loads(detail))
        points = sorted((p["recoverable_ns"], p["cut_ns"]) for p in details["restore_point"])
        pairs = np.asarray(points, np.int64).reshape(-1, 2)
        # The newest point counts, whatever became recoverable after it.
        newest = np.maximum.accumulate(pairs[:, 1]) if len(pairs) else pairs[:, 1]
        return cls(
            use,
            end_ns,
            newest,
            pairs[:, 0],
            sum(int(p.get("bytes", 0)) for p in details["restore_point"]),
            sorted(details["hole"], key=lambda hole: int(hole["from_ns"])),
            [int(stun["duration_ns"]) for stun in details["stun"]],
            pairs[:, ::-1],
        )

    def completed_within(self, target_ns: int) -> float | None:
        """Share of the points that arrived within the target of their cut."""
        cuts, arrivals = self.sessions_ns.T
        # By the end it is known of those that have arrived or are late.
        known = (arrivals <= self.end_ns) | (cuts + target_ns < self.end_ns)
        within = (arrivals - cuts <= target_ns)[known]
        return float(np.mean(within)) if len(within) else None

    @property
    def continuous(self) -> bool:
        return self.use["use"] == "cdp" and _time_of(self.use, "point_interval") == 0

    @property
    def begins_in_sync(self) -> bool:
        return all(hole.get("reason") != _INITIAL for hole in self.holes)

    @property
    def first_point_ns(self) -> int | None:
        """When the first point was there."""
        if self.begins_in_sync:
            return 0
        first = min(self.recoverable_ns.tolist(), default=self.end_ns)
        return int(first) if first < self.end_ns else None


def _document(told: _Told, writes_ns: np.ndarray, target_ns: int | None) -> dict[str, Any]:
    exposure = pieces.exposure(told.cuts_ns, told.recoverable_ns, writes_ns, told.end_ns)
    rpo = (
        exposure
        if told.continuous
        else pieces.between_points(told.cuts_ns, told.recoverable_ns, told.end_ns)
    )
    first_ns = told.first_point_ns
    if first_ns != 0:
        rpo = pieces.without_point(rpo, told.end_ns if first_ns is None else first_ns)
    document: dict[str, Any] = {"mode": told.use["use"]}
    if told.use["use"] == "snapshot":
        every_ns = _time_of(told.use, "every")
        document["every_s"] = None if every_ns is None else every_ns / 1e9
    else:
        interval_ns = _interval_ns(told.use)
        document["point_interval_s"] = None if interval_ns is None else interval_ns / 1e9
    spread = pieces.quantiles(rpo, told.end_ns, _SHARES)
    time_s, rpo_s = pieces.series(rpo, told.end_ns, SERIES_POINTS)
    _, exposure_s = pieces.series(exposure, told.end_ns, SERIES_POINTS)
    return {
        **document,
        "target_s": None if target_ns is None else target_ns / 1e9,
        "duration_s": told.end_ns / 1e9,
        "points": len(told.cuts_ns),
        "first_point_s": None if first_ns is None else first_ns / 1e9,
        "rpo_s": pieces.distribution(rpo, told.end_ns),
        "exposure_s": pieces.distribution(exposure, told.end_ns),
        "distribution": {"share": _SHARES, "rpo_s": [*map(pieces.seconds, spread)]},
        **_met(told, rpo, target_ns),
        **_holes(told),
        "sent_bytes": told.sent_bytes,
        "stuns": len(told.stuns_ns),
        "stun_s_max": max(told.stuns_ns, default=0) / 1e9,
        "series": {"time_s": time_s, "rpo_s": rpo_s, "exposure_s": exposure_s},
    }


def _met(told: _Told, rpo: Pieces, target_ns: int | None) -> dict[str, Any]:
    if target_ns is None:
        none = dict.fromkeys(("met_time", "met_sessions", "completed_sessions"))
        return {**none, "violations": [], "violations_count": None}
    spans = pieces.beyond(rpo, target_ns)
    missed = sum(end - start for start, end in spans)
    ages = pieces.session_ages(told.cuts_ns, told.recoverable_ns, told.end_ns)
    # What the first point replaces was none where the round did not begin in sync.
    ages = ages if told.begins_in_sync else ages[1:]
    sessions = None if told.continuous or not len(ages) else float(np.mean(ages <= target_ns))
    return {
        "met_time": 1 - missed / told.end_ns if told.end_ns else 1.0,
        "met_sessions": sessions,
        "completed_sessions": None if told.continuous else told.completed_within(target_ns),
        "violations": [{"start_s": a / 1e9, "end_s": b / 1e9} for a, b in spans],
        "violations_count": len(spans),
    }


def _holes(told: _Told) -> dict[str, Any]:
    spans = [
        (max(0, int(hole["from_ns"])), min(told.end_ns, int(hole["to_ns"]))) for hole in told.holes
    ]
    share = pieces.covered(spans) / told.end_ns if told.end_ns else 0.0
    return {
        "no_restore_point_time": share,
        "holes": [
            {
                "start_s": a / 1e9,
                "end_s": b / 1e9,
                "reason": str(hole.get("reason", "")),
                **{key: int(hole.get(key, 0)) for key in _RESYNC},
            }
            for (a, b), hole in zip(spans, told.holes, strict=True)
            if b > a
        ],
    }
