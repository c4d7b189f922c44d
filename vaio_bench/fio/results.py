"""fio's JSON and JSON+, read and checked.

Layout as in fio's `stat.c` (`show_thread_status_json`): `jobs[]` with `read`, `write`, `trim` and
`sync`, each with counts and latencies in nanoseconds; JSON+ adds `bins`, a bucket's middle to its
count. Text may stand before the document: fio's own warnings.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vaio_bench.errors import InputError

DIRECTIONS = ("read", "write", "trim")
# What a direction is called in the canonical trace.
OPS = {"read": "read", "write": "write", "trim": "discard"}
_LEVELS = {"p50": "50.000000", "p95": "95.000000", "p99": "99.000000", "p999": "99.900000"}


@dataclass
class Result:
    """What one run of fio did, its jobs together."""

    version: str
    options: dict[str, str]
    """Of the first job, the global ones among them."""
    ios: dict[str, int]
    """By direction, and `sync`."""
    bytes: dict[str, int]
    wall_ns: int
    cpu_user_ns: int
    cpu_system_ns: int
    context_switches: int
    errors: int
    latency_from: str | None
    """`lat` or `clat`, whose buckets or percentiles are taken; None where there are none."""
    bins: dict[str, Counter[int]] = field(default_factory=dict)
    """Direction to bucket's middle (ns) to count; empty for plain JSON."""
    latency_ns: dict[str, int] = field(default_factory=dict)
    """Percentiles as fio tells them, where there are no buckets and one direction alone."""
    latency_max_ns: int | None = None
    document: dict[str, Any] = field(default_factory=dict, repr=False)

    def totals(self) -> dict[str, Any]:
        """What the manifest of a run keeps of the round."""
        moved = {name: self.bytes[name] for name in ("read", "write")}
        return {
            "ios": sum(self.ios.values()),
            "bytes": sum(moved.values()),
            "ios_by_direction": self.ios,
            "bytes_by_direction": self.bytes,
            "wall_ns": self.wall_ns,
            "wall_s": self.wall_ns / 1e9,
            "cpu_user_ns": self.cpu_user_ns,
            "cpu_system_ns": self.cpu_system_ns,
            "context_switches": self.context_switches,
            "errors": self.errors,
            "mismatches": 0,
            "latency_from": self.latency_from,
            "latency_ns": self.latency_ns,
            "latency_max_ns": self.latency_max_ns,
            "fio_version": self.version,
        }


