"""Replays through other people's servers, every byte that comes back checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backends.conftest import Servers, Through
from conftest import Ended, requires
from replay_kit import (
    FUA,
    Io,
    filters,
    in_flight_max,
    mixed,
    policy_file,
    round_here,
    rows_of,
    write_trace,
)

from vaio_bench import round_loop
from vaio_bench.errors import InputError

REACH = 4 << 20
MEMORY = ("memory", "4M")
NBDKIT = requires("nbdkit")


def some(**keys: Any) -> list[Io]:
    return mixed(7, 600, **{"reach": REACH, "align": 512, **keys})


@NBDKIT
@pytest.mark.parametrize(
    "served",
    [
        MEMORY,
        ("--filter=cache", *MEMORY, "cache=writeback"),
        ("--filter=cow", *MEMORY),
        ("--filter=stats", *MEMORY, "statsfile=stats.txt"),
        ("--filter=log", *MEMORY, "logfile=log.txt"),
        ("--filter=delay", *MEMORY, "rdelay=1ms", "wdelay=1ms"),
        ("--filter=noparallel", "--filter=nozero", *MEMORY, "zeromode=notrim"),
    ],
    ids=lambda served: served[0],
)
def test_every_byte_comes_back(
    servers: Servers, through: Through, tmp_path: Path, served: tuple[str, ...]
) -> None:
    args = [arg.replace("file=", f"file={tmp_path}/") for arg in served]
    found = through(some(), servers.nbdkit(*args), depth=64)
    assert found.found["verified"]
    assert found.found["errors"] == 0
    assert found.found["verified_bytes"] > 1 << 20
    assert found.found["backend"] == "nbd"
    assert found.run.layers("chain") == ["nbd"]
    assert found.server["size_bytes"] == REACH
    assert found.server["structured_replies"]
    assert in_flight_max(rows_of(found.run, "chain")) > 16


@NBDKIT
def test_what_was_written_is_in_the_servers_file(
    servers: Servers, through: Through, tmp_path: Path
) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(b"\xaa" * REACH)
    ios = [Io(0, "write", 8192, 4096), Io(1, "write_zeroes", 65536, 65536), Io(2, "flush")]
    found = through(ios, servers.nbdkit("file", str(image)))
    assert found.found["verified"]
    written = image.read_bytes()
    assert written[65536 : 2 * 65536] == bytes(65536)
    assert written[8192:12288] not in (b"\xaa" * 4096, bytes(4096))
    assert written[12288:65536] == b"\xaa" * (65536 - 12288)


@NBDKIT
def test_luks_of_another_make(servers: Servers, through: Through, tmp_path: Path) -> None:
    """What the server encrypts comes back in clear, and is not what its file holds."""
    import shutil
    import subprocess

    if shutil.which("qemu-img") is None:
        pytest.skip("requires qemu-img (Debian package qemu-utils)")
    image = tmp_path / "luks.img"
    secret = "secret,id=key,data=geheim"
    subprocess.run(
        ["qemu-img", "create", "-q", "--object", secret, "-f", "luks", "-o", "key-secret=key",
         "-o", "iter-time=10", str(image), "8M"],
        check=True, capture_output=True,
    )  # fmt: skip
    uri = servers.nbdkit("--filter=luks", "file", str(image), "passphrase=geheim")
    found = through(some(align=4096, ops=("read", "write", "flush")), uri)
    assert found.found["verified"]
    assert found.found["errors"] == 0


@requires("qemu-nbd")
def test_qemu_nbd(servers: Servers, through: Through, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(REACH))
    found = through(some(align=1), servers.qemu(image))
    assert found.found["verified"]
    assert found.found["errors"] == 0


@NBDKIT
def test_block_sizes_are_kept(servers: Servers, through: Through) -> None:
    """The server fails whatever is not whole blocks or is too long."""
    sizes = ["blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=65536"]
    uri = servers.nbdkit(
        "--filter=blocksize-policy", *MEMORY, *sizes, "blocksize-error-policy=error"
    )
    found = through(some(longest=300 << 10), uri)
    assert found.found["verified"]
    assert found.found["errors"] == 0
    rows = rows_of(found.run, "chain")
    unaligned = rows.filter((rows["offset_bytes"] | rows["length_bytes"]) % 4096 != 0)
    read_or_changed = unaligned.filter(~unaligned["op"].is_in(["flush", "discard"]))
    # The sweep at the end reads unaligned ranges as well.
    assert found.totals["unaligned"] >= len(read_or_changed) > 100
    long = rows.filter((rows["length_bytes"] > 200 << 10) & (rows["op"] == "write"))
    assert len(long) > 0
    assert all(flags & 16 for flags in long["flags"])


@NBDKIT
def test_what_a_server_cannot_is_made_up_for(
    servers: Servers, through: Through, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    uri = servers.nbdkit(
        "--filter=log", "--filter=fua", "--filter=nozero", *MEMORY, "fuamode=discard",
        "zeromode=notrim", f"logfile={log}",
    )  # fmt: skip
    assert through(some(), uri).found["verified"]
    servers.stop()
    script = _served_by_sh(tmp_path, can_fua="none", can_zero="no", can_trim="no")
    found = through(some(), servers.nbdkit("sh", str(script), name="sh"))
    assert found.found["verified"]
    assert found.found["errors"] == 0
    assert not found.server["fua"]
    assert not found.server["trim"]
    rows = rows_of(found.run, "chain")
    fua = [io for io in some() if io.op == "write" and io.flags & FUA]
    assert found.totals["fua_by_flush"] == len(fua) > 20
    flushes = (tmp_path / "flushes").read_text().count("\n")
    preflushes = sum(1 for io in some() if io.flags & 16)
    assert flushes == len(fua) + preflushes + len(rows.filter(rows["op"] == "flush"))


def _served_by_sh(folder: Path, *, can_fua: str, can_zero: str, can_trim: str) -> Path:
    """A plugin in sh over a file, with the abilities that are named and a log of its flushes."""
    image = folder / "sh.img"
    image.write_bytes(bytes(REACH))
    script = folder / "plugin.sh"
    yes = {"yes": "exit 0", "no": "exit 3"}
    script.write_text(
        f"""#!/bin/sh
