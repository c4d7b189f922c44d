"""`vaio-bench recover`: an image of a replica at one of its points.

    vaio-bench recover --store STORE
    vaio-bench recover --store STORE --latest -o image --run RUN
    vaio-bench recover --store STORE --at 90s -o image
    vaio-bench recover --store STORE --by-age

## What it does

Without `-o` it lists the points of a store by epoch (the runs whose stream it holds). With `-o` it
writes the state of a point (`--point`), the newest of a time since the start (`--at`), or the
newest of all (`--latest`): the base image, and the journal up to there. What retention has given
up is refused, and the oldest time on offer named. A group of disks becomes a
folder with an image an each. The store is only read. A damaged record ends what can be recovered,
and so does one that is missing, wherever in the journal; it is named with file and byte. The store
notes how far its journal was durable: an end that was, and is not there any more, is missing, even
where a file ends with a whole record. (The note is behind by what came since the journal's newest
file began, at most, if the machine lost power.) The unfinished end that a killed site leaves is no
damage: nobody was told that it is there.

## What the figures mean

- *RTO* is the time from the request until the image is complete and on stable storage, measured by
  doing it. `--by-age` does so for points from the newest to the oldest, and keeps what it found
  with the run that the store lies in, for the report.
- *the same as the source then*: every block is compared with what the rows of the source's run say
  was acknowledged by the cut (`--run`, or the run that the store lies in); the first difference is
  named, and the exit status is 1. Blocks that nobody knows the content of are counted as unknown.
- *not compared*: without a run, below filters that change data, or with data that follow the
  contents that the trace names. The image is there all the same.
"""

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
    names, epochs = ", ".join(found["disks"]), found["epochs"]
    if not epochs and found["run"]:
        epochs = [{"run": found["run"], "from_no": 0, "stream_ns": 0}]
    stream = f", stream {found['stream']}" if found["stream"] else ""
    lines = [f"{len(found['points'])} restore points of disk {names or '(none yet)'}{stream}"]
    if not epochs:
        lines.append("no source has come yet: the store starts from the images that it adopted")
    starts = [epoch["from_no"] for epoch in epochs] + [1 << 63]
    for number, epoch in enumerate(epochs):
        since = f" since {_seconds(epoch['stream_ns'])}" if number else ""
        lines.append(f"epoch {number + 1}{since}: run {epoch['run']}")
        first, last = starts[number] if number else 0, starts[number + 1]
        within = [point for point in found["points"] if first <= point["no"] < last]
        lines += [
            f"point {point['id']:>6}  cut at {_seconds(point['cut_ns']):>12}  {point['kind']}-term"
            for point in within
        ]
        if not within:
            lines.append("no point of it is there")
    if found["instants"]:
        # Rounded inwards: both can be asked for.
        from_ns, to_ns = found["instants"]["from_ns"], found["instants"]["to_ns"]
        since, until = _seconds(-(-from_ns // 10**6) * 10**6), _seconds(to_ns // 10**6 * 10**6)
        lines.append(
            f"continuous: every moment from {since} to {until} as well (--at), but in holes and "
            "between long-term points"
        )
    return "\n".join(lines + _damage(found["damage"]))


def _seconds(time_ns: int) -> str:
    """As `--at` takes it: exact, so that points a second apart in a week differ."""
    return f"{time_ns / 1e9:.3f}s"


def _aged(found: dict[str, Any]) -> str:
    from vaio_bench.units import format_size, format_time

    lines = [f"{format_size(found['image_bytes'])} of disks, by age of the point:"]
    lines += [
        f"point {each['point']:>6}  {format_time(each['age_ns']):>8} before the newest: recovered "
        f"in {format_time(each['rto_ns'])}"
        for each in found["points"]
    ]
    return "\n".join(lines + _damage(found["damage"]))


def _told(found: dict[str, Any]) -> str:
    from vaio_bench.units import format_size, format_time

    cut, rto = format_time(found["cut_ns"]), format_time(found["rto_ns"])
    what = f"{found['kind']}-term point {found['point']}, cut at {cut}"
    if found["is_instant"]:
        what = f"the state at {cut} of a continuous stream, after point {found['point']}"
    lines = [f"{what}: recovered in {rto} (RTO)"]
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
