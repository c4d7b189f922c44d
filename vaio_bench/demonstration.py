"""The demo: three questions about a real database's trace, answered on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import vaio_bench
from vaio_bench import comparing, manifest
from vaio_bench.analyses.fidelity import LATE_SHARE_MAX
from vaio_bench.errors import InputError
from vaio_bench.round_loop import Progress
from vaio_bench.run_writer import write_json, write_result
from vaio_bench.runner import Settings
from vaio_bench.store import open_run
from vaio_bench.warnings import RunWarning, WarningKind

TRACES = Path(__file__).resolve().parent.parent / "traces"
BUNDLED = "oltp-8s.blktrace.*.zst"
POLICIES = ("crypt", "cache")
LINK = "100Mbit/s,20ms"
TARGET_RPO = "5s"
# The first seconds of the trace: enough for a p99. Many short rounds tell more than a few long
# ones where a device differs from itself, and four paths fit into two minutes.
IOS = 15_000
# The recorded pace first; slower where the device cannot keep it, since what would be compared then
# are queues. I/Os tried at the recorded pace: about a second of them.
SPEEDS = (1.0, 0.5, 0.25)
TRIED_IOS = 12_000


def demo(
    folder: str | Path = "reports/demo", *, rounds: int = 8, progress: Progress | None = None
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
    target, run = folder / "target.img", folder / "run"
    tried = try_paces(trace, target, folder / "pace", progress)
    speed = chosen_speed(tried)
    comparing.compare(
        trace,
        policies=POLICIES,
        out=run,
        target=target,
        rounds=rounds,
        # The same time for each round at every speed.
        settings=Settings(limit=round(IOS * speed), speed=speed, verify=True),
        force=True,
        progress=progress,
    )
    paces = [{"speed": at, "late_share": late} for at, late in tried]
    write_result(run, "pace", {"late_share_max": LATE_SHARE_MAX, "tried": paces})
    if speed != SPEEDS[0]:
        _warn(run, WarningKind.SLOWED.of(late=tried[0][1], speed=speed))
    plan = vaio_bench.rpo(trace, link=LINK, target_rpo=TARGET_RPO)
    write_result(run, "rpo", plan.to_dict())
    page = folder / "report.html"
    written = vaio_bench.report([run], page, force=True)
    answers = {PACE: told(tried), **next(iter(written.answers.values()))}
    return {"trace": str(trace), "run": str(run), "report": str(page), "answers": answers}


PACE = "Does this machine keep the recorded pace?"


def try_paces(
    trace: Path, target: Path, out: Path, progress: Progress | None
) -> list[tuple[float, float]]:
    """(speed, share of the I/Os issued late) of each pace that was tried, from the recorded on.

    Ends when one was kept, and when a slower one was kept no better: it is not the device then.
    """
    tried: list[tuple[float, float]] = []
    for speed in SPEEDS:
        settings = Settings(limit=round(TRIED_IOS * speed), speed=speed, verify=True)
        vaio_bench.replay(
            trace, out=out, target=target, settings=settings, force=True, progress=progress
        )
        lateness = open_run(out).totals("direct", 0)["lateness"]
        tried.append((speed, float(lateness["late_share"])))
        if tried[-1][1] <= LATE_SHARE_MAX or (len(tried) > 1 and tried[-1][1] >= tried[-2][1]):
            break
    return tried


def chosen_speed(tried: list[tuple[float, float]]) -> float:
    """The pace to compare at: the one that was kept best, of equals the one nearest to recorded."""
    return min(tried, key=lambda each: each[1])[0]


def told(tried: list[tuple[float, float]]) -> list[str]:
    """The answer of `try_paces` in words."""
    lines = [
        f"{late:.1%} of the I/Os were issued late at "
        + ("the recorded pace" if speed == 1 else f"{speed:g} times its speed")
        for speed, late in tried
    ]
    speed = chosen_speed(tried)
    return [*lines, f"so that filters are compared at {speed:g} times the recorded speed"]


def _warn(run: Path, warning: RunWarning) -> None:
    document = open_run(run).manifest
    document["warnings"].append(manifest.stored(warning))
    write_json(run / "manifest.json", document)
