"""vaio-bench: what an I/O filter costs, which RPO it gives and what a cache hits."""

from __future__ import annotations

from vaio_bench.errors import InputError, VaioBenchError, WorkError

__all__ = ["InputError", "VaioBenchError", "WorkError"]
