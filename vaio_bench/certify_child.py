"""Laws tested on a foreign filter, in a process of its own: `python -m vaio_bench.certify_child`.

Standard input is `{"use", "params", "seed", "placement", "laws", "black_box"}`. Standard output has
a line of JSON for each law, `{"found": [...]}`, or at last `{"error"}`: the filter cannot be built.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vaio_bench import _core
from vaio_bench.errors import VaioBenchError


def main() -> None:
    """Tests the laws that standard input names, one after the other."""
    job = json.load(sys.stdin)
    _core.open_black_box(Path(job["black_box"]))
    params = json.dumps(job["params"])
    for law in job["laws"]:
        try:
            found = _core.certify(job["use"], params, job["seed"], job["placement"], law)
        except VaioBenchError as error:
            _say({"error": str(error)})
            return
        _say({"found": json.loads(found)})


def _say(document: dict[str, object]) -> None:
    # A filter may print, and not end its line.
    sys.stdout.write("\n" + json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
