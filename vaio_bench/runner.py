"""Runs: which rounds of which policies, in which order, each in a process of its own.

`replay` and `compare` are thin callers of `execute`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vaio_bench import (
    _core,
    concluding,
    engine_build,
    manifest,
    placement,
    servers,
    targets,
    whereabouts,
)
from vaio_bench.black_box import HANG_S
from vaio_bench.errors import InputError, VaioBenchError, WorkError
from vaio_bench.round_loop import Progress, RoundLoop, shuffled_rounds
from vaio_bench.run_writer import RunWriter
from vaio_bench.spec import Policy
from vaio_bench.store import Run, open_run
from vaio_bench.trace import COLUMNS, Trace, open_trace

BACKENDS = ("uring", "psync", "mem", "null", "sim")
PACES = ("recorded", "asap", "closed")
CLOCKS = ("wall", "virtual")
CONFLICTS = ("order", "allow", "drop")
PAYLOADS = ("made", "trace")
# A row holds the number of its disk in 16 bits.
DISKS_MAX = 32_767
# Beyond this many disks, a worker drives several: threads and rings are not free.
WORKERS_MAX = 64

ROUNDS_MAX = 100
"""Rounds of each policy at most where a run goes on until its interval is narrow."""


@dataclass(frozen=True)
class Settings:
    """How a trace is replayed; the defaults are those of the command line."""

    pace: str = "recorded"
    speed: float = 1.0
    depth: int = 32
    inflight: int = 1024
    spin_ns: int = 75_000
    """Covers a late wake-up. More costs processor time: at 5,000 I/Os a second, 100 us of it take
    two fifths of a processor."""
    backend: str = "uring"
    clock: str = "wall"
    direct: str = "auto"
    conflicts: str = "order"
    verify: bool = False
    compressible: float = 0.0
    dedupe: float = 0.0
    payload: str = "made"
    """What writes hold: `made` from the seed, or `trace`: what they held when it was taken."""
    content: bool = True
    """Written data follow the contents that the trace names, where it does."""
    seed: int = 0
    skip: int = 0
    limit: int | None = None
    disks: tuple[str, ...] = ()
    fit_to_bytes: int | None = None
    destroy_data: bool = False
    hang_s: float = HANG_S
    """A filter of another make that stands still so long has hung, unless its policy has another
    `hang`: in a callback, or holding I/Os of which it lets none go."""
    precondition: bool | None = None
    """Write every block of a new target once; None: where that takes seconds, not minutes."""

    @property
    def columns(self) -> list[str]:
        """Of the trace, those that are read."""
        follows = self.content and self.payload == "made"
        return [*COLUMNS, *(["content"] if follows else [])]

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
            ("--payload", self.payload, PAYLOADS),
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
        moved = self.fit_to_bytes is not None or self.compressible > 0 or self.dedupe > 0
        if self.payload == "trace" and moved:
            raise InputError("--payload trace: expected no --fit-to, --compressible or --dedupe")
        if self.fit_to_bytes is not None and self.fit_to_bytes < manifest.FIT_EXTENT_BYTES:
            raise InputError("--fit-to: expected at least 1MiB, an extent of the map")


@dataclass(frozen=True)
class Plan:
    """Which rounds a run has; the rows of warm-up go apart or are left out of every figure."""

    rounds: int = 1
    warmup_rounds: int = 0
    """Rounds of each policy before the first that counts."""
    warmup_ns: int = 0
    """From the start of each round."""
    baseline: str | None = None
    """The policy that the others are compared with, which runs twice."""
    until: float | None = None
    """Add rounds until the interval of the median's ratio is as narrow, as a share to each side."""
    rounds_max: int = ROUNDS_MAX

    def check(self) -> None:
        """Raises InputError where a number is out of its range."""
        if self.rounds < 1:
            raise InputError(f"--rounds: expected 1 or more, got {self.rounds}")
        if self.warmup_rounds < 0 or self.warmup_ns < 0:
            raise InputError("--warmup: expected a number of rounds or a time, none negative")
        if self.until is not None and not 0 < self.until < 1:
            raise InputError(f"--until: expected a share such as 1%, got {self.until:g}")
        if self.until is None:
            return
        from vaio_bench.analyses.intervals import UNTIL_ROUNDS_MIN

        if self.rounds_max < self.rounds:
            raise InputError(
                f"--max-rounds: expected at least the {self.rounds} of --rounds, got "
                f"{self.rounds_max}"
            )
        if self.rounds_max < UNTIL_ROUNDS_MIN:
            raise InputError(
                f"--max-rounds: expected at least {UNTIL_ROUNDS_MIN}, as --until judges no fewer, "
                f"got {self.rounds_max}"
            )


