"""The profile against a plain recount, known traces and bad files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vaio_bench as vb

OPS = ["read", "write", "flush", "discard", "write_zeroes"]


def store(path: Path, **columns: Any) -> Path:
    """A canonical trace with defaults for what is not given."""
    n = len(columns["time_ns"])
    full = {
        "disk": ["d"] * n,
        "op": ["read"] * n,
        "offset_bytes": [0] * n,
        "length_bytes": [4096] * n,
        "latency_ns": [None] * n,
        "flags": [0] * n,
        "stream": [None] * n,
        **columns,
    }
    types = {
        "time_ns": pa.int64(), "disk": pa.dictionary(pa.int32(), pa.string()),
        "op": pa.dictionary(pa.int32(), pa.string()), "offset_bytes": pa.int64(),
        "length_bytes": pa.int64(), "latency_ns": pa.int64(), "flags": pa.uint32(),
        "stream": pa.uint32(),
    }  # fmt: skip
    table = pa.table({name: pa.array(list(full[name]), kind) for name, kind in types.items()})
    pq.write_table(table, path, row_group_size=64)
    return path


def recount(rows: list[tuple[int, str, str, int, int]], block: int) -> dict[str, Any]:
    """The figures by lists and sets, one row at a time."""
    blocks: list[tuple[str, int]] = []
    written: set[tuple[str, int]] = set()
    overwritten = writes = 0
    last_end: dict[str, int] = {}
    sequential = 0
    distances = []
    stack: list[tuple[str, int]] = []
    for _, disk, op, offset, length in rows:
        if op in ("read", "write"):
            sequential += last_end.get(disk) == offset
            last_end[disk] = offset + length
        if op in ("flush", "discard"):
            continue
        for number in range(offset // block, (offset + length - 1) // block + 1):
            key = (disk, number)
            if key in stack:
                distances.append(len(stack) - 1 - stack.index(key))
                stack.remove(key)
            stack.append(key)
            blocks.append(key)
            if op != "read":
                writes += 1
                overwritten += key in written
                written.add(key)
    return {
        "unique_blocks": len(set(blocks)),
        "requests": len(blocks),
        "overwrite_share": overwritten / writes if writes else None,
        "sequential": sequential,
        "distances": sorted(distances),
    }


ROW = st.tuples(
    st.integers(0, 10**9),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(OPS),
    st.integers(0, 40).map(lambda n: n * 512),
    st.integers(1, 40).map(lambda n: n * 512),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(ROW, min_size=1, max_size=150), block=st.sampled_from([512, 4096]))
def test_agrees_with_a_plain_recount(
    tmp_path: Path, rows: list[tuple[int, str, str, int, int]], block: int
) -> None:
    rows = [(t, d, op, o, 0 if op == "flush" else n) for t, d, op, o, n in sorted(rows)]
    time_ns, disk, op, offset, length = zip(*rows, strict=True)
    path = store(
        tmp_path / "t.parquet", time_ns=time_ns, disk=disk, op=op, offset_bytes=offset,
        length_bytes=length,
    )  # fmt: skip
    profile = vb.info(path, block=block)
    parts = {None: rows} | {name: [row for row in rows if row[1] == name] for name in set(disk)}
    found = {None: profile} | {part["disk"]: part for part in profile["disks"]}
    assert set(found) == set(parts)
    for name, its_rows in parts.items():
        expected, got = recount(its_rows, block), found[name]
        assert got["ios"] == len(its_rows)
        for kind, key in zip(OPS, ("reads", "writes", "flushes", "discards", "write_zeroes"),
                             strict=True):  # fmt: skip
            assert got[key] == sum(row[2] == kind for row in its_rows)
        assert got["write_bytes"] == sum(row[4] for row in its_rows if row[2] == "write")
        assert got["unique_blocks"] == expected["unique_blocks"]
        assert got["footprint_bytes"] == expected["unique_blocks"] * block
        assert got["overwrite_share"] == pytest.approx(expected["overwrite_share"])
        data = got["reads"] + got["writes"]
        if data:
            share = got["sequentiality"]["sequential_share"]
            assert share * data == pytest.approx(expected["sequential"])
        reuse = got["reuse"]
        assert reuse["requests"] == expected["requests"]
        distances = expected["distances"]
        if distances:
            assert reuse["distance_blocks"]["count"] == len(distances)
            assert reuse["distance_blocks"]["max"] == distances[-1]
            assert reuse["distance_blocks"]["p50"] == distances[(len(distances) - 1) // 2]
            for point in reuse["lru"]:
                hits = sum(d < point["cache_bytes"] // block for d in distances)
                assert point["hit_ratio"] * reuse["requests"] == pytest.approx(hits)


def test_times_and_depth(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    n = 50_000
    time_ns = np.cumsum(rng.exponential(1e6, n)).astype(np.int64)
    latency = rng.gamma(2.0, 1e6, n).astype(np.int64)
    profile = vb.info(
        store(tmp_path / "t.parquet", time_ns=time_ns, latency_ns=latency, flags=[1] * n,
              op=np.where(np.arange(n) % 4, "read", "write"))
    )  # fmt: skip
    gaps = np.diff(time_ns)
    for p, q in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999)):
        expected = np.quantile(gaps, q, method="inverted_cdf")
        assert profile["interarrival_ns"][p] == pytest.approx(expected, rel=0.002)
        reads = latency[np.arange(n) % 4 > 0]
        expected = np.quantile(reads, q, method="inverted_cdf")
        assert profile["latency_ns"]["read"][p] == pytest.approx(expected, rel=0.002)
    assert profile["interarrival_cov"] == pytest.approx(gaps.std() / gaps.mean())
    assert profile["fua_share"] == 1.0
    # The depth found: those that came before and are not done.
    done = time_ns + latency
    sample = rng.integers(1000, n, 300)
    # Over all arrivals, by sorting: arrivals before less completions up to then.
    depth = np.arange(n) - np.searchsorted(np.sort(done), time_ns, side="right")
    for i in sample:
        assert depth[i] == (done[:i] > time_ns[i]).sum()
    assert profile["outstanding"]["at_arrival"]["mean"] == pytest.approx(depth.mean())
    assert profile["outstanding"]["at_arrival"]["max"] == depth.max()
    for burst, width in zip(profile["burstiness"], (1e8, 1e9), strict=False):
        bins = int((time_ns[-1] - time_ns[0]) // width)
        counts = np.bincount(((time_ns - time_ns[0]) // width).astype(int))[:bins]
        assert burst["windows"] == bins
        assert burst["peak_to_mean"] == pytest.approx(counts.max() / counts.mean())
        expected = counts.var(ddof=1) / counts.mean()
        assert burst["index_of_dispersion"] == pytest.approx(expected)


def test_plain_strings_and_polars_files(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame(
        {
            "time_ns": [0, 1], "disk": ["x", "y"], "op": ["write", "read"],
            "offset_bytes": [0, 512], "length_bytes": [512, 512],
        }
    ).write_parquet(path)  # fmt: skip
    profile = vb.info(path, block=512)
    assert [disk["disk"] for disk in profile["disks"]] == ["x", "y"]
    assert profile["outstanding"] is None


def test_a_real_virtual_machine_disk(tmp_path: Path, traces_dir: Path) -> None:
    """CloudPhysics, counted before by two independent tools."""
    source = traces_dir / "public" / "cloudPhysicsIO.vscsi"
    if not source.is_file():
        pytest.skip("requires public/cloudPhysicsIO.vscsi")
    # vscsiStats v1: 32-byte little-endian records.
    layout = {
        "names": ["length", "opcode", "sector", "time_us"],
        "formats": ["<u4", "<u2", "<u8", "<u8"],
        "offsets": [4, 12, 16, 24],
        "itemsize": 32,
    }
    records = np.fromfile(source, dtype=np.dtype(layout))
    records = records[np.argsort(records["time_us"], kind="stable")]
    is_read = np.isin(records["opcode"], [8, 40, 136, 168])
    time_ns = (records["time_us"] - records["time_us"][0]).astype(np.int64) * 1000
    path = store(
        tmp_path / "t.parquet", time_ns=time_ns, op=np.where(is_read, "read", "write"),
        offset_bytes=records["sector"].astype(np.int64) * 512,
        length_bytes=records["length"].astype(np.int64),
    )  # fmt: skip
    profile = vb.info(path)
    assert profile["ios"] == 113_872
    assert (profile["read_blocks"], profile["written_blocks"]) == (485_700, 656_169)
    assert profile["unique_blocks"] == 269_210
    assert profile["reuse"]["requests"] == 1_141_869
    assert profile["reuse"]["sampled"] == 1


class TestBadInput:
    def test_files(self, tmp_path: Path) -> None:
        path = tmp_path / "t.parquet"
        with pytest.raises(vb.InputError, match=r"t\.parquet: no such file"):
            vb.info(path)
        path.write_bytes(b"PAR1 not quite")
        with pytest.raises(vb.InputError, match=r"t\.parquet: expected a canonical trace"):
            vb.info(path)
        store(path, time_ns=list(range(5000)))
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(vb.InputError, match=r"t\.parquet: expected a canonical trace"):
            vb.info(path)
        pl.DataFrame({"a": [1]}).write_parquet(path)
        with pytest.raises(vb.InputError, match="expected column time_ns"):
            vb.info(path)

    def test_damage_in_the_middle(self, tmp_path: Path) -> None:
        path = store(tmp_path / "t.parquet", time_ns=list(range(100_000)))
        content = bytearray(path.read_bytes())
        content[1000:20_000] = b"\xff" * 19_000
        path.write_bytes(content)
        with pytest.raises(vb.InputError, match=r"t\.parquet: ") as caught:
            vb.info(path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"time_ns": [0, 5, 4]}, "row 2: time_ns: expected at least 5"),
            (
                {"time_ns": [0, 1], "offset_bytes": [0, -4096]},
                "row 1: expected a range within 1 PiB, got offset_bytes -4096",
            ),
            ({"time_ns": [0, 1], "op": ["read", "trim"]}, "row 1: op: expected one of read, "),
            ({"time_ns": [0, None]}, "row 1: time_ns: expected a value, got null"),
            ({"time_ns": [0], "latency_ns": [-5]}, "row 0: latency_ns: expected 0 or more"),
        ],
    )
    def test_rows(self, tmp_path: Path, columns: dict[str, Any], message: str) -> None:
        path = store(tmp_path / "t.parquet", **columns)
        with pytest.raises(vb.InputError) as caught:
            vb.info(path)
        assert str(caught.value).startswith(f"{path}: {message}")


def test_command(cli: Callable[..., Any], tmp_path: Path) -> None:
    store(tmp_path / "t.parquet", time_ns=[0, 10**9], disk=["a", "b"], op=["read", "flush"],
          length_bytes=[8192, 0])  # fmt: skip
    ended = cli("info", "t.parquet", "--json", "--block", "8KiB")
    assert ended.exit_status == 0
    assert ended.document["unique_blocks"] == 1
    assert json.loads(json.dumps(vb.info(tmp_path / "t.parquet", block=8192))) == {
        **ended.document,
        "trace": str(tmp_path / "t.parquet"),
    }
    text = cli("info", "t.parquet").stdout
    assert text.startswith("A read-only workload of random I/Os of 8 KiB (median)")
    for word in ("footprint", "interarrival", "reuse distance"):
        assert word in text
    bad = cli("info", "t.parquet", "--block", "5000")
    assert (bad.exit_status, bad.stderr.count("\n")) == (2, 1)


@pytest.mark.slow
def test_lru_hits_of_the_cache_comparisons(tmp_path: Path) -> None:
    """10 M requests, Zipf 1.0 over 1 M blocks, numpy seed 42: misses counted by libCacheSim."""
    rng = np.random.default_rng(42)
    popularity = np.cumsum(1 / np.arange(1, 1_000_001))
    block = np.searchsorted(popularity / popularity[-1], rng.random(10_000_000))
    n = len(block)
    single = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array(["read"]))
    columns = {
        "time_ns": np.arange(n), "disk": single, "op": single, "offset_bytes": block * 4096,
        "length_bytes": np.full(n, 4096),
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    profile = vb.info(tmp_path / "t.parquet")
    assert profile["unique_blocks"] == 762_664
    hits = {point["cache_bytes"] // 4096: point["hit_ratio"] for point in profile["reuse"]["lru"]}
    counted = {7_626: 4_366_408, 38_133: 3_048_442, 76_266: 2_462_348, 152_532: 1_867_040}
    for blocks, misses in counted.items():
        # Distances this long are counted in buckets of 0.4 %.
        assert 1 - hits[blocks] == pytest.approx(misses / n, rel=1e-4)
