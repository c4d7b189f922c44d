"""`certify` as a function: the laws of filters, tested on one filter or one NBD server."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vaio_bench import _core, catalogue, certifying_foreign, foreign, spec
from vaio_bench.errors import InputError
from vaio_bench.placement import Placement


@dataclass(frozen=True)
class Finding:
    """What came of one law for one filter."""

    filter: str
    law: str
    says: str
    outcome: str
    """`held`, `broken` or `not_tested`."""
    detail: str
    """What was seen, or why it was not tested."""


@dataclass(frozen=True)
class Certificate:
    """All findings, filter by filter."""

    subject: str
    seed: int
    findings: tuple[Finding, ...]

    @property
    def broken(self) -> list[Finding]:
        """The laws that were broken."""
        return [finding for finding in self.findings if finding.outcome == "broken"]

    def to_dict(self) -> dict[str, Any]:
        """The document of `certify --json`."""
        return {
            "subject": self.subject,
            "seed": self.seed,
            "certified": not self.broken,
            "findings": [asdict(finding) for finding in self.findings],
        }


def certify(subject: str | Path, *, seed: int = 0, destroy_data: bool = False) -> Certificate:
    """Tests a filter against every law that can be tested of it.

    A filter runs in virtual time over a modelled device with a volatile write cache, faults and
    losses of power, on another thread or in another process if that is its placement; one of
    another make in a process of its own, whose crash breaks the law under test; an NBD server on
    the wall clock, from outside, whose first 256 KiB are overwritten.

    Args:
        subject: a filter's name (with the parameters of the shipped policy of that name), one of
            another make ("so:PATH", "py:MODULE:CLASS"), a policy file, whose filters are tested one
            by one, or an NBD server's URI.
        seed: of the I/Os, faults and crashes.
        destroy_data: the contents of an NBD server's export may go.

    Raises:
        InputError: there is no such filter, its parameters are wrong, or the server is not fit.
    """
    uses, hang_s = _uses(str(subject))
    findings: list[Finding] = []
    for use in uses:
        if catalogue.is_server(use.use) and not destroy_data:
            raise InputError(
                f"{use.use}: the laws overwrite the first 256 KiB of what it holds; add "
                "--destroy-data if its contents may go"
            )
        with _fixed_key(use.params, seed) as params:
            at, name = use.placement.at, use.engine_use or use.use
            if use.make == "built-in":
                found = json.loads(_core.certify(name, json.dumps(params), seed, at))
            else:
                job = {"use": name, "params": params, "seed": seed, "placement": at}
                found = certifying_foreign.certify(job, hang_s)
        findings += [Finding(use.use, **each) for each in found]
    return Certificate(str(subject), seed, tuple(findings))


@contextmanager
def _fixed_key(params: dict[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    """The parameters with one key for all instances, where each would make its own."""
    if params.get("key") != "random":
        yield params
        return
    with tempfile.NamedTemporaryFile(prefix="vaio-bench-", suffix=".key") as file:
        file.write(hashlib.sha512(f"certify {seed}".encode()).digest())
        file.flush()
        yield {**params, "key": f"file:{file.name}"}


def _uses(subject: str) -> tuple[tuple[spec.FilterUse, ...], float | None]:
    """The filters to test, and how long one of another make may stand still."""
    if catalogue.is_server(subject):
        faults = catalogue.check_server(subject, {})
        if faults:
            raise InputError(faults[0][1])
        return (spec.FilterUse(subject, None, Placement(), {}),), None
    if foreign.make_of(subject) is not None:
        # As a policy of this filter alone would: its faults are told alike.
        text = f"[[filter]]\nuse = {json.dumps(subject)}\n"
        policy = spec.parse_policy(text, "certify")
    elif subject in catalogue.filters() and subject not in spec.shipped():
        faults = catalogue.check_filter(subject, {})
        if faults:
            told = "; ".join(f"{path}: {message}" for path, message in faults)
            raise InputError(f"{subject}: it needs parameters, name a policy file: {told}")
        return (spec.FilterUse(subject, None, Placement(), {}),), None
    else:
        policy = spec.load_policy(subject)
    if not policy.filters:
        raise InputError(f"{subject}: expected a policy with a filter")
    return policy.filters, policy.hang_s
