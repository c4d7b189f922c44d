"""vaio-bench: what an I/O filter costs, which RPO it gives and what a cache hits."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vaio_bench.errors import InputError, VaioBenchError, WorkError

if TYPE_CHECKING:
    from vaio_bench.analyses.info import info
    from vaio_bench.doctor import doctor
    from vaio_bench.explain import explain
    from vaio_bench.importer import import_trace
    from vaio_bench.spec import direct, load_policies, load_policy
    from vaio_bench.trace import open_trace
    from vaio_bench.synthetic.run import synth

__all__ = [
    "InputError",
    "VaioBenchError",
    "WorkError",
    "direct",
    "doctor",
    "explain",
    "import_trace",
    "info",
    "load_policies",
    "load_policy",
    "open_trace",
    "synth",
]

# The verbs as functions, imported when first used: Polars, pyarrow and plotly take a while.
_LAZY = {
    "direct": "vaio_bench.spec",
    "doctor": "vaio_bench.doctor",
    "explain": "vaio_bench.explain",
    "import_trace": "vaio_bench.importer",
    "info": "vaio_bench.analyses.info",
    "load_policies": "vaio_bench.spec",
    "load_policy": "vaio_bench.spec",
    "open_trace": "vaio_bench.trace",
    "synth": "vaio_bench.synthetic.run",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        # What was imported stays: a submodule of the same name must not take its place.
        found = globals()[name] = getattr(importlib.import_module(_LAZY[name]), name)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
