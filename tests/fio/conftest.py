"""Results as fio writes them, made here, so that reading them needs no fio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def direction(bins: dict[int, int] | None = None, *, ios: int | None = None) -> dict[str, Any]:
    """The part of a job that is of reads, writes or trims; of 4 KiB each, over a second."""
    bins = bins or {}
    count = sum(bins.values()) if ios is None else ios
    lat = {"min": min(bins, default=0), "max": max(bins, default=0) + 3, "mean": 1.0,
           "stddev": 0.0, "N": count}  # fmt: skip
    with_bins = {**lat, "percentile": {}, "bins": {str(key): of for key, of in bins.items()}}
    return {
        "io_bytes": 4096 * count,
        "total_ios": count,
        "runtime": 1000 if count else 0,
        "clat_ns": {**lat, "max": 9},
        "lat_ns": with_bins if bins else lat,
    }


def job(**parts: dict[str, Any]) -> dict[str, Any]:
    """A job; the directions that are not given did nothing."""
    none = {name: direction() for name in ("read", "write", "trim")}
    return {
        "jobname": "job", "groupid": 0, "error": 0, "job options": {"rw": "randread"},
        "job_runtime": 1000, "usr_cpu": 10.0, "sys_cpu": 20.0, "ctx": 7,
        "sync": {"total_ios": 0, "lat_ns": {}}, **none, **parts,
    }  # fmt: skip


def write_fio(path: Path, *jobs: dict[str, Any], before: str = "") -> Path:
    """A file of fio's JSON+."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"fio version": "fio-3.33", "global options": {"iodepth": "8"}, "jobs": list(jobs)}
    path.write_text(before + json.dumps(document))
    return path


@pytest.fixture
def bench_fio(tmp_path: Path) -> Path:
    """A folder as bench-fio leaves it."""
    folder = tmp_path / "bench" / "disk" / "4k"
    for depth, median in ((1, 100_000), (8, 400_000)):
        bins = {median: 98, 2 * median: 2}
        write_fio(folder / f"randread-{depth}-1.json", job(read=direction(bins)))
    return tmp_path / "bench"
