"""Runs: which rounds of which policies, in which order, each in a process of its own.

`replay` and `compare` are thin callers of `execute`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaio_bench import _core, manifest, targets
from vaio_bench.errors import InputError, VaioBenchError
from vaio_bench.round_process import RoundError, run_round
from vaio_bench.run_writer import RunWriter
from vaio_bench.spec import Policy
from vaio_bench.store import part_folder
from vaio_bench.trace import Trace, open_trace
from vaio_bench.warnings import WarningKind

BACKENDS = ("uring", "psync", "mem", "null", "sim")
PACES = ("recorded", "asap", "closed")
CLOCKS = ("wall", "virtual")
CONFLICTS = ("order", "allow", "drop")
# A row holds the number of its disk in 16 bits.
DISKS_MAX = 32_767
# Beyond this many disks, a worker drives several: threads and rings are not free.
WORKERS_MAX = 64

Progress = Callable[[str, int, int], None]
"""Called with (what, done, of how many)."""


@dataclass(frozen=True)
class Settings:
    """How a trace is replayed; the defaults are those of the command line."""

    pace: str = "recorded"
    speed: float = 1.0
    depth: int = 32
    inflight: int = 1024
    spin_ns: int = 60_000
    """Covers a late wake-up. More costs processor time and gains nothing: sleeps end in time."""
    backend: str = "uring"
    clock: str = "wall"
    direct: str = "auto"
    conflicts: str = "order"
    verify: bool = False
    compressible: float = 0.0
    dedupe: float = 0.0
    seed: int = 0
    skip: int = 0
    limit: int | None = None
    disks: tuple[str, ...] = ()
    fit_to_bytes: int | None = None
    destroy_data: bool = False
    precondition: bool | None = None
    """Write every block of a new target once; None: where that takes seconds, not minutes."""

    def check(self) -> None:
        """All that can be told without a trace.

        Raises:
            InputError: an option is out of its range.
        """
        for name, value, known in (
            ("--pace", self.pace, PACES),
            ("--backend", self.backend, BACKENDS),
            ("--clock", self.clock, CLOCKS),
            ("--conflicts", self.conflicts, CONFLICTS),
        ):
            if value not in known:
                raise InputError(f"{name}: expected one of {', '.join(known)}, got {value}")
        if not 0 < self.speed < float("inf"):
            raise InputError(f"--speed: expected a factor above 0, got {self.speed}")
        bounds = (
            ("--depth", self.depth, 1, 65_536),
            ("--inflight", self.inflight, 1, 65_536),
            ("--skip", self.skip, 0, 1 << 62),
            ("--seed", self.seed, 0, (1 << 64) - 1),
        )
        for name, number, low, high in bounds:
            if not low <= number <= high:
                raise InputError(f"{name}: expected {low} to {high}, got {number}")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit: expected 1 or more, got {self.limit}")
        if self.clock == "virtual" and self.backend not in ("null", "mem", "sim"):
            raise InputError(
                f"--clock virtual: expected a modelled backend (sim, mem or null), got "
                f"{self.backend}"
            )
        if self.fit_to_bytes is not None and self.fit_to_bytes < manifest.FIT_EXTENT_BYTES:
            raise InputError("--fit-to: expected at least 1MiB, an extent of the map")


@dataclass(frozen=True)
class Job:
    """A checked run, ready to go."""

    trace: Trace
    policies: Sequence[Policy]
    settings: Settings
    disks: list[str]
    scan: dict[str, Any]
    order: list[tuple[str, int]]


def execute(
    trace: str | Path,
    policies: Sequence[Policy],
    rounds: int,
    settings: Settings,
    target: str | Path | None,
    out: str | Path,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Replays `trace` through each of `policies`, `rounds` times, into the run folder `out`.

    Rounds are interleaved: each round runs every policy once, in an order shuffled by the seed.

    Raises:
        InputError: an option, the trace, a policy or a target is wrong; nothing was written.
        WorkError: a round failed; the run folder tells why and keeps what was recorded.
    """
    settings.check()
    if _core.DEBUG_BUILD and settings.clock == "wall":
        raise InputError("this is a debug build, whose figures mean nothing: build it anew")
    if rounds < 1:
        raise InputError(f"--rounds: expected 1 or more, got {rounds}")
    opened = open_trace(trace)
    disks = _chosen_disks(opened, settings)
    scan = _scan(opened, disks, settings)
    order = _order([policy.name for policy in policies], rounds, settings.seed)
    job = Job(opened, policies, settings, disks, scan, order)
    backend, why = _backend(settings.backend)
    out = Path(out)
    if not force and out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: the folder is not empty; name another, or --force for a run")
    prepared, read_only = _targets(job, backend, target, progress)
    document = manifest.build(job, backend, why, prepared, target, rounds)
    writer = RunWriter.create(out, document, force=force)
    options = _engine_options(job, backend, prepared, read_only=read_only)
    try:
        _run_rounds(job, writer, options, progress)
    except KeyboardInterrupt:
        writer.end("interrupted")
        raise
    except VaioBenchError as error:
        writer.end(f"failed: {error}")
        raise
    _conclude(writer, settings)
    return out


