"""The summary of a replay: what `replay` prints, recomputed from the rows of its run folder.

latency = service = complete - submit; response = complete - due; issue error = submit - due. All
quantiles are exact (nearest rank) over the I/Os that succeeded, of all rounds that are complete
(where none is, of what there is).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from vaio_bench.analyses import quantiles
from vaio_bench.store import Run, open_run

_LEVELS = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}
_ISSUE_LEVELS = {"p50": 0.5, "p99": 0.99, "max": 1.0}


def summary(run: Run | str | Path, policy: str | None = None) -> dict[str, Any]:
    """Counts and quantiles of one policy (by default the only or first one) over its rounds.

    Returns:
        `{"run", "policy", "rounds", "ios", "errors", "verified", "iops", "bytes_per_s",
        "latency_ns", "response_ns", "issue_error_ns", ...}`. `verified` is true when all that was
        checked was right, false when something was not, null when nothing was checked.

    Raises:
        InputError: it is no run, or has no rows of the policy.
    """
    run = run if isinstance(run, Run) else open_run(run)
    policy = policy or next(iter(run.policies), "direct")
    rounds = run.pooled_rounds(policy)
    rows = run.pooled_ios(policy)
    done = quantiles.completed(rows)
    totals = [run.totals(policy, number) for number in rounds]
    spans = (
        done.group_by("round")
        .agg(
            pl.len().alias("ios"),
            pl.col("length_bytes").filter(_moves_data()).sum().alias("bytes"),
            (pl.col("complete_ns").max() - pl.col("due_ns").min()).alias("span_ns"),
        )
        .collect(engine="streaming")
    )
    seconds = max(int(spans["span_ns"].sum()), 1) / 1e9
    # Only a fit map makes several rows of one I/O; counting distinct ones takes memory.
    distinct = pl.struct("round", "seq").n_unique() if run.manifest.get("fit_to") else pl.len()
    counts = rows.select(
        distinct.alias("ios"),
        pl.len().alias("rows"),
        (pl.col("status") != 0).sum().alias("errors"),
    ).collect(engine="streaming")
    return {
        "run": str(run.path),
        "policy": policy,
        "rounds": len(rounds),
        "exit": run.exit,
        "ios": counts["ios"][0],
        "rows": counts["rows"][0],
        "errors": counts["errors"][0] + _total(totals, "sweep_errors"),
        "verified": _verified(run, totals),
        "verified_bytes": _total(totals, "verified_bytes"),
        "unverified_bytes": _total(totals, "unverified_bytes"),
        "mismatches": _told(totals, "mismatches"),
        "iops": int(spans["ios"].sum()) / seconds,
        "bytes_per_s": int(spans["bytes"].sum()) / seconds,
        "latency_ns": _ladder(done, quantiles.LATENCY_NS, _LEVELS),
        "response_ns": _ladder(done, quantiles.RESPONSE_NS, _LEVELS),
        "issue_error_ns": _ladder(
            rows.filter(quantiles.issued()), quantiles.ISSUE_ERROR_NS, _ISSUE_LEVELS
        ),
        "conflicts": _total(totals, "conflicts"),
        "dropped": _total(totals, "dropped"),
        "unaligned": _total(totals, "unaligned"),
        "fua_by_flush": _total(totals, "fua_by_flush"),
        "unflushed": _total(totals, "unflushed"),
        "backend": run.manifest.get("backend", {}).get("used"),
        "direct": run.manifest.get("target", {}).get("direct"),
        "warnings": [warning["code"] for warning in run.manifest.get("warnings", [])],
    }


def _moves_data() -> pl.Expr:
    return pl.col("op").cast(pl.String).is_in(["read", "write"])


def _ladder(rows: pl.LazyFrame, value: pl.Expr, levels: dict[str, float]) -> dict[str, int | None]:
    exact = quantiles.exact_quantiles(rows, value, list(levels.values()), [])
    found = exact.get(())
    return dict(zip(levels, found, strict=True)) if found else dict.fromkeys(levels)


def _total(totals: list[dict[str, Any]], key: str) -> int:
    return sum(round_.get(key, 0) for round_ in totals)


def _told(totals: list[dict[str, Any]], key: str) -> list[str]:
    return [line for round_ in totals for line in round_.get(f"told_{key}", [])][:10]


def _verified(run: Run, totals: list[dict[str, Any]]) -> bool | None:
    if not run.manifest.get("verify") or not any(totals):
        return None
    return _total(totals, "mismatches") == 0
