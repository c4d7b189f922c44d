"""`vaio-bench rpo`: the replication planner."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaio_bench.cli import options, rpo_options

if TYPE_CHECKING:
    from rich.table import Table

    from vaio_bench.analyses.rpo import RpoPlan


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command()(rpo)


def rpo(
    trace: Annotated[Path, typer.Argument(help="Canonical trace (Parquet).")],
    *,
    link: rpo_options.Link,
    target_rpo: rpo_options.TargetRpo = "5s",
    point_interval: rpo_options.PointInterval = None,
    snapshot_every: rpo_options.SnapshotEvery = None,
    granularity: rpo_options.Granularity = "4KiB",
    compression: rpo_options.Compression = "0",
    link_efficiency: rpo_options.LinkEfficiency = "1",
    growth: rpo_options.Growth = "0",
    headroom: rpo_options.Headroom = "0",
    fold: rpo_options.Fold = False,
    percentile: rpo_options.Percentile = "95%",
    rate_window: rpo_options.RateWindow = "1min",
    group: rpo_options.Group = None,
    retention: rpo_options.Retention = "24h",
    over_retention: rpo_options.OverRetention = "25%",
    long_term: rpo_options.LongTerm = None,
    initial_bytes: rpo_options.InitialBytes = None,
    initial_sync_within: rpo_options.InitialSyncWithin = "72h",
    outage: rpo_options.Outage = "1h",
    fault: rpo_options.Fault = None,
    sheets: rpo_options.Sheets = None,
    output: rpo_options.Output = None,
    force: rpo_options.Force = False,
    as_json: rpo_options.AsJson = False,
    quiet: rpo_options.Quiet = False,
) -> None:
    """Which RPO a link gives, by CDP and by snapshots, and which link a target needs."""
    from vaio_bench.analyses.rpo import rpo as plan_of
    from vaio_bench.analyses.rpo_sheets import write_sheets
    from vaio_bench.cli.progress import rows_progress
    from vaio_bench.run_writer import write_result

    options.check_result(output, "rpo", force=force)
    with rows_progress("planning", quiet=quiet) as progress:
        plan = plan_of(
            trace,
            link=link,
            target_rpo=target_rpo,
            point_interval=point_interval,
            snapshot_every=snapshot_every or ["15min"],
            granularity=granularity,
            compression=compression,
            link_efficiency=link_efficiency,
            growth=growth,
            headroom=headroom,
            fold=fold,
            percentile=percentile,
            rate_window=rate_window,
            groups=_groups(group or []),
            retention=retention,
            over_retention=over_retention,
            long_term=long_term,
            initial_bytes=initial_bytes,
            initial_sync_within=initial_sync_within,
            outage=outage,
            faults=fault or [],
            progress=progress,
        )
    if output is not None:
        write_result(output, "rpo", plan.to_dict())
    if sheets is not None:
        write_sheets(plan.to_dict(), sheets, force=force)
    for warning in plan.warnings:
        print(f"vaio-bench: warning: {warning}", file=sys.stderr)
    if as_json:
        print(json.dumps(plan.to_dict(), allow_nan=False))
    else:
        _print(plan)


def _groups(given: list[str]) -> dict[str, list[str]]:
    from vaio_bench.errors import InputError

    groups: dict[str, list[str]] = {}
    for text in given:
        name, _, disks = text.partition("=")
        if not name or not all(disks.split(",")) or name in groups:
            raise InputError(f'--group: expected NAME=DISK,DISK with a name once, got "{text}"')
        groups[name] = disks.split(",")
    return groups


def _print(plan: RpoPlan) -> None:
    from rich.console import Console

    from vaio_bench.cli import rpo_text

    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{plan.answer}.\n", markup=False)
    console.print(_table(plan))
    for part in rpo_text.parts(plan.document):
        console.print("")
        console.print(part, markup=False)


def _table(plan: RpoPlan) -> Table:
    """A column a mode."""
    from rich.table import Column, Table

    from vaio_bench.analyses.rpo import is_cut_short, mode_name
    from vaio_bench.units import format_needed_bps, format_size, format_time

    # No narrower than the longest word in it: what is longer is cut off.
    heads = [Column(mode_name(mode), min_width=len("bandwidth")) for mode in plan.modes]
    table = Table("", *heads, show_edge=False)
    for key, what in (("rpo_s", "RPO"), ("exposure_s", "exposure")):
        for step in ("p50", "p95", "p99", "max"):
            ages = [format_time(mode[key][step] * 1e9) for mode in plan.modes]
            table.add_row(f"{what} {step}", *ages)
    for share in ("99.9", "90"):
        held = [format_time(mode["achievable_rpo_s"][share] * 1e9) for mode in plan.modes]
        table.add_row(f"RPO held {share} % of the time", *held)
    met = [
        "too short to tell"
        if is_cut_short(mode, plan.document["duration_s"])
        else _percent(mode["met_time"])
        for mode in plan.modes
    ]
    table.add_row("time in target", *met)
    table.add_row("points in target", *[_percent(mode["met_sessions"]) for mode in plan.modes])
    table.add_row("violations", *[f"{mode['violations_count']:,}" for mode in plan.modes])
    for share in plan.modes[0]["bandwidth_for_target_bps"]:
        rates = [mode["bandwidth_for_target_bps"][share] for mode in plan.modes]
        cells = ["at no bandwidth" if r is None else format_needed_bps(r) for r in rates]
        table.add_row(f"target for {share} % needs", *cells)
    sizes = {"backlog_bytes_max": "backlog, most", "sent_bytes": "sent", "written_bytes": "written"}
    for key, what in sizes.items():
        table.add_row(what, *[format_size(mode[key]) for mode in plan.modes])
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.4g} %"
