"""What a run folder's manifest says when the run begins; the rounds add their totals."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaio_bench import _core, environment, schemas
from vaio_bench.warnings import RunWarning, WarningKind

if TYPE_CHECKING:
    from vaio_bench.runner import Job
    from vaio_bench.targets import Prepared


# Extents of the fit map, as the engine has them (replay/fit.rs).
FIT_EXTENT_BYTES = 1 << 20


def build(
    job: Job,
    backend: str,
    why: str | None,
    prepared: Prepared,
    target: str | Path | None,
    rounds: int,
) -> dict[str, Any]:
    """The manifest of a run that is about to begin.

    Args:
        job: the checked run.
        backend: the backend that is used.
        why: why it is not the one that was asked for.
        prepared: the targets, ready.
        target: the target as it was asked for.
        rounds: of each policy.
    """
    settings = job.settings
    found = environment.environment(target if prepared.paths else None)
    return {
        "schema_version": schemas.RUN_SCHEMA_VERSION,
        "tool_version": version("vaio-bench"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "trace": _trace(job),
        "policies": {
            policy.name: {
                **policy.to_dict(),
                "layers": [*(use.use for use in policy.filters), backend],
            }
            for policy in job.policies
        },
        "rounds": rounds,
        "order": [list(entry) for entry in job.order],
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
        "data": {"compressible": settings.compressible, "dedupe": settings.dedupe},
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


def _trace(job: Job) -> dict[str, Any]:
    path = job.trace.path
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "path": str(path),
        "size_bytes": path.stat().st_size,
        "sha256": sha256,
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
    if any(disk["fit_wrapped"] for disk in job.scan["disks"]):
        warnings.append(WarningKind.FIT_TO_WRAPPED.of(fit_to=f"{settings.fit_to_bytes} bytes"))
    if not prepared.preconditioned:
        warnings.append(WarningKind.NOT_PRECONDITIONED.of(target=str(target)))
    if settings.pace == "closed" and job.scan["with_latency"] == 0:
        warnings.append(WarningKind.NO_LATENCIES.of(trace=str(job.trace.path)))
    return warnings


def stored(warning: RunWarning) -> dict[str, str]:
    """A warning as the manifest keeps it."""
    return {**warning.to_dict(), "text": warning.seen}
