"""The figures of each round of a run, from its rows and the totals of its process.

For each round and policy: the exact quantiles of latency and response, the rate, CPU time and
context switches. The comparison (`overhead`) is over these rows, never over I/Os.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from vaio_bench.analyses import quantiles
from vaio_bench.store import Run

RATE_SHARE = "rate_share"
"""No metric: the share of a round's rate that lies in how its run time is rounded; null: none."""
# fio tells a run time in whole milliseconds.
_HALF_OF_FIOS_NS = 500_000

_FAMILIES = {"latency": quantiles.LATENCY_NS, "response": quantiles.RESPONSE_NS}
_PER_IO = {
    "cpu_user_ns_per_io": "cpu_user_ns",
    "cpu_system_ns_per_io": "cpu_system_ns",
    "context_switches_per_io": "context_switches",
}


def round_figures(run: Run) -> pl.DataFrame:
    """One row a complete round: `policy, round` and a column a metric (null: not known).

    Quantiles are over the I/Os that succeeded and were due after the warm-up. The rate is their
    number over the time from the first due to the last completion, `rate_achieved` (where the
    pace is the recorded one) the span of due over that of submit times. CPU and context switches
    are those of all threads that served the round's I/Os, over all of these; null where an NBD
    server, whose share nobody here can tell, did a part of the work.

    A round of another tool that has no rows is told by its histogram and its totals: no response
    (nothing was due at a time), and its rate over the run time that the tool tells.
    """
    records: list[dict[str, Any]] = []
    recorded = (run.manifest.get("pacing") or {}).get("mode") == "recorded"
    for policy in run.policies:
        rounds = run.rounds(policy, complete_only=True)
        if not rounds:
            continue
        if policy not in run.policies_with_rows:
            records += [_of_histogram(run, policy, number) for number in rounds]
            continue
        rows = quantiles.completed(run.measured_ios(policy)).filter(pl.col("round").is_in(rounds))
        ladders = {
            family: quantiles.exact_quantiles(
                rows, value, [*quantiles.LADDER.values(), 1.0], ["round"]
            )
            for family, value in _FAMILIES.items()
        }
        sums = _sums(rows)
        for number in rounds:
            record: dict[str, Any] = {"policy": policy, "round": number}
            names = [*quantiles.LADDER, "max"]
            for family, found in ladders.items():
                values = found.get((number,), [None] * len(names))
                record |= {
                    f"{family}_{name}_ns": value for name, value in zip(names, values, strict=True)
                }
            record |= {**_rates(sums.get(number), recorded=recorded), RATE_SHARE: None}
            served = bool((run.manifest["policies"].get(policy) or {}).get("servers"))
            records.append(record | _costs({} if served else run.totals(policy, number)))
    return pl.DataFrame(records, infer_schema_length=None)


def _of_histogram(run: Run, policy: str, number: int) -> dict[str, Any]:
    totals = run.totals(policy, number)
    record: dict[str, Any] = {"policy": policy, "round": number}
    spread = quantiles.counted(run.histogram(policy, number))
    for name, level in [*quantiles.LADDER.items(), ("max", 1.0)]:
        value = spread.at(level) if spread.n else (totals.get("latency_ns") or {}).get(name)
        record[f"latency_{name}_ns"] = value
    # The last bucket's middle is not the longest: the tool tells that apart.
    record["latency_max_ns"] = totals.get("latency_max_ns") or record["latency_max_ns"]
    record |= {f"response_{name}_ns": None for name in [*quantiles.LADDER, "max"]}
    seconds = totals["wall_ns"] / 1e9
    rate = {"iops": None, "bytes_per_s": None, "rate_achieved": None, RATE_SHARE: None}
    if seconds > 0:
        rate[RATE_SHARE] = _HALF_OF_FIOS_NS / totals["wall_ns"]
        rate |= {"iops": totals["ios"] / seconds, "bytes_per_s": totals["bytes"] / seconds}
    return record | rate | _costs(totals)


def _sums(rows: pl.LazyFrame) -> dict[int, dict[str, Any]]:
    data = pl.col("op").cast(pl.String).is_in(["read", "write"])
    sums = (
        rows.group_by("round")
        .agg(
            pl.len().alias("ios"),
            pl.col("length_bytes").filter(data).sum().alias("bytes"),
            (pl.col("complete_ns").max() - pl.col("due_ns").min()).alias("wall_ns"),
            (pl.col("due_ns").max() - pl.col("due_ns").min()).alias("due_span_ns"),
            (pl.col("submit_ns").max() - pl.col("submit_ns").min()).alias("submit_span_ns"),
        )
        .collect(engine="streaming")
    )
    return {row["round"]: row for row in sums.to_dicts()}


def _rates(sums: dict[str, Any] | None, *, recorded: bool) -> dict[str, float | None]:
    if not sums or sums["wall_ns"] <= 0:
        return {"iops": None, "bytes_per_s": None, "rate_achieved": None}
    seconds = sums["wall_ns"] / 1e9
    kept = recorded and sums["submit_span_ns"] > 0
    return {
        "iops": sums["ios"] / seconds,
        "bytes_per_s": sums["bytes"] / seconds,
        "rate_achieved": sums["due_span_ns"] / sums["submit_span_ns"] if kept else None,
    }


def _costs(totals: dict[str, Any]) -> dict[str, float | None]:
    ios = totals.get("ios")
    costs: dict[str, float | None] = {}
    for metric, key in _PER_IO.items():
        spent = totals.get(key)
        costs[metric] = float(spent) / ios if ios and spent is not None else None
    user, system = costs["cpu_user_ns_per_io"], costs["cpu_system_ns_per_io"]
    both = None if user is None or system is None else user + system
    return {"cpu_ns_per_io": both, **costs}
