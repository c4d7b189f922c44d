"""Results of fio as rounds of a run folder: totals, histograms, and rows where there are logs."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from vaio_bench import environment, manifest, schemas
from vaio_bench.errors import InputError, WorkError
from vaio_bench.fio import program
from vaio_bench.fio.results import DIRECTIONS, OPS, Result
from vaio_bench.run_writer import GAUGES_ENCODING, PartWriter, RunWriter
from vaio_bench.store import again_of, open_run, part_folder
from vaio_bench.warnings import WarningKind

LAYER = "fio"
# Rows of a log that are read at a time.
_BATCH_ROWS = 1 << 16


def new_manifest(
    policies: dict[str, dict[str, Any]],
    *,
    rounds: int,
    order: Sequence[tuple[str, int]],
    seed: int,
    baseline: str | None,
    target: str | Path | None,
    fio: dict[str, Any],
) -> dict[str, Any]:
    """The manifest of a run of fio.

    Args:
        policies: name to what is told of it (`description`, and what else there is).
        rounds: of each.
        order: in which they run.
        seed: of the order.
        baseline: what the others are compared with, and run against itself where there is a
            policy of that name with `-again`.
        target: what the jobs go to, if it is one.
        fio: what belongs to fio alone.
    """
    found = environment.environment(target)
    warnings = environment.warnings_of(found)
    compared = None
    if baseline is not None and len(policies) > 1:
        compared = {"baseline": baseline, "again": again_of(baseline), "until": None}
    return {
        "schema_version": schemas.RUN_SCHEMA_VERSION,
        "id": secrets.token_hex(8),
        "tool_version": version("vaio-bench"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "trace": {"path": f"{', '.join(list(policies)[:3])} (jobs of fio)"},
        "policies": {
            name: {"name": name, "filters": [], "layers": [LAYER], **of}
            for name, of in policies.items()
        },
        "rounds": rounds,
        "order": [list(entry) for entry in order],
        "seed": seed,
        "clock": "wall",
        "backend": {"requested": "fio", "used": "fio", "why": None},
        "pacing": {"mode": "as fio's jobs say"},
        "target": {"path": None if target is None else str(target)},
        "comparison": compared,
        "harness": None,
        "environment": found,
        "warnings": [manifest.stored(warning) for warning in warnings],
        "fio": fio,
        "totals": {},
    }


def keep_round(writer: RunWriter, policy: str, number: int, result: Result) -> None:
    """Keeps the totals and the histogram of a round; one without buckets has an empty one."""
    entries = [
        (OPS[name], middle, count)
        for name in DIRECTIONS
        for middle, count in sorted(result.bins.get(name, {}).items())
        if count
    ]
    columns = [list(column) for column in zip(*entries, strict=True)] or [[], [], []]
    batch = pa.record_batch(columns, schema=schemas.HISTOGRAM)
    folder = part_folder(writer.path, policy, number, "histograms")
    part = PartWriter(folder, by_age=False, encoding=GAUGES_ENCODING)
    part.write(batch)
    part.close()
    writer.add_totals(policy, number, result.totals())


def keep_document(writer: RunWriter, policy: str, number: int, raw: bytes) -> None:
    """Keeps what fio wrote of a round: its options are there alone, and `fio plot` reads it."""
    folder = part_folder(writer.path, policy, number, "fio")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / program.OUTPUT).write_bytes(raw)
    except OSError as error:
        raise WorkError(f"{folder}: cannot keep fio's document: {error.strerror}") from None


def keep_logs(writer: RunWriter, policy: str, number: int, logs: Sequence[Path]) -> int:
    """Makes rows of fio's logs of single I/Os (`*_lat.N.log`); returns how many.

    A line is `time_ms, latency_ns, direction, bytes, offset, priority`; a log is of one job, which
    takes the place of the disk.

    Raises:
        InputError: a log is of averages, lacks offsets, or has a broken line (names it).
    """
    from vaio_bench.analyses import timeline

    part = PartWriter(part_folder(writer.path, policy, number), by_age=False)
    seq = 0
    for log in sorted(logs, key=_job_number):
        disk = f"job {_job_number(log)}"
        lines: list[tuple[int, ...]] = []
        with log.open("rb") as file:
            for row, raw in enumerate(file, 1):
                lines.append(_entry(raw, log, row))
                if len(lines) == _BATCH_ROWS:
                    part.write(_batch(lines, policy, number, disk, seq))
                    seq, lines = seq + len(lines), []
        if lines:
            part.write(_batch(lines, policy, number, disk, seq))
            seq += len(lines)
    part.close()
    if seq:
        timeline.append_round(open_run(writer.path), policy, number)
    return seq


def warn_of_logs(writer: RunWriter) -> None:
    """Says once what times out of a log are good for."""
    warning = WarningKind.FIO_LOG_TIMES.of()
    if all(known["code"] != warning.code for known in writer.manifest["warnings"]):
        writer.manifest["warnings"].append(manifest.stored(warning))
        writer.save()


def _job_number(log: Path) -> int:
    number = log.name.split(".")[-2]
    return int(number) if number.isdigit() else 1


def _entry(raw: bytes, log: Path, row: int) -> tuple[int, ...]:
    fields = raw.split(b",")
    try:
        values = tuple(int(field) for field in fields[:5])
        known = len(values) == 5 and 0 <= values[2] < len(DIRECTIONS) and min(values) >= 0
    except ValueError:
        known = False
    if not known or len(fields) < 6:
        raise InputError(
            f"{log}: row {row}: expected `time, latency, direction, bytes, offset, priority` (a "
            f"log of latencies with log_offset=1), got {raw[:60].decode(errors='replace').strip()}"
        )
    if values[3] == 0:
        raise InputError(
            f"{log}: row {row}: expected single I/Os, found averages over a time (log_avg_msec)"
        )
    return values


def _batch(
    lines: list[tuple[int, ...]], policy: str, number: int, disk: str, seq: int
) -> pa.RecordBatch:
    ops = [OPS[name] for name in DIRECTIONS]
    rows = len(lines)
    latency = [line[1] for line in lines]
    # The log's times are whole milliseconds of the completion; nothing starts before 0.
    complete = [max(line[0] * 1_000_000, line[1]) for line in lines]
    submit = [end - own for end, own in zip(complete, latency, strict=True)]
    zeros = [0] * rows
    columns: dict[str, list[Any]] = {
        "policy": [policy] * rows,
        "round": [number] * rows,
        "disk": [disk] * rows,
        "seq": list(range(seq, seq + rows)),
        "op": [ops[line[2]] for line in lines],
        "trace_offset_bytes": [line[4] for line in lines],
        "offset_bytes": [line[4] for line in lines],
        "length_bytes": [line[3] for line in lines],
        "due_ns": submit,
        "submit_ns": submit,
        "complete_ns": complete,
        "status": zeros,
        "flags": zeros,
        "blocks": zeros,
        "hit_blocks": zeros,
        "self_ns": [[own] for own in latency],
        "cpu_ns": [[0]] * rows,
        "harness_ns": zeros,
    }
    arrays = [
        pa.array(columns[field.name], pa.string()).dictionary_encode().cast(field.type)
        if pa.types.is_dictionary(field.type)
        else pa.array(columns[field.name], field.type)
        for field in schemas.IOS
    ]
    return pa.record_batch(arrays, schema=schemas.IOS)
