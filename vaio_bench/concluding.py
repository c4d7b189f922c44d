"""The end of a run: the warnings that only all its rounds can tell, and the word of its exit."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from vaio_bench import foreign, manifest
from vaio_bench.round_loop import SILENT_MAX
from vaio_bench.warnings import WarningKind

if TYPE_CHECKING:
    from vaio_bench.run_writer import RunWriter
    from vaio_bench.runner import Settings

_OF_ALL_ROUNDS = (
    WarningKind.DEVICE_TOO_SLOW,
    WarningKind.DISKS_LOST,
    WarningKind.ROUNDS_LOST,
    WarningKind.FILTER_FAULTS,
    WarningKind.POLICY_GIVEN_UP,
)


def conclude(writer: RunWriter, settings: Settings) -> None:
    """The warnings that only the rounds can tell, and how the run ended."""
    from vaio_bench.analyses.fidelity import LATE_SHARE_MAX

    rounds = [totals for policy in writer.manifest["totals"].values() for totals in policy.values()]
    # Of a run that was gone on with, those of the rounds before are there already.
    told = {kind.code for kind in _OF_ALL_ROUNDS}
    warnings = [each for each in writer.manifest["warnings"] if each["code"] not in told]
    writer.manifest["warnings"] = warnings
    late = max((r["lateness"]["late_share"] for r in rounds if "lateness" in r), default=0.0)
    if settings.pace == "recorded" and settings.clock == "wall" and late > LATE_SHARE_MAX:
        p99 = max(r["lateness"]["p99_ns"] for r in rounds if "lateness" in r)
        warning = WarningKind.DEVICE_TOO_SLOW.of(late=late, p99_us=p99 / 1e3)
        warnings.append(manifest.stored(warning))
    warnings += map(manifest.stored, foreign.faults(writer.events))
    errors = sum(r["errors"] for r in rounds)
    mismatches = sum(r["mismatches"] for r in rounds)
    lost = writer.manifest.get("lost_rounds", [])
    disks = writer.manifest.get("lost_disks", [])
    if disks:
        warning = WarningKind.DISKS_LOST.of(lost=len(disks), reason=disks[0]["reason"])
        warnings.append(manifest.stored(warning))
    if lost:
        warning = WarningKind.ROUNDS_LOST.of(lost=len(lost), reason=lost[0]["reason"])
        warnings.append(manifest.stored(warning))
        untried = Counter(each["policy"] for each in lost if not each.get("tried", True))
        for policy, times in untried.items():
            warning = WarningKind.POLICY_GIVEN_UP.of(policy=policy, tried=SILENT_MAX, untried=times)
            warnings.append(manifest.stored(warning))
        writer.end(f"failed: {len(lost)} rounds lost: {lost[0]['reason']}")
    elif errors or mismatches:
        writer.end(f"failed: {errors} I/O errors, {mismatches} mismatches")
    else:
        writer.end("ok")
