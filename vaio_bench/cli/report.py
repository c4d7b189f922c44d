"""`vaio-bench report`: one self-contained HTML page from run folders."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("report")(report)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run or sweep folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")],
    force: Annotated[bool, typer.Option("--force", help="Write over a file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Write one self-contained HTML page about run folders: verdict first, then every figure.

    Where rounds of a run were lost or I/Os failed, the page says so, and a line on stderr. The exit
    status is that of the page's making: 0 when it was written.
    """
    import vaio_bench

    written = vaio_bench.report(list(runs), output, force=force)
    if as_json:
        print(json.dumps(written.to_dict(), allow_nan=False))
    elif not quiet:
        for run, answers in written.answers.items():
            print(run)
            for question, lines in answers.items():
                print(f"  {question}")
                for line in lines:
                    print(f"    {line}")
        print(f"{written.path}  ({written.size_bytes / 1e6:.1f} MB, {written.figures} charts)")
    for run, why in written.failed.items():
        print(f"vaio-bench: warning: {run}: {why}", file=sys.stderr)
