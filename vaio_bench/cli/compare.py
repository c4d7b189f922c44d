"""`vaio-bench compare`: what policies cost against the direct path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vaio_bench.cli import options as o
from vaio_bench.errors import InputError

# The lines of the table; the document and the report have every metric.
_SHOWN = ("latency_p50_ns", "latency_p99_ns", "response_p50_ns", "iops", "cpu_ns_per_io")


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command()
    def compare(
        source: Annotated[
            list[Path], typer.Argument(help="A trace (Parquet), or run folders to compare.")
        ],
        out: Annotated[Path | None, typer.Option("-o", "--out", help="Run folder to make.")] = None,
        target: o.Target = None,
        policy: Annotated[
            list[str] | None, typer.Option(help="Storage policy: a file or a name; repeatable.")
        ] = None,
        rounds: Annotated[int, typer.Option(help="Rounds of each policy.")] = 8,
        margin: Annotated[float, typer.Option(help="Difference called equivalent.")] = 0.02,
        pace: o.Pace = "recorded",
        speed: o.Speed = 1.0,
        depth: o.Depth = 32,
        inflight: o.Inflight = 1024,
        spin: o.Spin = "60us",
        backend: o.Backend = "uring",
        direct: o.Direct = None,
        conflicts: o.Conflicts = "order",
        verify: o.Verify = False,
        compressible: o.Compressible = 0.0,
        dedupe: o.Dedupe = 0.0,
        fit_to: o.FitTo = None,
        disk: o.Disk = None,
        skip: o.Skip = 0,
        limit: o.Limit = None,
        seed: o.Seed = 0,
        destroy_data: o.DestroyData = False,
        precondition: o.Precondition = None,
        force: o.Force = False,
        as_json: o.AsJson = False,
        quiet: o.Quiet = False,
    ) -> None:
        """Paired rounds of policies and the direct path; ratios with intervals and a verdict."""
        from vaio_bench import comparing
        from vaio_bench.cli.run_progress import run_progress

        if source[0].is_dir():
            found = comparing.compare_stored(list(source), margin=margin)
        else:
            if out is None or len(source) != 1:
                raise InputError("compare: expected one trace and -o RUN, or run folders")
            settings = o.settings(
                spin=spin, direct=direct, fit_to=fit_to, disk=disk, pace=pace, speed=speed,
                depth=depth, inflight=inflight, backend=backend, conflicts=conflicts,
                verify=verify, compressible=compressible, dedupe=dedupe, skip=skip, limit=limit,
                seed=seed, destroy_data=destroy_data, precondition=precondition,
            )  # fmt: skip
            with run_progress(quiet=quiet) as progress:
                found = comparing.compare(
                    source[0], policies=policy or [], out=out, target=target, rounds=rounds,
                    settings=settings, margin=margin, force=force, progress=progress,
                )  # fmt: skip
        if as_json:
            print(json.dumps(found))
        else:
            show(found)


def show(found: dict[str, Any]) -> None:
    """Prints the verdict table of a comparison."""
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True, highlight=False)
    columns = (
        "policy",
        "metric",
        found["baseline"],
        "with it",
        "ratio",
        "95 % interval",
        "verdict",
    )
    table = Table(*columns, show_edge=False)
    for policy in found["policies"]:
        for metric in _SHOWN:
            line = policy["metrics"].get(metric)
            if line is None:
                continue
            low, high = line["ci_low"], line["ci_high"]
            interval = "" if low is None else f"{low:.3f} to {high:.3f}"
            table.add_row(
                policy["name"], metric, _figure(metric, line["baseline"]),
                _figure(metric, line["value"]), f"{line['ratio']:.3f}", interval, line["verdict"],
            )  # fmt: skip
    console.print(table)
    floors = found["noise_floor"]
    told = ", ".join(f"{key} {floors[key]:.1%}" for key in _SHOWN if key in floors)
    console.print(f"noise floor ({found['noise_floor_from']}): {told or 'not known'}")
    for note in found["notes"]:
        console.print(f"note: {note}", markup=False)


def _figure(metric: str, value: float) -> str:
    from vaio_bench.units import format_time

    return format_time(value) if "_ns" in metric else f"{value:,.0f}"
