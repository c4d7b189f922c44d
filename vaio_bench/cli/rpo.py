"""`vaio-bench rpo`: the replication planner."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from vaio_bench.analyses.rpo import RpoPlan


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command()
    def rpo(
        trace: Annotated[Path, typer.Argument(help="Canonical trace (Parquet).")],
        *,
        link: Annotated[str, typer.Option(help="RATE[,RTT] of the link: 100Mbit/s,20ms.")],
        target_rpo: Annotated[str, typer.Option(help="The RPO to hold.")] = "5s",
        point_interval: Annotated[
            str | None,
            typer.Option(help="Between two points of CDP; half the target if none; 0: continuous."),
        ] = None,
        snapshot_every: Annotated[
            list[str] | None,
            typer.Option(help="Period of a snapshot mode, repeatable; 15min if none."),
        ] = None,
        granularity: Annotated[str, typer.Option(help="Unit of change tracking.")] = "4KiB",
        compression: Annotated[str, typer.Option(help="Share saved before sending.")] = "0",
        link_efficiency: Annotated[
            str, typer.Option(help="Share of the bandwidth that carries payload.")
        ] = "1",
        growth: Annotated[str, typer.Option(help="Share by which writes will grow.")] = "0",
        output: Annotated[
            Path | None,
            typer.Option("--output", "-o", help="A run folder that keeps the plan, too."),
        ] = None,
        force: Annotated[bool, typer.Option("--force", help="Replace its earlier plan.")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
        quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
    ) -> None:
        """Which RPO a link gives, by CDP and by snapshots, and which link a target needs."""
        from vaio_bench.analyses.rpo import rpo as plan_of
        from vaio_bench.cli.progress import rows_progress
        from vaio_bench.run_writer import write_result

        _check_run(output, force)
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
                progress=progress,
            )
        if output is not None:
            write_result(output, "rpo", plan.to_dict())
        for warning in plan.warnings:
            print(f"vaio-bench: warning: {warning}", file=sys.stderr)
        if as_json:
            print(json.dumps(plan.to_dict(), allow_nan=False))
        else:
            _print(plan)


def _check_run(output: Path | None, force: bool) -> None:
    from vaio_bench.errors import InputError
    from vaio_bench.store import open_run

    if output is None:
        return
    open_run(output)
    kept = output / "results" / "rpo.json"
    if kept.exists() and not force:
        raise InputError(f"{kept}: the file exists (--force replaces it)")


def _print(plan: RpoPlan) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    console.print(_table(plan))
    console.print(f"\n{plan.answer}.", markup=False)


def _table(plan: RpoPlan) -> Table:
    """A column a mode."""
    from rich.table import Table

    from vaio_bench.analyses.rpo import mode_name
    from vaio_bench.units import format_rate_bps, format_size, format_time

    table = Table("", *map(mode_name, plan.modes), show_edge=False)
    for key, what in (("rpo_s", "RPO"), ("exposure_s", "exposure")):
        for step in ("p50", "p95", "p99", "max"):
            ages = [format_time(mode[key][step] * 1e9) for mode in plan.modes]
            table.add_row(f"{what} {step}", *ages)
    table.add_row("time in target", *[_percent(mode["met_time"]) for mode in plan.modes])
    table.add_row("points in target", *[_percent(mode["met_sessions"]) for mode in plan.modes])
    table.add_row("violations", *[f"{mode['violations_count']:,}" for mode in plan.modes])
    for share in plan.modes[0]["bandwidth_for_target_bps"]:
        rates = [mode["bandwidth_for_target_bps"][share] for mode in plan.modes]
        cells = ["at no bandwidth" if r is None else format_rate_bps(r) for r in rates]
        table.add_row(f"target for {share} % needs", *cells)
    sizes = {"backlog_bytes_max": "backlog, most", "sent_bytes": "sent", "written_bytes": "written"}
    for key, what in sizes.items():
        table.add_row(what, *[format_size(mode[key]) for mode in plan.modes])
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.4g} %"
