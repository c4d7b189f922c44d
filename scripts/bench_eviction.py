"""Cache simulation speed beside libCacheSim's (its Python package), in interleaved pairs.

    python scripts/bench_eviction.py [--requests 10000000] [--rounds 3] [--json]

10 M requests, Zipf with skew 1 over 1 M blocks, a tenth of the distinct ones cached. Both sides
have the trace at hand: libCacheSim maps its binary file, vaio-bench has decoded the Parquet file
(timed by itself, as `read`). `one` is one policy at one size on one thread; `grid` five policies at
five sizes on two, decoding included; `curve` the exact LRU curve of all sizes against one LRU
simulation of libCacheSim. The counts of both must be the same. Skipped by name where libcachesim
is not installed (`make oracle`).

    python scripts/bench_eviction.py --shards | --hundred-million | --memory

`--shards`: how far LRU's sampled curves of that trace are off, on average over sizes: the mean of
eight salts, and one salt. `--hundred-million`: peak memory and time of `vaio-bench cache` on 100 M
requests that `synth` makes. `--memory`: bytes of each cached block, by policy, from the peak memory
of caches of eight million blocks and of one. None needs libcachesim.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from benchlib import Goal, report, write_reads

from vaio_bench import _core, catalogue
from vaio_bench.analyses.cache import cache
from vaio_bench.trace import REQUIRED, open_trace

POLICIES = {"lru": "LRU", "fifo": "FIFO", "sieve": "Sieve", "s3-fifo": "S3FIFO", "arc": "ARC"}
GOALS = {"one": 2.5, "grid": 3.0, "curve": 1.0}
SHARES = (0.01, 0.05, 0.1, 0.2, 0.4)
BLOCK = 4096


def make_traces(folder: Path, requests: int) -> tuple[Path, Path, int]:
    """The same requests as Parquet and as libCacheSim's binary; and the distinct blocks."""
    weight = 1 / np.arange(1, 1_000_001)
    below = np.cumsum(weight / weight.sum())
    blocks = np.searchsorted(below, np.random.default_rng(42).random(requests))
    trace, binary = folder / "t.parquet", folder / "t.bin"
    write_reads(trace, np.arange(requests) * 1000, blocks * BLOCK, BLOCK)
    row = np.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
    rows = np.zeros(requests, row)
    rows["time"], rows["id"], rows["size"], rows["next"] = np.arange(requests), blocks + 1, 1, -1
    rows.tofile(binary)
    return trace, binary, len(np.unique(blocks))


def read_ours(trace: Path, threads: int) -> _core.CacheTrace:
    opened = open_trace(trace)
    setting = {
        "block_bytes": BLOCK,
        "is_shared": True,
        "write_policy": "through",
        "warmup_ios": 0,
        "warmup_ns": 0,
        "bucket_ns": opened.duration_ns // 240 + 1,
        "keep_bytes": 1 << 30,
        "threads": threads,
    }
    return _core.CacheTrace(
        lambda: opened.reader(REQUIRED, batch_rows=1 << 17), str(trace), json.dumps(setting)
    )


def ours(engine: _core.CacheTrace, grid: list[tuple[str, int]], requests: int) -> list[int]:
    """Misses of each policy and capacity."""
    jobs = [{"policy": name, "stream": 0, "capacity": size} for name, size in grid]
    return [requests - each["hits"] for each in json.loads(engine.simulate(json.dumps(jobs), 0))]


def peer(lcs: Any, binary: Path, name: str, size: int) -> int:
    reader = lcs.TraceReader(str(binary), lcs.TraceType.ORACLE_GENERAL_TRACE)
    ratio, _ = getattr(lcs, POLICIES[name])(cache_size=size).process_trace(reader)
    return round(ratio * reader.get_num_of_req())


