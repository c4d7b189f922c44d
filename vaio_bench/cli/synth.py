"""`vaio-bench synth`: synthetic traces from a preset or a spec."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command()
    def synth(
        spec: Annotated[
            str | None, typer.Argument(metavar="PRESET|SPEC.toml", show_default=False)
        ] = None,
        *,
        output: Annotated[
            Path | None, typer.Option("--output", "-o", help="Parquet file to write.")
        ] = None,
        seed: Annotated[int | None, typer.Option(help="In place of the spec's.")] = None,
        ios: Annotated[int | None, typer.Option(help="Number of I/Os.")] = None,
        duration: Annotated[str | None, typer.Option(help='Such as "60s".')] = None,
        footprint: Annotated[str | None, typer.Option(help='Of each disk, "4GiB".')] = None,
        rate: Annotated[float | None, typer.Option(help="I/Os per second in all.")] = None,
        list_presets: Annotated[bool, typer.Option("--list", help="Lists the presets.")] = False,
        show: Annotated[bool, typer.Option("--show", help="Prints a preset's TOML.")] = False,
        force: Annotated[bool, typer.Option("--force", help="Replaces the output.")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
        quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
    ) -> None:
        """Writes a synthetic trace: arrivals, addresses, sizes, mix, disks, shared content."""
        from vaio_bench.cli.progress import rows_progress
        from vaio_bench.errors import InputError
        from vaio_bench.synthetic.presets import preset_text
        from vaio_bench.synthetic.run import synth as make

        if list_presets:
            _list(as_json=as_json)
            return
        if spec is None:
            raise InputError("synth: expected a preset or a spec file; --list shows the presets")
        if show:
            sys.stdout.write(preset_text(spec))
            return
        if output is None:
            raise InputError("synth: expected -o FILE, the trace to write")
        with rows_progress("making", quiet=quiet) as progress:
            result = make(
                spec, output, seed=seed, ios=ios, duration=duration, footprint=footprint,
                rate=rate, force=force, progress=progress,
            )  # fmt: skip
        if as_json:
            print(json.dumps(result.document()))
        else:
            disks = len(result.disks)
            print(
                f"{result.trace}: {result.ios:,} I/Os over {result.duration_s:.3f} s "
                f"on {disks} disk{'s' if disks > 1 else ''}, seed {result.seed}"
            )


def _list(*, as_json: bool) -> None:
    from vaio_bench.synthetic.presets import find_spec, preset_names

    found = {name: find_spec(name).description for name in preset_names()}
    if as_json:
        presets = [{"name": name, "description": text} for name, text in found.items()]
        print(json.dumps({"presets": presets}))
        return
    for name, description in found.items():
        print(f"{name:18} {description}")
