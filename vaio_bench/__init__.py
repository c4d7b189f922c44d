"""vaio-bench: what an I/O filter costs, which RPO it gives and what a cache hits."""

from __future__ import annotations

from vaio_bench.doctor import doctor
from vaio_bench.errors import InputError, VaioBenchError, WorkError
from vaio_bench.explain import explain
from vaio_bench.spec import direct, load_policies, load_policy

__all__ = [
    "InputError",
    "VaioBenchError",
    "WorkError",
    "direct",
    "doctor",
    "explain",
    "load_policies",
    "load_policy",
]
