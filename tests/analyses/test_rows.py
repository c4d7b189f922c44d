"""Fidelity, hits and layers against rows written by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from run_folder import Policy, make_run, write_round

from vaio_bench import schemas
from vaio_bench.analyses import fidelity as fidelity_module
from vaio_bench.analyses.fidelity import fidelity
from vaio_bench.analyses.hits import hits, refused
from vaio_bench.analyses.layers import layers
from vaio_bench.store import open_run


def run_of(path: Path, columns: dict[str, object], names: list[str], **changes: object) -> Path:
    """A run of one policy "p", round 0, with the given rows; the columns not given are zero."""
    make_run(path, policies={"p": Policy(names)}, rounds=1, ios=1, **changes)
    n = len(next(iter(columns.values())))
    lists = [[0] * len(names)] * n
    zero = {"policy": ["p"] * n, "disk": ["d"] * n, "op": ["read"] * n, "seq": range(n)}
    zero |= {"self_ns": lists, "cpu_ns": lists}
    rows = {f.name: (zero | columns).get(f.name, [0] * n) for f in schemas.IOS}
    write_round(path, "p", 0, pa.table(rows).cast(schemas.IOS), parts=3)
    return path


def test_fidelity_by_hand(tmp_path: Path) -> None:
    due = np.arange(4_000) * 100_000
    late = np.where(np.arange(4_000) < 2_001, 1_000, 3_000)
    late[7] = 2_000_000  # late, and passed by those due up to 2.6 ms
    path = run_of(tmp_path / "run", {"due_ns": due, "submit_ns": due + late}, ["null"])
    found = fidelity(path)[0]
    assert (found.issue_error_p50_ns, found.issue_error_max_ns) == (1_000, 2_000_000)
    assert found.issue_error_p99_ns == 3_000
    assert found.late_share == 1 / 4_000
    assert found.drift_ns == 2_000
    assert found.out_of_order == 19
    assert found.rate_ratio == pytest.approx(399_900_000 / 399_902_000)


def test_order_is_judged_over_parts_and_disks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fidelity_module, "_DISORDER", 8)
    n = 300
    submit = np.arange(n) * 10
    disk = np.where(np.arange(n) % 2, "a", "b")
    submit[100] = 1_045  # passed by 102 and 104 of its own disk, and by 101, 103 of the other
    order = np.argsort(submit + np.random.default_rng(1).integers(0, 30, n), kind="stable")
    columns = {"seq": np.arange(n), "disk": disk, "submit_ns": submit, "due_ns": submit}
    path = run_of(tmp_path / "run", {k: v[order] for k, v in columns.items()}, ["null"])
    assert fidelity(path)[0].out_of_order == 2


def test_hits_by_hand(tmp_path: Path) -> None:
    columns = {
        "op": ["read", "read", "read", "write", "flush", "read"],
        "length_bytes": [8192, 12288, 4096, 4096, 0, 4096],
        "blocks": [2, 3, 1, 1, 0, 1],
        "hit_blocks": [2, 1, 0, 1, 0, 1],
        "flags": [1, 2, 0, 1, 0, 1],
        "status": [0, 0, 0, 0, 0, 5],  # the last one failed: no request
    }
    path = run_of(tmp_path / "run", columns, ["cache", "null"])
    found = hits(path)[0].to_dict()
    assert (found["reads"], found["read_hits"], found["read_partial_hits"]) == (3, 1, 1)
    assert (found["writes"], found["write_hits"]) == (1, 1)
    assert found["block_hit_ratio"] == 4 / 7
    assert found["read_block_hit_ratio"] == 3 / 6
    assert found["hit_bytes"] == 8192 + 4096 + 4096
    assert found["byte_hit_ratio"] == (8192 + 4096 + 4096) / 28672


def test_hit_verdicts_are_refused_when_the_fit_wrapped(tmp_path: Path) -> None:
    columns = {"blocks": [1], "hit_blocks": [1], "flags": [1]}
    whole = run_of(tmp_path / "whole", columns, ["cache"], fit_to={"wrapped": False})
    folded = run_of(tmp_path / "folded", columns, ["cache"], fit_to={"wrapped": True})
    assert refused(open_run(whole)) is None
    assert "folded" in str(refused(open_run(folded)))


def test_without_a_cache_there_are_no_hits(tmp_path: Path) -> None:
    assert hits(run_of(tmp_path / "run", {"blocks": [0, 0, 0]}, ["null"])) == []


def test_layers_by_hand(tmp_path: Path) -> None:
    columns = {
        "self_ns": [[10, 100], [20, 300], [30, 0], [40, 0]],
        "cpu_ns": [[1, 7], [3, 7], [5, 0], [7, 0]],
    }
    found = layers(run_of(tmp_path / "run", columns, ["crypt", "uring"]))
    assert [(each.position, each.layer) for each in found] == [(0, "crypt"), (1, "uring")]
    assert [each.self_mean_ns for each in found] == [25.0, 100.0]
    assert [each.self_p50_ns for each in found] == [20, 0]
    assert [each.self_p99_ns for each in found] == [40, 300]
    assert [each.cpu_mean_ns for each in found] == [4.0, 3.5]
