"""`vaio-bench fidelity`: did a run replay its trace as it was recorded?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vaio_bench import units
from vaio_bench.cli import options as o
from vaio_bench.errors import WorkError


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command()
    def fidelity(
        run: Annotated[Path, typer.Argument(help="A run folder.")],
        late_after: Annotated[str, typer.Option(help="Later than this counts as late.")] = "1ms",
        strict: Annotated[
            bool, typer.Option("--strict", help="Fail when the trace was not kept.")
        ] = False,
        as_json: o.AsJson = False,
    ) -> None:
        """Lateness, rate, I/Os in flight, and order of a run against its trace."""
        from vaio_bench.analyses.fidelity import document
        from vaio_bench.run_writer import write_result

        found = document(run, late_after_ns=units.parse_time_ns(late_after, "--late-after"))
        write_result(run, "fidelity", found)
        if as_json:
            print(json.dumps(found))
        else:
            show(found)
        if strict and found["faults"]:
            more = len(found["faults"]) - 1
            rest = f" (and {more} more)" if more else ""
            raise WorkError(f"{run}: the trace was not kept: {found['faults'][0]}{rest}")


def show(found: dict[str, Any]) -> None:
    """Prints a line a round, and what was not kept."""
    from vaio_bench.reporting import words

    head = ("", "late p50", "p99", "longest", "late", "rate", "in flight", "recorded", "disorder")
    rows: list[tuple[str, ...]] = [head]
    for each in found["rounds"]:
        rate = each["rate_error"]
        rows.append(
            (
                f"{each['policy']}, round {each['round'] + 1}",
                words.duration(each["issue_error_p50_ns"]),
                words.duration(each["issue_error_p99_ns"]),
                words.duration(each["issue_error_max_ns"]),
                words.share(each["late_share"]),
                words.change(None if rate is None else 1 + rate),
                _number(each["in_flight_mean"]),
                _number(each["in_flight_recorded_mean"]),
                words.count(each["out_of_order"]),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        print("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
    if found["pace"] == "asap":
        print("note: issued as soon as possible: nothing can be late, and the rate is the device's")
    if not found["trace_at_hand"]:
        print("note: the trace file is gone or another now: rows were not compared with it")
    for fault in found["faults"]:
        print(f"not kept: {fault}")
    if not found["faults"]:
        print("the trace was kept")


def _number(value: float | None) -> str:
    from vaio_bench.reporting import words

    return words.digits(value) if value is not None else words.duration(None)
