import json
from pathlib import Path

import pytest
from run_folder import Policy, make_run

from vaio_bench.analyses.timeline import append_round
from vaio_bench.errors import InputError
from vaio_bench.store import open_run, part_folder

TWO = {"direct": Policy(), "crypt": Policy(["crypt", "uring"], added_ns=5_000)}


def test_a_run_gives_its_rows_by_policy_and_round(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "run", policies=TWO, rounds=2, ios=500))
    assert run.policies == ["direct", "crypt"]
    assert run.rounds("crypt", complete_only=True) == [0, 1]
    assert run.scan_ios().collect().height == 2_000
    rows = run.scan_ios("crypt", 1).collect()
    assert rows["seq"].sort().to_list() == list(range(500))
    assert set(rows["policy"].to_list()) == {"crypt"}
    assert run.layers("crypt") == ["crypt", "uring"]
    assert run.timeline().height == 0
    assert run.events().columns[:3] == ["policy", "round", "disk"]


def test_a_killed_run_opens_without_its_torn_part(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", policies=TWO, rounds=2, ios=600, parts=3, exit="running")
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["totals"]["crypt"]["1"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    torn = part_folder(path, "crypt", 1) / "part-2.parquet"
    torn.write_bytes(torn.read_bytes()[:-20])
    (torn.parent / "part-3.parquet.writing").write_bytes(b"PAR1")
    run = open_run(path)
    assert run.exit == "running"
    assert run.unreadable == (torn,)
    assert run.rounds("crypt") == [0, 1]
    assert run.rounds("crypt", complete_only=True) == [0]
    assert run.scan_ios("crypt", 1).collect().height == 400


def test_a_folder_whose_name_looks_like_a_pattern_is_read_as_it_is(tmp_path: Path) -> None:
    make_run(tmp_path / "run1", policies=TWO, rounds=1, ios=50)
    run = open_run(make_run(tmp_path / "run[1]*", policies=TWO, rounds=1, ios=60))
    assert run.scan_ios().collect().height == 120
    append_round(run, "crypt", 0)
    assert run.timeline()["ios"].sum() == 60


def test_parts_come_in_the_order_written_beyond_ten(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "run", policies=TWO, rounds=1, ios=240, parts=12))
    names = [part.name for part in run.parts_of["direct", 0]]
    assert names == [f"part-{number}.parquet" for number in range(12)]


@pytest.mark.parametrize("name", ["a/b", "..", "50 %", "fast: é"])
def test_any_policy_name_makes_one_folder(tmp_path: Path, name: str) -> None:
    run = open_run(make_run(tmp_path / "run", policies={name: Policy()}, rounds=1, ios=10))
    assert run.policies == [name]
    assert part_folder(run.path, name, 0).parent.parent.resolve() == run.path / "ios"


def test_what_is_no_run_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name, found in [("gone", "nothing there"), ("file", "a file"), ("empty", "no manifest")]:
        with pytest.raises(InputError, match=f"{name}: expected a run folder.*{found}"):
            open_run(tmp_path / name)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema_version": 99}'])
def test_a_bad_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json: "):
        open_run(tmp_path)


def test_rows_of_an_unknown_policy_are_refused(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "run", policies=TWO, rounds=1, ios=10))
    with pytest.raises(InputError, match=r'no I/O rows for policy "zip".*direct, crypt'):
        run.scan_ios("zip")
