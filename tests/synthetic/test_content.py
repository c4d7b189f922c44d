"""Digests per block: current on reads, new on writes, shared as asked."""

from collections import Counter, defaultdict
from typing import Any

import pyarrow as pa
import pytest

from vaio_bench.synthetic.generate import batches, schema
from vaio_bench.synthetic.spec import check_spec

BLOCK = 4096


def rows(**spec: Any) -> list[dict[str, Any]]:
    spec = {
        "ios": 6000,
        "disks": 3,
        "address": {"pattern": "hotset", "footprint": "2MiB"},
        "mix": {"read": 0.5, "flush": 0.02},
        "size": {"read": [{"size": "4KiB"}, {"size": "32KiB"}], "write": "8KiB"},
        "content": {"shared": 0.5, "pool": "1MiB"},
        **spec,
    }
    checked = check_spec(spec, "spec")
    return pa.Table.from_batches(batches(checked), schema=schema(checked)).to_pylist()


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
def test_reads_carry_what_was_last_written(shared: float) -> None:
    # 6,000 rows are two chunks: the versions must cross from one to the next.
    current: dict[tuple[str, int], bytes] = {}
    rewritten = 0
    for row in rows(content={"shared": shared, "pool": "8KiB"}):
        if row["op"] == "flush":
            assert row["content"] is None
            continue
        assert len(row["content"]) == row["length_bytes"] // BLOCK
        for i, digest in enumerate(row["content"]):
            assert len(digest) == 16
            key = (row["disk"], row["offset_bytes"] // BLOCK + i)
            if row["op"] == "write":
                # Known also from a read before: the image's content changes, too.
                assert current.get(key) != digest
                rewritten += key in current
                current[key] = digest
            else:
                assert current.setdefault(key, digest) == digest
    assert rewritten > 1000


def test_the_shared_part_comes_from_one_pool() -> None:
    pool_blocks = 256
    disks_of: dict[bytes, set[str]] = defaultdict(set)
    written: Counter[bytes] = Counter()
    for row in rows(ios=20_000):
        for digest in row["content"] or ():
            disks_of[digest].add(row["disk"])
            if row["op"] == "write":
                written[digest] += 1
    common = {digest for digest, disks in disks_of.items() if len(disks) > 1}
    assert len(common) <= pool_blocks
    assert len(common) > 0.9 * pool_blocks
    share = sum(n for digest, n in written.items() if digest in common) / written.total()
    # About 20,000 written blocks: the deviation is 0.0035.
    assert abs(share - 0.5) < 0.02
    private = [n for digest, n in written.items() if digest not in common]
    assert max(private) == 1, "what is not shared never comes twice"


def test_clones_agree_where_nobody_wrote() -> None:
    seen: dict[int, dict[str, bytes]] = defaultdict(dict)
    for row in rows(mix={"read": 1.0}, ios=12_000):
        for i, digest in enumerate(row["content"]):
            seen[row["offset_bytes"] // BLOCK + i][row["disk"]] = digest
    full = [by_disk for by_disk in seen.values() if len(by_disk) == 3]
    alike = sum(len(set(by_disk.values())) == 1 for by_disk in full)
    apart = sum(len(set(by_disk.values())) == 3 for by_disk in full)
    assert alike + apart == len(full)
    assert len(full) > 450
    assert 0.4 < alike / len(full) < 0.6
