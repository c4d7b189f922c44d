"""`vaio-bench cache`: the cache simulator."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaio_bench.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from vaio_bench.analyses.cache import CacheStudy


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command()
    def cache(
        trace: Annotated[Path, typer.Argument(help="Canonical trace (Parquet).")],
        *,
        policy: Annotated[
            list[str] | None, typer.Option(help="Eviction policy, repeatable; all if none.")
        ] = None,
        size: Annotated[
            list[str] | None,
            typer.Option(help="Size, or share of the footprint (5%); repeatable."),
        ] = None,
        block: Annotated[str, typer.Option(help="Bytes of a block.")] = "4KiB",
        write_policy: Annotated[str, typer.Option(help="through, back or around.")] = "through",
        warmup: Annotated[
            str | None, typer.Option(help="Not counted at the start: 10% of the I/Os, or 5min.")
        ] = None,
        shared: Annotated[
            bool, typer.Option("--shared", help="One cache for all disks, not one for each.")
        ] = False,
        dedup: Annotated[
            bool, typer.Option("--dedup", help="What content-based caches hit, too.")
        ] = False,
        curve: Annotated[bool, typer.Option("--curve", help="Whole miss-ratio curves.")] = False,
        sample: Annotated[
            str | None, typer.Option(help="Share of the blocks that curves are simulated on.")
        ] = None,
        seed: Annotated[int, typer.Option(help="Of policies that draw.")] = 0,
        threads: Annotated[int, typer.Option(help="0: one a processor.")] = 0,
        output: Annotated[
            Path | None,
            typer.Option("--output", "-o", help="A run folder that keeps the result, too."),
        ] = None,
        force: Annotated[bool, typer.Option("--force", help="Replace its earlier result.")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
        quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
    ) -> None:
        """What a cache would hit, over sizes and eviction policies."""
        from vaio_bench.analyses.cache import cache as study_of
        from vaio_bench.cli.progress import phases_progress
        from vaio_bench.run_writer import write_result

        options.check_result(output, "cache", force=force)
        with phases_progress(quiet=quiet) as progress:
            study = study_of(
                trace,
                policies=policy or (),
                sizes=size or (),
                block=block,
                write_policy=write_policy,
                warmup=warmup,
                shared=shared,
                dedup=dedup,
                curve=curve,
                sample=sample,
                seed=seed,
                threads=threads,
                progress=progress,
            )
        if output is not None:
            write_result(output, "cache", study.to_dict())
        for warning in study.warnings:
            print(f"vaio-bench: warning: {warning}", file=sys.stderr)
        if as_json:
            print(json.dumps(study.to_dict(), allow_nan=False))
        else:
            _print(study)


def _print(study: CacheStudy) -> None:
    from rich.console import Console

    from vaio_bench.units import format_size

    console = Console(soft_wrap=True, highlight=False)
    found = study.document
    caches = "one cache" if found["caches"] == 1 else f"{found['caches']} caches, one a disk"
    console.print(
        f"{found['ios']:,} I/Os on {format_size(found['footprint_bytes'])} of blocks of "
        f"{format_size(found['block_bytes'])}; {caches}, write-{found['write_policy']}\n"
    )
    console.print(_table(study))
    if "curves" in found:
        console.print()
        console.print(_curves(study))
        for each in found.get("shards", ()):
            console.print(
                f"SHARDS, {each['method']} ({each['rate']:.2%} of the blocks, {each['salts']} "
                f"salts): off by {each['error_mean']:.4f} on average, {each['error_max']:.4f} at "
                f"most; error bar {each['error_bar']:.4f}"
            )
    console.print(f"\n{study.answer}.", markup=False)


def _table(study: CacheStudy) -> Table:
    """A row a policy and size."""
    from rich.table import Table

    from vaio_bench.units import format_size, format_time

    is_back = study.document["write_policy"] == "back"
    columns = ["policy", "size", "hit ratio", "reads", "bytes", "misses"]
    columns += ["dirty, most", "oldest dirty"] if is_back else []
    by_content = any("content" in each for each in study.results)
    columns += ["by content", "copies stand for"] if by_content else []
    table = Table(*columns, show_edge=False)
    for each in study.results:
        size = format_size(each["size_bytes"])
        asked = f"{size} ({each['size']})" if "%" in each["size"] else size
        row = [each["policy"], asked, _percent(each["hit_ratio"])]
        row += [_percent(each["read_hit_ratio"]), _percent(each["byte_hit_ratio"])]
        row.append(f"{each['misses']:,}")
        if is_back:
            of = each["write_back"]
            row += [format_size(of["dirty_bytes_max"]), format_time(of["age_max_s"] * 1e9)]
        if by_content:
            row += _by_content(each.get("content"))
        table.add_row(*row)
    return table


def _by_content(found: dict[str, Any] | None) -> list[str]:
    from vaio_bench.units import format_size

    if found is None:
        return ["-", "-"]
    logical, physical = found["logical_bytes"], found["physical_bytes"]
    stand_for = f"{format_size(physical)} for {format_size(logical)}"
    return [_percent(found["hit_ratio"]), stand_for]


def _curves(study: CacheStudy) -> Table:
    """A row a policy: what its curve says."""
    from rich.table import Table

    from vaio_bench.units import format_size

    table = Table(
        "policy", "knee", "hits there", "size for 90 % of the best", "how", show_edge=False
    )
    for each in study.document["curves"]:
        knee, enough = each["knee"], each["size_for_90_percent_bytes"]
        how = each["method"]
        if each["method"] == "sampled":
            how = f"{each['rate']:.1%} of the blocks"
            if each["error"]:
                how += f", off by {each['error']['mean']:.4f}"
        table.add_row(
            each["policy"],
            format_size(knee["size_bytes"]) if knee else "-",
            _percent(knee["hit_ratio"]) if knee else "-",
            format_size(enough) if enough else "-",
            how,
        )
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"
