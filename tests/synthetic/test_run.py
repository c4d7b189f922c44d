"""The verb: a file that is whole or not there, the same for the same seed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import vaio_bench as vb
from vaio_bench.synthetic import run


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in ("a", "b", "c"))
    for preset in ("mixed", "vdi"):
        vb.synth(preset, a, ios=5000, seed=5, force=True)
        vb.synth(preset, b, ios=5000, seed=5, force=True)
        vb.synth(preset, c, ios=5000, seed=6, force=True)
        assert a.read_bytes() == b.read_bytes()
        assert a.read_bytes() != c.read_bytes()


def test_the_file_is_a_canonical_trace(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    result = vb.synth("vdi", out, duration="2s", seed=11)
    found = pq.ParquetFile(out)
    assert found.schema_arrow.names == [
        "time_ns", "disk", "op", "offset_bytes", "length_bytes", "latency_ns", "flags", "stream",
        "content",
    ]  # fmt: skip
    stored = json.loads(found.metadata.metadata[b"vaio_bench"])
    assert stored["source_format"] == "synth"
    assert stored["seed"] == stored["spec"]["seed"] == 11
    # The stored spec makes the same file.
    again = tmp_path / "again.parquet"
    vb.synth(stored["spec"], again)
    assert again.read_bytes() == out.read_bytes()
    table = found.read(columns=["op", "length_bytes"]).to_pylist()
    assert result.ios == len(table)
    assert result.write_bytes == sum(r["length_bytes"] for r in table if r["op"] == "write")
    profile = vb.info(out)
    assert (profile["ios"], profile["write_bytes"]) == (result.ios, result.write_bytes)


def test_row_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "t.parquet"
    vb.synth("random-read-4k", out, ios=1_100_000)
    found = pq.ParquetFile(out).metadata
    assert [found.row_group(i).num_rows for i in range(found.num_row_groups)] == [
        1 << 20,
        1_100_000 - (1 << 20),
    ]
    monkeypatch.setattr(run, "_ROW_GROUP_BYTES", 1 << 20)
    vb.synth("vdi", out, ios=20_000, force=True)
    assert pq.ParquetFile(out).metadata.num_row_groups > 1


def test_an_empty_trace(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    result = vb.synth("oltp", out, ios=0)
    assert (result.ios, pq.ParquetFile(out).metadata.num_rows) == (0, 0)
    assert vb.info(out)["description"].startswith("An empty trace")


def test_nothing_is_overwritten_or_left_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "t.parquet"
    out.write_text("mine")
    with pytest.raises(vb.InputError, match="the file exists"):
        vb.synth("oltp", out, ios=10)

    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_batch", fails)
    with pytest.raises(vb.WorkError, match=r"t\.parquet: .*No space left on device"):
        vb.synth("oltp", out, ios=10, force=True)
    assert out.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [out]


def test_the_recipe_of_the_cache_comparisons(tmp_path: Path) -> None:
    """Zipf 1.0 over 1 M blocks: as many distinct blocks as the law expects, here of 1 M draws."""
    out = tmp_path / "t.parquet"
    vb.synth("zipf-1m", out, ios=1_000_000)
    profile = vb.info(out)
    # Sum over k of 1 - (1 - p_k)^draws, and the deviation bounded by that of independent blocks.
    import numpy as np

    p = 1 / np.arange(1, 1_000_001)
    missed = (1 - p / p.sum()) ** 1_000_000
    deviation = np.sqrt((missed * (1 - missed)).sum())
    assert abs(profile["unique_blocks"] - (1 - missed).sum()) < 5 * deviation


class TestCommand:
    def test_list_show_and_make(self, cli: Callable[..., Any], tmp_path: Path) -> None:
        listed = cli("synth", "--list")
        assert "oltp" in listed.stdout
        presets = cli("synth", "--list", "--json").document["presets"]
        assert {"name", "description"} == set(presets[0])
        shown = cli("synth", "oltp", "--show")
        (tmp_path / "own.toml").write_text(shown.stdout)
        made = cli("synth", "own.toml", "-o", "t.parquet", "--ios", "500", "--json")
        assert made.exit_status == 0
        assert made.document["ios"] == 500
        assert cli("info", "t.parquet", "--json").document["ios"] == 500

    def test_mistakes(self, cli: Callable[..., Any]) -> None:
        for args, message in (
            (["oltp"], "expected -o FILE"),
            ([], "expected a preset or a spec file"),
            (["oltp", "-o", "t", "--footprint", "lots"], "--footprint: expected a size such as"),
            (["oltp", "-o", "t", "--rate", "0"], "oltp: arrival.rate: expected a number above 0"),
            (["oltp", "-o", "none/t", "--ios", "1"], "none/t: "),
        ):
            ended = cli("synth", *args)
            assert ended.exit_status == 2, ended
            assert message in ended.stderr
            assert ended.stderr.count("\n") == 1
