"""`vaio-bench import`: any supported trace to the canonical form."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command("import")
    def import_(
        sources: Annotated[
            list[Path], typer.Argument(metavar="SRC...", help="Files, or a blktrace prefix.")
        ],
        output: Annotated[Path, typer.Option("--output", "-o", help="The trace to make.")],
        format_: Annotated[
            str | None,
            typer.Option("--format", help="A format of `vaio-bench explain`; by content if none."),
        ] = None,
        event: Annotated[
            str, typer.Option(help="What counts as the I/O of a block-layer trace: queue, issue.")
        ] = "queue",
        columns: Annotated[
            str | None,
            typer.Option(help="Columns of a text trace: time=0:us,op=1:R/W,... (explain csv)."),
        ] = None,
        skip_bad: Annotated[
            bool, typer.Option("--skip-bad", help="Drop and count what is broken.")
        ] = False,
        force: Annotated[bool, typer.Option("--force", help="Replace the output.")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
        quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
    ) -> None:
        """Converts a trace of any supported format, compressed or not, to canonical Parquet."""
        from vaio_bench.cli.progress import bytes_progress
        from vaio_bench.importer import import_trace

        with bytes_progress("importing", quiet=quiet) as progress:
            imported = import_trace(
                sources,
                output,
                format=format_,
                event=event,
                columns=columns,
                skip_bad=skip_bad,
                force=force,
                progress=progress,
            )
        for warning in imported.warnings:
            print(f"vaio-bench: warning: {warning}", file=sys.stderr)
        if as_json:
            json.dump(imported.to_dict(), sys.stdout)
            sys.stdout.write("\n")
            return
        span = f"{imported.duration_s:,.3f} s"
        disks = "1 disk" if len(imported.disks) == 1 else f"{len(imported.disks):,} disks"
        print(
            f"{imported.trace}: {imported.ios:,} I/Os of {disks} over {span}, "
            f"from {imported.records:,} records of {imported.format}"
        )
        for reason, count in imported.dropped.items():
            print(f"left out: {count:,} ({reason})")
