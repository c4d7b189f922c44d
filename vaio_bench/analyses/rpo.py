"""rpo: which recovery point a link gives for a trace, and which link a target would need.

## What it does

Plans the replication of a trace's writes over one link that all its disks share, continuously and
by snapshots, and says for each: how old the newest recoverable point is over time, for which
share of the time and of the points a target RPO is held, when it is not, and which bandwidth
would hold it for 100, 99.9, 99, 95 and 90 % of the time. The trace is read once; memory is about
30 bytes a write.

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
  acknowledged writes have all arrived is a point, and RPO(t) equals exposure(t).
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

## Inputs

`--compression 0.4` sends 40 % less; `--link-efficiency 0.72` leaves 72 % of the bandwidth for
payload; `--growth 0.3` makes every write 30 % larger (and so written, sent and backlog). All are
neutral by default and echoed. `sizing` has the mean write rate, what it is on the wire, and a
24 h journal by RecoverPoint's rule.

## What it does not model

Loss and congestion of the link, other traffic, the initial synchronisation, the latency that
replication adds to the guest, snapshot creation and consolidation, retention, and limits of any
product. Writes that a guest would have delayed under load come as recorded.

## Example

    vaio-bench rpo T.parquet --link 100Mbit/s,20ms --target-rpo 5s
    vaio-bench rpo T.parquet --link 1Gbit/s --target-rpo 15min --snapshot-every 5min --json

## References

vSphere Replication documentation (an instance reflects the state at the sync's start; a block is
sent once per sync); Azure Site Recovery deployment planner (bandwidth for a share of the time);
Ji, Veitch and Wilkes, USENIX ATC '03 (Seneca); Patterson et al., FAST '02 (SnapMirror).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from vaio_bench import _core, sizing
from vaio_bench.errors import InputError
from vaio_bench.trace import REQUIRED, open_trace
from vaio_bench.units import (
    format_rate_bps,
    format_time,
    parse_rate_bps,
    parse_share,
    parse_size,
    parse_time_ns,
)

SERIES_POINTS = 600
_DAY_S = 86_400


@dataclass(frozen=True)
class RpoPlan:
    """What `rpo` found."""

    document: dict[str, Any]
    """As `rpo --json`: link, target_s, inputs, duration_s, modes, warnings, answer, ..."""

    @property
    def modes(self) -> list[dict[str, Any]]:
        """One document a mode: continuous replication, then each snapshot period."""
        return list(self.document["modes"])

    @property
    def warnings(self) -> list[str]:
        """What to know before the figures are used."""
        return list(self.document["warnings"])

    @property
    def answer(self) -> str:
        """The plan in a sentence."""
        return str(self.document["answer"])

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

    def to_dict(self) -> dict[str, Any]:
        """The document of `rpo --json`."""
        return self.document


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
        progress: Called with (rows read, rows in all) after every batch.

    Raises:
        InputError: An option is wrong (zero bandwidth included), or the file is missing, damaged
            or no canonical trace; names the option, or the file and row.
    """
    shares = {"compression": compression, "link_efficiency": link_efficiency, "growth": growth}
    options = {
        **_times(link, target_rpo, point_interval, snapshot_every),
        **{name: parse_share(share, _option(name)) for name, share in shares.items()},
        "series_points": SERIES_POINTS,
    }
    granularity_bytes = parse_size(granularity, "--granularity")
    with open_trace(trace) as opened:
        rows = opened.rows
        report = (lambda done: progress(done, rows)) if progress else None
        found = json.loads(
            _core.plan_rpo(
                opened.reader(REQUIRED, batch_rows=1 << 17),
                str(trace),
                granularity_bytes,
                json.dumps(options),
                report,
            )
        )
    return RpoPlan(_document(trace, options, found))


def mode_name(mode: dict[str, Any]) -> str:
    """What a mode is called: "cdp, a point every 2.5 s", "snapshots every 15 min"."""
    if mode["mode"] == "snapshot":
        return f"snapshots every {format_time(mode['every_s'] * 1e9)}"
    interval_s = mode["point_interval_s"]
    return (
        f"cdp, a point every {format_time(interval_s * 1e9)}" if interval_s else "cdp, continuous"
    )


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
    inputs = {name: options[name] for name in ("compression", "link_efficiency", "growth")}
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
        "warnings": found["warnings"],
    }
    return {**document, "answer": _answer(document)}


def _sizing(found: dict[str, Any], inputs: dict[str, float]) -> dict[str, float] | None:
    """Mean rates in bits per second and a journal in bytes; None for a trace without duration."""
    if not found["duration_s"]:
        return None
    mean = sizing.mean_rate_bps(found["modes"][0]["written_bytes"], found["duration_s"])
    payload = sizing.wire_rate(mean, inputs["compression"])
    return {
        "write_bps_mean": mean,
        "wire_bps_mean": payload / inputs["link_efficiency"],
        "journal_24h_bytes": sizing.journal_bytes(payload, _DAY_S),
    }


def _answer(document: dict[str, Any]) -> str:
    cdp, *snapshots = document["modes"]
    target = format_time(document["target_s"] * 1e9)
    needed = cdp["bandwidth_for_target_bps"]["100"]
    held = "throughout" if cdp["met_time"] == 1 else f"{_share(cdp['met_time'])} of the time"
    bandwidth = format_rate_bps(document["link"]["bandwidth_bps"])
    parts = [f"RPO of {target} held {held} over {bandwidth}"]
    if needed is None:
        parts.append("no bandwidth would have held it throughout")
    elif cdp["met_time"] == 1:
        parts.append(f"{format_rate_bps(_rounded_up(needed))} would have been enough")
    else:
        parts.append(f"{format_rate_bps(_rounded_up(needed))} would have held it throughout")
    for mode in snapshots:
        lost = format_time(mode["rpo_s"]["max"] * 1e9)
        parts.append(f"{mode_name(mode)} would have lost up to {lost}")
    return "; ".join(parts)


def _share(share: float) -> str:
    """Per cent, never rounded up: what was not held is not claimed."""
    return f"{math.floor(share * 1000) / 10:g} %"


def _rounded_up(rate_bps: int) -> int:
    """To three digits, upwards, so that the bandwidth told is enough."""
    unit: int = 10 ** max(0, len(str(rate_bps)) - 3)
    return -(-rate_bps // unit) * unit
