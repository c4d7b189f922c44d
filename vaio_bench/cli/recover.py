"""`vaio-bench recover`: an image of a replica at one of its points."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vaio_bench.errors import InputError


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command()
    def recover(
        *,
        store: Annotated[Path, typer.Option(help="Folder of the replica's store.")],
        output: Annotated[
            Path | None, typer.Option("--output", "-o", help="The image to write.")
        ] = None,
        point: Annotated[int | None, typer.Option(help="Number of a restore point.")] = None,
        at: Annotated[
            str | None, typer.Option(help="The newest state of this time since the start: 90s.")
        ] = None,
        latest: Annotated[bool, typer.Option("--latest", help="The newest state.")] = False,
        run: Annotated[
            Path | None,
            typer.Option(help="Run whose rows tell the state; else the one it lies in."),
        ] = None,
        by_age: Annotated[
            bool,
            typer.Option("--by-age", help="Time the recovery of points from newest to oldest."),
        ] = False,
        force: Annotated[
            bool, typer.Option("--force", help="Replace the image, or what --by-age kept.")
        ] = False,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    ) -> None:
        """Recovers a restore point, times it, and checks it; without -o, lists the points."""
        from vaio_bench import recovering

        if by_age:
            if output is not None or point is not None or at is not None or latest:
                raise InputError("--by-age: expected no point and no image with it")
            found = recovering.rto_by_age(store, force=force)
            print(json.dumps(found) if as_json else _aged(found))
            return
        chosen = (point is not None) + (at is not None) + latest
        if output is None:
            if chosen:
                raise InputError("-o: expected the image to write")
            found = recovering.list_points(store)
            print(json.dumps(found) if as_json else _listed(found))
            return
        if chosen != 1:
            raise InputError("expected one of --point, --at and --latest")
        found = recovering.recover(
            store=store, out=output, point=point, at=at, run=run, force=force
        )
        print(json.dumps(found) if as_json else _told(found))


def _listed(found: dict[str, Any]) -> str:
    from vaio_bench.units import format_time

    lines = [f"run {found['run']}, disks {', '.join(found['disks'])}"]
    lines += [f"point {p['id']:>6}  cut at {format_time(p['cut_ns'])}" for p in found["points"]]
    if found["continuous"]:
        lines.append("continuous: every moment in between as well (--at)")
    return "\n".join(lines + _damage(found["damage"]))


def _aged(found: dict[str, Any]) -> str:
    from vaio_bench.units import format_size, format_time

    lines = [f"{format_size(found['image_bytes'])} of disks, by age of the point:"]
    lines += [
        f"point {each['point']:>6}  {format_time(each['age_ns']):>8} before the newest: recovered "
        f"in {format_time(each['rto_ns'])}"
        for each in found["points"]
    ]
    return "\n".join(lines)


def _told(found: dict[str, Any]) -> str:
    from vaio_bench.units import format_size, format_time

    lines = [
        f"point {found['point']}, cut at {format_time(found['cut_ns'])}: recovered in "
        f"{format_time(found['rto_ns'])} (RTO)"
    ]
    checked = found["checked"]
    if checked is None:
        lines.append(f"not compared with the source: {found['unchecked_why']}")
    else:
        lines.append(
            f"the same as the source then: {format_size(checked['verified_bytes'])} compared, "
            f"{format_size(checked['unverified_bytes'])} unknown"
        )
    return "\n".join(lines + _damage(found["damage"]))


def _damage(damage: Any) -> list[str]:
    if not damage:
        return []
    if isinstance(damage, dict):
        damage = f"{damage['file']}: byte {damage['byte']}: {damage['what']}"
    return [f"the journal is damaged, and recovery stops there: {damage}"]
