"""Policies that end at an NBD server: what a run must know of them before it begins and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vaio_bench.errors import InputError
from vaio_bench.warnings import RunWarning, WarningKind

if TYPE_CHECKING:
    from vaio_bench.runner import Job
    from vaio_bench.spec import Policy

BACKEND = "nbd"


def every_policy_has_one(job: Job) -> bool:
    """Whether no policy of the run needs a target."""
    return all(policy.server is not None for policy in job.policies)


def check(job: Job) -> None:
    """Raises InputError where the settings do not fit a policy's server."""
    for policy in job.policies:
        if policy.server is None:
            continue
        use, at = policy.server.use, f"filter[{len(policy.filters) - 1}].use"
        if job.settings.clock == "virtual":
            raise InputError(
                f"policy {policy.name}: {at}: {use} runs on the wall clock only: leave out "
                "--clock virtual"
            )
        if len(job.disks) > 1 and "{disk}" not in use:
            raise InputError(
                f"policy {policy.name}: {at}: the trace has {len(job.disks)} disks: expected "
                f"{{disk}} in the URI for a disk's name, got {use}; or --disk to replay one of them"
            )
        if job.scan["writes"] and not job.settings.destroy_data:
            raise InputError(
                f"policy {policy.name}: the replay would overwrite what {use} holds; add "
                "--destroy-data if its contents may go"
            )


def engine(policy: Policy, job: Job, *, was_there: bool) -> dict[str, Any]:
    """What the engine's options say in place of the target; empty for a policy without a server.

    `was_there`: it served an earlier round, so that its absence is no mistake in the policy.
    """
    if policy.server is None:
        return {}
    writes = job.scan["writes"] > 0
    return {
        "backend": BACKEND,
        "targets": [],
        "server": {
            "uri": policy.server.use,
            "params": policy.server.params,
            "was_there": was_there,
        },
        "read_only": not writes,
        "prefill": writes,
    }


def warnings_before(job: Job, target: object | None) -> list[RunWarning]:
    """What is known before the first round."""
    if target is None or not every_policy_has_one(job):
        return []
    return [WarningKind.TARGET_NOT_USED.of(target=target, policy=job.policies[0].name)]


def state_notes(policies: Mapping[str, Any], rounds: int) -> list[str]:
    """What rounds of policies that end at a server start from, in a line for people.

    Args:
        policies: those of a manifest, by name.
        rounds: of each; a single one follows none.
    """
    names = [name for name, of in policies.items() if of.get("servers")]
    if not names or rounds < 2:
        return []
    return [
        f"{'policy' if len(names) == 1 else 'policies'} {', '.join(names)}: an NBD server's export "
        "is not set back between rounds: each starts from what the one before left there"
    ]


def warnings_after(policy: str, servers: list[dict[str, Any]]) -> list[RunWarning]:
    """What the servers of one policy said of themselves that matters."""
    return [
        WarningKind.SERVER_WITHOUT_FLUSH.of(policy=policy, server=server["uri"])
        for server in servers
        if not server["flush"] and not server["read_only"]
    ]
