"""Where a run or sweep was begun: what it names by a relative path is found there again.

A policy names files (keys, rules, libraries, caches) as its writer does, from the folder in which
the command ran. Whoever goes on with a run from another folder means the same files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from vaio_bench.errors import InputError


def here() -> str:
    """The folder that the command runs in, as a manifest keeps it."""
    return os.getcwd()


@contextmanager
def as_begun(
    folder: Path, began_in: str | None, needed: list[tuple[str, str | None]]
) -> Iterator[None]:
    """Goes to where a run or sweep was begun, for this whole process, and back at the end.

    Args:
        folder: of the run or sweep, for messages.
        began_in: what `here` was then; None: not known, stay.
        needed: what a file is to it ("trace", "target"), and its path as given then.

    Raises:
        InputError: one of the files is not there any more.
    """
    there = Path(began_in or os.getcwd())
    # A whole tree may have been moved, and what was relative in it still is.
    if not there.is_dir():
        there = Path(os.getcwd())
    for what, path in needed:
        if path is not None and not (there / path).exists():
            moved = "" if os.path.isabs(path) else f" (it was begun in {began_in})"
            raise InputError(
                f"{folder}: expected its {what} at {there / path}, where nothing is any more"
                f"{moved}: put it back, or begin anew"
            )
    with chdir(there):
        yield
