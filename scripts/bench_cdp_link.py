"""How much of a line `cdp` uses: a real site over TCP and TLS on loopback, on the wall clock.

    python scripts/bench_cdp_link.py [--rounds 3] [--seconds 4] [--store DIR] [--json]

`cdp` over memory is written to as fast as it lets the guest (64 KiB at a time, held back while the
journal is full), so that the link always has more to send. The rate is that at which restore points
became recoverable: what is durable at the site. Three lines, in turns with their peers:

- shaped to 1 Gbit/s, with the store in memory (`--memory`), so that the line is what limits.
  Goal: 0.95 of the line.
- unshaped, with the store on disk. Goal: 0.8 of the lesser of two peers, both measured in the same
  turns: a plain copy from process to process through the same TLS library, with the same cipher
  and keys (`cdp_peers`), and fio's sequential write of the store's disk, 4 MiB at a time, each made
  durable, as the site does with what it takes in between two confirmations.
- unshaped, with the store in memory: what processors allow. No goal, but a row: the guest's data
  are made and copied, encrypted, decrypted, hashed twice and written, by three busy threads (the
  worker, its link, the site), where the plain copy has two of which each has a processor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
from benchlib import Goal, cdp_peers, need_fio, report, run_peer, spread, write_ios

from vaio_bench import spec
from vaio_bench.errors import VaioBenchError
from vaio_bench.runner import Settings, execute
from vaio_bench.store import open_run

LENGTH_BYTES = 64 << 10
TURN_BYTES = 4 << 20
LINE_BYTES_PER_S = 125e6
# Writes of a second at most: more than any line here takes, and what one is first taken to take.
PER_S = 16_000
FIRST_PER_S = 4_000


@contextmanager
def site(store: Path, key: Path) -> Iterator[str]:
    """The address of a site in a process of its own."""
    code = "from vaio_bench.cli import main; main()"
    command = [sys.executable, "-c", code, "site", "--listen", "127.0.0.1:0"]
    command += ["--store", str(store), "--key", f"file:{key}"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stderr
        first = process.stderr.readline()
        if "listening on" not in first:
            raise SystemExit(f"bench_cdp_link: {first.strip()}")
        yield first.rsplit(" ", 1)[1].strip()
    finally:
        process.terminate()
        process.wait()


def replicate(
    trace: Path, folder: Path, stores: Path, key: Path, bandwidth: str, ios: int
) -> float:
    """Bytes a second that became recoverable, of so many writes of the trace."""
    with tempfile.TemporaryDirectory(dir=stores) as store, site(Path(store), key) as address:
        text = f"""[policy]
name = "cdp"
[[filter]]
use = "cdp"
rpo = "400ms"
link = {{ bandwidth = "{bandwidth}", site = "{address}", key = "file:{key}" }}
journal = {{ memory = "128MiB", spill = "0B" }}
degrade = "spill-backpressure-bitmap"
backpressure = "60s"
initial_sync = "never"
retention = "1s"
"""
        settings = Settings(pace="asap", backend="mem", verify=False, limit=ios)
        policy = spec.parse_policy(text, "cdp.toml")
        run = open_run(execute(trace, [policy], 1, settings, None, folder / "run", force=True))
    events = run.events().filter(pl.col("kind") == "restore_point")["detail"]
    points = [json.loads(detail) for detail in events]
    if len(points) < 4:
        raise SystemExit("bench_cdp_link: too few restore points; let it take longer (--seconds)")
    # The first fills the pipe, the last is cut when nothing more is written.
    first, rest = points[0], points[1:-1]
    took_ns = rest[-1]["recoverable_ns"] - first["recoverable_ns"]
    return float(sum(point["bytes"] for point in rest) / took_ns * 1e9)


def tls_copy(peers: Path, key: Path, seconds: float) -> float:
    """Bytes a second of a plain copy through the TLS library."""
    command = [str(peers), "receive", str(key)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout
        address = receiver.stdout.readline().strip()
        sent, took_ns = run_peer(peers, "send", address, str(key), str(seconds)).split()
    return int(sent) / int(took_ns) * 1e9


def disk_write(stores: Path, seconds: float) -> float:
    """Bytes a second of fio's sequential write, made durable every 4 MiB."""
    with tempfile.TemporaryDirectory(dir=stores) as folder:
        command = ["fio", "--name=peer", f"--directory={folder}", "--rw=write", "--ioengine=psync"]
        command += [f"--bs={TURN_BYTES}", "--fdatasync=1", "--fallocate=none", "--size=8g"]
        command += [f"--runtime={seconds}", "--time_based", "--output-format=json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"fio failed: {done.stderr.strip()}")
        document = json.loads(done.stdout[done.stdout.index("{") :])
    return float(document["jobs"][0]["write"]["bw_bytes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--store", type=Path, help="a folder on the disk of the store")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="a folder in memory")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    need_fio("bench_cdp_link")
    peers = cdp_peers("bench_cdp_link")
    rates: dict[str, list[float]] = {
        name: [] for name in ("shaped", "unshaped", "in memory", "TLS copy", "disk")
    }
    with tempfile.TemporaryDirectory(dir=args.store) as name:
        folder = Path(name)
        key = folder / "key"
        key.write_text("a key for as long as this bench")
        trace = folder / "writes.parquet"
        blocks = np.random.default_rng(1).integers(0, 1024, int(args.seconds * PER_S))
        write_ios(trace, np.arange(len(blocks)), blocks * LENGTH_BYTES, LENGTH_BYTES, "write")
        # As many writes as the line took in the round before.
        per_s = {"shaped": LINE_BYTES_PER_S / LENGTH_BYTES}
        try:
            for _ in range(args.rounds):
                for line, (bandwidth, stores) in {
                    "shaped": ("1Gbit/s", args.memory),
                    "unshaped": ("1000Gbit/s", folder),
                    "in memory": ("1000Gbit/s", args.memory),
                }.items():
                    ios = int(args.seconds * min(per_s.get(line, FIRST_PER_S), PER_S))
                    rate = replicate(trace, folder, stores, key, bandwidth, ios)
                    rates[line].append(rate)
                    if line != "shaped":
                        per_s[line] = rate / LENGTH_BYTES
                rates["TLS copy"].append(tls_copy(peers, key, args.seconds / 2))
                rates["disk"].append(disk_write(folder, args.seconds))
        except VaioBenchError as error:
            raise SystemExit(f"bench_cdp_link: {error}") from None
    shares = [rate / LINE_BYTES_PER_S for rate in rates["shaped"]]
    lesser = [min(pair) for pair in zip(rates["TLS copy"], rates["disk"], strict=True)]
    unshaped = [a / b for a, b in zip(rates["unshaped"], lesser, strict=True)]
    copied = [a / b for a, b in zip(rates["in memory"], rates["TLS copy"], strict=True)]
    rows = [(f"{line}, MB/s", spread([rate / 1e6 for rate in of])) for line, of in rates.items()]
    rows.append(("in memory, share of the TLS copy", f"{statistics.median(copied):.2f}"))
    goals = [
        Goal("1 Gbit/s, share used", statistics.median(shares), 0.95, "", at_least=True),
        Goal("unshaped, share of the lesser", statistics.median(unshaped), 0.8, "", at_least=True),
    ]
    settings = {"rounds": args.rounds, "seconds": args.seconds}
    report("bench_cdp_link", settings, rows, goals, {"bytes_per_s": rates}, as_json=args.json)


if __name__ == "__main__":
    main()