def peer_grid(lcs: Any, binary: Path, grid: list[tuple[str, int]]) -> list[int]:
    """The grid on two threads, for it lets go of Python's lock."""
    found: dict[int, int] = {}
    queue = iter(enumerate(grid))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                at, job = next(queue, (-1, ("", 0)))
            if at < 0:
                return
            found[at] = peer(lcs, binary, *job)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return [found[at] for at in range(len(grid))]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def show_shards(requests: int, *, as_json: bool) -> None:
    """The error of SHARDS at 1 % and at 8,192 blocks."""
    with tempfile.TemporaryDirectory() as folder:
        trace, _, _ = make_traces(Path(folder), requests)
        found = cache(trace, policies=["lru"], sizes=["10%"], curve=True).document["shards"]
    rows, goals = [], []
    for each in found:
        name = f"{each['method']}, {each['rate']:.2%} of the blocks"
        rows += [
            (f"{name}: largest", f"{each['error_max']:.4f}"),
            (f"{name}: error bar", f"{each['error_bar']:.4f}"),
            (f"{name}: mean of one salt", f"{each['error_mean_of_one_salt']:.4f}"),
        ]
        goals.append(Goal(f"{name}: mean error", each["error_mean"], 0.005, ""))
    settings = {"requests": f"{requests:,}", "salts": found[0]["salts"]}
    report("bench_eviction --shards", settings, rows, goals, {"shards": found}, as_json=as_json)


