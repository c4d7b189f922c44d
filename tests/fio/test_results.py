"""fio's JSON: what is read of it, and what is said of a broken one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fio.conftest import direction, job, write_fio
from vaio_bench.errors import InputError
from vaio_bench.fio.results import read_result


def test_jobs_are_put_together(tmp_path: Path) -> None:
    first = job(read=direction({1000: 3, 2000: 1}), write=direction({5000: 2}))
    second = {**job(read=direction({1000: 1})), "sync": {"total_ios": 4}}
    found = read_result(write_fio(tmp_path / "a.json", first, second, before="note: x\n"))
    assert found.ios == {"read": 5, "write": 2, "trim": 0, "sync": 4}
    assert found.bytes == {"read": 5 * 4096, "write": 2 * 4096, "trim": 0}
    assert found.bins == {"read": {1000: 4, 2000: 1}, "write": {5000: 2}}
    assert found.latency_from == "lat"
    assert found.latency_max_ns == 5003
    # Side by side in one group: a second of wall time, two of the processes'.
    assert (found.wall_ns, found.cpu_user_ns) == (10**9, 2 * 10**8)
    assert found.options == {"iodepth": "8", "rw": "randread"}


def test_groups_ran_one_after_the_other(tmp_path: Path) -> None:
    later = {**job(read=direction({1000: 1})), "groupid": 1}
    found = read_result(write_fio(tmp_path / "a.json", job(read=direction({1000: 1})), later))
    assert found.wall_ns == 2 * 10**9


def test_completion_latency_where_nothing_else_has_buckets(tmp_path: Path) -> None:
    own = direction(ios=2)
    own["clat_ns"] = {"max": 9, "bins": {"8": 2}}
    found = read_result(write_fio(tmp_path / "a.json", job(read=own)))
    assert (found.latency_from, found.bins["read"]) == ("clat", {8: 2})


def test_plain_json_has_percentiles_of_one_direction(tmp_path: Path) -> None:
    own = direction(ios=2)
    own["clat_ns"]["percentile"] = {"50.000000": 8, "99.000000": 9}
    found = read_result(write_fio(tmp_path / "a.json", job(read=own)))
    assert (found.bins, found.latency_ns) == ({}, {"p50": 8, "p99": 9})
    mixed = read_result(write_fio(tmp_path / "b.json", job(read=own, write=own)))
    assert (mixed.latency_from, mixed.latency_ns) == (None, {})


def test_the_sum_of_clients_counts_once(tmp_path: Path) -> None:
    own = job(read=direction({1000: 3}))
    path = tmp_path / "a.json"
    both = [own, {**own, "jobname": "All clients"}]
    path.write_text(json.dumps({"fio version": "fio-3.33", "client_stats": both}))
    assert read_result(path).ios["read"] == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no document", "byte 0: expected fio's JSON"),
        ("ä {\n \"jobs\": [1 2]}".encode(), "byte 17: expected fio's JSON"),
        (b'{"jobs": [{"read": ', "byte 19"),
        (b'{"jobs": []}', "jobs: expected at least one"),
        (b'{"jobs": 3}', "jobs: expected a list of fio's jobs, got 3"),
        (b'{"jobs": [{"jobname": "a"}]}', "jobs[0].read: expected an object, got nothing"),
        (b'{"a":' * 100_000, "nested less deep"),
    ],
)  # fmt: skip
def test_a_broken_file_is_named_with_its_place(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_result(path)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_wrong_number_is_named_by_its_key(tmp_path: Path) -> None:
    own = direction({1000: 1})
    own["io_bytes"] = -5
    path = write_fio(tmp_path / "a.json", job(read=own))
    with pytest.raises(InputError, match=r"jobs\[0\]\.read\.io_bytes: .* got -5"):
        read_result(path)
