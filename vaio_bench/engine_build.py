"""Which build of the engine took a run's rounds: those of two builds are no one sample.

The version alone does not tell: a mended engine of the same version may cost less, and its rounds
beside those of before would stand for neither.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

from vaio_bench import _core
from vaio_bench.errors import InputError


@functools.cache
def build_id() -> str:
    """The start of the SHA-256 of the engine's library: 16 hexadecimal digits."""
    with Path(str(_core.__file__)).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def builds_of(manifest: dict[str, Any]) -> list[str | None]:
    """The builds that took rounds of a run, the first one's first; None: one that is not named."""
    resumed = [each.get("engine_build") for each in manifest.get("resumed", [])]
    return [manifest.get("engine_build"), *filter(None, resumed)]


def check_same(where: object, builds: list[str | None], *, force: bool) -> None:
    """Whether this build may go on with what others began.

    Args:
        where: the folder of the run or sweep, for the message.
        builds: those that took its rounds.
        force: any may.

    Raises:
        InputError: it is none of them.
    """
    if force or build_id() in builds:
        return
    begun = builds[0] or "one that it does not name"
    raise InputError(
        f"{where}: expected the build of the engine that began it ({begun}), this is {build_id()}, "
        "and figures of two builds are no one sample: begin anew, or go on with --force, which "
        "marks it"
    )