def _chosen_disks(trace: Trace, settings: Settings) -> list[str]:
    if not settings.disks:
        if len(trace.disks) > DISKS_MAX:
            raise InputError(
                f"{trace.path}: expected {DISKS_MAX} disks at most, got {len(trace.disks)}; "
                "choose some with --disk"
            )
        return trace.disks
    for disk in settings.disks:
        if disk not in trace.disks:
            known = ", ".join(trace.disks[:10])
            raise InputError(f"--disk: {trace.path} has no disk {disk}, but {known}")
    return list(dict.fromkeys(settings.disks))


def _window(job_disks: list[str], settings: Settings) -> dict[str, Any]:
    return {"disks": job_disks, "skip": settings.skip, "limit": settings.limit}


def _scan(trace: Trace, disks: list[str], settings: Settings) -> dict[str, Any]:
    columns = ["time_ns", "disk", "op", "offset_bytes", "length_bytes", "latency_ns", "flags"]
    window = json.dumps(_window(disks, settings))
    try:
        scan = _core.Scan(trace.reader(columns), window, settings.fit_to_bytes)
    except InputError as error:
        # A damaged page is told with the file's name, a wrong row without.
        text = str(error)
        raise InputError(text if str(trace.path) in text else f"{trace.path}: {text}") from None
    found: dict[str, Any] = json.loads(scan.to_json())
    if not found["ios"]:
        raise InputError(f"{trace.path}: no I/O is left to replay (--skip, --limit, --disk)")
    return found


def _order(names: list[str], rounds: int, seed: int) -> list[tuple[str, int]]:
    shuffler = random.Random(seed)
    order = []
    for number in range(rounds):
        shuffled = list(names)
        shuffler.shuffle(shuffled)
        order += [(name, number) for name in shuffled]
    return order


def _backend(asked: str) -> tuple[str, str | None]:
    """The backend to use, and why it is not the one that was asked for."""
    if asked == "uring":
        refused = _core.uring_refused()
        if refused is not None:
            return "psync", f"io_uring is not to be had here: {refused}"
    return asked, None