@dataclass(frozen=True)
class Job:
    """A checked run, ready to go."""

    trace: Trace
    policies: Sequence[Policy]
    settings: Settings
    plan: Plan
    disks: list[str]
    scan: dict[str, Any]

    @property
    def content(self) -> str | None:
        """The file that writes take their data from; None where it is made.

        Raises:
            InputError: the trace has none, or it is not beside it.
        """
        return str(self.trace.content) if self.settings.payload == "trace" else None

    @property
    def order(self) -> list[tuple[str, int]]:
        """The planned rounds, in the order in which they run."""
        names = [policy.name for policy in self.policies]
        return shuffled_rounds(names, self.plan.rounds, self.settings.seed)


def execute(
    trace: str | Path,
    policies: Sequence[Policy],
    plan: Plan | int,
    settings: Settings,
    target: str | Path | None,
    out: str | Path,
    *,
    force: bool = False,
    progress: Progress | None = None,
    loop: Callable[..., RoundLoop] = RoundLoop,
) -> Path:
    """Replays `trace` through each of `policies`, round by round, into the run folder `out`.

    Rounds are interleaved: each round runs every policy once, in an order shuffled by the seed,
    each in a process of its own and from the same state of the targets.

    Args:
        trace: canonical trace.
        policies: of different names.
        plan: which rounds; a number is that many.
        settings: of every round.
        target: file, device or folder.
        out: run folder to make.
        force: replace an earlier run in `out`.
        progress: called with (what, done, of how many).
        loop: makes what runs the rounds, from the arguments of `RoundLoop`.

    Raises:
        InputError: an option, the trace, a policy or a target is wrong; nothing was written.
        WorkError: a round failed; the run folder tells why and keeps what was recorded. Where
            that is nothing, as with a server that is not there, no folder is left.
    """
    plan = Plan(plan) if isinstance(plan, int) else plan
    job = _job(trace, policies, plan, settings)
    backend, why = _backend(job)
    out = Path(out)
    RunWriter.check(out, force=force)
    prepared, read_only = _targets(job, backend, target, progress)
    document = manifest.build(job, backend, why, prepared, target, read_only=read_only)
    writer = RunWriter.create(out, document)
    options = _engine_options(job, backend, prepared, read_only=read_only)
    _run_to_its_end(loop(job, writer, options, progress), is_new=True)
    return out


