"""vaio-bench: what an I/O filter costs, which RPO it gives and what a cache hits."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vaio_bench.errors import InputError, VaioBenchError, WorkError

if TYPE_CHECKING:
    from vaio_bench.analyses.info import info
    from vaio_bench.synthetic.run import synth

__all__ = ["InputError", "VaioBenchError", "WorkError", "info", "synth"]

# The verbs as functions, imported when first used: pyarrow and numpy take a while.
_LAZY = {
    "info": "vaio_bench.analyses.info",
    "synth": "vaio_bench.synthetic.run",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
