"""What a run folder's manifest says when the run begins; the rounds add their totals."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaio_bench import (
    _core,
    engine_build,
    environment,
    placement,
    replica,
    schemas,
    servers,
    target_state,
    whereabouts,
)
from vaio_bench.errors import InputError
from vaio_bench.store import Run, again_of
from vaio_bench.warnings import RunWarning, WarningKind

if TYPE_CHECKING:
    from vaio_bench.runner import Job, Plan
    from vaio_bench.targets import Prepared


# Extents of the fit map, as the engine has them (replay/fit.rs).
FIT_EXTENT_BYTES = 1 << 20


def build(
    job: Job,
    backend: str,
    why: str | None,
    prepared: Prepared,
    target: str | Path | None,
    *,
    read_only: bool,
) -> dict[str, Any]:
    """The manifest of a run that is about to begin.

    Args:
        job: the checked run.
        backend: the backend that is used.
        why: why it is not the one that was asked for.
        prepared: the targets, ready.
        target: the target as it was asked for.
        read_only: the run only reads its targets.
    """
    settings, plan = job.settings, job.plan
    fills = prepared.preconditioned and not read_only and bool(prepared.paths)
    prefills = not read_only and bool(prepared.paths)
    found = environment.environment(target if prepared.paths else None)
    return {
        "schema_version": schemas.RUN_SCHEMA_VERSION,
        "id": secrets.token_hex(8),
        "tool_version": version("vaio-bench"),
        "engine_build": engine_build.build_id(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "began_in": whereabouts.here(),
        "trace": _trace(job),
        "policies": {
            policy.name: {
                **policy.to_dict(),
                "layers": policy.layers(backend),
            }
            for policy in job.policies
        },
        **_rounds(job),
        "comparison": comparison(plan),
        "round_state": {
            "fills": fills,
            **target_state.description(
                prepared.paths,
                fills=fills,
                prefills=prefills,
                servers=any(policy.server for policy in job.policies),
            ),
        },
        "seed": settings.seed,
        "clock": settings.clock,
        "backend": {"requested": settings.backend, "used": backend, "why": why},
        "pacing": {
            "mode": settings.pace,
            **{
                key: getattr(settings, key)
                for key in ("speed", "depth", "inflight", "spin_ns", "conflicts")
            },
        },
        "data": _data(job),
        "verify": settings.verify,
        "target": {
            "path": None if target is None else str(target),
            "paths": prepared.paths,
            "created": prepared.created,
            "preconditioned": prepared.preconditioned,
            "requested": settings.direct,
            "file_system": (found["target"] or {}).get("file_system"),
        },
        "scan": [
            {key: value for key, value in disk.items() if key != "fit_extents"}
            for disk in job.scan["disks"]
        ],
        "fit_to": _fit(job),
        "harness": _core.harness_floor() if settings.clock == "wall" else None,
        "environment": found,
        "warnings": [stored(warning) for warning in _warnings(job, prepared, target, found)],
        "settings": asdict(settings),
        "totals": {},
    }


def _rounds(job: Job) -> dict[str, Any]:
    plan = job.plan
    return {
        "rounds": plan.rounds,
        "warmup": {"rounds": plan.warmup_rounds, "time_ns": plan.warmup_ns, "totals": {}},
        "order": [list(entry) for entry in job.order],
    }


def _data(job: Job) -> dict[str, Any]:
    """What writes hold: made by these shares, or taken from a file of what the trace's wrote."""
    of = job.settings
    return {
        "compressible": of.compressible,
        "dedupe": of.dedupe,
        "content": job.content,
        "contents": job.scan.get("contents", 0),
    }


def comparison(plan: Plan) -> dict[str, Any] | None:
    """What a manifest says of a comparison; None for a run that compares nothing."""
    if plan.baseline is None:
        return None
    return {
        "baseline": plan.baseline,
        "again": again_of(plan.baseline),
        "until": plan.until,
        "rounds_max": plan.rounds_max,
    }


