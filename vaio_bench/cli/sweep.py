"""`vaio-bench sweep`: policies over a grid of disks, depths and block sizes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vaio_bench.cli import options as o
from vaio_bench.errors import InputError, WorkError

_BESIDE_RESUME = frozenset({"resume", "force", "as_json", "quiet"})


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command()
    def sweep(
        context: typer.Context,
        experiment: Annotated[
            str | None,
            typer.Argument(help="A TOML file (see `explain experiment`) or a shipped name."),
        ] = None,
        out: Annotated[
            Path | None, typer.Option("-o", "--out", help="Sweep folder to make.")
        ] = None,
        target: Annotated[
            Path | None, typer.Option(help="Folder for the disks; made when it does not exist.")
        ] = None,
        resume: Annotated[Path | None, typer.Option(help="Go on with this sweep.")] = None,
        margin: o.Margin = 0.02,
        destroy_data: o.DestroyData = False,
        force: Annotated[
            bool,
            typer.Option(
                "--force", help="With --resume: go on where another build of the engine began."
            ),
        ] = False,
        as_json: o.AsJson = False,
        quiet: o.Quiet = False,
    ) -> None:
        """Policies over a grid of disks, I/Os in flight and block sizes: null-filter is shipped."""
        from vaio_bench import sweeping
        from vaio_bench.analyses.sweep import sweep_shortfall
        from vaio_bench.cli.run_progress import run_progress

        folder = resume or out
        if folder is None or (experiment is None) == (resume is None) or (resume and out):
            raise InputError("sweep: expected an experiment and -o FOLDER, or --resume FOLDER")
        if resume is not None:
            o.refuse_others(context, _BESIDE_RESUME, f"--resume {resume}, which has its own")
        if force and resume is None:
            raise InputError("--force: expected --resume beside it: a sweep replaces nothing")
        try:
            with run_progress(quiet=quiet) as progress:
                if resume is not None:
                    found = sweeping.resume(resume, force=force, progress=progress)
                else:
                    found = sweeping.sweep(
                        experiment or "", out=folder, target=target, margin=margin,
                        destroy_data=destroy_data, progress=progress,
                    )  # fmt: skip
        except KeyboardInterrupt:
            print(f"vaio-bench: go on with: vaio-bench sweep --resume {folder}", file=sys.stderr)
            raise
        if as_json:
            print(json.dumps(found))
        else:
            show(found)
        why = sweep_shortfall(folder)
        if why is not None:
            raise WorkError(f"{found['sweep']}: {why}")


_SHOWN = ("latency_p50_ns", "iops", "cpu_ns_per_io")


def show(found: dict[str, Any]) -> None:
    """Prints a sentence a policy, then a line a cell and policy."""
    from vaio_bench.analyses.sweep import swept
    from vaio_bench.experiment import shown
    from vaio_bench.reporting import words
    from vaio_bench.warnings import line_of

    for line in words.sweep_sentences(swept(found["sweep"])):
        print(line)
    print()
    axes = [axis for axis, values in found["axes"].items() if len(values) > 1]
    head = [*axes, "", *(words.METRICS[metric] for metric in _SHOWN), "median latency is"]
    head[len(axes) + 1] += " (95 % interval)"
    rows = [head]
    for cell in found["cells"]:
        for policy in cell["policies"]:
            metrics = policy["metrics"]
            row = [shown(axis, cell["at"][axis]) for axis in axes] + [policy["name"]]
            row += [words.change(metrics[m]["ratio"]) if m in metrics else "" for m in _SHOWN]
            if median := metrics.get(_SHOWN[0]):
                row[len(axes) + 1] += f" ({words.span(median['ci_low'], median['ci_high'])})"
            lost = policy["lost"]
            word = f"lost all {lost['of']} rounds" if lost and not metrics else ""
            rows.append([*row, metrics.get("latency_p50_ns", {}).get("verdict", word)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        print("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
    if found["missing"]:
        print(f"\nnot run, or without a whole round: {len(found['missing'])} cells")
    print()
    for each in found["failed"]:
        print(f"failed: cell {each['cell']}: {each['reason']}")
    for warning in found["warnings"]:
        print(f"warning: in {warning['cells']} of {len(found['cells'])} cells: {line_of(warning)}")
    print(f"sweep folder: {found['sweep']}  (vaio-bench report {found['sweep']} -o sweep.html)")
