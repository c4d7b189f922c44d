"""`fio import`: results of fio become a run folder that analyses and the report read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fio.conftest import direction, job, write_fio
from vaio_bench.analyses.rounds import round_figures
from vaio_bench.store import open_run


def test_a_folder_of_bench_fio(bench_fio: Path, here: Callable[..., object]) -> None:
    ended = here("fio", "import", bench_fio, bench_fio, "-o", "run", "--json")
    names = [cell["name"] for cell in ended.document["cells"]]
    assert names == ["disk-4k-randread-1-1", "disk-4k-randread-8-1"]
    first = ended.document["cells"][0]
    assert first["rounds"] == 2
    # Nearest rank of 98 at 100 us and 2 at 200 us.
    assert (first["latency_ns"]["p50"], first["latency_ns"]["p99"]) == (100_000, 200_000)
    assert first["latency_ns"]["max"] == 200_003
    assert first["iops"] == 100
    assert first["cpu_ns_per_io"] == pytest.approx(0.3e9 / 100)
    compared = ended.document["comparison"]["policies"][0]["metrics"]["latency_p50_ns"]
    assert (compared["ratio"], compared["baseline"]) == (pytest.approx(4), pytest.approx(1e5))
    run = open_run("run")
    assert run.policies_with_rows == []
    assert round_figures(run)["response_p50_ns"].to_list() == [None] * 4


def test_compare_and_report_read_it(bench_fio: Path, here: Callable[..., object]) -> None:
    here("fio", "import", bench_fio, "-o", "run", "--json")
    told = here("compare", "run", "--baseline", "disk-4k-randread-8-1", "--json").document
    assert told["policies"][0]["metrics"]["latency_p50_ns"]["ratio"] == pytest.approx(0.25)
    ended = here("report", "run", "-o", "r.html", "--json")
    assert ended.exit_status == 0
    assert ended.document["figures"] >= 2
    page = Path("r.html").read_text()
    assert "fio keeps no due times" in page


def test_a_damaged_file_ends_with_its_name_and_byte(
    bench_fio: Path, here: Callable[..., object]
) -> None:
    path = bench_fio / "disk" / "4k" / "randread-8-1.json"
    path.write_bytes(path.read_bytes()[:700])
    ended = here("fio", "import", bench_fio, "-o", "run")
    assert ended.exit_status == 2
    assert f"{path}: byte " in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not Path("run").exists()


def test_logs_of_single_ios_become_rows(tmp_path: Path, here: Callable[..., object]) -> None:
    own = job(read=direction({1000: 1}), write=direction({5000: 1}))
    own["job options"] = {"write_lat_log": "/elsewhere/io"}
    write_fio(tmp_path / "r" / "a.json", own)
    (tmp_path / "r" / "io_lat.1.log").write_text("0, 1000, 0, 4096, 0, 0\n2, 5000, 1, 512, 8, 0\n")
    ended = here("fio", "import", tmp_path / "r", "-o", "run", "--per-io", "--json")
    assert ended.document["warnings"] == ["fio-log-times"]
    rows = open_run("run").scan_ios().collect()
    assert rows["op"].cast(str).to_list() == ["read", "write"]
    assert (rows["complete_ns"] - rows["submit_ns"]).to_list() == [1000, 5000]
    assert rows["complete_ns"].to_list() == [1000, 2_000_000]
    assert rows["offset_bytes"].to_list() == [0, 8]
    assert here("report", "run", "-o", "r.html").exit_status == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1, 2, 0, 0, 0, 0", "averages over a time"),
        ("1, 2, 0, 4096, 0", "log_offset=1"),
        ("1, x, 0, 4096, 0, 0", "row 2"),
        ("1, 2, 7, 4096, 0, 0", "row 2"),
    ],
)
def test_a_log_of_another_kind_is_refused(
    tmp_path: Path, here: Callable[..., object], line: str, said: str
) -> None:
    own = job(read=direction({1000: 1}))
    own["job options"] = {"write_lat_log": "io"}
    write_fio(tmp_path / "r" / "a.json", own)
    (tmp_path / "r" / "io_lat.1.log").write_text(f"0, 1, 0, 512, 0, 0\n{line}\n")
    ended = here("fio", "import", tmp_path / "r", "-o", "run", "--per-io")
    assert ended.exit_status == 2
    assert said in ended.stderr
