#!/usr/bin/env python3
"""AES-256-XTS of this project against ``openssl speed``, in turns, as ratios.

At 4096-byte units both encrypt 4096 bytes a call. At 512-byte units ``openssl speed`` makes one
EVP call a unit, which is all that interface offers; ours gets the unit alone, and eight units in
one call as a 4 KiB I/O brings them.

Goals: 0.9 of openssl at 4096-byte units, 1.0 at 512-byte units. Exit status 1 below them.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# (unit_bytes, call_bytes, goal as a ratio to openssl at blocks of unit_bytes)
CASES = [(4096, 4096, 0.9), (512, 512, None), (512, 4096, 1.0)]


def ours(unit_bytes: int, call_bytes: int, seconds: float) -> tuple[float, str]:
    """Bytes per second of our code and the name of the code that ran."""
    program = ROOT / "target/release/examples/xts_speed"
    out = subprocess.run(
        [program, str(unit_bytes), str(call_bytes), str(seconds)],
        check=True,
        capture_output=True,
        text=True,
    )
    result = json.loads(out.stdout)
    return float(result["bytes_per_s"]), str(result["backend"])


def openssl(block_bytes: int, seconds: float) -> float:
    """Bytes per second of one EVP call a block, as openssl reports it."""
    whole_seconds = max(1, round(seconds))
    command = f"openssl speed -elapsed -seconds {whole_seconds} -bytes {block_bytes}"
    out = subprocess.run(
        [*command.split(), "-evp", "aes-256-xts"], check=True, capture_output=True, text=True
    )
    found = re.search(r"^AES-256-XTS\s+([\d.]+)k", out.stdout, re.MULTILINE | re.IGNORECASE)
    if found is None:
        raise SystemExit(f"no rate in the output of openssl speed:\n{out.stdout}")
    return float(found[1]) * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    build = "cargo build --release --quiet -p vaio-bench-core --example xts_speed"
    subprocess.run(build.split(), cwd=ROOT, check=True)
    missed = False
    for unit_bytes, call_bytes, goal in CASES:
        ratios, rates, backend = [], [], ""
        for _ in range(args.rounds):
            peer = openssl(unit_bytes, args.seconds)
            rate, backend = ours(unit_bytes, call_bytes, args.seconds)
            rates.append((rate, peer))
            ratios.append(rate / peer)
        ratio = statistics.median(ratios)
        rate, peer = (statistics.median(column) for column in zip(*rates, strict=True))
        verdict = "" if goal is None else f" (goal {goal}: {'met' if ratio >= goal else 'MISSED'})"
        missed |= goal is not None and ratio < goal
        print(
            f"unit {unit_bytes}, call {call_bytes}: {rate / 1e9:.2f} GB/s ({backend}), "
            f"openssl {peer / 1e9:.2f} GB/s, ratio {ratio:.2f} "
            f"[{min(ratios):.2f}, {max(ratios):.2f}]{verdict}"
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
