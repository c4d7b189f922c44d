"""Asks a foreign filter what it is, in a process of its own: `python -m vaio_bench.filter_child`.

Standard input is `{"use", "params", "black_box"}`; the last line of standard output is what
`_core.describe_filter` gives, or where `params` is null, of a library, `_core.describe_library`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vaio_bench import _core


def main() -> None:
    """Answers the one question on standard input."""
    job = json.load(sys.stdin)
    _core.open_black_box(Path(job["black_box"]))
    if job["params"] is None:
        told = _core.describe_library(job["use"].removeprefix("so:"))
    else:
        told = _core.describe_filter(job["use"], json.dumps(job["params"]))
    sys.stdout.write("\n" + told + "\n")


if __name__ == "__main__":
    main()
