"""`vaio-bench demo`: the whole story on the bundled trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vaio_bench.cli import options as o


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command()
    def demo(
        folder: Annotated[
            Path, typer.Option(help="Where trace, target, run and report go.")
        ] = Path("reports/demo"),
        rounds: Annotated[int, typer.Option(help="Rounds of each policy.")] = 8,
        as_json: o.AsJson = False,
        quiet: o.Quiet = False,
    ) -> None:
        """A real database's trace: overhead of two filters, RPO of 5 s, hit ratio, a report."""
        from vaio_bench.cli.run_progress import run_progress
        from vaio_bench.demonstration import demo as run

        with run_progress(quiet=quiet) as progress:
            found = run(folder, rounds=rounds, progress=progress)
        if as_json:
            print(json.dumps(found))
            return
        for question, answer in found["answers"].items():
            print(f"\n{question}")
            for line in answer:
                print(f"  {line}")
        print(f"\nreport: {found['report']}  (open it in a browser)")
        print(f"run folder: {found['run']}")
