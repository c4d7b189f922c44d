"""Replica sites that a run starts for itself: one process a round, on loopback.

A policy whose `cdp` filter names a link and no site gets a site of its own on the wall clock: its
store and key lie in the run folder, under `replica/POLICY/ROUND/`. It shares the machine, which
the run warns about, and its processor time is reported apart, in the round's totals. The spill file
of a journal and the redo log of a snapshot that name none lie there as well, and go with the round.
"""

from __future__ import annotations

import json
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaio_bench.errors import InputError, WorkError
from vaio_bench.units import format_size, parse_time_ns
from vaio_bench.warnings import RunWarning, WarningKind

_START_S = 20.0
_COMMAND = "from vaio_bench.cli import main; main()"
LISTENING = "listening on "
_SPILL, _REDO = "spill", "redo"
_NEVER_UP = "it had not come up yet"


def needs_site(use: dict[str, Any]) -> bool:
    """Whether a filter of the engine's options replicates to a site that the policy does not name.

    A link that is none is the engine's to refuse.
    """
    link = use["params"].get("link")
    return use["name"] == "cdp" and isinstance(link, dict) and "site" not in link


def target_warnings(policy: str, filters: list[dict[str, Any]]) -> list[RunWarning]:
    """What cannot be held whatever the bandwidth: a target below the link's round trip."""
    found = []
    for use in filters:
        link = use["params"].get("link")
        if use["name"] != "cdp" or not isinstance(link, dict):
            continue
        rpo, rtt = use["params"].get("rpo"), link.get("rtt")
        try:
            is_below = parse_time_ns(rpo, "rpo") < parse_time_ns(rtt, "link.rtt")
        except InputError:
            # The engine refuses what is no time, and says where it stands.
            continue
        if is_below:
            warning = WarningKind.RPO_BELOW_ROUND_TRIP
            found.append(warning.of(policy=policy, rpo=str(rpo), rtt=str(rtt)))
    return found


def warnings_after(policy: str, totals: dict[str, Any]) -> list[RunWarning]:
    """What did not get to the replica by the end of a round, by its `replication_totals`."""
    left, found = totals["left"], []
    if left["down"] is not None:
        found.append(WarningKind.REPLICATION_DOWN.of(policy=policy, why=left["down"] or _NEVER_UP))
    size = format_size(left["bytes"])
    if left["hole"] is not None:
        warning = WarningKind.REPLICATION_HOLE
        found.append(warning.of(policy=policy, reason=left["hole"], left=size))
    elif left["points"]:
        warning = WarningKind.REPLICATION_LEFT
        found.append(warning.of(policy=policy, points=left["points"], left=size))
    return found


@contextmanager
def own_sites(
    filters: list[dict[str, Any]], folder: Path, clock: str
) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """The filters with the address of a site filled in, and what the site told at its end.

    Args:
        filters: a chain as the engine's options have it.
        folder: where store and key go; made if needed.
        clock: only the wall clock has sites.

    Raises:
        WorkError: the site did not start.
    """
    told: dict[str, Any] = {}
    housed = [_with_redo_log(_with_spill(use, folder / _SPILL), folder / _REDO) for use in filters]
    needs_folder = housed != filters or any(needs_site(use) for use in filters)
    if clock != "wall" or not needs_folder:
        yield filters, told
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _own_site(housed, folder, told) as settled:
            yield settled, told
    finally:
        # From the second disk on the disk's number is in the log's name.
        for path in (folder / _SPILL, folder / _REDO, *folder.glob(f"{_REDO}.*")):
            path.unlink(missing_ok=True)


def _with_spill(use: dict[str, Any], path: Path) -> dict[str, Any]:
    journal = use["params"].get("journal", {})
    if use["name"] != "cdp" or not isinstance(journal, dict) or "file" in journal:
        return use
    return {**use, "params": {**use["params"], "journal": {**journal, "file": str(path)}}}


def _with_redo_log(use: dict[str, Any], path: Path) -> dict[str, Any]:
    params = use["params"]
    if use["name"] != "snapshot" or params.get("redo", "none") == "none" or "redo_file" in params:
        return use
    return {**use, "params": {**params, "redo_file": str(path)}}


@contextmanager
def _own_site(
    filters: list[dict[str, Any]], folder: Path, told: dict[str, Any]
) -> Iterator[list[dict[str, Any]]]:
    if not any(needs_site(use) for use in filters):
        yield filters
        return
    key = folder / "key"
    key.touch(mode=0o600)
    key.write_text(secrets.token_hex(32), encoding="ascii")
    process, address = _start(folder / "store", key)
    try:
        link = {"site": address, "key": f"file:{key}"}
        yield [
            {**use, "params": {**use["params"], "link": {**use["params"]["link"], **link}}}
            if needs_site(use)
            else use
            for use in filters
        ]
    finally:
        told.update(_stop(process))


def _start(store: Path, key: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, "site", "--listen", "127.0.0.1:0", "--store", str(store),
         "--key", f"file:{key}", "--until-eof", "--json"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stderr
    deadline, said = time.monotonic() + _START_S, ""
    while time.monotonic() < deadline:
        ready, _, _ = select.select([process.stderr], [], [], 0.2)
        line = process.stderr.readline() if ready else ""
        if LISTENING in line:
            return process, line.split(LISTENING, maxsplit=1)[1].strip()
        if ready and not line:
            break
        said = line.strip() or said
    process.kill()
    raise WorkError(f"the replica site did not start: {said or 'it said nothing'}")


def _stop(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Ends the site in good order; what it counted."""
    try:
        out, _ = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        return {}
    try:
        found: dict[str, Any] = json.loads(out)
    except json.JSONDecodeError:
        return {}
    return found
