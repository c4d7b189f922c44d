"""The law suite from outside; what breaks which law is tested in rust/core/src/laws/tests.rs."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended, requires
from filters.vendor import build

import vaio_bench as vb
from vaio_bench import spec
from vaio_bench.errors import InputError

LAWS = [
    "read_after_write", "unaligned_edges", "discard_then_zeroes", "short_io", "errors_pass_up",
    "completion_scope", "flush_durability", "fua_durability", "crash_at_any_point", "determinism",
    "transparent", "may_answer", "may_defer", "reorders", "changes_length",
    "unit_bytes", "children_per_io", "background_ios", "persists", "contract",
]  # fmt: skip
# What is not tested of a filter, as it declares that it does so.
UNTESTED: dict[str, set[str]] = {
    "cache": {"may_answer", "may_defer"},
    "crypt": {"transparent", "may_defer"},
    "delay": {"may_defer", "reorders"},
    "pass": set(),
    "throttle": {"may_defer"},
    "scramble": {"transparent", "may_defer"},
}


@pytest.mark.parametrize("name", ["cache", "crypt", "delay", "pass", "throttle"])
def test_every_simple_filter_keeps_every_law(name: str) -> None:
    found = vb.certify(name, seed=11)
    assert not found.broken
    names = [finding.law for finding in found.findings]
    assert names == LAWS * len(spec.load_policy(name).filters)
    untested = {finding.law for finding in found.findings if finding.outcome != "held"}
    assert untested == UNTESTED[name]


# Those of built-in filters are tested where the laws are; each of these takes hundreds of forks.
@pytest.mark.parametrize(
    ("name", "table", "place"),
    [
        ("scramble", 'use = "so:LIBRARY"\nkey = 7', "thread"),
        pytest.param("pass", 'use = "pass"', "process", marks=pytest.mark.slow),
        pytest.param("scramble", 'use = "so:LIBRARY"\nkey = 7', "process", marks=pytest.mark.slow),
    ],
)
def test_a_filter_keeps_every_law_where_it_is_placed(
    tmp_path: Path, name: str, table: str, place: str
) -> None:
    if "LIBRARY" in table:
        table = table.replace("LIBRARY", str(build(name, tmp_path)))
    file = tmp_path / "p.toml"
    file.write_text(f'[[filter]]\n{table}\nplacement = "{place}"\n')
    found = vb.certify(file, seed=4)
    assert not found.broken
    assert [finding.law for finding in found.findings] == LAWS


@pytest.mark.parametrize("name", spec.shipped())
def test_every_shipped_policy_breaks_no_law(name: str) -> None:
    assert not vb.certify(name).broken


def test_the_command(cli: Callable[..., Ended]) -> None:
    ended = cli("certify", "crypt", "--json")
    assert ended.exit_status == 0, ended.stderr
    assert ended.document["certified"]
    assert {finding["filter"] for finding in ended.document["findings"]} == {"crypt"}
    ended = cli("certify", "nothing")
    assert ended.exit_status == 2
    assert ended.stderr.count("\n") == 1


def is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


@requires("nbdkit")
@pytest.mark.parametrize("served", ["nofilter", "cache", "cow", "noparallel"])
def test_servers(tmp_path: Path, served: str) -> None:
    path = tmp_path / "s.sock"
    command = ["nbdkit", "-f", "-U", str(path), f"--filter={served}", "memory", "1M"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        # A socket has its name before it listens.
        while not is_listening(path):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        uri = f"nbd+unix://{path}"
        with pytest.raises(InputError, match="--destroy-data"):
            vb.certify(uri)
        found = vb.certify(uri, destroy_data=True)
        assert not found.broken
        held = [finding.law for finding in found.findings if finding.outcome == "held"]
        assert held == LAWS[:3]
        assert all(finding.detail for finding in found.findings if finding.outcome != "held")
    finally:
        server.terminate()
        server.wait()


def test_the_example_in_c_keeps_every_law(tmp_path: Path) -> None:
    policy = tmp_path / "c.toml"
    library = build("scramble", tmp_path)
    policy.write_text(f'[policy]\nname = "c"\n[[filter]]\nuse = "so:{library}"\nkey = 42\n')
    found = vb.certify(policy)
    assert not found.broken
    held = {finding.law for finding in found.findings if finding.outcome == "held"}
    assert held == set(LAWS) - UNTESTED["scramble"]


# Numbers of broken.c.
SEGFAULT, HANG, TWICE, SCRIBBLE, LOSE = 1, 3, 7, 8, 9
# Writes of a process, instances together: some laws come to so many, others do not.
AT = 1500


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (SEGFAULT, "crashed (SIGSEGV) in io_start of I/O "),
        (HANG, "hung (no return in 0.5 s) in io_start of I/O "),
        (LOSE, "never came back"),
    ],
)
def test_a_library_that_breaks_down_breaks_the_law_under_test(
    tmp_path: Path, cli: Callable[..., Ended], how: int, told: str
) -> None:
    library = build("broken", tmp_path, f"-DBREAKS={how}", f"-DAT={AT}")
    policy = tmp_path / "c.toml"
    policy.write_text(f'[policy]\nhang = "500ms"\n[[filter]]\nuse = "so:{library}"\n')
    ended = cli("certify", policy, "--json")
    assert ended.exit_status == 1
    findings = ended.document["findings"]
    assert [finding["law"] for finding in findings] == LAWS
    broken = [finding for finding in findings if finding["outcome"] == "broken"]
    assert broken
    assert len(broken) < len(LAWS)
    assert all(told in finding["detail"] for finding in broken)
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("how", [TWICE, SCRIBBLE])
def test_a_library_that_misuses_its_context_breaks_the_law_under_test(
    tmp_path: Path, how: int
) -> None:
    found = vb.certify(f"so:{build('broken', tmp_path, f'-DBREAKS={how}', '-DAT=20')}")
    # The library counts writes, all instances together: this one is of the first law.
    assert [finding.law for finding in found.broken] == LAWS[:1]
    assert "misuse" in found.broken[0].detail


FILTERS_IN_PYTHON = """
from vaio_bench.filters import PASS, Filter, Properties


