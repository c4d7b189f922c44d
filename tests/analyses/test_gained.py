from pathlib import Path

import polars as pl
import pytest
from run_folder import Policy, make_run

from vaio_bench.analyses.gained import gained
from vaio_bench.reporting.gain_part import add_gained
from vaio_bench.reporting.model import Section
from vaio_bench.schemas import IoFlag
from vaio_bench.store import open_run


def test_means_are_those_of_the_rows_and_gains_follow(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "run", rounds=2, ios=500))
    (found,) = gained(run)
    assert (found.policy, found.baseline) == ("cache", "direct")

    def rows(policy: str) -> pl.DataFrame:
        return run.scan_ios(policy).collect().with_columns(
            (pl.col("complete_ns") - pl.col("submit_ns")).alias("latency"),
            (pl.col("flags").cast(pl.Int64) & int(IoFlag.HIT) != 0).alias("hit"),
            (pl.col("op").cast(pl.String) == "read").alias("read"),
        )  # fmt: skip

    own, direct = rows("cache"), rows("direct")
    reads = own.filter("read")
    assert found.reads == reads.height
    assert found.hit_reads == reads.filter("hit").height
    assert found.hit_ns == pytest.approx(reads.filter("hit")["latency"].mean())
    assert found.miss_ns == pytest.approx(reads.filter(~pl.col("hit"))["latency"].mean())
    assert found.write_ns == pytest.approx(own.filter(~pl.col("read"))["latency"].mean())
    baseline = float(direct.filter("read")["latency"].mean())  # type: ignore[arg-type]
    mean = float(reads["latency"].mean())  # type: ignore[arg-type]
    assert found.baseline_read_ns == pytest.approx(baseline)
    assert found.read_gain == pytest.approx(1 - mean / baseline)
    share = found.hit_reads / found.reads
    assert found.read_ns == pytest.approx(
        share * found.hit_ns + (1 - share) * found.miss_ns  # type: ignore[operator]
    )
    assert found.partial_ns is None


def test_without_a_baseline_the_gain_is_not_known(tmp_path: Path) -> None:
    only = {"cache": Policy(["cache", "uring"], added_ns=1_500, hit_share=0.5)}
    run = open_run(make_run(tmp_path / "run", policies=only, rounds=1, ios=200))
    (found,) = gained(run)
    assert found.read_gain is None
    section = Section("hits", "Hit ratio")
    add_gained(section, run)
    assert "not known" in section.notes[0]
    assert len(section.tables) == 1


def test_runs_without_a_cache_have_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", policies={"direct": Policy()}, rounds=1, ios=100)
    assert gained(run) == []