def check_same(run: Run, job: Job, backend: str, target: str | None) -> None:
    """Raises InputError where a run cannot be gone on with as it was begun."""
    known = run.manifest
    found = environment.environment(target)
    machine = known["environment"]
    pairs = [
        ("trace", known["trace"]["sha256"], _sha256(job.trace.path)),
        ("backend", known["backend"]["used"], backend),
        ("processor", machine["cpu"]["model"], found["cpu"]["model"]),
        ("host", machine["host"], found["host"]),
        ("kernel", machine["kernel"], found["kernel"]),
    ]
    for what, then, now in pairs:
        if then != now:
            raise InputError(
                f"{run.path}: expected the {what} of the run's first rounds ({then}), found {now}"
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _trace(job: Job) -> dict[str, Any]:
    path = job.trace.path
    return {
        "path": str(path),
        "size_bytes": path.stat().st_size,
        "sha256": _sha256(path),
        "ios": job.scan["ios"],
        "duration_s": job.scan["duration_ns"] / 1e9,
        "disks": job.disks,
        "skip": job.settings.skip,
        "limit": job.settings.limit,
        "source_format": job.trace.metadata.get("source_format"),
        "metadata": job.trace.metadata,
    }


def _fit(job: Job) -> dict[str, Any] | None:
    """The fit map: the i-th extent of a disk's list lies at place i modulo the extents that fit."""
    if job.settings.fit_to_bytes is None:
        return None
    disks = {
        disk: {"wrapped": found["fit_wrapped"], "extents": found["fit_extents"]}
        for disk, found in zip(job.disks, job.scan["disks"], strict=True)
    }
    return {
        "size_bytes": job.settings.fit_to_bytes,
        "extent_bytes": FIT_EXTENT_BYTES,
        "wrapped": any(disk["wrapped"] for disk in disks.values()),
        "disks": disks,
    }


def _warnings(
    job: Job, prepared: Prepared, target: str | Path | None, found: dict[str, Any]
) -> list[RunWarning]:
    """What is known before the first round."""
    settings = job.settings
    warnings = [warning for policy in job.policies for warning in policy.warnings]
    warnings += environment.warnings_of(found)
    warnings += servers.warnings_before(job, target)
    warnings += placement.warnings(job.policies, len(job.disks))
    if any(disk["fit_wrapped"] for disk in job.scan["disks"]):
        warnings.append(WarningKind.FIT_TO_WRAPPED.of(fit_to=f"{settings.fit_to_bytes} bytes"))
    if not prepared.preconditioned:
        warnings.append(WarningKind.NOT_PRECONDITIONED.of(target=str(target)))
    if settings.clock == "wall" and any(
        replica.needs_site(use) for policy in job.policies for use in policy.engine_filters()
    ):
        warnings.append(WarningKind.REPLICA_ON_SAME_MACHINE.of())
    for policy in job.policies:
        warnings += replica.target_warnings(policy.name, policy.engine_filters())
    if settings.pace == "closed" and job.scan["with_latency"] == 0:
        warnings.append(WarningKind.NO_LATENCIES.of(trace=str(job.trace.path)))
    return warnings


def stored(warning: RunWarning) -> dict[str, str]:
    """A warning as the manifest keeps it."""
    return {**warning.to_dict(), "text": warning.seen}


def note_resumed(manifest: dict[str, Any], rounds_run_again: list[int]) -> None:
    """Keeps that this build goes on with a run, and warns once it is not the only one."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    told = {
        "at": now, "rounds_run_again": rounds_run_again, "engine_build": engine_build.build_id()
    }  # fmt: skip
    manifest.setdefault("resumed", []).append(told)
    builds = len(set(engine_build.builds_of(manifest)))
    code = WarningKind.MIXED_BUILDS.code
    manifest["warnings"] = [each for each in manifest["warnings"] if each["code"] != code]
    if builds > 1:
        manifest["warnings"].append(stored(WarningKind.MIXED_BUILDS.of(builds=builds)))
