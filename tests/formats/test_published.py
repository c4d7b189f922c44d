"""The other formats on the real traces at hand: counts as their sources state them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from vaio_bench import import_trace

# Reads, writes, disks, seconds; None where the source does not say.
CASES = {
    "own/fio_mix.iolog.zst": ("fio-iolog", 29_797, 13_694, 1, 15.0),
    "public/cloudPhysicsIO.vscsi": ("vscsi", 46_974, 66_898, 1, 7_200.0),
    "public/msr-cambridge1-sample.csv": ("msr", 508, 492, 1, 127.2),
    "public/systor17-traces-sample.csv.gz": ("systor17", 826, 173, 1, None),
    "public/tencent_cbs-sample.csv.bz2": ("tencent", 24_521, 25_479, 2_038, 1.0),
    "public/mqsim-tpcc-small.trace": ("mqsim", 4_381, 2_618, None, None),
}


@pytest.mark.parametrize("name", CASES)
def test_counts(traces_dir: Path, tmp_path: Path, name: str) -> None:
    format_, reads, writes, disks, seconds = CASES[name]
    source = traces_dir / name
    if not source.exists():
        pytest.skip(f"requires {name}")
    imported = import_trace(source, tmp_path / "t.parquet")
    rows = pl.read_parquet(tmp_path / "t.parquet")
    ops = rows["op"].cast(pl.String)
    assert imported.format == format_
    assert ((ops == "read").sum(), (ops == "write").sum()) == (reads, writes)
    assert imported.ios == reads + writes
    assert rows["time_ns"].is_sorted()
    assert disks is None or rows["disk"].n_unique() == disks
    assert seconds is None or imported.duration_s == pytest.approx(seconds, rel=0.03)


def test_block_requests_of_cloudphysics(traces_dir: Path, tmp_path: Path) -> None:
    source = traces_dir / "public" / "cloudPhysicsIO.vscsi"
    if not source.exists():
        pytest.skip(f"requires {source.name}")
    import_trace(source, tmp_path / "t.parquet")
    rows = pl.read_parquet(tmp_path / "t.parquet")
    first = rows["offset_bytes"] // 4096
    last = (rows["offset_bytes"] + rows["length_bytes"] - 1) // 4096
    blocks = last - first + 1
    is_read = rows["op"].cast(pl.String) == "read"
    assert blocks.sum() == 1_141_869
    assert (blocks.filter(is_read).sum(), blocks.filter(~is_read).sum()) == (485_700, 656_169)