def peak_of(code: str) -> tuple[float, dict[str, Any]]:
    """Peak memory in MiB of a Python process of its own, and the JSON that it prints."""
    # Not ru_maxrss: that begins with the peak of the process that started this one.
    told = "status = open('/proc/self/status').read().split('VmHWM:')[1].split()[0]\n"
    told += "found['peak_kib'] = int(status)"
    done = subprocess.run(
        [sys.executable, "-c", f"import json; {code}\n{told}\nprint(json.dumps(found))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found.pop("peak_kib") / 1024, found


def show_hundred_million(requests: int, *, as_json: bool) -> None:
    """A long trace passes through in bounded memory."""
    spec = (
        f"name = 'long'\nios = {requests}\n[address]\npattern = 'zipf'\nfootprint = '16GiB'\n"
        "[size]\nread = '4KiB'\nwrite = '4KiB'\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "long.toml").write_text(spec)
        trace = f"{folder}/long.parquet"
        code = f"import vaio_bench as vb; vb.synth('{folder}/long.toml', '{trace}'); found = {{}}"
        made_s, (made_mib, _) = timed(lambda: peak_of(code))
        rows = [("synth", f"{made_s:.0f} s, {made_mib:,.0f} MiB at most")]
        for name, more in (("lru, s3-fifo, arc at 10%", ""), ("lru's curve", ", curve=True")):
            policies = "['lru']" if more else "['lru', 's3-fifo', 'arc']"
            call = f"vb.cache('{trace}', policies={policies}, sizes=['10%']{more}).document"
            code = (
                f"import vaio_bench as vb; of = {call}; found = {{'blocks': of['footprint_bytes']}}"
            )
            took_s, (mib, found) = timed(lambda code=code: peak_of(code))
            rows.append((name, f"{took_s:.0f} s, {mib:,.0f} MiB at most"))
    rows.append(("distinct blocks", f"{found['blocks'] // BLOCK:,}"))
    settings = {"requests": f"{requests:,}"}
    report("bench_eviction --hundred-million", settings, rows, [], {}, as_json=as_json)


def show_memory(*, as_json: bool) -> None:
    """Bytes of a cached block, from caches of eight million blocks and of one."""
    blocks = 8_000_000
    rows, figures = [], {}
    with tempfile.TemporaryDirectory() as folder:
        trace = f"{folder}/t.parquet"
        twice = np.tile(np.random.default_rng(1).permutation(blocks), 2)
        write_reads(Path(trace), np.arange(2 * blocks), twice * BLOCK, BLOCK)
        for kind in catalogue.kinds():
            if kind.kind != "eviction" or kind.name == "belady":
                continue
            peaks = []
            for size in (BLOCK, blocks * BLOCK):
                call = f"vb.cache('{trace}', policies=['{kind.name}'], sizes=[{size}], threads=1)"
                peaks.append(peak_of(f"import vaio_bench as vb; {call}; found = {{}}")[0])
            figures[kind.name] = (peaks[1] - peaks[0]) * (1 << 20) / blocks
            rows.append((kind.name, f"{figures[kind.name]:.0f} bytes a cached block"))
    settings = {"cached": f"{blocks:,}"}
    report("bench_eviction --memory", settings, rows, [], figures, as_json=as_json)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=list(GOALS), help="only this part")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--shards", action="store_true", help="only the error of SHARDS")
    parser.add_argument("--hundred-million", action="store_true", help="only a long trace's memory")
    parser.add_argument("--memory", action="store_true", help="only bytes of a cached block")
    args = parser.parse_args()
    if args.shards:
        show_shards(args.requests, as_json=args.json)
    elif args.hundred_million:
        show_hundred_million(100_000_000, as_json=args.json)
    elif args.memory:
        show_memory(as_json=args.json)
    else:
        compare(args)


def compare(args: argparse.Namespace) -> None:
    """Speed beside libCacheSim's."""
    if importlib.util.find_spec("libcachesim") is None:
        print("bench_eviction: skipped: needs libcachesim (make oracle)")
        return
    lcs = importlib.import_module("libcachesim")
    with tempfile.TemporaryDirectory() as folder:
        trace, binary, distinct = make_traces(Path(folder), args.requests)
        read_s, engine = timed(lambda: read_ours(trace, 1))
        tenth = distinct // 10
        ratios: dict[str, list[float]] = {}
        rates: dict[str, list[float]] = {"read": [args.requests / read_s / 1e6]}

        def pair(key: str, mine: Callable[[], Any], theirs: Callable[[], Any], n: int) -> None:
            (own_s, own), (peer_s, other) = timed(mine), timed(theirs)
            if own is not None and own != other:
                raise SystemExit(f"{key}: counts differ: {own} and {other}")
            ratios.setdefault(key, []).append(peer_s / own_s)
            rates.setdefault(key, []).append(n / own_s / 1e6)
            rates.setdefault(f"{key}, libcachesim", []).append(n / peer_s / 1e6)

        plan = json.dumps({"salts": [], "rate": 0.01, "blocks": 8192})
        capacities = [max(1, int(distinct * share)) for share in SHARES]
        grid = [(name, size) for name in POLICIES for size in capacities]
        for _ in range(args.rounds):
            for name in POLICIES if args.only in (None, "one") else ():
                job = [(name, tenth)]
                pair(
                    f"one {name}",
                    lambda job=job: ours(engine, job, args.requests)[0],
                    lambda name=name: peer(lcs, binary, name, tenth),
                    args.requests,
                )
            if args.only in (None, "curve"):
                pair(
                    "curve",
                    lambda: engine.lru_curve(capacities, plan) and None,
                    lambda: peer(lcs, binary, "lru", tenth),
                    args.requests,
                )
            if args.only in (None, "grid"):
                pair(
                    "grid",
                    lambda: ours(read_ours(trace, 2), grid, args.requests),
                    lambda: peer_grid(lcs, binary, grid),
                    args.requests * len(grid),
                )
    goals = [
        Goal(f"{key}: times libcachesim", statistics.median(of), GOALS[key.split()[0]], "x", True)
        for key, of in ratios.items()
    ]
    rows = [(key, f"{statistics.median(of):.1f} M requests/s") for key, of in rates.items()]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    rows.append(("peak memory, both", f"{peak:,} MiB"))
    settings = {"requests": f"{args.requests:,}", "cached": tenth, "rounds": args.rounds}
    report("bench_eviction", settings, rows, goals, rates, as_json=args.json)


main()
