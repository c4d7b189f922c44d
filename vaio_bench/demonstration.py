"""The demo: three questions about a real database's trace, answered on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import vaio_bench
from vaio_bench import comparing
from vaio_bench.errors import InputError
from vaio_bench.round_loop import Progress
from vaio_bench.run_writer import write_result
from vaio_bench.runner import Settings

TRACES = Path(__file__).resolve().parent.parent / "traces"
BUNDLED = "oltp-8s.blktrace.*.zst"
POLICIES = ("crypt", "cache")
LINK = "100Mbit/s,20ms"
TARGET_RPO = "5s"
# The first seconds of the trace: enough for a p99, and four paths fit into two minutes.
IOS = 30_000


def demo(
    folder: str | Path = "reports/demo", *, rounds: int = 4, progress: Progress | None = None
) -> dict[str, Any]:
    """Imports the bundled trace, replays it directly and through filters, plans RPO, reports.

    Args:
        folder: where trace, target file, run folder and report go; an earlier demo in it is
            replaced.
        rounds: of each policy.
        progress: called with (what, done, of how many).

    Returns:
        `{"trace", "run", "report", "answers": {question: [lines]}}`.

    Raises:
        InputError: the bundled trace is not there, or the folder cannot be used.
    """
    sources = sorted(TRACES.glob(BUNDLED))
    if not sources:
        raise InputError(f"{TRACES}: the bundled trace {BUNDLED} is not there; run from a checkout")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    trace = folder / "oltp-8s.parquet"
    vaio_bench.import_trace(sources, trace, force=True)
    run = folder / "run"
    comparing.compare(
        trace,
        policies=POLICIES,
        out=run,
        target=folder / "target.img",
        rounds=rounds,
        settings=Settings(limit=IOS, verify=True),
        force=True,
        progress=progress,
    )
    plan = vaio_bench.rpo(trace, link=LINK, target_rpo=TARGET_RPO)
    write_result(run, "rpo", plan.to_dict())
    page = folder / "report.html"
    written = vaio_bench.report([run], page, force=True)
    answers = next(iter(written.answers.values()))
    return {"trace": str(trace), "run": str(run), "report": str(page), "answers": answers}
