"""Makes small run folders that keep the contract: for tests of what reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vaio_bench import schemas
from vaio_bench.store import part_folder


@dataclass
class Policy:
    """What a simulated policy does to an I/O: adds time per layer, or answers from a cache."""

    layers: list[str] = field(default_factory=lambda: ["uring"])
    added_ns: int = 0
    cpu_ns: int = 0
    hit_share: float = 0.0
    round_factor: dict[int, float] = field(default_factory=dict)


POLICIES = {
    "direct": Policy(),
    "direct-again": Policy(),
    "crypt": Policy(["crypt", "uring"], added_ns=12_000, cpu_ns=9_000),
    "cache": Policy(["cache", "uring"], added_ns=1_500, cpu_ns=800, hit_share=0.6),
}


def rows(
    name: str,
    policy: Policy,
    round_: int,
    *,
    disks: tuple[str, ...],
    ios: int,
    rng: np.random.Generator,
    arrivals: np.random.Generator,
    pace: str,
) -> pa.Table:
    """The rows of one round, in order of completion."""
    due = np.cumsum(arrivals.exponential(200_000, ios)).astype(np.int64)
    due -= due[0]
    reads = arrivals.random(ios) < 0.7
    blocks_of = arrivals.choice([1, 2, 16], ios, p=[0.7, 0.2, 0.1])
    offset = arrivals.integers(0, 1 << 18, ios) * 4096
    disk = arrivals.integers(0, len(disks), ios)
    factor = policy.round_factor.get(round_, 1.0)
    device = (rng.lognormal(np.log(80_000), 0.35, ios) * factor).astype(np.int64)
    added = (rng.gamma(20, max(policy.added_ns, 1) / 20, ios) * factor).astype(np.int64)
    hit = (rng.random(ios) < policy.hit_share) & reads
    if policy.added_ns == 0:
        added[:] = 0
    device[hit] = 0
    late = rng.exponential(2_000, ios).astype(np.int64) if pace == "recorded" else 0
    submit = due + late
    if pace == "asap":
        due = submit
    order = np.argsort(submit + device + added, kind="stable")
    layered = [device] if len(policy.layers) == 1 else [added, device]
    cpu = [np.full(ios, policy.cpu_ns)] * (len(policy.layers) - 1) + [np.full(ios, 700)]
    columns = {
        "policy": np.full(ios, name),
        "round": np.full(ios, round_),
        "disk": np.array(disks)[disk],
        "seq": np.arange(ios),
        "op": np.where(reads, "read", "write"),
        "trace_offset_bytes": offset,
        "offset_bytes": offset,
        "length_bytes": blocks_of * 4096,
        "due_ns": due,
        "submit_ns": submit,
        "complete_ns": submit + device + added,
        "status": np.zeros(ios),
        "flags": np.where(hit, int(schemas.IoFlag.HIT), 0),
        "blocks": blocks_of if policy.hit_share else np.zeros(ios),
        "hit_blocks": np.where(hit, blocks_of, 0),
        "harness_ns": rng.integers(100, 300, ios),
    }
    arrays = {key: values[order] for key, values in columns.items()}
    arrays["self_ns"] = list(np.stack(layered, axis=1)[order])
    arrays["cpu_ns"] = list(np.stack(cpu, axis=1)[order])
    return pa.table({f.name: pa.array(arrays[f.name]) for f in schemas.IOS}).cast(schemas.IOS)


def write_round(run: Path, name: str, round_: int, table: pa.Table, parts: int = 3) -> None:
    """Store the rows of one round as `parts` parts."""
    folder = part_folder(run, name, round_)
    folder.mkdir(parents=True, exist_ok=True)
    cut = np.linspace(0, table.num_rows, parts + 1).astype(int)
    for number in range(parts):
        part = table.slice(cut[number], cut[number + 1] - cut[number])
        pq.write_table(part, folder / f"part-{number}.parquet", compression="zstd")


def totals(table: pa.Table, cpu_ns_per_io: float) -> dict[str, object]:
    ios = table.num_rows
    return {
        "ios": ios,
        "errors": 0,
        "bytes": int(np.sum(table["length_bytes"].to_numpy())),
        "wall_s": int(np.max(table["complete_ns"].to_numpy())) / 1e9,
        "cpu_user_ns": int(ios * cpu_ns_per_io * 0.6),
        "cpu_system_ns": int(ios * cpu_ns_per_io * 0.4),
        "context_switches": ios,
        "verified_bytes": 0,
        "unverified_bytes": 0,
        "mismatches": 0,
        "lateness": {},
    }


def manifest(policies: dict[str, Policy], **changes: object) -> dict[str, object]:
    return {
        "schema_version": schemas.RUN_SCHEMA_VERSION,
        "tool_version": "0.1.0",
        "created": "2026-11-23T10:00:00+00:00",
        "exit": "ok",
        "trace": {
            "path": "traces/oltp-8s.parquet",
            "sha256": "5f1d" * 16,
            "ios": 86_590,
            "duration_s": 8.0,
            "source_format": "blktrace",
        },
        "policies": {
            name: {
                "filters": [{"use": layer} for layer in of.layers[:-1]],
                "layers": of.layers,
                "description": "",
            }
            for name, of in policies.items()
        },
        "seed": 7,
        "clock": "wall",
        "backend": {"requested": "uring", "used": "uring", "why": "the kernel allows it"},
        "pacing": {
            "mode": "recorded",
            "speed": 1.0,
            "depth": None,
            "inflight": 256,
            "spin_ns": 100_000,
        },
        "rounds": 5,
        "order": [],
        "target": {
            "path": "target.img",
            "direct": True,
            "alignment": 512,
            "size_bytes": 1 << 30,
            "filesystem": "ext4",
        },
        "fit_to": None,
        "harness": {"null_ns_per_io": 120.0, "pass_ns_per_io": 22.0, "clock_ns": 10.0},
        "environment": {
            "cpu": "AMD EPYC 9R14",
            "cores": 2,
            "kernel": "6.1.0",
            "governor": None,
            "virtualised": "kvm",
            "memory_bytes": 25_000_000_000,
            "python": "3.11.2",
        },
        "warnings": [
            {"code": "virtualised", "text": "the machine is virtual: neighbours may disturb it"}
        ],
        "totals": {},
        "verify": False,
        **changes,
    }


def make_run(
    path: Path,
    *,
    policies: dict[str, Policy] | None = None,
    rounds: int = 5,
    disks: tuple[str, ...] = ("disk0",),
    ios: int = 3_000,
    parts: int = 3,
    seed: int = 1,
    pace: str = "recorded",
    **changes: object,
) -> Path:
    """Write a run folder at `path`; `changes` replace keys of its manifest."""
    policies = POLICIES if policies is None else policies
    path.mkdir(parents=True)
    written = manifest(policies, rounds=rounds, **changes)
    if pace != "recorded":
        written["pacing"] = {"mode": pace, "speed": 1.0, "depth": 32, "inflight": 32, "spin_ns": 0}
    rng = np.random.default_rng(seed)
    for round_ in range(rounds):
        for name in rng.permutation(list(policies)):
            arrivals = np.random.default_rng(seed)  # the same trace each time
            table = rows(
                str(name),
                policies[name],
                round_,
                disks=disks,
                ios=ios,
                rng=rng,
                arrivals=arrivals,
                pace=pace,
            )
            write_round(path, str(name), round_, table, parts)
            written["order"].append([str(name), round_])
            cpu_ns = (15_000 + policies[name].cpu_ns) * rng.normal(1.0, 0.01)
            of_policy = written["totals"].setdefault(str(name), {})
            of_policy[str(round_)] = totals(table, cpu_ns)
    (path / "manifest.json").write_text(json.dumps(written, indent=1))
    return path


def rpo_plan() -> dict[str, object]:
    """What `rpo --json` prints: CDP in target most of the time, snapshots far out of it."""
    bandwidth = {"100": 163e6, "99.9": 131e6, "99": 112e6, "95": 88e6, "90": 71e6}
    misses = [{"start_s": 11.0 + 3 * i, "end_s": 11.6 + 3 * i} for i in range(8)]
    return {
        "link": {"bandwidth_bps": 100e6, "rtt_s": 0.02},
        "target_s": 5.0,
        "modes": [
            {
                "mode": "cdp",
                "point_interval_s": 2.5,
                "rpo_s": {"p50": 1.9, "p95": 3.4, "p99": 6.1, "max": 9.2},
                "exposure_s": {"p50": 1.1, "p95": 3.0, "p99": 5.5, "max": 8.8},
                "met_time": 0.987,
                "met_sessions": 0.971,
                "no_restore_point_time": 0.0,
                "violations": misses,
                "bandwidth_for_target_bps": bandwidth,
                "backlog_bytes_max": 91_000_000,
                "sent_bytes": 1_900_000_000,
                "written_bytes": 2_385_092_608,
                "series": {
                    "time_s": [i / 100 for i in range(4_500)],
                    "rpo_s": [i % 250 / 100 for i in range(4_500)],
                },
            },
            {
                "mode": "cdp",
                "point_interval_s": 0,
                "rpo_s": {"p50": 0.011, "p95": 0.4, "p99": 2.2, "max": 4.1},
                "exposure_s": {"p50": 0.01, "p95": 0.4, "p99": 2.2, "max": 4.1},
                "met_time": 1.0,
                "met_sessions": None,
                "no_restore_point_time": 0.0,
                "violations": [],
                "bandwidth_for_target_bps": dict.fromkeys(bandwidth, 83e6),
                "backlog_bytes_max": 42_000_000,
                "sent_bytes": 2_385_092_608,
                "written_bytes": 2_385_092_608,
            },
            {
                "mode": "snapshot",
                "every_s": 900.0,
                "rpo_s": {"p50": 480.0, "p95": 940.0, "p99": 1010.0, "max": 1043.0},
                "exposure_s": {"p50": 470.0, "p95": 930.0, "p99": 1000.0, "max": 1040.0},
                "met_time": 0.0055,
                "met_sessions": 0.0,
                "no_restore_point_time": 0.0,
                "violations": [{"start_s": 5.0, "end_s": 45.0}],
                "bandwidth_for_target_bps": dict.fromkeys(bandwidth),
                "backlog_bytes_max": 1_300_000_000,
                "sent_bytes": 1_300_000_000,
                "written_bytes": 2_385_092_608,
            },
        ],
    }


def write_result(run: Path, verb: str, document: dict[str, object]) -> None:
    (run / "results").mkdir(exist_ok=True)
    (run / "results" / f"{verb}.json").write_text(json.dumps(document))
