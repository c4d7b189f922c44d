"""Is this machine fit to measure, and what does the harness itself cost on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vaio_bench import _core
from vaio_bench.environment import environment, warnings_of

# Beyond these shares of the processors' time no number of rounds makes up for it.
UNFIT_BUSY_SHARE = 0.25
UNFIT_STEAL_SHARE = 0.05


def doctor(target: str | Path | None = None, *, quiet_s: float = 1.0) -> dict[str, Any]:
    """Looks at the machine, sits still for a moment, and measures the harness floor.

    Args:
        target: a file, device or folder that runs will write to; need not exist.
        quiet_s: seconds to watch what other programs make of the processors.

    Returns:
        `fit` (no warning was raised), `unfit` (why nothing should be measured at the moment; empty
        where warnings are all), `environment`, `harness_floor` (nanoseconds of worker time:
        `null_ns_per_io`, `pass_ns_per_io` for each further filter, `clock_ns` a time stamp) and
        `warnings`.
    """
    found = environment(target, quiet_s)
    raised = warnings_of(found)
    return {
        "fit": not raised,
        "unfit": _unfit(found),
        "environment": found,
        "harness_floor": dict(_core.harness_floor()),
        "warnings": [warning.to_dict() for warning in raised],
    }


def _unfit(found: dict[str, Any]) -> list[str]:
    """Why figures of this machine, as it is at the moment, would be those of something else."""
    busy, steal = found["load"]["busy_share"] or 0, found["load"]["steal_share"] or 0
    why = []
    if busy > UNFIT_BUSY_SHARE:
        why.append(f"other programs take {busy:.0%} of the processors' time")
    if steal > UNFIT_STEAL_SHARE:
        why.append(f"the hypervisor withholds {steal:.0%} of the processors' time")
    if found["versions"]["debug_build"]:
        why.append("the compiled module is a debug build")
    return why
