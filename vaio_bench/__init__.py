"""vaio-bench: what an I/O filter costs, which RPO it gives and what a cache hits."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vaio_bench.errors import InputError, VaioBenchError, WorkError

if TYPE_CHECKING:
    from vaio_bench.analyses.across import overhead_of_runs
    from vaio_bench.analyses.fidelity import fidelity
    from vaio_bench.analyses.hits import hits
    from vaio_bench.analyses.layers import layers
    from vaio_bench.analyses.overhead import overhead
    from vaio_bench.reporting import report
    from vaio_bench.store import open_run

# Where each function is: imported when it is first asked for, as polars and scipy take a second.
_LAZY = {
    "fidelity": "vaio_bench.analyses.fidelity",
    "hits": "vaio_bench.analyses.hits",
    "layers": "vaio_bench.analyses.layers",
    "open_run": "vaio_bench.store",
    "overhead": "vaio_bench.analyses.overhead",
    "overhead_of_runs": "vaio_bench.analyses.across",
    "report": "vaio_bench.reporting",
}

__all__ = [
    "InputError",
    "VaioBenchError",
    "WorkError",
    "fidelity",
    "hits",
    "layers",
    "open_run",
    "overhead",
    "overhead_of_runs",
    "report",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'vaio_bench' has no attribute {name!r}")
    found = getattr(import_module(_LAZY[name]), name)
    globals()[name] = found
    return found
