"""Job files and grids: which cells there are, and what may be written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from vaio_bench.errors import InputError
from vaio_bench.fio import jobs


def test_every_combination_is_a_cell() -> None:
    cells = jobs.grid({"rw": ["randread", "randwrite"], "iodepth": ["1", "8"]}, {"bs": "4k"}, [])
    names = ["randread-iodepth1", "randread-iodepth8", "randwrite-iodepth1", "randwrite-iodepth8"]
    assert [cell.name for cell in cells] == names
    assert jobs.jobs(cells[1].job) == [("job", {"bs": "4k", "rw": "randread", "iodepth": "8"})]


def test_a_grid_wins_over_a_job_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.fio"
    file.write_text("[global]\nbs=8k ; x\n[a]\nrw=read\niodepth=2\n# iodepth=9\n[b]\nrw=write\n")
    (cell,) = jobs.grid({"iodepth": ["4"]}, {"size": "1m"}, [file])
    assert cell.name == "mine-iodepth4"
    told = jobs.jobs(cell.job)
    assert [(name, of["rw"], of["iodepth"], of["size"]) for name, of in told] == [
        ("a", "read", "4", "1m"),
        ("b", "write", "4", "1m"),
    ]


@pytest.mark.parametrize("value", ["4k\nexec_prerun=x", " 4k", "4k\0"])
def test_a_value_cannot_bring_another_option(value: str) -> None:
    with pytest.raises(InputError, match="expected one line"):
        jobs.grid({"bs": [value]}, {}, [])


def test_two_cells_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "j.fio").write_text("[j]\nfilename=x\n")
    with pytest.raises(InputError, match="two cells are named j"):
        jobs.grid({}, {}, [tmp_path / "a" / "j.fio", tmp_path / "b" / "j.fio"])


def cell(text: str) -> jobs.Cell:
    return jobs.Cell("c", text, {}, "c.fio")


def test_names_are_divided_by_colons(tmp_path: Path) -> None:
    odd = tmp_path / "a:b"
    text = f"[j]\nrw=read\nfilename={jobs.escaped(odd)}:other\n"
    assert jobs.check_writes(cell(text), destroy_data=False) == [odd, Path("other")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[j]\nrw=randwrite\nfilename=FILE\n", "what this tool did not make"),
        ("[global]\nfilename=FILE\n[r]\nrw=read\n[w]\nreadwrite=rw\n", r"\[w\] would overwrite"),
        ("[j]\nrw=write\nioengine=nbd\nuri=nbd://x\n", "cannot be told"),
        ("[j]\nrw=write\ndirectory=d\n", "cannot be told"),
        ("[j]\nrw=write\n", "names no file"),
    ],
)
def test_data_is_not_overwritten_unasked(tmp_path: Path, text: str, said: str) -> None:
    mine = tmp_path / "mine"
    mine.write_text("precious")
    job = cell(text.replace("FILE", str(mine)))
    with pytest.raises(InputError, match=said):
        jobs.check_writes(job, destroy_data=False)
    if "names no file" not in said:
        jobs.check_writes(job, destroy_data=True)


def test_reading_is_allowed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("precious")
    assert jobs.check_writes(cell(f"[j]\nfilename={mine}\n"), destroy_data=False) == [mine]
