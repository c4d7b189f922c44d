"""One round in a process of its own: `python -m vaio_bench.round_child`.

The first line of standard input is the job (JSON); a further line, or its end, asks the round to
stop. Standard output carries JSON lines: `{"progress": [...]}`, `{"events": [...]}`, and at last
`{"result": {...}}` or `{"error": {"kind", "message"}}`, the kind being a class of `errors`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from vaio_bench import _core
from vaio_bench.errors import VaioBenchError
from vaio_bench.run_writer import BASE_ENCODING, GAUGES_ENCODING, PartWriter
from vaio_bench.trace import COLUMNS, open_trace

_REPORT_EVERY_S = 0.2


def main() -> None:
    """Runs the job that standard input names."""
    job = json.loads(sys.stdin.readline())
    try:
        _say({"result": run(job)})
    except VaioBenchError as error:
        _say({"error": {"kind": type(error).__name__, "message": str(error)}})
        sys.exit(error.exit_status)
    except Exception as error:
        # A process that ends without a word is taken for one that a filter has ended.
        _say({"error": {"kind": "WorkError", "message": f"{type(error).__name__}: {error}"}})
        raise


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Scans the trace, runs the round, writes its rows; the totals and what was settled."""
    options = job["options"]
    if job.get("black_box"):
        _core.open_black_box(Path(job["black_box"]))
    trace = open_trace(job["trace"])
    columns = job.get("columns", COLUMNS)
    scan = _core.Scan(
        trace.reader(columns),
        str(trace.path),
        json.dumps(options["window"]),
        options["fit_to_bytes"],
    )
    began = time.monotonic_ns()
    round_ = _core.Round(json.dumps(options), scan, trace.reader(columns), str(trace.path))
    threading.Thread(target=_stop_when_told, args=(round_,), daemon=True).start()
    by_age = options["clock"] == "wall"
    rows = PartWriter(Path(job["folder"]), by_age=by_age)
    gauges = PartWriter(Path(job["gauges_folder"]), by_age=by_age, encoding=GAUGES_ENCODING)
    base = PartWriter(Path(job["base_folder"]), by_age=by_age, encoding=BASE_ENCODING)
    try:
        _drain(round_, {"rows": rows, "gauges": gauges, "base": base})
    except VaioBenchError:
        round_.stop()
        raise
    for writer in (rows, gauges, base):
        writer.close()
    # With the prefill, until the last row was in a file that has its name.
    recording_ns = time.monotonic_ns() - began
    totals = {**json.loads(round_.finish()), "recording_ns": recording_ns}
    return {"totals": totals, "settled": json.loads(round_.settled)}


def _drain(round_: _core.Round, writers: dict[str, PartWriter]) -> None:
    reported = 0.0
    while True:
        kind, payload = round_.next(_REPORT_EVERY_S)
        if kind in writers:
            writers[kind].write(pa.record_batch(payload))
            if kind == "base":
                # Whatever becomes of the round: what it started from can be read from now on.
                writers[kind].close()
        elif kind == "events":
            _say({"events": json.loads(payload)})
        elif kind == "end":
            return
        for writer in writers.values():
            writer.close_if_due()
        now = time.monotonic()
        if now - reported >= _REPORT_EVERY_S:
            reported = now
            _say({"progress": round_.progress()})


def _stop_when_told(round_: _core.Round) -> None:
    """The parent says stop, or is gone: both end the reading."""
    sys.stdin.readline()
    round_.stop()


def _say(document: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The parent is gone. The round is being stopped; its rows are still worth keeping.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


if __name__ == "__main__":
    main()
