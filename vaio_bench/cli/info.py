"""`vaio-bench info`: what the workload of a trace is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command()
    def info(
        trace: Annotated[Path, typer.Argument(help="Canonical trace (Parquet).")],
        block: Annotated[str, typer.Option(help="Unit of footprint and reuse.")] = "4KiB",
        as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
        quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
    ) -> None:
        """What the workload is: mix, sizes, order, working set, reuse, bursts, depth."""
        from rich.console import Console

        from vaio_bench.analyses.info import info as profile_of
        from vaio_bench.cli.info_text import render
        from vaio_bench.cli.progress import rows_progress

        with rows_progress("profiling", quiet=quiet) as progress:
            profile = profile_of(trace, block=block, progress=progress)
        if as_json:
            print(json.dumps(profile))
        else:
            Console(soft_wrap=True).print(render(profile))
