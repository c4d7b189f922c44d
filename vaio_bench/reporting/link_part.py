"""What a run's link had to do: lag, backlog and bandwidth used over time, and the RPO it gave."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from vaio_bench.analyses.run_rpo import Replicated, RunRpo, replication_of
from vaio_bench.reporting import figures, replication_part
from vaio_bench.reporting.figures import Figure, Palette
from vaio_bench.store import Run

# More than can be told apart on a chart.
_STEPS = 200


def charts(run: Run, plan: dict[str, Any] | None, palette: Palette) -> list[Figure]:
    """Lag, backlog and link of the first complete round; none where nothing replicated."""
    stored = run.timeline().filter(pl.col("round") == pl.col("round").min().over("policy"))
    table = (
        # The gauges of disks that replicate together stand at one of them.
        stored.group_by("policy", "start_ns", maintain_order=True)
        .agg(
            (pl.col("lag_ns").max() / 1e9).alias("lag_s"),
            pl.col("backlog_bytes").sum(),
            pl.col("write_bytes").sum(),
            pl.col("lag_ns").is_not_null().any().alias("replicates"),
        )
        .filter(pl.col("replicates").any().over("policy"))
        .with_columns((pl.col("start_ns") / 1e9).alias("time_s"))
        .sort("policy", "time_s")
    )
    if table.is_empty():
        return []
    backlog = table.with_columns((pl.col("backlog_bytes") / 2**20).alias("mib"))
    return [
        figures.series(table, "lag_s", "Replication lag of the run", "s", palette,
                       "The age of the oldest write that is not at the replica."),
        figures.series(backlog, "mib", "Backlog of the run", "MiB", palette,
                       "What was written and is not confirmed by the replica."),
        _use(run, table, plan, palette),
    ]  # fmt: skip


def _use(run: Run, table: pl.DataFrame, plan: dict[str, Any] | None, palette: Palette) -> Figure:
    """What arrived between two points took the link in between; beside it what was written."""
    interval_s = float(run.timeline()["interval_ns"].max() or 1) / 1e9  # type: ignore[arg-type]
    used: list[pl.DataFrame] = []
    written: list[pl.DataFrame] = []
    for (policy,), own in table.group_by("policy", maintain_order=True):
        end_s = float(own["time_s"].max()) + interval_s  # type: ignore[arg-type]
        edges = np.linspace(0, end_s, min(_STEPS, own.height) + 1)
        steps_s = np.diff(edges)
        at_s, bytes_then = arrived(run, str(policy))
        sent = np.diff(np.interp(edges, at_s, bytes_then)) * 8e-6 / steps_s
        to_s = np.concatenate([[0.0], own["time_s"].to_numpy() + interval_s])
        sums = np.concatenate([[0], own["write_bytes"].cum_sum().to_numpy()])
        came = np.diff(np.interp(edges, to_s, sums)) * 8e-6 / steps_s
        for rates, name, into in ((sent, "", used), (came, ", written", written)):
            frame = pl.DataFrame({"time_s": edges[:-1], "mbit": rates})
            into.append(frame.with_columns(pl.lit(f"{policy}{name}").alias("policy")))
    chart = figures.series(
        pl.concat(used), "mbit", "Bandwidth of the run's link", "Mbit/s", palette,
        "What the data of the points took of it, on the mean from one to the next; dotted: what "
        "was written.",
    )  # fmt: skip
    for line in figures.series(pl.concat(written), "mbit", "", "Mbit/s", palette).data:
        colour = palette.colour(line["name"].removesuffix(", written"))
        chart.data.append({**line, "line": {"color": colour, "width": 1, "dash": "dot"}})
    needed = ((plan or {}).get("modes") or [{}])[0].get("bandwidth_for_target_bps", {}).get("100")
    if needed:
        chart.layout["shapes"] = [replication_part.line_at(y=needed / 1e6)]
        note = f"{chart.note} Dashed: what the target needs throughout, by the plan."
        chart = replace(chart, note=note)
    return chart


def arrived(run: Run, policy: str) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds and the bytes that had arrived by then, in the first complete round."""
    told = run.events().filter(
        (pl.col("policy") == policy)
        & (pl.col("kind") == "restore_point")
        & (pl.col("round") == run.pooled_rounds(policy)[0])
    )
    points = []
    for disk, detail in told.select("disk", "detail").iter_rows():
        point = json.loads(detail)
        points.append((point["recoverable_ns"], disk, point["cut_ns"], point.get("bytes", 0)))
    use = replication_of(run, policy)
    if use is not None and use["use"] == "cdp":
        # Each disk is told of every point.
        first = min((disk for _, disk, *_ in points), default=None)
        points = [point for point in points if point[1] == first]
    points.sort()
    at_s = np.asarray([0, *(at for at, *_ in points)], float) / 1e9
    return at_s, np.cumsum([0, *(size for *_, size in points)])


def distribution(measured: RunRpo, palette: Palette) -> Figure | None:
    """Share of the time within each RPO, as measured."""
    found = replication_part.worst(measured.found)
    modes = [
        {"name": replication_part.name_of(each, found), "distribution": _above_zero(each)}
        for each in found
    ]
    target = next((e.document["target_s"] for e in found if e.document.get("target_s")), None)
    chart = replication_part.distribution({"modes": modes, "target_s": target}, palette)
    return chart and replace(chart, title="Distribution of the run's RPO")


def _above_zero(each: Replicated) -> dict[str, list[float]]:
    """Of the distribution what an axis of decades can show."""
    spread = each.document["distribution"]
    kept = [
        (share, rpo) for share, rpo in zip(spread["share"], spread["rpo_s"], strict=True) if rpo
    ]
    return {"share": [share for share, _ in kept], "rpo_s": [rpo for _, rpo in kept]}
