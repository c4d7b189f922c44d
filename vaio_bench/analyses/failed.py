"""What of a run failed: I/Os with an error or wrong data, and rounds that a filter took with it.

I/Os that failed are in no latency and no rate, and a round that was lost is in no figure: the
figures are of what is left, so both are told beside them. `compare` of a stored run ends as the
command that made it did, with the line of `shortfall`; `report` warns in that line. Rounds are
counted from 1 in what is told to people, and from 0 in files, folders and JSON (`round`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vaio_bench.store import Run


@dataclass(frozen=True)
class Failures:
    """I/Os of a policy's rounds that failed or gave back wrong data, and the first as told."""

    policy: str
    ios: int
    errors: int
    mismatches: int
    first: str

    def __str__(self) -> str:
        """A note beside the figures."""
        parts = [f"{self.errors:,} of {self.ios:,} I/Os failed"] if self.errors else []
        parts += [f"{self.mismatches:,} reads gave back wrong data"] if self.mismatches else []
        return (
            f"policy {self.policy}: {' and '.join(parts)} ({self.first}): I/Os that failed are in "
            "no latency and no rate, and work that was not done is no gain"
        )

    def to_dict(self) -> dict[str, Any]:
        """The shape in `compare --json`."""
        return {
            "policy": self.policy,
            "ios": self.ios,
            "errors": self.errors,
            "mismatches": self.mismatches,
            "first": self.first,
        }


def failures(run: Run) -> list[Failures]:
    """The policies of which I/Os failed, or reads gave back wrong data, in complete rounds."""
    found = []
    for name in run.policies:
        totals = {number: run.totals(name, number) for number in run.rounds(name)}
        errors, mismatches = (
            sum(of.get(key, 0) for of in totals.values()) for key in ("errors", "mismatches")
        )
        if errors or mismatches:
            told = [
                f"round {number + 1}, {line}"
                for number, of in totals.items()
                for line in [*of.get("told_errors", []), *of.get("told_mismatches", [])][:1]
            ]
            ios = sum(of.get("ios", 0) for of in totals.values())
            first = told[0] if told else "see the rows' status"
            found.append(Failures(name, ios, errors, mismatches, first))
    return found


@dataclass(frozen=True)
class Losses:
    """Rounds of a policy that a filter took with it, of how many, and why the first was lost."""

    policy: str
    rounds: tuple[int, ...]
    of: int
    reason: str
    untried: int = 0
    """Of these, those that were left out: the policy was given up, as its server is silent."""

    @property
    def is_all(self) -> bool:
        """Whether no round of the policy is left."""
        return len(self.rounds) == self.of

    def __str__(self) -> str:
        """What happened to the policy: `lost all 8 rounds: ...`."""
        many = "the one round" if self.of == 1 else f"all {self.of} rounds"
        if not self.is_all:
            many = f"{len(self.rounds)} of {self.of} rounds ({listed(self.rounds)})"
        left = f", {self.untried} of them not tried as it was given up" if self.untried else ""
        return f"lost {many}{left}: {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """The shape in `compare --json`."""
        return {
            "rounds": list(self.rounds),
            "of": self.of,
            "untried": self.untried,
            "reason": self.reason,
        }


def losses(run: Run) -> dict[str, Losses]:
    """By policy, the rounds that it lost; policies that lost none are left out."""
    found = {}
    for name in run.attempted:
        own = run.losses(name)
        if own:
            rounds = tuple(int(each["round"]) for each in own)
            of = len({*rounds, *run.rounds(name, complete_only=True)})
            untried = sum(not each.get("tried", True) for each in own)
            found[name] = Losses(name, rounds, of, str(own[0]["reason"]), untried)
    return found


def shortfall(run: Run, baseline: str | None = None) -> str | None:
    """What of a run's work was not done, as the command that made it ended; None: it was all done.

    Args:
        run: of a comparison or of a replay.
        baseline: what a comparison compares with, by default the run's own.
    """
    lost = run.manifest.get("lost_rounds") or []
    if not run.manifest.get("comparison") and len(run.attempted) < 2:
        told = [f"round {each['round'] + 1}: {each['reason']}" for each in lost]
        return told[0] if told else replay_shortfall(run.results().get("replay") or {})
    gone = losses(run).get(baseline or run.baseline)
    if gone is not None and gone.is_all:
        return f"nothing to compare with: the baseline {gone.policy} {gone}"
    if lost:
        return f"{len(lost)} rounds lost: {lost[0]['reason']}"
    for each in failures(run):
        many = f"{each.errors:,} I/Os failed" if each.errors else "verification failed"
        return f"policy {each.policy}: {many}: {each.first}"
    return None


def replay_shortfall(found: dict[str, Any]) -> str | None:
    """As `shortfall`, of the document of `replay --json`; of an empty one nothing is known."""
    for lost in ("lost_rounds", "lost_disks"):
        if found.get(lost):
            return str(found[lost][0])
    if found.get("mismatches"):
        return f"verification failed: {found['mismatches'][0]}"
    if found.get("errors"):
        told = found.get("told_errors") or ["see the rows' status"]
        return f"{found['errors']} I/Os failed: {told[0]}"
    return None


def listed(rounds: Sequence[int]) -> str:
    """Some rounds as people count them: `1, 4`; of many the first five."""
    told = ", ".join(str(number + 1) for number in sorted(rounds)[:5])
    return told if len(rounds) <= 5 else f"{told} and {len(rounds) - 5} more"