def resume(
    out: str | Path,
    *,
    rounds: int | None = None,
    until: float | None = None,
    rounds_max: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Goes on with a run that was interrupted, or adds rounds to one that has ended.

    All else is as its manifest says. A round counts when every policy has completed it; of one
    that some have, all are run again, since rounds are compared in pairs taken close together.
    Relative paths, a policy's own among them, are those of the folder that the run was begun in:
    the process works there meanwhile.

    Args:
        out: the run folder.
        rounds: how many in all; None: as planned.
        until: as `Plan.until`; None: as planned.
        rounds_max: as `Plan.rounds_max`; None: as planned.
        force: go on with what another build of the engine began, and mark it.
        progress: called with (what, done, of how many).

    Raises:
        InputError: it is no run, somebody writes it, its trace or target has moved, or the trace,
            the tool, the engine's build or the machine is another than that of its first rounds.
        WorkError: a round failed.
    """
    run = open_run(Path(out).absolute())
    known = run.manifest
    for key in ("settings", "round_state", "warmup"):
        if key not in known:
            raise InputError(f"{out}: its manifest has no {key}: it cannot be gone on with")
    if known["tool_version"] != version("vaio-bench"):
        raise InputError(
            f"{out}: expected a run of version {version('vaio-bench')}, but it was begun with "
            f"{known['tool_version']}"
        )
    engine_build.check_same(out, engine_build.builds_of(known), force=force)
    plan = _resumed_plan(known, rounds, until, rounds_max)
    needed = [("trace", known["trace"]["path"])]
    needed += [("target", path) for path in known["target"]["paths"]]
    with whereabouts.as_begun(Path(out), known.get("began_in"), needed):
        _go_on(run, plan, progress)
    return Path(out)


def _go_on(run: Run, plan: Plan, progress: Progress | None) -> None:
    known = run.manifest
    settings = Settings(**{**known["settings"], "disks": tuple(known["settings"]["disks"])})
    policies = [Policy.from_dict(each) for each in known["policies"].values()]
    job = _job(known["trace"]["path"], policies, plan, settings)
    backend, _ = _backend(job)
    target = known["target"]["path"]
    manifest.check_same(run, job, backend, target)
    writer = RunWriter.reopen(run)
    with writer.held():
        prepared, read_only = _targets(job, backend, target, progress)
        again = _incomplete(run)
        writer.forget_rounds(again)
        manifest.note_resumed(writer.manifest, again)
        writer.manifest["rounds"] = plan.rounds
        writer.manifest["order"] = [list(entry) for entry in job.order]
        writer.manifest["comparison"] = manifest.comparison(plan)
        writer.save()
        options = _engine_options(job, backend, prepared, read_only=read_only)
    _run_to_its_end(RoundLoop(job, writer, options, progress))


def _resumed_plan(
    known: dict[str, Any], rounds: int | None, until: float | None, rounds_max: int | None
) -> Plan:
    comparison = known.get("comparison") or {}
    planned = known["rounds"]
    if rounds is not None and rounds < planned:
        raise InputError(f"--rounds: expected at least the {planned} of the run, got {rounds}")
    if rounds_max is not None and not (until or comparison.get("until")):
        raise InputError("--max-rounds: expected --until beside it, as the run has none")
    return Plan(
        rounds or planned,
        known["warmup"]["rounds"],
        known["warmup"]["time_ns"],
        comparison.get("baseline"),
        until or comparison.get("until"),
        rounds_max or comparison.get("rounds_max", ROUNDS_MAX),
    )


def _incomplete(run: Run) -> list[int]:
    """Rounds that some policy has not completed."""
    names = list(run.manifest["policies"])
    lost = {each["round"] for each in run.manifest.get("lost_rounds", []) if not each["warmup"]}
    begun = lost | {number for name in names for number in run.rounds(name)}
    whole = set.intersection(*(set(run.rounds(name, complete_only=True)) for name in names))
    return sorted(begun - whole)


def _job(trace: str | Path, policies: Sequence[Policy], plan: Plan, settings: Settings) -> Job:
    settings.check()
    if _core.DEBUG_BUILD and settings.clock == "wall":
        raise InputError("this is a debug build, whose figures mean nothing: build it anew")
    plan.check()
    opened = open_trace(trace)
    disks = _chosen_disks(opened, settings)
    job = Job(opened, policies, settings, plan, disks, _scan(opened, disks, settings))
    servers.check(job)
    placement.check(job.policies, job.settings.clock)
    # A trace without its content is refused before anything is written.
    _ = job.content
    return job


def _run_to_its_end(rounds: RoundLoop, *, is_new: bool = False) -> None:
    writer = rounds.writer
    with writer.held():
        try:
            rounds.run()
        except KeyboardInterrupt:
            writer.end("interrupted")
            raise
        except VaioBenchError as error:
            if is_new and writer.is_empty:
                writer.discard()
                raise
            # On a full disk this fails as well: what is raised is the first error.
            with suppress(WorkError):
                writer.end(f"failed: {error}")
            raise
        concluding.conclude(writer, rounds.job.settings)


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
    columns = settings.columns
    window = json.dumps(_window(disks, settings))
    scan = _core.Scan(trace.reader(columns), str(trace.path), window, settings.fit_to_bytes)
    found: dict[str, Any] = json.loads(scan.to_json())
    if not found["ios"]:
        raise InputError(f"{trace.path}: no I/O is left to replay (--skip, --limit, --disk)")
    return found


def _backend(job: Job) -> tuple[str, str | None]:
    """The backend to use, and why it is not the one that was asked for."""
    asked = job.settings.backend
    if servers.every_policy_has_one(job):
        return servers.BACKEND, "every policy ends at an NBD server"
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
    # What a read-only trace finds on a target of the user's is the user's: nothing is written,
    # unless a cache file may hold what an earlier run wrote there.
    uses = [use for policy in job.policies for use in policy.filters]
    read_only = (
        job.scan["writes"] == 0
        and all(path.exists() and not targets.is_ours(path) for path in paths)
        and not any(use.use == "cache" and "file" in use.params for use in uses)
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
        "content": job.content,
        "workers": min(len(job.disks), WORKERS_MAX),
        **{
            key: getattr(settings, key)
            for key in (
                "direct", "clock", "pace", "speed", "depth", "inflight", "spin_ns", "conflicts",
                "verify", "compressible", "dedupe", "seed", "fit_to_bytes",
            )
        },
    }  # fmt: skip
