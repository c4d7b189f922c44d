"""`vaio-bench doctor`: is this machine fit to measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command()
    def doctor(
        target: Annotated[
            Path | None,
            typer.Option(help="A file, device or folder that runs will write to."),
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    ) -> None:
        """Is this machine fit to measure; what the harness itself costs here."""
        from vaio_bench.examining import doctor as examine

        found = examine(target)
        if as_json:
            print(json.dumps(found))
        else:
            _print(found)


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True, highlight=False)
    table = Table("what", "here", show_edge=False)
    for what, here in _rows(found["environment"]):
        table.add_row(what, here)
    floor = found["harness_floor"]
    table.add_row("harness floor", f"{floor['null_ns_per_io']:.0f} ns an I/O")
    adds = floor["pass_ns_per_io"]
    table.add_row("a further filter", f"{adds:.0f} ns an I/O" if adds > 0 else "nothing that shows")
    table.add_row("a time stamp", f"{floor['clock_ns']:.1f} ns")
    console.print(table)
    for warning in found["warnings"]:
        console.print(f"\nwarning {warning['code']}: {warning['seen']}", markup=False)
        console.print(f"  {warning['why']}.", markup=False)
        console.print(f"  {warning['remedy']}.", markup=False)
    if found["unfit"]:
        console.print(f"\nnot fit to measure now: {'; '.join(found['unfit'])}", markup=False)
    else:
        with_them = "" if found["fit"] else " with these warnings"
        console.print(f"\nfit to measure{with_them}")


def _rows(env: dict[str, Any]) -> list[tuple[str, str]]:
    cpu, kernel, load, memory = env["cpu"], env["kernel"], env["load"], env["memory"]
    rows = [
        ("processor", f"{cpu['model']}, {cpu['allowed']} of {cpu['online']} to use"),
        ("governor, turbo", f"{_known(cpu['governor'])}, {_known(cpu['turbo'])}"),
        ("kernel", f"{kernel['release']}, clock {_known(kernel['clock_source'])}"),
        ("virtualised", f"{_known(kernel['virtualised'])} ({_known(kernel['platform'])})"),
        ("io_uring", kernel["io_uring"]),
        ("others' processor time", f"{load['busy_share']:.1%}, stolen {load['steal_share']:.1%}"),
        ("memory", f"{memory['available_bytes'] >> 20} of {memory['total_bytes'] >> 20} MiB free"),
    ]
    target = env["target"]
    if target:
        where = f"{target['path']} on {_known(target['file_system'])} ({target['medium']})"
        rows.append(("target", where))
        if target["device"]:
            device = target["device"]
            rows.append(
                (
                    "device",
                    f"{device['name']}, scheduler {_known(device['scheduler'])}, "
                    f"sectors of {_known(device['logical_block_bytes'])} bytes",
                )
            )
    return rows


def _known(value: object) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