class Half(Filter):
    filter_class = "inspection"
    properties = Properties(transparent=True, needs_data=True)


class Raises(Half):
    def io_complete(self, cx, io):
        if io.status:
            raise RuntimeError("what now?")
        return PASS


class Rules(Half):
    def __init__(self, parameters, setting):
        raise ValueError("rules: expected a file")
"""


def test_a_filter_in_python_is_certified_by_its_own_word(
    tmp_path: Path, cli: Callable[..., Ended]
) -> None:
    (tmp_path / "certified_here.py").write_text(FILTERS_IN_PYTHON)
    ended = cli("certify", "py:certified_here:Half", "--json", cwd=tmp_path)
    assert ended.exit_status == 0, ended.stderr
    assert [finding["law"] for finding in ended.document["findings"]] == LAWS
    assert all(finding["outcome"] == "held" for finding in ended.document["findings"])
    ended = cli("certify", "py:certified_here:Raises", "--json", cwd=tmp_path)
    assert ended.exit_status == 1
    broken = {f["law"]: f["detail"] for f in ended.document["findings"] if f["outcome"] == "broken"}
    assert {"errors_pass_up", "contract"} <= set(broken)
    assert "what now?" in broken["contract"]
    ended = cli("certify", "py:certified_here:Rules", cwd=tmp_path)
    assert ended.exit_status == 2
    assert "rules" in ended.stderr


def test_a_filter_of_a_package_is_certified_by_its_name(cli: Callable[..., Ended]) -> None:
    pytest.importorskip("yara_x", reason="requires yara-x (the extra `yara`)")
    ended = cli("certify", "yara")
    assert ended.exit_status == 0, ended.stderr


def test_a_library_is_certified_by_its_own_word(tmp_path: Path, cli: Callable[..., Ended]) -> None:
    library = build("broken", tmp_path)
    ended = cli("certify", f"so:{library.name}", cwd=library.parent)
    assert ended.exit_status == 0, ended.stderr
    ended = cli("certify", f"so:{tmp_path}/none.so")
    assert ended.exit_status == 2
    assert ended.stderr.count("\n") == 1
    assert "no such file" in ended.stderr


def test_the_example_in_python_breaks_no_law(tmp_path: Path) -> None:
    pytest.importorskip("yara_x", reason="requires yara-x (the extra `yara`)")
    rules, policy = tmp_path / "r.yar", tmp_path / "y.toml"
    rules.write_text('rule never { strings: $a = "not in any write" condition: $a }\n')
    policy.write_text(f'[policy]\nname = "y"\n[[filter]]\nuse = "yara"\nrules = "{rules}"\n')
    found = vb.certify(policy)
    assert not found.broken
    held = {finding.law for finding in found.findings if finding.outcome == "held"}
    assert {"read_after_write", "flush_durability", "crash_at_any_point"} <= held
