"""Is this machine fit to measure, and what does the harness itself cost on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vaio_bench import _core
from vaio_bench.environment import environment, warnings_of


def doctor(target: str | Path | None = None, *, quiet_s: float = 1.0) -> dict[str, Any]:
    """Looks at the machine, sits still for a moment, and measures the harness floor.

    Args:
        target: a file, device or folder that runs will write to; need not exist.
        quiet_s: seconds to watch what other programs make of the processors.

    Returns:
        `fit` (no warning was raised), `environment`, `harness_floor` (nanoseconds of worker time:
        `null_ns_per_io`, `pass_ns_per_io` for each further filter, `clock_ns` a time stamp) and
        `warnings`.
    """
    found = environment(target, quiet_s)
    raised = warnings_of(found)
    return {
        "fit": not raised,
        "environment": found,
        "harness_floor": dict(_core.harness_floor()),
        "warnings": [warning.to_dict() for warning in raised],
    }
