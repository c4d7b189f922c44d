"""vaio-bench: what an I/O filter costs, which RPO it gives and what a cache hits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaio_bench import lazy
from vaio_bench.errors import InputError, VaioBenchError, WorkError

if TYPE_CHECKING:
    from vaio_bench.analyses.across import overhead_of_runs
    from vaio_bench.analyses.cache import cache
    from vaio_bench.analyses.fidelity import fidelity
    from vaio_bench.analyses.hits import hits
    from vaio_bench.analyses.info import info
    from vaio_bench.analyses.layers import layers
    from vaio_bench.analyses.overhead import overhead
    from vaio_bench.analyses.planned import planned
    from vaio_bench.analyses.rpo import rpo
    from vaio_bench.analyses.run_rpo import run_rpo
    from vaio_bench.analyses.simulated import simulated
    from vaio_bench.analyses.summary import summary
    from vaio_bench.certifying import certify
    from vaio_bench.comparing import compare
    from vaio_bench.demonstration import demo
    from vaio_bench.examining import doctor
    from vaio_bench.explaining import explain
    from vaio_bench.importer import import_trace
    from vaio_bench.recovering import list_points, recover, rto_by_age, serve_site
    from vaio_bench.replaying import replay
    from vaio_bench.reporting import report
    from vaio_bench.runner import Settings
    from vaio_bench.spec import direct, load_policies, load_policy
    from vaio_bench.store import open_run
    from vaio_bench.sweeping import sweep
    from vaio_bench.synthetic.run import synth
    from vaio_bench.trace import open_trace

__all__ = [
    "InputError",
    "Settings",
    "VaioBenchError",
    "WorkError",
    "cache",
    "certify",
    "compare",
    "demo",
    "direct",
    "doctor",
    "explain",
    "fidelity",
    "hits",
    "import_trace",
    "info",
    "layers",
    "list_points",
    "load_policies",
    "load_policy",
    "open_run",
    "open_trace",
    "overhead",
    "overhead_of_runs",
    "planned",
    "recover",
    "replay",
    "report",
    "rpo",
    "rto_by_age",
    "run_rpo",
    "serve_site",
    "simulated",
    "summary",
    "sweep",
    "synth",
]

# The verbs as functions and what they take, imported when first used: Polars, pyarrow and plotly
# take a while.
_LAZY = {
    "Settings": "vaio_bench.runner",
    "cache": "vaio_bench.analyses.cache",
    "certify": "vaio_bench.certifying",
    "compare": "vaio_bench.comparing",
    "demo": "vaio_bench.demonstration",
    "direct": "vaio_bench.spec",
    "doctor": "vaio_bench.examining",
    "explain": "vaio_bench.explaining",
    "fidelity": "vaio_bench.analyses.fidelity",
    "hits": "vaio_bench.analyses.hits",
    "import_trace": "vaio_bench.importer",
    "info": "vaio_bench.analyses.info",
    "layers": "vaio_bench.analyses.layers",
    "list_points": "vaio_bench.recovering",
    "load_policies": "vaio_bench.spec",
    "load_policy": "vaio_bench.spec",
    "open_run": "vaio_bench.store",
    "open_trace": "vaio_bench.trace",
    "overhead": "vaio_bench.analyses.overhead",
    "overhead_of_runs": "vaio_bench.analyses.across",
    "planned": "vaio_bench.analyses.planned",
    "recover": "vaio_bench.recovering",
    "replay": "vaio_bench.replaying",
    "report": "vaio_bench.reporting",
    "rpo": "vaio_bench.analyses.rpo",
    "rto_by_age": "vaio_bench.recovering",
    "run_rpo": "vaio_bench.analyses.run_rpo",
    "serve_site": "vaio_bench.recovering",
    "simulated": "vaio_bench.analyses.simulated",
    "summary": "vaio_bench.analyses.summary",
    "sweep": "vaio_bench.sweeping",
    "synth": "vaio_bench.synthetic.run",
}

__getattr__ = lazy.importer(globals(), _LAZY)
