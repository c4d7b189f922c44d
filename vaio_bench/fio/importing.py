"""`fio import`: results that fio wrote, bench-fio's folders too, as rounds of a run folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaio_bench.errors import InputError
from vaio_bench.fio import folder as kept
from vaio_bench.fio.results import Result, parse_result
from vaio_bench.fio.summary import document
from vaio_bench.run_writer import RunWriter, write_result
from vaio_bench.store import open_run


def import_results(
    sources: Sequence[str | Path],
    *,
    out: str | Path,
    baseline: str | None = None,
    per_io: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Makes a run folder of files of fio's JSON or JSON+.

    A file is a round of the policy that is named after it: by its path below the folder that was
    given, slashes as dashes. The same name in several sources is as many rounds.

    Args:
        sources: files, or folders to be searched for `*.json`.
        out: run folder to make.
        baseline: the policy that the others are compared with; the first if None.
        per_io: make rows of the logs of single I/Os that lie beside the results.
        force: replace an earlier run in `out`.

    Returns:
        The document of `fio import --json`, which is also kept in the run folder.

    Raises:
        InputError: a source is not there, holds no result of fio, or a damaged one.
    """
    found = [(name, path, _read(path)) for name, path in _named(sources)]
    rounds: dict[str, list[tuple[Path, tuple[bytes, Result]]]] = {}
    for name, path, result in found:
        rounds.setdefault(name, []).append((path, result))
    names = list(rounds)
    if baseline is not None and baseline not in names:
        raise InputError(f"--baseline: expected one of {', '.join(names[:10])}, got {baseline}")
    order = [(name, number) for name, of in rounds.items() for number in range(len(of))]
    versions = sorted({result.version for _, _, (_, result) in found})
    described = {name: {"description": _described(of[0][1][1])} for name, of in rounds.items()}
    manifest = kept.new_manifest(
        described,
        rounds=max(len(of) for of in rounds.values()),
        order=order,
        seed=0,
        baseline=baseline or names[0],
        target=None,
        fio={
            "verb": "import",
            "version": ", ".join(versions),
            "sources": [
                {"file": str(path), "size_bytes": len(raw),
                 "sha256": hashlib.sha256(raw).hexdigest()}
                for _, path, (raw, _) in found
            ],
        },
    ) | {"environment": {}, "warnings": []}  # fmt: skip
    RunWriter.check(Path(out), force=force)
    writer = RunWriter.create(Path(out), manifest)
    with writer.held():
        for name, of in rounds.items():
            for number, (path, (raw, own)) in enumerate(of):
                if per_io:
                    kept.keep_logs(writer, name, number, _logs(path, own))
                    kept.warn_of_logs(writer)
                kept.keep_round(writer, name, number, own)
                kept.keep_document(writer, name, number, raw)
        errors = sum(result.errors for _, _, (_, result) in found)
        writer.end(f"failed: {errors} I/O errors" if errors else "ok")
        told = document(open_run(writer.path))
        write_result(writer.path, "fio", told)
    return told


def _named(sources: Sequence[str | Path]) -> list[tuple[str, Path]]:
    named = []
    for source in map(Path, sources):
        if source.is_dir():
            below = sorted(source.rglob("*.json"))
            if not below:
                raise InputError(f"{source}: expected results of fio, *.json, found none")
            named += [
                ("-".join(path.relative_to(source).with_suffix("").parts), path) for path in below
            ]
        else:
            named.append((source.stem, source))
    if not named:
        raise InputError("fio import: expected at least one file or folder")
    return named


def _read(path: Path) -> tuple[bytes, Result]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return raw, parse_result(raw, path)


def _described(result: Result) -> str:
    keys = ("rw", "bs", "iodepth", "numjobs", "ioengine")
    return ", ".join(f"{key}={result.options[key]}" for key in keys if key in result.options)


def _logs(path: Path, result: Result) -> list[Path]:
    """The logs of latencies that a result's job names, beside the result."""
    prefix = result.options.get("write_lat_log")
    logs = [] if not prefix else sorted(path.parent.glob(f"{Path(prefix).name}_lat.*.log"))
    if not logs:
        raise InputError(f"{path}: --per-io: expected logs of its job's write_lat_log beside it")
    return logs
