"""The laws tested on a filter of another make, which may crash or hang: never in this process.

One process tests law after law. Where it dies, the law under test is broken, told with the callback
and the I/O, and another process goes on with the laws that are left.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from vaio_bench import _core
from vaio_bench.black_box import HangWatch, read, signal_name
from vaio_bench.errors import InputError, WorkError

HANG_S = 10.0
"""A callback that takes longer has hung, unless the policy has another `hang`."""

_LOOK_S = 0.25


def certify(job: dict[str, Any], hang_s: float | None = None) -> list[dict[str, Any]]:
    """What came of every law: `law`, `says`, `outcome` and `detail` of each.

    Args:
        job: `use`, `params`, `seed` and `placement`, as `_core.certify` takes them.
        hang_s: a callback that takes longer has hung.

    Raises:
        InputError: the filter cannot be built.
    """
    laws = dict(_core.filter_laws())
    left, found = list(laws), list[dict[str, Any]]()
    while left:
        kept, died = _some({**job, "laws": left}, hang_s or HANG_S)
        found += kept
        left = left[len(kept) :]
        if died is None:
            break
        law = left.pop(0)
        found.append({"law": law, "says": laws[law], "outcome": "broken", "detail": died})
    return found


def _some(job: dict[str, Any], hang_s: float) -> tuple[list[dict[str, Any]], str | None]:
    """What came of the first laws, and how the process died in the one that followed."""
    with tempfile.TemporaryDirectory(prefix="vaio-bench-") as folder:
        box = Path(folder) / "black-box"
        with subprocess.Popen(
            [sys.executable, "-m", "vaio_bench.certify_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            hung: list[str] = []
            watch = threading.Thread(target=_watch, args=(process, box, hang_s, hung), daemon=True)
            watch.start()
            try:
                told, said = process.communicate(json.dumps({**job, "black_box": str(box)}))
            except BaseException:
                process.kill()
                raise
            watch.join()
        found, error = _heard(told)
        if error is not None:
            raise InputError(error)
        if len(found) == len(job["laws"]):
            return found, None
        if hung:
            return found, hung[0]
        if process.returncode < 0:
            doing = read(box)
            where = f" in {doing[0].words()}" if doing else ""
            return found, f"crashed ({signal_name(-process.returncode)}){where}"
    last = said.strip().splitlines()[-1:] or ["it said nothing"]
    if not found and process.returncode == 0:
        raise WorkError(f"{job['use']}: the tests of the laws ended early ({last[0]})")
    return found, f"ended its process with status {process.returncode} ({last[0]})"


def _watch(process: subprocess.Popen[str], box: Path, hang_s: float, hung: list[str]) -> None:
    hangs = HangWatch(box, hang_s)
    while process.poll() is None:
        try:
            process.wait(_LOOK_S)
        except subprocess.TimeoutExpired:
            doing = hangs.look()
            if doing is not None:
                hung.append(f"hung (no return in {hang_s:g} s) in {doing.words()}")
                process.kill()
                return


def _heard(told: str) -> tuple[list[dict[str, Any]], str | None]:
    found: list[dict[str, Any]] = []
    for line in told.splitlines():
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if isinstance(document, dict) and "error" in document:
            return found, str(document["error"])
        if isinstance(document, dict):
            found += document.get("found", [])
    return found, None
