"""Filters in C, built with cc against the installed header."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from vaio_bench.foreign import INCLUDE_DIR

HERE = Path(__file__).resolve().parent


def build(name: str, folder: Path, *flags: str) -> Path:
    """Compiles `name`.c into a library in `folder` and gives its path."""
    library = folder / f"{name}{''.join(flags)}.so"
    strict = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2"]
    subprocess.run(
        [os.environ.get("CC", "cc"), *strict, "-shared", "-fPIC", *flags, "-I", str(INCLUDE_DIR),
         str(HERE / f"{name}.c"), "-o", str(library)],
        check=True,
    )  # fmt: skip
    return library
