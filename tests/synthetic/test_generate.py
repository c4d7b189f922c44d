"""Laws of the rows, for any spec, and their distributions at fixed seeds."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from vaio_bench.synthetic.generate import batches, schema
from vaio_bench.synthetic.spec import Spec, check_spec

BLOCK = 4096


def make(**spec: Any) -> Spec:
    return check_spec(spec, "spec")


def table(spec: Spec, rows: int | None = None) -> pa.Table:
    return pa.Table.from_batches(batches(spec, rows), schema=schema(spec))


def column(found: pa.Table, name: str) -> np.ndarray:
    return found.column(name).combine_chunks().to_numpy(zero_copy_only=False)


@st.composite
def any_stream(draw: st.DrawFn) -> dict[str, Any]:
    block = draw(st.sampled_from([512, 4096, 65_536]))
    blocks = draw(st.integers(8, 2000))
    sizes = st.integers(1, 8).map(lambda n: n * 512)
    mixes = st.lists(sizes.map(lambda s: {"size": s, "weight": 0.5}), min_size=1, max_size=3)
    return {
        "share": draw(st.floats(0.1, 3)),
        "address": {
            "pattern": draw(st.sampled_from(["uniform", "zipf", "sequential", "hotset"])),
            "block": block,
            "footprint": block * blocks,
            "start": block * draw(st.integers(0, 100)),
            "alpha": draw(st.floats(0, 3)),
            "scatter": draw(st.booleans()),
            "hot_share": draw(st.floats(0.01, 1)),
            "hot_access": draw(st.floats(0, 1)),
        },
        "mix": {
            "read": draw(st.floats(0, 1)),
            "flush": draw(st.floats(0, 0.4)),
            "discard": draw(st.floats(0, 0.3)),
            "write_zeroes": draw(st.floats(0, 0.3)),
            "fua": draw(st.floats(0, 1)),
        },
        "size": {"read": draw(mixes), "write": draw(mixes)},
    }


@st.composite
def any_spec(draw: st.DrawFn) -> Spec:
    return make(
        seed=draw(st.integers(0, 2**63 - 1)),
        ios=draw(st.integers(0, 3000)),
        disks=draw(st.integers(1, 4)),
        arrival={
            "process": draw(st.sampled_from(["poisson", "constant"])),
            "rate": draw(st.floats(0.01, 1e6)),
        },
        stream=draw(st.lists(any_stream(), min_size=1, max_size=3)),
    )


SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOW
@given(spec=any_spec())
def test_rows_obey_the_contract(spec: Spec) -> None:
    found = table(spec)
    assert found.num_rows == spec.ios
    time_ns = column(found, "time_ns")
    assert not len(time_ns) or time_ns[0] == 0
    assert (np.diff(time_ns) >= 0).all()
    op, offset = column(found, "op"), column(found, "offset_bytes")
    length, number = column(found, "length_bytes"), column(found, "stream")
    flush = op == "flush"
    assert (length[flush] == 0).all()
    assert (offset[flush] == 0).all()
    for i, stream in enumerate(spec.stream):
        mine = (number == i) & ~flush
        address = stream.address
        assert (offset[mine] % address.block == 0).all()
        assert (offset[mine] >= address.start).all()
        assert (offset[mine] + length[mine] <= address.start + address.footprint).all()
        reads = mine & (op == "read")
        assert set(length[reads]) <= {s.size for s in stream.size.read}
        assert set(length[mine & ~reads]) <= {s.size for s in stream.size.write}
    assert not column(found, "flags")[op != "write"].any()
    assert set(column(found, "disk")) <= set(spec.disks)


@SLOW
@given(spec=any_spec(), rows=st.integers(1, 500))
def test_rows_do_not_depend_on_the_batch(spec: Spec, rows: int) -> None:
    parts = list(batches(spec, rows))
    assert all(len(part) == rows for part in parts[:-1])
    assert pa.Table.from_batches(parts, schema=schema(spec)) == table(spec)


@pytest.mark.parametrize("content", [None, {"shared": 0.5}])
def test_a_longer_trace_starts_with_the_shorter(content: dict[str, Any] | None) -> None:
    # More rows than a chunk has, with and without content.
    ios = 9000 if content else 150_000
    spec = {
        "seed": 3,
        "disks": 2,
        "address": {"pattern": "sequential", "footprint": "64MiB"},
        "content": content,
    }
    spec = {key: value for key, value in spec.items() if value is not None}
    short, long = table(make(ios=ios // 2, **spec)), table(make(ios=ios, **spec))
    assert long.slice(0, ios // 2) == short
    assert long != table(make(ios=ios, **{**spec, "seed": 4}))


def test_duration_ends_the_trace() -> None:
    spec = make(duration="2s", arrival={"process": "constant", "rate": 1000})
    time_ns = column(table(spec), "time_ns")
    assert (len(time_ns), time_ns[-1]) == (2000, 1_999_000_000)
    both = make(duration="2s", ios=10, arrival={"process": "constant", "rate": 1000})
    assert table(both).num_rows == 10
    long = make(duration="100s", arrival={"rate": 1000})
    times = column(table(long), "time_ns")
    assert times[-1] < 100e9
    # 100,000 expected, deviation 316: five of them.
    assert abs(len(times) - 100_000) < 5 * 316


def test_constant_arrivals_never_drift() -> None:
    spec = make(ios=200_001, arrival={"process": "constant", "rate": 3000})
    times = column(table(spec), "time_ns")
    assert np.abs(times - np.arange(200_001) * 1e9 / 3000).max() <= 1


def test_poisson_gaps_are_exponential_on_every_disk() -> None:
    spec = make(ios=200_000, seed=8, disks=2, disk_weights=[3.0, 1.0], arrival={"rate": 1000})
    found = table(spec)
    times, disk = column(found, "time_ns"), column(found, "disk")
    for name, rate in (("disk0", 750.0), ("disk1", 250.0)):
        gaps = np.diff(times[disk == name])
        # Independent gaps of the right law: by Kolmogorov-Smirnov, and by their correlation.
        assert stats.kstest(gaps, "expon", args=(0, 1e9 / rate)).pvalue > 1e-3
        assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 5 / np.sqrt(len(gaps))


def test_zipf_addresses_have_the_exact_popularity() -> None:
    blocks, ios = 500, 200_000
    address = {"pattern": "zipf", "alpha": 0.8, "footprint": blocks * BLOCK}
    found = table(make(ios=ios, seed=2, address=address))
    counts = np.bincount(column(found, "offset_bytes") // BLOCK, minlength=blocks)
    weights = np.arange(1, blocks + 1) ** -0.8
    # Which block is which rank is not known: the sorted counts are compared, in groups wide
    # enough that sorting moves few across a border.
    expected = (weights / weights.sum() * ios).reshape(10, 50).sum(axis=1)
    got = np.sort(counts)[::-1].reshape(10, 50).sum(axis=1)
    assert np.abs(got / expected - 1).max() < 0.06
    hot = np.argsort(counts)[::-1][:50]
    assert stats.kstest(hot / blocks, "uniform").pvalue > 1e-3, "the popular ones are scattered"
    unscattered = table(make(ios=ios, seed=2, address={**address, "scatter": False}))
    counts = np.bincount(column(unscattered, "offset_bytes") // BLOCK, minlength=blocks)
    assert stats.chisquare(counts, weights / weights.sum() * ios).pvalue > 1e-4


def test_the_mix_and_the_hot_set_have_their_shares() -> None:
    ios, blocks = 200_000, 10_000
    spec = make(
        ios=ios,
        seed=6,
        address={
            "pattern": "hotset",
            "footprint": blocks * BLOCK,
            "hot_share": 0.02,
            "hot_access": 0.7,
            "scatter": False,
        },
        mix={"read": 0.6, "flush": 0.1, "discard": 0.05, "fua": 0.25},
    )
    found = table(spec)
    op = column(found, "op")

    def near(share: float, p: float, n: int) -> bool:
        return abs(share - p) < 5 * np.sqrt(p * (1 - p) / n)

    assert near((op == "flush").mean(), 0.1, ios)
    assert near((op == "discard").mean(), 0.05, ios)
    assert near((op == "read").mean(), 0.85 * 0.6, ios)
    writes = op == "write"
    assert near((column(found, "flags")[writes] == 1).mean(), 0.25, writes.sum())
    block = column(found, "offset_bytes")[op != "flush"] // BLOCK
    assert near((block < 200).mean(), 0.7, len(block))
    for part, low, high in (("hot", 0, 200), ("cold", 200, blocks)):
        inside = block[(block >= low) & (block < high)]
        counts = np.bincount(inside - low, minlength=high - low)
        assert stats.chisquare(counts).pvalue > 1e-4, part


def test_sequential_streams_run_through_and_start_over() -> None:
    spec = make(
        ios=1000,
        disks=2,
        address={"pattern": "sequential", "footprint": "1MiB", "start": "8MiB"},
        size={"read": "12KiB", "write": "12KiB"},
    )
    found = table(spec)
    for name in spec.disks:
        offset = column(found, "offset_bytes")[column(found, "disk") == name]
        # 85 I/Os of 12 KiB fit into 1 MiB; the rest at its end is left.
        expected = (8 << 20) + np.arange(len(offset)) % 85 * 12_288
        assert np.array_equal(offset, expected)