case "$1" in
  get_size) echo {REACH} ;;
  pread) dd iflag=skip_bytes,count_bytes if={image} skip="$4" count="$3" status=none ;;
  can_write) exit 0 ;;
  pwrite) dd oflag=seek_bytes of={image} seek="$4" conv=notrunc status=none ;;
  can_flush) exit 0 ;;
  flush) echo flush >> {folder}/flushes ;;
  can_fua) echo {can_fua} ;;
  can_zero) {yes[can_zero]} ;;
  can_trim) {yes[can_trim]} ;;
  *) exit 2 ;;
esac
""",
        encoding="utf-8",
    )
    script.chmod(0o755)
    return script


@NBDKIT
def test_errors_of_the_server_are_errnos(servers: Servers, through: Through) -> None:
    """An injected error is that I/O's alone, and the run goes on."""
    uri = servers.nbdkit(
        "--filter=error", *MEMORY, "error-pwrite=ENOSPC", "error-pwrite-rate=20%",
        "error-pread=EIO", "error-pread-rate=0%",
    )  # fmt: skip
    ios = [Io(i, "write", i % 512 * 4096, 4096) for i in range(300)]
    found = through(ios, uri)
    rows = rows_of(found.run, "chain")
    assert set(rows["status"]) == {0, 28}
    assert found.found["errors"] == (rows["status"] == 28).sum()


@NBDKIT
def test_filters_of_ours_stand_before_it(
    servers: Servers, through: Through, tmp_path: Path
) -> None:
    uri = servers.nbdkit(*MEMORY)
    cache = {"use": "cache", "capacity": "1MiB", "block": "4KiB"}
    found = through(some(), uri, {"use": "crypt", "key": "random"}, cache)
    assert found.found["verified"]
    assert found.run.layers("chain") == ["crypt", "cache", "nbd"]
    rows = rows_of(found.run, "chain")
    assert rows["hit_blocks"].sum() > 0
    assert all(len(layers) == 3 for layers in rows["self_ns"])


@NBDKIT
def test_several_connections_and_tcp(servers: Servers, through: Through) -> None:
    found = through(some(), servers.nbdkit_tcp(*MEMORY), params={"connections": 4})
    assert found.found["verified"]
    assert found.server["connections"] == 4
    one = through(
        some(),
        servers.nbdkit("--filter=multi-conn", *MEMORY, "multi-conn-mode=disable"),
        params={"connections": 4},
    )
    assert one.server["connections"] == 1


@NBDKIT
def test_a_server_for_each_disk(servers: Servers, through: Through, tmp_path: Path) -> None:
    ios = mixed(3, 300, reach=REACH, align=512, disks=("a", "b/c"))
    uri = servers.nbdkit(*MEMORY, name="a")
    with pytest.raises(InputError, match=r"2 disks: expected \{disk\} in the URI"):
        through(ios, uri)
    servers.nbdkit("memory", "8M", name="b%2Fc")
    found = through(ios, f"nbd+unix://{tmp_path}/{{disk}}.sock")
    assert found.found["verified"]
    sizes = [each["size_bytes"] for each in found.run.manifest["policies"]["chain"]["servers"]]
    assert sizes == [REACH, 8 << 20]