def read_result(path: Path) -> Result:
    """The result in a file of fio's JSON or JSON+.

    Raises:
        InputError: it cannot be read, is no JSON (names the byte) or not fio's (names the key).
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_result(raw, path)


def parse_result(raw: bytes, path: Path) -> Result:
    """As `read_result`, of bytes that were read from `path`."""
    document = _document(raw, path)
    at = _At(path, "", document)
    jobs = _jobs(at)
    if not jobs:
        raise InputError(f"{path}: jobs: expected at least one, got none")
    shared = document.get("global options") or {}
    shared = shared[0] if isinstance(shared, list) and shared else shared
    first = jobs[0].value.get("job options") or {}
    found = Result(
        version=str(document.get("fio version", "not known")),
        options={**dict(shared), **dict(first)},
        ios=dict.fromkeys([*DIRECTIONS, "sync"], 0),
        bytes=dict.fromkeys(DIRECTIONS, 0),
        wall_ns=0, cpu_user_ns=0, cpu_system_ns=0, context_switches=0, errors=0,
        latency_from=None, document=document,
    )  # fmt: skip
    groups: dict[int, int] = {}
    kinds = {_latency_kind(job.child(name)) for job in jobs for name in DIRECTIONS
             if job.child(name).number("total_ios")}  # fmt: skip
    kind = "clat_ns" if "clat_ns" in kinds else "lat_ns"
    for job in jobs:
        _add(found, job, kind)
        spans = [job.child(name).number("runtime") for name in DIRECTIONS]
        group = int(job.value.get("groupid") or 0)
        groups[group] = max(groups.get(group, 0), *spans)
    # Jobs of one group ran side by side, groups one after the other (`stonewall`).
    found.wall_ns = sum(groups.values()) * 1_000_000
    if not found.bins:
        _take_percentiles(found, jobs)
    else:
        found.latency_from = kind.removesuffix("_ns")
    return found


def _document(raw: bytes, path: Path) -> dict[str, Any]:
    start = raw.find(b"{")
    if start < 0:
        raise InputError(f"{path}: byte 0: expected fio's JSON, found no document")
    text = raw[start:].decode("utf-8", errors="replace")
    try:
        document, _ = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        at = start + len(text[: error.pos].encode("utf-8"))
        raise InputError(f"{path}: byte {at}: expected fio's JSON: {error.msg}") from None
    except RecursionError:
        raise InputError(f"{path}: byte {start}: expected fio's JSON, nested less deep") from None
    if not isinstance(document, dict):
        raise InputError(f"{path}: byte {start}: expected a JSON object")
    return document


@dataclass(frozen=True)
class _At:
    """A value of the document and the way to it, for messages."""

    path: Path
    where: str
    value: Any

    def child(self, key: str) -> _At:
        """An object below this one.

        Raises:
            InputError: there is none.
        """
        below = f"{self.where}.{key}" if self.where else key
        found = self.value.get(key) if isinstance(self.value, dict) else None
        if not isinstance(found, dict):
            raise InputError(f"{self.path}: {below}: expected an object, got {_told(found)}")
        return _At(self.path, below, found)

    def number(self, key: str, default: float | None = None) -> int:
        """A number of this object, not negative.

        Raises:
            InputError: it is none.
        """
        found = self.value.get(key, default)
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < 2**63:
            raise InputError(
                f"{self.path}: {self.where}.{key}: expected a number of 0 or more, "
                f"got {_told(found)}"
            )
        return int(found)


def _told(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 40 else text[:40] + "..."


def _jobs(at: _At) -> list[_At]:
    """The jobs; of fio's client and server mode those of each client, not their sum."""
    name = "jobs" if "jobs" in at.value else "client_stats"
    listed = at.value.get(name)
    if not isinstance(listed, list) or not all(isinstance(job, dict) for job in listed):
        raise InputError(f"{at.path}: jobs: expected a list of fio's jobs, got {_told(listed)}")
    return [
        _At(at.path, f"{name}[{number}]", job)
        for number, job in enumerate(listed)
        if job.get("jobname") != "All clients"
    ]


def _latency_kind(direction: _At) -> str:
    lat = direction.child("lat_ns").value
    return "lat_ns" if "bins" in lat or "percentile" in lat else "clat_ns"


def _add(found: Result, job: _At, kind: str) -> None:
    for name in DIRECTIONS:
        direction = job.child(name)
        count = direction.number("total_ios")
        found.ios[name] += count
        found.bytes[name] += direction.number("io_bytes")
        if not count:
            continue
        latency = direction.child(kind)
        longest = latency.number("max")
        found.latency_max_ns = max(found.latency_max_ns or 0, longest)
        if "bins" not in latency.value:
            continue
        bins = latency.child("bins")
        counts = found.bins.setdefault(name, Counter())
        for middle in bins.value:
            if not middle.isdigit() or len(middle) > 18:
                raise InputError(
                    f"{job.path}: {bins.where}: expected nanoseconds as keys, got {_told(middle)}"
                )
            counts[int(middle)] += bins.number(middle)
    if isinstance(job.value.get("sync"), dict):
        found.ios["sync"] += job.child("sync").number("total_ios", 0)
    # Shares of the job's own time, which fio sums over its processes.
    run_ns = job.number("job_runtime", 0) * 1_000_000
    found.cpu_user_ns += round(_share(job, "usr_cpu") * run_ns)
    found.cpu_system_ns += round(_share(job, "sys_cpu") * run_ns)
    found.context_switches += job.number("ctx", 0)
    found.errors += job.number("total_err", 0) or int(job.number("error", 0) != 0)


def _share(job: _At, key: str) -> float:
    job.number(key, 0.0)
    return float(job.value.get(key, 0.0)) / 100


def _take_percentiles(found: Result, jobs: list[_At]) -> None:
    """Of one direction of one job; those of several cannot be put together."""
    moved = [(job, name) for job in jobs for name in DIRECTIONS
             if job.child(name).number("total_ios")]  # fmt: skip
    if len(moved) != 1:
        return
    direction = moved[0][0].child(moved[0][1])
    kind = _latency_kind(direction)
    latency = direction.child(kind)
    told = latency.value.get("percentile")
    if not isinstance(told, dict):
        return
    levels = latency.child("percentile")
    found.latency_from = kind.removesuffix("_ns")
    found.latency_ns = {name: levels.number(key) for name, key in _LEVELS.items() if key in told}
