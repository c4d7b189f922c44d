"""What `rpo` prints below its modes: folding, disks, limits, and what comes beside the link."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Column, Table

from vaio_bench.units import format_needed_bps, format_rate_bps, format_size, format_time

# Disks on the terminal; the sheets and --json have all of them.
_DISKS_MAX = 12


def parts(document: dict[str, Any]) -> Iterator[Table | str]:
    """The tables and lines, in their order."""
    curve = document["folding"]
    if curve:
        yield _folding(curve)
    if any(at["gain"] < 0 for at in curve):
        yield "A block is sent as a whole: more than the writes were, where nothing is saved."
    if document["duration_s"]:
        yield _loads(document["loads"], document["inputs"])
    limits = list(_limits(document["loads"]))
    if limits:
        yield "\n".join(["Too hot for a product:", *limits])
    yield "\n".join([*_outages(document), *_capacity(document)])


def _time(seconds: float | None) -> str:
    return "never" if seconds is None else format_time(seconds * 1e9)


def _folding(curve: list[dict[str, Any]]) -> Table:
    table = Table("each block once a", "unique", "saved", "needs", "at most", show_edge=False)
    for at in curve:
        table.add_row(
            _time(at["window_s"]),
            format_size(at["unique_bytes"]),
            # To the precision of the cell: what is told as 0 % saves nothing.
            f"{100 * at['gain']:.3g} %" if at["gain"] >= 5e-5 else "none",
            format_needed_bps(at["bandwidth_bps"]),
            format_needed_bps(at["bandwidth_peak_bps"]),
        )
    return table


def _loads(loads: list[dict[str, Any]], inputs: dict[str, Any]) -> Table:
    within = f"p{100 * inputs['percentile']:g}"
    window = _time(inputs["rate_window_s"])
    columns = ("written", "mean", within, "peak", "peak IOPS", "target needs")
    # No narrower than the longest word of "at no bandwidth": what is longer is cut off.
    widths = {"target needs": len("bandwidth")}
    heads = [Column(head, min_width=widths.get(head)) for head in columns]
    table = Table(f"rates over {window}", *heads, show_edge=False)
    disks = [load for load in loads if load["kind"] == "disk"]
    if len(disks) == 1:
        disks = []  # the same as all of them
    busiest = sorted(disks, key=lambda load: -load["written_bytes_per_s"]["peak"])[:_DISKS_MAX]
    for load in [*(each for each in loads if each["kind"] != "disk"), *busiest]:
        rate = load["written_bytes_per_s"]
        needed = load["bandwidth_for_target_bps"]["100"]
        table.add_row(
            load["name"],
            format_size(load["written_bytes"]),
            *[format_rate_bps(rate[step] * 8) for step in ("mean", "percentile", "peak")],
            f"{load['iops']['peak']:,.0f}",
            "at no bandwidth" if needed is None else format_needed_bps(needed),
        )
    if len(disks) > _DISKS_MAX:
        left = len(disks) - _DISKS_MAX
        table.add_row(f"and {left} disks more", *[""] * 6)
    return table


def _limits(loads: list[dict[str, Any]]) -> Iterator[str]:
    for load in loads:
        for each in load["exceeded"]:
            yield f"  {load['name']}: {each['verdict']} for {each['product']}: {each['reason']}"


def _outages(document: dict[str, Any]) -> Iterator[str]:
    for each in document["outages"]:
        caught_up = each["caught_up_s"]
        until = "not by the end" if caught_up is None else f"after {_time(caught_up)}"
        yield (
            f"Outage at {_time(each['from_s'])} for {_time(each['to_s'] - each['from_s'])}: "
            f"{format_size(each['backlog_bytes'])} behind at its end, caught up {until}."
        )


def _capacity(document: dict[str, Any]) -> Iterator[str]:
    first, catch_up, journal = (document[n] for n in ("initial_sync", "catch_up", "journal"))
    others = ", ".join(
        f"{_time(at['seconds'])} over {format_rate_bps(at['bandwidth_bps'])}"
        for at in first["at"][2:6]  # the others are in the sheets
        if at["seconds"] is not None and at["seconds"] != first["seconds"]
    )
    within = format_time(first["within_s"] * 1e9)
    yield (
        f"Initial sync of {format_size(first['bytes'])}: {_time(first['seconds'])}; "
        f"{within} would need {format_needed_bps(first['bandwidth_bps'])}"
        + (f" ({others})." if others else ".")
    )
    yield (
        f"After an outage of {_time(catch_up['outage_s'])}: "
        f"{format_size(catch_up['backlog_bytes'])} to send, caught up after "
        f"{_time(catch_up['seconds'])}; by changed blocks {format_size(catch_up['changed_bytes'])} "
        f"and {_time(catch_up['changed_seconds'])}."
    )
    folded = journal["folded_bytes"]
    more = "" if folded is None else f", {format_size(folded)} with each block once a point"
    yield (
        f"Journal for {_time(journal['retention_s'])}: {format_size(journal['bytes'])}{more}; "
        f"{format_size(journal['with_over_retention_bytes'])} with over-retention, "
        f"{format_size(journal['recoverpoint_bytes'])} by RecoverPoint's rule."
    )
    kept = journal["long_term"]
    if kept:
        yield (
            f"{kept['points']} long-term points, one every {_time(kept['every_s'])} for "
            f"{_time(kept['retention_s'])}: {format_size(kept['bytes'])} more."
        )
    if (
        (kept and kept["extrapolated"])
        or journal["extrapolated"]
        or catch_up["extrapolated"]
        or first["extrapolated"]
    ):
        yield "Where the trace is shorter than that, its mean rate stands for the rest."
