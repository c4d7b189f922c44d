"""rpo: which recovery point a link gives for a trace, and which link a target would need.

## What it does

Plans the replication of a trace's writes over one link that all its disks share, continuously and
by snapshots, and says for each: how old the newest recoverable point is over time, for which
share of the time and of the points a target RPO is held, when it is not, and which bandwidth
would hold it for 100, 99.9, 99, 95 and 90 % of the time. The trace is read once; memory is about
35 bytes a write.

## What the figures mean

- *The link* sends bytes in the order of the writes (`write` and `write_zeroes`), at most its
  bandwidth. A byte is recoverable at the end of its transmission plus half the round trip. Writes
  count as acknowledged at their time in the trace. Planning starts in sync at 0 and ends at the
  last I/O.
- *RPO(t)* = t less the cut of the newest restore point recoverable at t. *Exposure(t)* = age of
  the oldest acknowledged write that no recoverable point holds; 0 when there is none. Both are
  pieces of slope one; the quantiles, the maximum and the shares of time come from those pieces,
  not from samples.
- *cdp*: writes are sent as they come. A point is cut every `--point-interval` (half the target by
  default): the state after the writes acknowledged before the cut. It is recoverable when the
  last of them has arrived, at its cut at the earliest. With an interval of 0 every instant whose
  acknowledged writes have all arrived is a point, and RPO(t) equals exposure(t). There
  *resolution_s* says to within how much a replication shows that: the `cdp` filter sends what
  waits as entries of a millisecond of the link (4 KiB or more), each recoverable as a whole, and
  tells such points a millisecond apart. Its lags are up to so much above the plan's, which counts
  where the round trip and the lags are a few milliseconds or less.
- *snapshot*: a sync starts every `--snapshot-every`, or when the one before ends, if that is
  later (times missed by then are not made up for). It carries the state at its start: each block
  of `--granularity` changed since the last start, once. With syncs of length T back to back the
  age peaks at 2T, so an RPO holds if 2T <= RPO.
- *met_sessions*: share of restore points replaced while their age was within the target, out of
  those whose successor was cut by the end; null for continuous replication.
- *no_restore_point_time* is 0 here: the queue has no limit, so points are late, never missing.
  Products with a bounded buffer stop making points; run the `cdp` filter to see that.
- *bandwidth_for_target_bps*: the smallest whole number of bits per second that holds the target
  for that share of the time; null when none does (up to 1.1 Pbit/s). With snapshots a larger
  bandwidth is not always better (a late sync carries a later state): the answer is the uppermost
  edge that halving from above meets.
- *sent_bytes*: payload handed to the link by the end: every write, or the blocks of every sync
  that started. *backlog_bytes_max*: most payload that waited for the link at one time.
- *violations* lists at most the 100,000 longest; *violations_count* counts all.

- *achievable_rpo_s*: the RPO that the link holds for 100, 99.9, 99, 95 and 90 % of the time.
- *frontier*: RPO of the mode at other bandwidths, those that hold the target for a share of the
  time among them (`holds`), with the count and length of the violations there and the worst RPO
  of each day. p95 and p99 are upper bounds within 1 %; the maximum is exact.
- *folding*: `U(w)`, the unique bytes of windows that follow each other, and `B(w)`, the bandwidth
  that sending each block once a window takes: what a longer interval saves. *gain* is the share
  of the written bytes that this saves, below 0 where whole blocks are more than the writes were
  (tables say "none").
- *loads*: of all disks, of each `--group` and of each disk the rates over windows of
  `--rate-window`: mean, `--percentile` and peak. A group's peak is the peak of its sum;
  *sum_of_peaks_bytes_per_s* is what adding up its disks' peaks would give.
  *bandwidth_for_target_bps* is for continuous replication of these disks alone. *exceeded* names
  the limits of products that a disk or machine is beyond (a group counts as a machine; without
  groups all disks do).
- *initial_sync*: everything is sent once (`--initial-bytes`; by default up to the last byte that
  the trace touches on each disk), and what is written meanwhile as changes. *catch_up*: the link is
  down for `--outage` while most is written; then the log is sent, or the changed blocks. *journal*:
  room for `--retention` of points, and for those of `--long-term`, each with the last version of
  what changed since the one before. Long-term points are planned by interval only, one every EVERY
  for KEEP: a product's calendar of them (Veeam's: at times of a day, on days of the week) is not.
  `initial_sync.at` has the time over slower and faster links.
  Where the trace is shorter, its mean goes on, and *extrapolated* says so; null where the link
  never catches up.

## Inputs

`--compression 0.4` sends 40 % less; `--link-efficiency 0.72` leaves 72 % of the bandwidth for
payload; `--growth 0.3` makes every write 30 % larger (and so written, sent and backlog);
`--headroom 0.2` adds 20 % to the links in `sizing`; `--fold` sends each block once a point of cdp,
in its last version, when the point is cut. All are neutral by default and echoed, as are
`--percentile` (95 %), `--long-term` (such as `8h,7d`; none), `--rate-window` (1 min), `--retention`
(24 h), `--over-retention` (25 %), `--initial-sync-within` (72 h), `--outage` (1 h) and `--fault`
(none). `sizing` has
the mean write rate, what it is on the wire, a 24 h journal by RecoverPoint's rule, and two links
with headroom: for the target throughout, and for the percentile of the write rate.

## When something happens to the link

`--fault` (repeatable) takes what the `cdp` filter takes as `faults` of its link, `at` a time of the
trace: `outage` (`for` how long), `reset` of the connection, `restart` of the site (`for`), and
from then on another `bandwidth` or `rtt`. So `outage,at=10min,for=30s`, or
`bandwidth,at=1h,bandwidth=10Mbit/s`.

- In an outage nothing is sent and nothing arrives. What was on its way arrives that much later; if
  the outage lasts longer than 10 s (`timeout` of the filter's link), the connection is given up,
  and that is sent again, as after a reset or a restart: 100 ms after the break at the earliest,
  and three round trips later. An attempt that is not answered in time is given up as well, and
  made again up to 5 s later, as the filter does it. (The filter sends the entry that was cut off
  again as a whole, which takes up to `batch` and a write of its link; the plan has only what had
  left.) A point or a snapshot without data is heard of at the end.
- All modes, `frontier`, `bandwidth_for_target_bps` and `loads` are with the faults. Another
  bandwidth than the link's is looked at with the same share of it left.
- A longer round trip delays, and takes no bandwidth: what may be under way has no bound here (the
  filter's `window` fits the line unless a policy sets it).
- *outages*: what waits at the end of each (every write, in a log), and how long from then until
  nothing waits; null where the trace ends before.
- `initial_sync`, `catch_up` and `journal` are those of the undisturbed link.

## What it does not model

Loss and congestion of the link, other traffic, the latency that replication adds to the guest,
snapshot creation and consolidation, headers and bounded buffers. `planned` holds what it says
against the replication of a run. Writes that a guest would have delayed under load come as
recorded.

## Example

    vaio-bench rpo T.parquet --link 100Mbit/s,20ms --target-rpo 5s
    vaio-bench rpo T.parquet --link 1Gbit/s --target-rpo 15min --snapshot-every 5min --json
    vaio-bench rpo T.parquet --link 100Mbit/s,20ms --fault outage,at=10min,for=30s
    vaio-bench rpo T.parquet --link 1Gbit/s --group db=sda,sdb --headroom 20% --sheets PLAN/

## References

vSphere Replication documentation (an instance reflects the state at the sync's start; a block is
sent once per sync); Azure Site Recovery deployment planner (bandwidth for a share of the time);
Zerto zPlanner (journal, 98th percentile); RecoverPoint (journal formula, D. Ring 2013); AWS DRS
(headroom); Veeam Backup & Replication (over-retention, one state a period); Ji, Veitch and Wilkes,
USENIX ATC '03 (Seneca); Patterson et al., FAST '02 (SnapMirror).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from vaio_bench import _core, link_faults, sizing
from vaio_bench.analyses.study import Study
from vaio_bench.errors import InputError
from vaio_bench.trace import REQUIRED, open_trace
from vaio_bench.units import (
    format_given_bps,
    format_needed_bps,
    format_time,
    parse_rate_bps,
    parse_share,
    parse_size,
    parse_time_ns,
)

SERIES_POINTS = 600
_SHARES = ("compression", "link_efficiency", "growth", "headroom", "percentile", "over_retention")
_TIMES = ("rate_window", "retention", "initial_sync_within", "outage")
_BESIDE = ("folding", "loads", "initial_sync", "catch_up", "journal", "outages")
_DAY_S = 86_400


@dataclass(frozen=True)
class RpoPlan(Study):
    """What `rpo` found: link, target_s, inputs, duration_s, modes, warnings, answer, ..."""

    @property
    def modes(self) -> list[dict[str, Any]]:
        """One document a mode: continuous replication, then each snapshot period."""
        return list(self.document["modes"])

    def lag(self) -> pl.DataFrame:
        """Lag over time: `mode`, `time_s` and the largest `rpo_s` and `exposure_s` from then on.

        600 equal intervals a mode; `mode` is as in `mode_name`.
        """
        names = pl.Schema({"time_s": pl.Float64, "rpo_s": pl.Float64, "exposure_s": pl.Float64})
        return pl.concat(
            pl.DataFrame(mode["series"], schema=names).select(
                pl.lit(mode_name(mode)).alias("mode"), pl.all()
            )
            for mode in self.modes
        )

    def sheets(self) -> dict[str, pl.DataFrame]:
        """The plan as tables, by name: inputs, modes, bandwidth, frontier, folding, loads, ..."""
        from vaio_bench.analyses.rpo_sheets import sheets

        return sheets(self.document)


def rpo(
    trace: str | Path,
    *,
    link: str,
    target_rpo: str | float = "5s",
    point_interval: str | float | None = None,
    snapshot_every: Sequence[str] = ("15min",),
    granularity: str | int = "4KiB",
    compression: str | float = 0.0,
    link_efficiency: str | float = 1.0,
    growth: str | float = 0.0,
    headroom: str | float = 0.0,
    fold: bool = False,
    percentile: str | float = 0.95,
    rate_window: str = "1min",
    groups: Mapping[str, Sequence[str]] | None = None,
    retention: str = "24h",
    over_retention: str | float = 0.25,
    long_term: str | None = None,
    initial_bytes: str | int | None = None,
    initial_sync_within: str = "72h",
    outage: str = "1h",
    faults: Sequence[str | Mapping[str, Any]] = (),
    progress: Callable[[int, int], object] | None = None,
) -> RpoPlan:
    """Plans the replication of a trace over a link.

    Args:
        trace: Canonical Parquet file.
        link: Bandwidth and, after a comma, round trip: "100Mbit/s,20ms"; without it 0.
        target_rpo: The target, a time with its unit.
        point_interval: Between two points of continuous replication; 0 is every instant, None
            half the target.
        snapshot_every: Periods of the snapshot modes, one mode each.
        granularity: Unit of change tracking: a power of two from 512 bytes to 1 GiB.
        compression: Share by which payload shrinks before it is sent.
        link_efficiency: Share of the bandwidth that carries payload.
        growth: Share by which writes will have grown.
        headroom: Share added to the links of `sizing`.
        fold: Whether cdp sends each block once a point.
        percentile: Share of the windows that a rate's percentile covers.
        rate_window: Windows in which rates are taken.
        groups: Disks that replicate together, by name; a disk that ends in `*` stands for all
            that begin so.
        retention: How long the site keeps points.
        over_retention: Share that it may keep beyond that.
        long_term: Interval and time of the points that are kept for longer: "8h,7d".
        initial_bytes: What is sent at first; None: up to the last byte touched on each disk.
        initial_sync_within: Time for that, for the bandwidth that it needs.
        outage: For how long the link is down in `catch_up`.
        faults: What happens to the link: "outage,at=10min,for=30s", or as a policy has it.
        progress: Called with (rows read, rows in all) after every batch.

    Raises:
        InputError: An option is wrong (zero bandwidth included), or the file is missing, damaged
            or no canonical trace; names the option, or the file and row.
    """
    shares = {
        "compression": compression,
        "link_efficiency": link_efficiency,
        "growth": growth,
        "headroom": headroom,
        "percentile": percentile,
        "over_retention": over_retention,
    }
    times = {
        "rate_window": rate_window,
        "retention": retention,
        "initial_sync_within": initial_sync_within,
        "outage": outage,
    }
    size = initial_bytes
    options = {
        **_times(link, target_rpo, point_interval, snapshot_every),
        **{name: parse_share(share, _option(name)) for name, share in shares.items()},
        **{f"{name}_ns": parse_time_ns(time, _option(name)) for name, time in times.items()},
        "fold": fold,
        "groups": [{"name": name, "disks": list(own)} for name, own in (groups or {}).items()],
        "long_term": _long_term(long_term),
        "initial_bytes": None if size is None else parse_size(size, "--initial-bytes"),
        "faults": [link_faults.parsed(fault) for fault in faults],
        "series_points": SERIES_POINTS,
    }
    granularity_bytes = parse_size(granularity, "--granularity")
    with open_trace(trace) as opened:
        rows = opened.rows
        report = (lambda done: progress(done, rows)) if progress else None
        reader = opened.reader(REQUIRED, batch_rows=1 << 17)
        text = json.dumps(options)
        found = json.loads(
            _core.plan_rpo(reader, str(trace), granularity_bytes, text, rows, report)
        )
    return RpoPlan(_document(trace, options, found))


def plan_rows(
    reader: Any,
    name: str,
    *,
    link: str,
    target_rpo: str | float,
    point_interval: str | float | None,
    snapshot_every: Sequence[str],
    granularity: str | int,
    compression: float,
    link_efficiency: float,
    fold: bool,
    faults: Sequence[Mapping[str, Any]] = (),
    timeout: str | float | None = None,
) -> dict[str, Any]:
    """The engine's plan of rows that are no trace's file; all else is neutral.

    Args:
        reader: Arrow batches with the columns of a canonical trace, in order of time.
        name: What errors call them.
        link: As in `rpo`, like all that follow.
        target_rpo: The target.
        point_interval: Between two points of continuous replication.
        snapshot_every: Periods of the snapshot modes.
        granularity: Unit of change tracking.
        compression: Share by which payload shrinks.
        link_efficiency: Share of the bandwidth that carries payload.
        fold: Whether cdp sends each block once a point.
        faults: What happens to the link, as a policy has it.
        timeout: After which a connection is given up; None for the engine's own.

    Raises:
        InputError: As `rpo`.
    """
    neutral = {
        "growth": 0.0,
        "headroom": 0.0,
        "percentile": 0.95,
        "over_retention": 0.0,
        **{f"{time}_ns": _DAY_S * 10**9 for time in _TIMES},
    }
    options = {
        **_times(link, target_rpo, point_interval, snapshot_every),
        **neutral,
        "compression": compression,
        "link_efficiency": link_efficiency,
        "fold": fold,
        "groups": [],
        "initial_bytes": None,
        "faults": list(faults),
        "series_points": SERIES_POINTS,
    }
    if timeout is not None:
        options["timeout_ns"] = parse_time_ns(timeout, "timeout")
    granularity_bytes = parse_size(granularity, "granularity")
    text = json.dumps(options)
    found: dict[str, Any] = json.loads(_core.plan_rpo(reader, name, granularity_bytes, text))
    return found


def mode_name(mode: dict[str, Any]) -> str:
    """What a mode is called: "cdp, a point every 2.5 s", "snapshots every 15 min"."""
    if mode["mode"] == "snapshot":
        return f"snapshots every {format_time(mode['every_s'] * 1e9)}"
    interval_s = mode["point_interval_s"]
    return (
        f"cdp, a point every {format_time(interval_s * 1e9)}" if interval_s else "cdp, continuous"
    )


def is_cut_short(mode: dict[str, Any], duration_s: float | None) -> bool:
    """No point of the mode was recoverable by the trace's end, but the start, which is in sync.

    Its shares of time then tell how long the trace is, and nothing of the link.
    """
    worst_s = (mode.get("rpo_s") or {}).get("max")
    if not duration_s or worst_s is None:
        return False
    return bool(worst_s >= duration_s * (1 - 1e-9))


def parse_link(link: str) -> tuple[int, int]:
    """Bits per second and round trip in ns of "RATE[,RTT]".

    Raises:
        InputError: It is neither, or the bandwidth is zero.
    """
    rate, comma, rtt = link.partition(",")
    bandwidth_bps = parse_rate_bps(rate, "--link")
    if bandwidth_bps == 0:
        raise InputError(f'--link: expected a bandwidth above zero, got "{rate}"')
    return bandwidth_bps, parse_time_ns(rtt, "--link (round trip)") if comma else 0


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _long_term(given: str | None) -> dict[str, int] | None:
    if given is None:
        return None
    every, comma, keep = given.partition(",")
    if not comma:
        raise InputError(f'--long-term: expected EVERY,KEEP such as "8h,7d", got "{given}"')
    every_ns, keep_ns = parse_time_ns(every, "--long-term"), parse_time_ns(keep, "--long-term")
    return {"every_ns": every_ns, "keep_ns": keep_ns}


def _times(
    link: str,
    target_rpo: str | float,
    point_interval: str | float | None,
    snapshot_every: Sequence[str],
) -> dict[str, Any]:
    bandwidth_bps, rtt_ns = parse_link(link)
    target_ns = parse_time_ns(target_rpo, "--target-rpo")
    interval_ns = (
        max(1, target_ns // 2)
        if point_interval is None
        else parse_time_ns(point_interval, "--point-interval")
    )
    return {
        "bandwidth_bps": bandwidth_bps,
        "rtt_ns": rtt_ns,
        "target_ns": target_ns,
        "point_interval_ns": interval_ns,
        "snapshot_every_ns": [parse_time_ns(t, "--snapshot-every") for t in snapshot_every],
    }


def _document(trace: str | Path, options: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    inputs = {name: options[name] for name in _SHARES} | {
        f"{name}_s": options[f"{name}_ns"] / 1e9 for name in _TIMES
    }
    inputs |= {"fold": options["fold"], "groups": options["groups"]}
    inputs["faults"] = [link_faults.echo(fault) for fault in options["faults"]]
    kept = options["long_term"] or {}
    inputs["long_term"] = {f"{name[:-3]}_s": ns / 1e9 for name, ns in kept.items()} or None
    document = {
        "trace": str(trace),
        "link": {
            "bandwidth_bps": options["bandwidth_bps"],
            "rtt_s": options["rtt_ns"] / 1e9,
        },
        "target_s": options["target_ns"] / 1e9,
        "inputs": inputs,
        "duration_s": found["duration_s"],
        "ios": found["ios"],
        "writes": found["writes"],
        "sizing": _sizing(found, inputs),
        "modes": found["modes"],
        **{name: found[name] for name in _BESIDE},
        "warnings": found["warnings"],
    }
    return {**document, "answer": _answer(document)}


def _sizing(found: dict[str, Any], inputs: dict[str, Any]) -> dict[str, float | None] | None:
    """Mean rates in bits per second and a journal in bytes; None for a trace without duration."""
    if not found["duration_s"]:
        return None
    mean = sizing.mean_rate_bps(found["modes"][0]["written_bytes"], found["duration_s"])
    payload = sizing.wire_rate(mean, inputs["compression"])
    needed = found["modes"][0]["bandwidth_for_target_bps"]["100"]
    busy_bps = found["loads"][0]["written_bytes_per_s"]["percentile"] * 8
    busy = sizing.wire_rate(busy_bps, inputs["compression"]) / inputs["link_efficiency"]
    headroom = inputs["headroom"]
    return {
        "write_bps_mean": mean,
        "wire_bps_mean": payload / inputs["link_efficiency"],
        "journal_24h_bytes": sizing.journal_bytes(payload, _DAY_S),
        "link_for_target_bps": None if needed is None else sizing.with_headroom([needed], headroom),
        "link_for_percentile_bps": sizing.with_headroom([busy], headroom),
    }


def _answer(document: dict[str, Any]) -> str:
    cdp, *snapshots = document["modes"]
    target = format_time(document["target_s"] * 1e9)
    needed = cdp["bandwidth_for_target_bps"]["100"]
    held = "throughout" if cdp["met_time"] == 1 else f"{_share(cdp['met_time'])} of the time"
    bandwidth = format_given_bps(document["link"]["bandwidth_bps"])
    parts = [f"RPO of {target} held {held} over {bandwidth}"]
    is_short = document["duration_s"] <= document["target_s"]
    if is_cut_short(cdp, document["duration_s"]):
        lasted = format_time(document["duration_s"] * 1e9)
        parts = [
            f"No restore point was recoverable over {bandwidth} within the trace of {lasted}, too "
            f"short to tell how much of the time an RPO of {target} is held"
        ]
    if is_short and is_cut_short(cdp, document["duration_s"]):
        # It would be held without any link.
        return parts[0]
    if needed is None:
        parts.append("no bandwidth would have held it throughout")
    elif cdp["met_time"] == 1:
        parts.append(f"{format_needed_bps(needed)} would have been enough")
    else:
        parts.append(f"{format_needed_bps(needed)} would have held it throughout")
    for mode in snapshots:
        # Lost are writes: where there are none, or no snapshot yet, the age of a point is no loss.
        if document["duration_s"] >= mode["every_s"] and mode["exposure_s"]["max"] > 0:
            lost = format_time(mode["exposure_s"]["max"] * 1e9)
            parts.append(f"{mode_name(mode)} would have lost up to {lost} of writes")
    return "; ".join(parts)


def _share(share: float) -> str:
    """Per cent, never rounded up: what was not held is not claimed."""
    return f"{math.floor(share * 1000) / 10:g} %"
