"""What only filters know (the rows of the I/Os do not say): laid beside the timeline's intervals.

A filter for a group of disks tells its gauges once, at the first of them. Its age of data and its
mode are those of every disk; its bytes stay at that one, so that disks can be added up.

Gauges are read window by window, with what stood before the window carried along: memory does not
depend on the length of the run.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from vaio_bench.store import Run


def _sum(columns: list[str]) -> pl.Expr:
    none = pl.all_horizontal(pl.col(columns).is_null())
    return pl.when(~none).then(pl.sum_horizontal(columns))


def _max(columns: list[str]) -> pl.Expr:
    return pl.max_horizontal(columns)


# The gauges that the timeline has columns for, and what is told of several layers.
_ACROSS_LAYERS: dict[str, Callable[[list[str]], pl.Expr]] = {
    "dirty_bytes": _sum,
    "dirty_oldest_ns": _max,
    "backlog_bytes": _sum,
    "lag_ns": _max,
}
_GAUGE = ("disk", "layer_index", "is_of_all", "gauge")
# A filter with this gauge tells of changes of its mode, which is normal before the first.
_MODE = "mode"


class Told:
    """Gauges and modes of one round, to be laid beside intervals in ascending order of time."""

    def __init__(self, run: Run, policy: str, round_: int) -> None:
        of_group = pl.col("layer").is_in(_of_groups(run, policy))
        is_shared = pl.col("gauge").str.ends_with("_ns") | (pl.col("gauge") == _MODE)
        self._gauges = (
            run.gauges(policy, round_)
            .with_columns(pl.col("disk", "layer", "gauge").cast(pl.String))
            .with_columns((of_group & is_shared).alias("is_of_all"))
            .filter(pl.col("gauge").is_in([*_ACROSS_LAYERS, _MODE]))
            .select(*_GAUGE, "time_ns", "value")
        )
        self._modes = (
            run.events()
            .filter(
                (pl.col("policy") == policy)
                & (pl.col("round") == round_)
                & (pl.col("kind") == "mode")
            )
            .select("disk", "time_ns", pl.col("detail").str.json_path_match("$.mode").alias("mode"))
            .sort("time_ns")
        )
        self._standing = self._gauges.clear().collect()
        self._read_to_ns = -1

    def beside(self, lines: pl.DataFrame) -> pl.DataFrame:
        """`lines` (columns `disk`, `start_ns`, `interval_ns`) with what stood at each one's end.

        Adds the gauges above and mode, null where nothing was told.
        """
        lines = lines.with_columns(
            (pl.col("start_ns") + pl.col("interval_ns") - 1).alias("_at_ns")
        ).sort("_at_ns", maintain_order=True)
        ends: list[int] = lines["_at_ns"].to_list()
        known = self._read_to(ends[-1] if ends else self._read_to_ns)
        for gauge, across in _ACROSS_LAYERS.items():
            layers = known.filter(pl.col("gauge") == gauge).partition_by("layer_index")
            names = [f"_{gauge}_{number}" for number in range(len(layers))]
            for name, layer in zip(names, layers, strict=True):
                lines = _as_of(lines, layer, name)
            told = across(names) if names else pl.lit(None, dtype=pl.Int64)
            lines = lines.with_columns(told.alias(gauge)).drop(names)
        lines = _as_of(lines, known.filter(pl.col("gauge") == _MODE), "_code")
        normal = pl.when(pl.col("_code").is_not_null()).then(pl.lit("normal"))
        mode = pl.coalesce("mode", normal).alias("mode")
        lines = _join(lines, self._modes, "disk")
        return lines.with_columns(mode).drop("_at_ns", "_code")

    def _read_to(self, last_ns: int) -> pl.DataFrame:
        fresh = self._gauges.filter(
            pl.col("time_ns").is_between(self._read_to_ns, last_ns, closed="right")
        )
        known = pl.concat([self._standing, fresh.collect()]).sort("time_ns", maintain_order=True)
        self._standing = known.group_by(_GAUGE, maintain_order=True).last()
        self._read_to_ns = last_ns
        return known


def _of_groups(run: Run, policy: str) -> list[str]:
    """The layers that have one instance for all disks."""
    filters = run.manifest.get("policies", {}).get(policy, {}).get("filters", [])
    return [use["use"] for use in filters if use.get("scope") == "group"]


def _as_of(lines: pl.DataFrame, gauge: pl.DataFrame, name: str) -> pl.DataFrame:
    """`lines` with the values of a gauge as the column `name`."""
    told = gauge.select("disk", "time_ns", pl.col("value").alias(name))
    if gauge["is_of_all"].any():
        return _join(lines, told.drop("disk"), None)
    return _join(lines, told, "disk")


def _join(lines: pl.DataFrame, told: pl.DataFrame, by: str | None) -> pl.DataFrame:
    return lines.join_asof(
        told, left_on="_at_ns", right_on="time_ns", by=by, check_sortedness=False
    ).drop("time_ns", strict=False)