def _targets(
    job: Job, backend: str, target: str | Path | None, progress: Progress | None
) -> tuple[targets.Prepared, bool]:
    """The targets, and whether the run only reads them."""
    if backend not in ("uring", "psync"):
        return targets.Prepared([], [], True), False
    if target is None:
        raise InputError(f"--target: expected a file, device or folder for backend {backend}")
    target = Path(target)
    fit = job.settings.fit_to_bytes
    needs = []
    for disk, found in zip(job.disks, job.scan["disks"], strict=True):
        reach, align = found["reach_bytes"], targets.SIZE_ALIGN_BYTES
        needs.append(targets.Need(disk, reach, fit or -(-reach // align) * align, fit is not None))
    paths = targets.paths_for(target, job.disks)
    # What a read-only trace finds on a target of the user's is the user's: nothing is written.
    read_only = job.scan["writes"] == 0 and all(
        path.exists() and not targets.is_ours(path) for path in paths
    )
    total = sum(need.size_bytes for need in needs)
    asked = job.settings.precondition
    precondition = total <= targets.PRECONDITION_MAX_BYTES if asked is None else asked
    prepared = targets.prepare(
        target,
        needs,
        writes=not read_only,
        destroy_data=job.settings.destroy_data,
        precondition=precondition,
        progress=(lambda done, of: progress("target", done, of)) if progress else None,
    )
    return prepared, read_only


def _engine_options(
    job: Job, backend: str, prepared: targets.Prepared, *, read_only: bool
) -> dict[str, Any]:
    settings = job.settings
    return {
        "window": _window(job.disks, settings),
        "targets": prepared.paths,
        "read_only": read_only,
        "backend": backend,
        "prefill": not read_only,
        "workers": min(len(job.disks), WORKERS_MAX),
        **{
            key: getattr(settings, key)
            for key in (
                "direct", "clock", "pace", "speed", "depth", "inflight", "spin_ns", "conflicts",
                "verify", "compressible", "dedupe", "seed", "fit_to_bytes",
            )
        },
    }  # fmt: skip


def _run_rounds(
    job: Job, writer: RunWriter, options: dict[str, Any], progress: Progress | None
) -> None:
    policies = {policy.name: policy for policy in job.policies}
    for done, (name, number) in enumerate(job.order):
        what = f"{name}, round {number + 1}" if len(job.order) > 1 else name

        def show(rows: int, done: int = done, what: str = what) -> None:
            if progress:
                of = job.scan["ios"]
                progress(what, done * of + min(rows, of), len(job.order) * of)

        engine = {
            **options,
            "policy": name,
            "round": number,
            "filters": policies[name].engine_filters(),
        }
        try:
            ended = run_round(
                {
                    "trace": str(job.trace.path),
                    "folder": str(part_folder(writer.path, name, number)),
                    "gauges_folder": str(part_folder(writer.path, name, number, "gauges")),
                    "options": engine,
                },
                show,
            )
        except RoundError as error:
            raise error.of(f"policy {name}, round {number}") from None
        layers = writer.manifest["policies"][name]["layers"]
        events = [
            {
                **event,
                "policy": name,
                "round": number,
                "disk": job.disks[event["disk"]],
                "layer": layers[event["layer"]],
            }
            for event in ended.events
        ]
        writer.add_events(events)
        if ended.settled["direct"] and "direct" not in writer.manifest["target"]:
            _note_direct(writer, ended.settled)
        writer.manifest["engine"] = ended.settled
        _finish_round(job, writer, name, number, ended.totals)
        if ended.interrupted:
            raise KeyboardInterrupt


def _note_direct(writer: RunWriter, settled: dict[str, Any]) -> None:
    """Whether O_DIRECT was to be had is known once the files are open."""
    target = writer.manifest["target"]
    target["direct"] = all(settled["direct"])
    target["alignment"] = settled["lock_align_bytes"]
    if not target["direct"]:
        warning = WarningKind.PAGE_CACHE.of(target=target["path"])
        writer.manifest["warnings"].append(manifest.stored(warning))


def _finish_round(
    job: Job, writer: RunWriter, name: str, number: int, totals: dict[str, Any]
) -> None:
    from vaio_bench.analyses import fidelity, timeline
    from vaio_bench.store import open_run

    run = open_run(writer.path)
    if (name, number) in run.parts_of:
        timeline.append_round(run, name, number)
        found = fidelity.round_fidelity(run, name, number)
        if found is not None and job.settings.clock == "wall":
            totals["lateness"] = {
                "p50_ns": found.issue_error_p50_ns,
                "p99_ns": found.issue_error_p99_ns,
                "max_ns": found.issue_error_max_ns,
                "late_share": found.late_share,
                "drift_ns": found.drift_ns,
            }
    totals["ios"] = sum(totals["ios_by_op"])
    totals["bytes"] = sum(totals["bytes_by_op"][:2])
    totals["wall_s"] = totals["wall_ns"] / 1e9
    writer.add_totals(name, number, totals)


def _conclude(writer: RunWriter, settings: Settings) -> None:
    """The warnings that only the rounds can tell, and how the run ended."""
    rounds = [totals for policy in writer.manifest["totals"].values() for totals in policy.values()]
    late = max((r["lateness"]["late_share"] for r in rounds if "lateness" in r), default=0.0)
    if settings.pace == "recorded" and settings.clock == "wall" and late > LATE_SHARE_MAX:
        p99 = max(r["lateness"]["p99_ns"] for r in rounds if "lateness" in r)
        warning = WarningKind.DEVICE_TOO_SLOW.of(late=late, p99_us=p99 / 1e3)
        writer.manifest["warnings"].append(manifest.stored(warning))
    errors = sum(r["errors"] for r in rounds)
    mismatches = sum(r["mismatches"] for r in rounds)
    if errors or mismatches:
        writer.end(f"failed: {errors} I/O errors, {mismatches} mismatches")
    else:
        writer.end("ok")


# More late I/Os than this, and the recorded pace was not kept.
LATE_SHARE_MAX = 0.01
