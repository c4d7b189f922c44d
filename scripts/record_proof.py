"""Records the rounds that tests/comparing/test_proof.py resamples, on this machine.

    .venv/bin/python scripts/record_proof.py TARGET tests/golden

`same-file.parquet`: five times the direct path on TARGET, a new file (O_DIRECT, 4 KiB reads, one at
a time), interleaved: what a machine does to rounds of equal cost. `known-truth.parquet`: a modelled
device of 50 us (spun), the same under another name, and devices 1, 5 and 20 us slower.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import vaio_bench
from vaio_bench import comparing
from vaio_bench.analyses.rounds import round_figures
from vaio_bench.runner import Settings

WORKLOAD = {
    "ios": 1000,
    "seed": 1,
    "address": {"footprint": "64MiB"},
    "mix": {"read": 1.0},
}
DELAYS_US = {"device": 50, "twin": 50, "plus1": 51, "plus5": 55, "plus20": 70}


def device(folder: Path, name: str, delay_us: int) -> Path:
    """A policy that is a device of its own: a spun delay over the null backend."""
    path = folder / f"{name}.toml"
    path.write_text(f'[[filter]]\nuse = "delay"\nread = "{delay_us}us"\nspin = true\n')
    return path


def empty(folder: Path, name: str) -> Path:
    """A policy without filters."""
    path = folder / f"{name}.toml"
    path.write_text(f'[policy]\nname = "{name}"\n')
    return path


def keep(run: Path, out: Path) -> None:
    """Stores the median of each round."""
    figures = round_figures(vaio_bench.open_run(run)).select("policy", "round", "latency_p50_ns")
    figures.write_parquet(out, compression="zstd")
    print(f"{out}: {figures.height} rounds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path, help="a file to make on the device")
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trace = folder / "t.parquet"
        vaio_bench.synth(WORKLOAD, trace)
        comparing.compare(
            trace,
            policies=[empty(folder, f"empty{i}") for i in range(3)],
            out=folder / "same",
            target=given.target,
            rounds=given.rounds,
            settings=Settings(pace="asap", depth=1),
        )
        keep(folder / "same", given.out / "same-file.parquet")
        files = {name: device(folder, name, us) for name, us in DELAYS_US.items()}
        comparing.compare(
            trace,
            baseline=files.pop("device"),
            policies=list(files.values()),
            out=folder / "truth",
            rounds=given.rounds,
            settings=Settings(pace="asap", depth=1, backend="null"),
        )
        keep(folder / "truth", given.out / "known-truth.parquet")


if __name__ == "__main__":
    main()
