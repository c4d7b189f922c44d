"""`vaio-bench replay`: a trace through a chain of filters on a real file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from vaio_bench.cli import options as o
from vaio_bench.errors import InputError, WorkError


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command()
    def replay(
        trace: o.Trace,
        out: o.Out,
        target: o.Target = None,
        policy: Annotated[
            list[str] | None, typer.Option(help="Storage policy: a TOML file or a shipped name.")
        ] = None,
        rounds: Annotated[int, typer.Option(help="Times to replay it.")] = 1,
        pace: o.Pace = "recorded",
        speed: o.Speed = 1.0,
        depth: o.Depth = 32,
        inflight: o.Inflight = 1024,
        spin: o.Spin = "75us",
        backend: o.Backend = "uring",
        clock: o.Clock = "wall",
        direct: o.Direct = None,
        conflicts: o.Conflicts = "order",
        verify: o.Verify = False,
        compressible: o.Compressible = 0.0,
        dedupe: o.Dedupe = 0.0,
        payload: o.Payload = "made",
        content: o.Content = True,
        fit_to: o.FitTo = None,
        disk: o.Disk = None,
        skip: o.Skip = 0,
        limit: o.Limit = None,
        seed: o.Seed = 0,
        destroy_data: o.DestroyData = False,
        precondition: o.Precondition = None,
        strict: o.Strict = False,
        force: o.Force = False,
        as_json: o.AsJson = False,
        quiet: o.Quiet = False,
    ) -> None:
        """Replays a trace on a real file, directly or through a policy's filters."""
        from vaio_bench.cli.run_progress import run_progress
        from vaio_bench.replaying import replay as run

        chosen = _one_policy(policy or [])
        settings = o.settings(
            spin=spin, direct=direct, fit_to=fit_to, disk=disk, pace=pace, speed=speed,
            depth=depth, inflight=inflight, backend=backend, clock=clock, conflicts=conflicts,
            verify=verify, compressible=compressible, dedupe=dedupe, content=content,
            skip=skip, limit=limit, seed=seed, destroy_data=destroy_data,
            precondition=precondition, payload=payload,
        )  # fmt: skip
        with run_progress(quiet=quiet) as progress, _told_where_it_is(out):
            found = run(
                trace, out=out, target=target, policy=chosen, rounds=rounds, settings=settings,
                force=force, progress=progress,
            )  # fmt: skip
        if as_json:
            print(json.dumps(found))
        else:
            _print(found)
        _judge(found, strict=strict)


def _one_policy(given: list[str]) -> str | None:
    """The policy of `--policy`; None without it.

    Raises:
        InputError: there are several.
    """
    if len(given) > 1:
        raise InputError(
            f"--policy: expected one, got {len(given)}: `vaio-bench compare` replays a trace "
            "through several"
        )
    return given[0] if given else None


@contextmanager
def _told_where_it_is(out: Path) -> Iterator[None]:
    """After Ctrl-C, what there is of the run."""
    try:
        yield
    except KeyboardInterrupt:
        if (out / "manifest.json").is_file():
            print(f"vaio-bench: what was replayed is in {out}", file=sys.stderr)
        raise


def _judge(found: dict[str, Any], *, strict: bool) -> None:
    """What was printed stands; the exit status tells whether the work was sound.

    Raises:
        WorkError: it was not.
    """
    from vaio_bench.analyses.failed import replay_shortfall

    why = replay_shortfall(found)
    if why is not None:
        raise WorkError(f"{found['run']}: {why}")
    if strict and found["gate"]:
        raise WorkError(f"{found['run']}: the pace was not kept: {found['gate']}")


def _lost(found: dict[str, Any]) -> Iterator[str]:
    """What was not done, which rates and latencies do not show."""
    if found["errors"]:
        first = f" (first: {found['told_errors'][0]})" if found["told_errors"] else ""
        yield (
            f"errors: {found['errors']:,} of {found['ios']:,} I/Os failed{first}; they are in no "
            "rate and no latency"
        )
    for kind in ("rounds", "disks"):
        for line in found[f"lost_{kind}"]:
            yield f"lost: {line}"


