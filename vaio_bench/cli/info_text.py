"""The profile of `info` in the terminal: one sentence, then a table."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from vaio_bench.analyses.info import describe, number, percent
from vaio_bench.units import format_size, format_time

Document = dict[str, Any]
Row = tuple[str, str]


def render(profile: Document) -> Group:
    """The sentence, the table of all disks together, and a table of disks if there are more."""
    parts: list[Text | Table] = [Text(describe(profile), style="bold")]
    if profile["ios"]:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column()
        for section in (_mix_rows, _shape_rows, _space_rows, _reuse_rows, _time_rows):
            for name, value in section(profile):
                table.add_row(name, value)
        parts.append(table)
    if len(profile["disks"]) > 1:
        parts.append(_disk_table(profile["disks"]))
    return Group(*parts)


def _mix_rows(profile: Document) -> list[Row]:
    mib = 1 << 20
    counts = [
        f"{profile[key]:,} {key}"
        for key in ("reads", "writes", "flushes", "discards", "write_zeroes")
        if profile[key]
    ]
    flagged = profile["flags"]
    flags = [f"{flagged[key]:,} {key.replace('_', ' ')}" for key in flagged if flagged[key]]
    rate = profile["bytes_per_s"]
    return [
        ("I/Os", f"{profile['ios']:,}: {', '.join(counts)}"),
        ("bytes", f"{format_size(profile['read_bytes'])} read, "
         f"{format_size(profile['write_bytes'])} written"),
        ("flags", ", ".join(flags) or "none"),
        ("duration", format_time(profile["duration_s"] * 1e9)
         + (f", {number(profile['iops'])} I/Os/s, {rate / mib:.1f} MiB/s" if rate else "")),
    ]  # fmt: skip


def _shape_rows(profile: Document) -> list[Row]:
    sizes, order = profile["sizes"], profile["sequentiality"]
    rows = [
        (f"{kind} sizes", _histogram(sizes[f"{kind}_histogram"]))
        for kind in ("read", "write")
        if sizes[f"{kind}_histogram"]
    ]
    if order["sequential_share"] is None:
        return rows
    aligned = {a["bytes"]: a["offset_and_length_share"] for a in profile["alignment"]}
    runs = order["run_ios"]
    return [
        *rows,
        ("alignment", f"{percent(aligned[4096])} to 4 KiB, {percent(aligned[512])} to 512 B"),
        ("sequential", f"{percent(order['sequential_share'])} strictly, "
         f"{percent(order['near_sequential_share'])} within the last {order['look_back']} I/Os; "
         f"runs of {runs['mean']:.1f} I/Os on average, {runs['max']:,} at most"),
        ("seeks", _spread(order["seek_bytes"], format_size)),
    ]  # fmt: skip


def _space_rows(profile: Document) -> list[Row]:
    rows = [
        ("footprint", f"{format_size(profile['footprint_bytes'])} "
         f"({profile['unique_blocks']:,} blocks of {format_size(profile['block_bytes'])}): "
         f"{format_size(profile['read_footprint_bytes'])} read, "
         f"{format_size(profile['write_footprint_bytes'])} written; "
         f"reaches to {format_size(profile['end_bytes'])}"),
    ]  # fmt: skip
    for window in profile["working_set"]:
        label = format_time(window["window_s"] * 1e9)
        text = f"{format_size(window['mean_bytes'])} on average, "
        text += f"{format_size(window['max_bytes'])} at most, {window['windows']:,} windows"
        rows.append((f"working set, {label}", text))
    if profile["overwrite_share"] is not None:
        rows.append(("overwrites", f"{percent(profile['overwrite_share'])} of written blocks"))
    if profile["read_after_write_share"] is not None:
        share = percent(profile["read_after_write_share"])
        rows.append(("read after write", f"{share} of read blocks"))
    return rows


def _reuse_rows(profile: Document) -> list[Row]:
    reuse = profile["reuse"]
    if not reuse["requests"]:
        return []
    block_bytes = profile["block_bytes"]
    lru = ", ".join(
        f"{percent(p['hit_ratio'])} at {format_size(p['cache_bytes'])}" for p in reuse["lru"]
    )
    top = ", ".join(
        f"{percent(t['request_share'])} to the top {100 * t['block_share']:g} %"
        for t in reuse["popularity"]
    )
    sampled = "" if reuse["sampled"] == 1 else f", sampled 1 in {round(1 / reuse['sampled'])}"
    return [
        ("reuse", f"{percent(reuse['reuse_share'])} of {reuse['requests']:,} block requests"
         f" ({reuse['method']}{sampled})"),
        ("reuse distance",
         _spread(reuse["distance_blocks"], lambda blocks: format_size(blocks * block_bytes))),
        ("reuse time", _spread(reuse["time_ns"], format_time)),
        ("LRU would hit", lru),
        ("popularity", top),
    ]  # fmt: skip


def _time_rows(profile: Document) -> list[Row]:
    rows = [("interarrival", _spread(profile["interarrival_ns"], format_time))]
    cov = profile["interarrival_cov"]
    if cov is not None:
        rows[0] = ("interarrival", f"{rows[0][1]}; coefficient of variation {cov:.2f}")
    for burst in profile["burstiness"]:
        text = f"peak {number(burst['peak_ios_per_s'])} I/Os/s, "
        text += f"{burst['peak_to_mean']:.2f} times the mean"
        if burst["index_of_dispersion"] is not None:
            text += f"; index of dispersion {burst['index_of_dispersion']:.2f}"
        rows.append((f"bursts, {format_time(burst['window_s'] * 1e9)}", text))
    if profile["hurst"]:
        hurst = profile["hurst"]
        text = f"{hurst['exponent']:.2f} (R² {hurst['r_squared']:.2f}; 0.5: independent)"
        rows.append(("Hurst exponent", text))
    if profile["outstanding"]:
        depth = profile["outstanding"]["at_arrival"]
        rows.append(("outstanding", _spread(depth, lambda n: f"{n:g}")))
    for kind, spread in profile["latency_ns"].items():
        if spread:
            rows.append((f"{kind} latency", _spread(spread, format_time)))
    return rows


def _disk_table(disks: list[Document]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="cyan")
    for name in ("disk", "I/Os", "reads", "read", "written", "footprint", "near-seq."):
        table.add_column(name, justify="left" if name == "disk" else "right", no_wrap=True)
    shown = sorted(disks, key=lambda d: -d["ios"])[:20]
    for disk in shown:
        near = disk["sequentiality"]["near_sequential_share"]
        table.add_row(
            disk["disk"],
            f"{disk['ios']:,}",
            "" if disk["read_share"] is None else percent(disk["read_share"]),
            format_size(disk["read_bytes"]),
            format_size(disk["write_bytes"]),
            format_size(disk["footprint_bytes"]),
            "" if near is None else percent(near),
        )
    if len(disks) > len(shown):
        table.caption = f"the busiest {len(shown)} of {len(disks)} disks; --json has all"
    return table


def _histogram(rows: list[Document]) -> str:
    total = sum(row["ios"] for row in rows)
    by_count = sorted(rows, key=lambda row: -row["ios"])
    named = [row for row in by_count if row["size_bytes"] is not None][:6]
    texts = [f"{format_size(r['size_bytes'])} {percent(r['ios'] / total)}" for r in named]
    rest = total - sum(row["ios"] for row in named)
    return ", ".join(texts + ([f"other {percent(rest / total)}"] if rest else []))


def _spread(spread: Document | None, show: Any) -> str:
    if spread is None:
        return "none"
    points = [f"{p} {show(spread[p])}" for p in ("p50", "p90", "p99", "max")]
    return ", ".join([f"mean {show(round(spread['mean'], 2))}", *points])
