"""import: sources, refusals, lenient import, compression, order, the file's metadata."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Ended
from vaio_bench import InputError, import_trace, open_trace

HEADER = "time_ns,op,offset_bytes,length_bytes,disk,latency_ns\n"
Cli = Callable[..., Ended]


def row(i: int) -> str:
    return f"{i * 1000},{'read' if i % 3 else 'write'},{i * 4096},4096,d{i % 2},{i}\n"


def canonical_csv(path: Path, rows: int = 100) -> Path:
    path.write_text(HEADER + "".join(map(row, range(rows))))
    return path


def test_the_verb_writes_a_trace_and_one_document(cli: Cli, tmp_path: Path) -> None:
    source = canonical_csv(tmp_path / "a.csv")
    ended = cli("import", source, "-o", "t.parquet", "--json")
    assert ended.exit_status == 0, ended.stderr
    assert ended.stderr == ""
    document = ended.document
    assert (document["ios"], document["records"], document["format"]) == (100, 100, "csv")
    assert document["disks"] == ["d0", "d1"]
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    size = source.stat().st_size
    assert document["sources"] == [{"file": "a.csv", "size_bytes": size, "sha256": digest}]
    with open_trace(tmp_path / "t.parquet") as trace:
        assert trace.rows == 100
        assert trace.metadata["schema_version"] == 1
        assert trace.metadata["rows_dropped"] == {}
        assert trace.metadata["sector_bytes"] == 512
        assert trace.metadata["sources"] == document["sources"]
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "t.parquet"]


def test_nothing_is_overwritten_without_force(cli: Cli, tmp_path: Path) -> None:
    source = canonical_csv(tmp_path / "a.csv")
    (tmp_path / "t.parquet").write_text("precious")
    ended = cli("import", source, "-o", "t.parquet")
    assert (ended.exit_status, ended.stdout) == (2, "")
    assert ended.stderr == "vaio-bench: t.parquet: the file exists (--force replaces it)\n"
    assert (tmp_path / "t.parquet").read_text() == "precious"
    assert cli("import", source, "-o", "t.parquet", "--force").exit_status == 0
    assert cli("import", source, "-o", source, "--force").exit_status == 2
    assert source.read_text().startswith(HEADER)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (HEADER + row(0) + "oops\n" + row(2), ["a.csv: row 3: ", "expected"]),
        (HEADER + row(0) + "1,read,-5,4096,d,\n", ["a.csv: row 3: offset: expected a whole"]),
        (HEADER, ["expected at least one I/O, got 0 records"]),
        ("", ["a.csv: the file is empty"]),
        ("what is this\n", ["not recognised", "blktrace", "--columns"]),
        ("PAR1....", ["Parquet"]),
        ("Histogram: IO lengths of commands\n", ["histograms"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    cli: Cli, tmp_path: Path, content: str, words: list[str]
) -> None:
    (tmp_path / "a.csv").write_text(content)
    ended = cli("import", "a.csv", "-o", "t.parquet")
    assert (ended.exit_status, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    assert all(word in ended.stderr for word in words), ended.stderr
    assert os.listdir(tmp_path) == ["a.csv"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], ["nowhere: no such file", "nowhere.blktrace.N"]),
        (["."], ["got a folder"]),
        (["/dev/null"], ["/dev/null: expected a file, got a pipe or device"]),
        (["a.csv", "./a.csv"], ["given twice"]),
        (["a.csv", "--format", "nope"], ["unknown format", "vscsi"]),
        (["a.csv", "--event", "complete"], ["--event", "queue or issue"]),
        (["a.csv", "--columns", "time=0:us"], ["--columns", "op is missing"]),
        (["a.csv", "--format", "msr", "--columns", "x"], ["--columns is for --format csv"]),
        (["a.csv", "--format", "blktrace"], ["byte 0", "0x65617407"]),
        (["a.csv", "-o", "missing/t.parquet"], ["missing/t.parquet: cannot be created"]),
    ],
)
def test_wrong_usage_is_one_line(
    cli: Cli, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    canonical_csv(tmp_path / "a.csv")
    output = [] if "-o" in arguments else ["-o", "t.parquet"]
    ended = cli("import", *arguments, *output)
    assert ended.exit_status == 2
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert all(word in ended.stderr for word in words), ended.stderr
    assert os.listdir(tmp_path) == ["a.csv"]


def test_skip_bad_counts_what_it_drops(cli: Cli, tmp_path: Path) -> None:
    rows = [row(i) for i in range(10)]
    rows[4] = "4000,read,x,4096,d,\n"
    rows[7] = "7000,read,0,0,d,\n"
    (tmp_path / "a.csv").write_text(HEADER + "".join(rows))
    ended = cli("import", "a.csv", "-o", "t.parquet", "--skip-bad")
    assert ended.exit_status == 0
    assert "left out: 1 (broken row)" in ended.stdout
    with open_trace(tmp_path / "t.parquet") as trace:
        assert trace.rows == 8
        assert trace.metadata["rows_dropped"] == {"broken row": 1, "length of 0": 1}
        assert trace.metadata["options"]["skip_bad"] is True


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip), ("xz", lzma), ("bz2", bz2)])
def test_compressed_sources(tmp_path: Path, suffix: str, pack: Any) -> None:
    plain = canonical_csv(tmp_path / "a.csv", rows=60_000)
    packed = tmp_path / f"a.csv.{suffix}"
    packed.write_bytes(pack.compress(plain.read_bytes()))
    import_trace(plain, tmp_path / "plain.parquet")
    import_trace(packed, tmp_path / "packed.parquet")
    want = pl.read_parquet(tmp_path / "plain.parquet")
    assert pl.read_parquet(tmp_path / "packed.parquet").equals(want)
    packed.write_bytes(packed.read_bytes()[:-200])
    with pytest.raises(InputError, match=rf"a\.csv\.{suffix}: byte \d+: .*damaged"):
        import_trace(packed, tmp_path / "cut.parquet")
    cut = import_trace(packed, tmp_path / "cut.parquet", skip_bad=True)
    assert any("damaged" in warning for warning in cut.warnings)


def test_late_disorder_is_sorted_in_a_second_reading(tmp_path: Path) -> None:
    ordered = 1_100_000
    times = [*range(ordered), 5, 5, 3]
    with (tmp_path / "a.csv").open("w") as file:
        file.write("time_ns,op,offset_bytes,length_bytes\n")
        file.writelines(f"{time},read,{i * 512},512\n" for i, time in enumerate(times))
    imported = import_trace(tmp_path / "a.csv", tmp_path / "t.parquet")
    rows = pl.read_parquet(tmp_path / "t.parquet")
    assert imported.ios == len(rows) == len(times)
    assert rows["time_ns"].is_sorted()
    numbers = (rows["offset_bytes"] // 512).to_list()
    assert numbers[:10] == [0, 1, 2, 3, ordered + 2, 4, 5, ordered, ordered + 1, 6]
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "t.parquet"]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**62),
            st.sampled_from(["read", "write", "flush", "discard", "write_zeroes"]),
            st.integers(0, 2**50),
            st.integers(1, 2**40),
            st.sampled_from(["a", "8,0", "disk é"]),
            st.none() | st.integers(0, 2**62),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_generated_rows_come_back(tmp_path: Path, ios: list[tuple[Any, ...]]) -> None:
    lines = [
        f'{time},{op},{offset},{length},"{disk}",{"" if latency is None else latency}\n'
        for time, op, offset, length, disk, latency in ios
    ]
    (tmp_path / "a.csv").write_text(HEADER + "".join(lines))
    import_trace(tmp_path / "a.csv", tmp_path / "t.parquet", force=True)
    with open_trace(tmp_path / "t.parquet") as trace:
        got = [tuple(r.values())[:6] for batch in trace.batches() for r in batch.to_pylist()]
    origin = min(io[0] for io in ios)
    want = [
        (t - origin, disk, op, *((0, 0) if op == "flush" else (offset, length)), latency)
        for t, op, offset, length, disk, latency in sorted(ios, key=lambda io: io[0])
    ]
    assert got == want


def test_a_prefix_means_the_files_of_all_cpus(cli: Cli, traces_dir: Path, tmp_path: Path) -> None:
    source = traces_dir / "own"
    ended = cli("import", source / "oltp-8s", "-o", "t.parquet", "--json")
    assert len(ended.document["sources"]) == 2
    one = cli("import", source / "oltp-8s.blktrace.0.zst", "-o", "one.parquet", "--json")
    assert "oltp-8s.blktrace.1.zst lies beside" in one.stderr


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """A limit on the size of files fails as a full disk does: in the middle of a write."""
    canonical_csv(tmp_path / "a.csv", rows=20_000)
    limit = (16_384, 16_384)
    main = "from vaio_bench.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", main, "import", "a.csv", "-o", "t.parquet"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "vaio-bench: t.parquet: cannot be written: File too large\n"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_many_disks_in_random_order(tmp_path: Path) -> None:
    rng = random.Random(7)
    names = [f"v{rng.randrange(500)}" for _ in range(5_000)]
    text = "".join(f"{1_500_000_000 - i},{i},8,0,{n[1:]}\n" for i, n in enumerate(names))
    (tmp_path / "x").write_text(text)
    imported = import_trace(tmp_path / "x", tmp_path / "t.parquet")
    assert imported.format == "tencent"
    rows = pl.read_parquet(tmp_path / "t.parquet")
    assert rows["disk"].cast(pl.String).to_list() == [n[1:] for n in reversed(names)]
    assert json.dumps(imported.to_dict())
