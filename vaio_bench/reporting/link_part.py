"""What a run's link had to do: lag, backlog and bandwidth used over time, and the RPO it gave."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl

from vaio_bench.analyses.run_rpo import RunRpo
from vaio_bench.reporting import figures, replication_part
from vaio_bench.reporting.figures import Figure, Palette
from vaio_bench.store import Run

# Shorter steps than these would show the size of an entry, not the link.
_STEPS = 200


def charts(run: Run, plan: dict[str, Any] | None, palette: Palette) -> list[Figure]:
    """Lag, backlog and link of the first round; none where nothing replicated."""
    stored = run.timeline().filter(pl.col("round") == pl.col("round").min())
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
    """What was written less the growth of the backlog is what the link took."""
    span_s = max(float(table["time_s"].max() or 0), 1e-3)  # type: ignore[arg-type]
    step_s = span_s / _STEPS
    bits = (pl.col("write_bytes").sum() - pl.col("grown").sum()) * 8
    by_step = (
        table.with_columns(
            pl.col("backlog_bytes").diff().fill_null(pl.col("backlog_bytes"))
            .over("policy").alias("grown"),
            (pl.col("time_s") // step_s).alias("step"),
        )
        .group_by("policy", "step", maintain_order=True)
        .agg(
            (bits.clip(0) / 1e6).alias("mbit"),
            (pl.col("write_bytes").sum() * 8 / 1e6).alias("written"),
            pl.len().alias("intervals"),
            pl.col("time_s").min(),
        )
    )  # fmt: skip
    length_s = float(run.timeline()["interval_ns"].max() or 0) / 1e9  # type: ignore[arg-type]
    per_s = pl.col("intervals") * max(length_s, 1e-9)
    rates = by_step.with_columns(pl.col("mbit") / per_s, pl.col("written") / per_s)
    used = figures.series(rates, "mbit", "Bandwidth of the run's link", "Mbit/s", palette,
                          "What the data took of it; thin: what was written.")  # fmt: skip
    names = {str(policy) for policy in rates["policy"].unique()}
    for line in figures.series(rates, "written", "", "Mbit/s", palette).data:
        line["line"] = {**line["line"], "width": 1, "dash": "dot"}
        line["name"] = f"{line['name']}, written" if line["name"] in names else line["name"]
        used.data.append(line)
    needed = ((plan or {}).get("modes") or [{}])[0].get("bandwidth_for_target_bps", {}).get("100")
    if needed:
        used.layout["shapes"] = [replication_part.line_at(y=needed / 1e6)]
        note = f"{used.note} Dashed: what the target needs throughout."
        used = replace(used, note=note)
    return used


def distribution(measured: RunRpo, palette: Palette) -> Figure | None:
    """Share of the time within each RPO, as measured."""
    modes = [
        {"distribution": each.document["distribution"], "name": f"{each.policy}, {each.disk}"}
        for each in replication_part.worst(measured.found)
    ]
    target = next(
        (e.document["target_s"] for e in measured.found if e.document.get("target_s")), None
    )
    chart = replication_part.distribution({"modes": modes, "target_s": target}, palette)
    return chart and replace(chart, title="Distribution of the run's RPO")