def _hits(found: dict[str, Any]) -> str:
    """What the cache of a round hit, and what a simulation does."""
    text = f"cache: {found['hits']:,} of {found['requests']:,} requests hit"
    text += f" ({100 * found['hit_ratio']:.2f} %)" if found["requests"] else ""
    if found["is_same"] is None:
        return f"{text}; not held against a simulation: {found['why']}"
    if found["is_same"]:
        return f"{text}, exactly as simulated"
    text += (
        f"; simulated {found['simulated_hits']:,}, {100 * found['difference']:+.3f} points apart"
    )
    return text + (f": {found['why']}" if found["why"] else "")


def _rpo(found: dict[str, Any]) -> str:
    """The RPO that a round's replication had, and what the planner says."""
    from vaio_bench.units import format_time

    names = {"p95": "p95", "p99": "p99", "max": "at worst"}
    ages = {step: found["run_rpo_s"][step] for step in names}
    had = [
        f"{'no point' if age is None else format_time(age * 1e9)} {names[step]}"
        for step, age in ages.items()
    ]
    said = ", ".join(format_time(found["planner_rpo_s"][step] * 1e9) for step in names)
    text = f"replication of {found['disks']}: RPO {', '.join(had)}; the planner says {said}"
    if found["agrees"]:
        return text
    return text + (f", apart: {found['why']}" if found["why"] else ", which is apart")


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from vaio_bench.analyses.inspected import Inspected
    from vaio_bench.units import format_size, format_time

    console = Console(soft_wrap=True, highlight=False)
    console.print(
        f"{found['policy']}: {found['ios']:,} I/Os in {found['rounds']} round(s), "
        f"{found['iops']:,.0f} IOPS, {format_size(found['bytes_per_s'])}/s, "
        f"backend {found['backend']}{' (O_DIRECT)' if found['direct'] else ''}"
    )
    for line in _lost(found):
        console.print(line, markup=False)
    table = Table("", "p50", "p99", "p99.9", "max", show_edge=False)
    for name in ("latency", "response", "issue_error"):
        ladder = found[f"{name}_ns"]
        cells = (ladder.get(level) for level in ("p50", "p99", "p999", "max"))
        shown = ("" if cell is None else format_time(cell) for cell in cells)
        table.add_row(name.replace("_", " "), *shown)
    console.print(table)
    if found["verified"] is not None:
        state = "all right" if found["verified"] else "WRONG"
        console.print(
            f"verified: {state}, {format_size(found['verified_bytes'])} checked, "
            f"{format_size(found['unverified_bytes'])} not checkable"
        )
    for each in found["inspected"]:
        console.print(str(Inspected(**each)), markup=False)
    for each in found["cache"]:
        console.print(_hits(each), markup=False)
    for each in found["replication"]:
        console.print(_rpo(each), markup=False)
    for key, what in (
        ("conflicts", "overlapped an I/O in flight"),
        ("dropped", "were not issued"),
        ("unaligned", "were read, changed and written back for the target's alignment"),
        ("fua_by_flush", "with FUA were written and then flushed: the server has no FUA"),
        ("unflushed", "asked for durability that the server does not offer"),
    ):
        if found[key]:
            console.print(f"{found[key]:,} I/Os {what}")
    for note in found["notes"]:
        console.print(f"note: {note}", markup=False)
    for warning in found["warning_texts"]:
        console.print(f"warning: {warning}", markup=False)
    stores = sorted(Path(found["run"]).glob("replica/*/*/store"))
    if stores:
        more = f", and of {len(stores) - 1} more rounds" if len(stores) > 1 else ""
        console.print(f"replica, for `recover --store`: {stores[0]}{more}", markup=False)
    console.print(f"run folder: {found['run']}", markup=False)