@NBDKIT
def test_pacing_and_prefill(servers: Servers, through: Through) -> None:
    ios = [Io(i * 1_000_000, "read", i * 4096, 4096) for i in range(100)]
    ios.append(Io(100_000_000, "write", 0, 4096))
    found = through(ios, servers.nbdkit(*MEMORY), pace="recorded")
    assert found.found["verified"]
    assert found.found["verified_bytes"] >= 100 * 4096
    rows = rows_of(found.run, "chain")
    assert rows["submit_ns"].min() >= 0
    assert rows["complete_ns"].max() >= 100_000_000


@NBDKIT
def test_a_read_only_trace_writes_nothing(
    servers: Servers, through: Through, tmp_path: Path
) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(b"\x55" * REACH)
    uri = servers.nbdkit("-r", "file", str(image))
    ios = [Io(i, "read", i * 4096, 4096) for i in range(64)]
    found = through(ios, uri, verify=False, destroy_data=False)
    assert found.found["errors"] == 0
    assert found.server["read_only"]
    with pytest.raises(InputError, match="read-only, and the trace writes"):
        through([Io(0, "write", 0, 4096)], uri)


@NBDKIT
def test_data_is_asked_for_before_it_goes(servers: Servers, through: Through) -> None:
    uri = servers.nbdkit(*MEMORY)
    with pytest.raises(InputError, match=r"overwrite what nbd\+unix:.*--destroy-data"):
        through([Io(0, "write", 0, 4096)], uri, destroy_data=False)


@NBDKIT
def test_compare_our_cache_with_theirs(
    servers: Servers, cli: Callable[..., Ended], tmp_path: Path
) -> None:
    """The page's example: the baseline goes to the target, the vendor's policy to its server."""
    uri = servers.nbdkit("--filter=cache", "memory", "16M", "cache=writeback")
    theirs = policy_file(tmp_path, filters({"use": uri}), "theirs")
    ours = policy_file(tmp_path, filters({"use": "cache", "capacity": "1MiB"}), "ours")
    trace = write_trace(tmp_path / "t.parquet", mixed(5, 400, reach=REACH, align=4096))
    ended = cli(
        "compare", trace, "--target", tmp_path / "t.img", "--policy", ours, "--policy", theirs,
        "--rounds", "2", "--pace", "asap", "--destroy-data", "-o", tmp_path / "run", "--json",
    )  # fmt: skip
    assert ended.exit_status == 0, ended.stderr
    assert [policy["name"] for policy in ended.document["policies"]][-2:] == ["ours", "theirs"]


def test_the_policy_is_checked_whole(tmp_path: Path) -> None:
    from vaio_bench import spec

    text = """
[[filter]]
use = "nbd:unix:/run/a.sock"
[[filter]]
use = "nbds://host/"
timeout = "soon"
connections = 99
"""
    with pytest.raises(spec.PolicyError) as raised:
        spec.load_policy(policy_file(tmp_path, text))
    told = str(raised.value)
    assert "filter[0].use: expected an NBD server as the last filter" in told
    assert "filter[0].use: expected nbd+unix:///path.sock" in told
    assert "filter[1].use: expected nbd+unix:///path.sock" in told
    assert "this client has no TLS" in told
    assert 'filter[1].timeout: expected a time such as "100us" or "5s", got "soon"' in told


def test_wall_clock_only(here_policy: Path, cli: Callable[..., Ended], tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.parquet", [Io(0, "read", 0, 4096)])
    ended = cli(
        "replay", trace, "--policy", here_policy, "--clock", "virtual", "--backend", "sim",
        "-o", tmp_path / "run",
    )  # fmt: skip
    assert ended.exit_status == 2
    assert ended.stderr.count("\n") == 1
    assert "wall clock only" in ended.stderr


@pytest.fixture
def here_policy(tmp_path: Path) -> Path:
    """A policy whose server need not be there."""
    return policy_file(tmp_path, filters({"use": "nbd+unix:///nowhere.sock"}))


def test_nobody_there(here_policy: Path, cli: Callable[..., Ended], tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.parquet", [Io(0, "read", 0, 4096)])
    ended = cli("replay", trace, "--policy", here_policy, "-o", tmp_path / "run")
    assert ended.exit_status == 2
    assert "nbd+unix:///nowhere.sock: cannot connect to the NBD server" in ended.stderr


@NBDKIT
def test_what_rounds_start_from_is_told(
    servers: Servers, here: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(round_loop, "run_round", round_here)
    policy_file(tmp_path, filters({"use": servers.nbdkit("memory", "16M")}), "served")
    write_trace(tmp_path / "t.parquet", some())
    options = ["--policy", "served.toml", "--pace", "asap", "--destroy-data", "--quiet"]
    told = "note: policy served: an NBD server's export is not set back between rounds"
    assert told not in here("replay", "t.parquet", *options, "-o", "once").stdout
    assert told in here("replay", "t.parquet", *options, "--rounds", "2", "-o", "run").stdout
    here("report", "run", "-o", "r.html")
    assert "as the round before left it" in (tmp_path / "r.html").read_text()
