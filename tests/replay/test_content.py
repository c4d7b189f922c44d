"""Where a trace names the contents of its blocks, what is written holds them, on every disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from replay_kit import Raw, filters, policy_file, rows_of

import vaio_bench as vb
from vaio_bench.store import Run

BLOCK = 4096
# Four virtual desktops, cloned from an image and at work on like files.
VDI = """
name = "vdi"
seed = 5
ios = {ios}
disks = 4
[address]
pattern = "hotset"
footprint = "2MiB"
[mix]
read = 0.6
flush = 0.02
[size]
read = [{{ size = "4KiB" }}, {{ size = "32KiB" }}]
write = "8KiB"
[content]
shared = {shared}
pool = "1MiB"
"""


def vdi(folder: Path, shared: float = 0.6, ios: int = 3000) -> Path:
    spec = folder / "vdi.toml"
    spec.write_text(VDI.format(ios=ios, shared=shared))
    vb.synth(spec, folder / "vdi.parquet", force=True)
    return folder / "vdi.parquet"


def last_of(run: Run, gauge: str) -> int:
    """The sum over the disks of the last value of a gauge."""
    told = run.gauges("chain", 0).filter(pl.col("gauge").cast(pl.String) == gauge)
    last = told.sort("time_ns", maintain_order=True).group_by(pl.col("disk").cast(pl.String)).last()
    return int(last.collect()["value"].sum())


def cached(
    engine: Callable[..., Any], folder: Path, trace: Path, keys: dict[str, Any], **settings: Any
) -> Run:
    policy = policy_file(folder, filters({"use": "cache", "capacity": "1MiB", **keys}))
    settings = {"backend": "sim", "pace": "asap", "depth": 1, "verify": True, **settings}
    done = engine(trace, policy=policy, **settings)
    assert (done.found["errors"], done.found["verified"]) == (0, True)
    return done.run


@pytest.mark.parametrize("eviction", ["lru", "arc", "s3-fifo", "random"])
@pytest.mark.parametrize("scope", ["disk", "group"])
def test_shared_contents_hit_as_simulated(
    engine: Callable[..., Any], tmp_path: Path, eviction: str, scope: str
) -> None:
    trace = vdi(tmp_path)
    keys = {"eviction": eviction, "scope": scope}
    run = cached(engine, tmp_path, trace, {**keys, "dedup": Raw("true")})
    study = vb.cache(
        trace, policies=[eviction], sizes=["1MiB"], dedup=True, shared=scope == "group"
    )
    content = study.results[0]["content"]
    rows = rows_of(run, "chain")
    reads = rows.filter(pl.col("op") == "read")
    assert rows["blocks"].sum() == content["requests"]
    assert rows["hit_blocks"].sum() == content["hits"]
    assert reads["hit_blocks"].sum() == content["read_hits"]
    assert last_of(run, "logical_bytes") == content["logical_bytes"]
    assert last_of(run, "shared_blocks") == content["shared_blocks"]
    plain = rows_of(cached(engine, tmp_path, trace, keys), "chain")
    assert plain["hit_blocks"].sum() == study.results[0]["hits"]
    if scope == "group":
        # Only where disks share copies does the cache stand for more than it holds.
        assert content["logical_bytes"] > content["physical_bytes"]
        assert content["hits"] > study.results[0]["hits"]


def test_a_replica_of_contents_is_recovered_and_not_compared(
    tmp_path: Path, cli: Callable[..., Any]
) -> None:
    (tmp_path / "one.toml").write_text(VDI.format(ios=300, shared=0.6).replace("disks = 4", ""))
    vb.synth(tmp_path / "one.toml", tmp_path / "one.parquet")
    use = {"use": "cdp", "rpo": "400ms", "link": Raw('{ bandwidth = "400Mbit/s" }')}
    vb.replay(
        tmp_path / "one.parquet", out=tmp_path / "run", target=tmp_path / "disk.img",
        policy=policy_file(tmp_path, filters(use)),
        settings=vb.Settings(backend="psync", pace="asap"),
    )  # fmt: skip
    store, image = tmp_path / "run" / "replica" / "chain" / "0" / "store", tmp_path / "x.img"
    told = cli("recover", "--store", store, "--run", tmp_path / "run", "--latest", "-o", image)
    assert told.exit_status == 0, told.stderr
    assert "(RTO)\nnot compared with the source: its data follow the contents" in told.stdout
    assert image.read_bytes() == (tmp_path / "disk.img").read_bytes()


def test_without_contents_nothing_is_shared(engine: Callable[..., Any], tmp_path: Path) -> None:
    keys = {"scope": "group", "dedup": Raw("true")}
    trace = vdi(tmp_path)
    ignored = cached(engine, tmp_path, trace, keys, content=False)
    assert last_of(ignored, "shared_blocks") == 0
    assert ignored.manifest["data"]["contents"] == 0
    honoured = cached(engine, tmp_path, trace, keys)
    assert honoured.manifest["data"]["contents"] > 256
    private = vdi(tmp_path, shared=0.0)
    assert last_of(cached(engine, tmp_path, private, keys), "shared_blocks") == 0


@pytest.mark.parametrize("settings", [{"fit_to_bytes": 2 << 20}, {"depth": 32}])
def test_every_read_is_proved(
    engine: Callable[..., Any], tmp_path: Path, settings: dict[str, Any]
) -> None:
    trace = vdi(tmp_path)
    keys = {"scope": "group", "dedup": Raw("true")}
    target = tmp_path / "disks"
    on_files = {"backend": "psync", "clock": "wall", "target": target, **settings}
    run = cached(engine, tmp_path, trace, keys, **on_files)
    totals = run.totals("chain", 0)
    assert totals["unverified_bytes"] == 0
    assert totals["verified_bytes"] > 10 << 20


def test_disks_hold_the_same_blocks(engine: Callable[..., Any], tmp_path: Path) -> None:
    trace = vdi(tmp_path, ios=400)
    target = tmp_path / "disks"
    settings = {"backend": "psync", "clock": "wall", "pace": "asap", "depth": 1, "verify": True}
    engine(trace, target=target, **settings)
    images = sorted(target.glob("*.img"))
    whole = b"".join(image.read_bytes() for image in images)
    blocks = [whole[at : at + BLOCK] for at in range(0, len(whole), BLOCK)]
    written = [block for block in blocks if any(block)]
    assert len(images) == 4
    assert len(set(written)) < 0.75 * len(written)


def test_what_a_simulation_by_content_needs_is_said(tmp_path: Path) -> None:
    trace = vdi(tmp_path, ios=100)
    plain = tmp_path / "plain.csv"
    plain.write_text("time_ns,op,offset_bytes,length_bytes\n0,read,0,4096\n")
    vb.import_trace(plain, tmp_path / "plain.parquet")
    for source, options, message in (
        (tmp_path / "plain.parquet", {}, "does not name its contents"),
        (trace, {"block": "8KiB"}, "expected --block 4KiB"),
        (trace, {"write_policy": "back"}, "write-policy through"),
    ):
        with pytest.raises(vb.InputError, match=message):
            vb.cache(source, policies=["lru"], sizes=["1MiB"], dedup=True, **options)
