"""Servers that go away, lie or speak garbage: bounded time, the URI named, rows kept."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backends.conftest import Through
from conftest import Ended
from replay_kit import Io, filters, policy_file, round_here, rows_of, write_trace

import vaio_bench as vb
from vaio_bench import round_loop, runner
from vaio_bench.errors import InputError, VaioBenchError
from vaio_bench.runner import Settings

Broken = Callable[[Callable[[socket.socket], None]], str]

SIZE = 1 << 20
FLAGS = 0b1101101
IOS = [Io(i, "write", i * 4096, 4096) for i in range(200)]


def receive(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise OSError("gone")
        data += part
    return data


def shake(connection: socket.socket, size: int = SIZE, flags: int = FLAGS) -> None:
    """A handshake without structured replies."""
    connection.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
    receive(connection, 4)
    while True:
        _, option, length = struct.unpack(">8sII", receive(connection, 16))
        receive(connection, length)

        def reply(kind: int, data: bytes = b"", option: int = option) -> None:
            head = struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data))
            connection.sendall(head + data)

        if option == 7:
            reply(3, struct.pack(">HQH", 0, size, flags))
            reply(1)
            return
        reply((1 << 31) + 1)


def request(connection: socket.socket) -> tuple[int, bytes, int, int]:
    """`(command, cookie, offset, length)`; a write's data is dropped."""
    _, _, command, cookie, offset, length = struct.unpack(">IHH8sQI", receive(connection, 28))
    if command == 1:
        receive(connection, length)
    return command, cookie, offset, length


def answer(connection: socket.socket, cookie: bytes, error: int = 0) -> None:
    connection.sendall(struct.pack(">II", 0x67446698, error) + cookie)


def fails(through: Through, uri: str, *, timeout: str = "500ms") -> str:
    """The message of a run that never begins, or that loses its round, soon."""
    began = time.monotonic()
    params = {"timeout": timeout, "connect_timeout": "500ms"}
    try:
        [message] = through(IOS, uri, params=params, verify=False, depth=8).found["lost_rounds"]
    except VaioBenchError as error:
        message = str(error)
    assert time.monotonic() - began < 20
    assert uri in message
    return message


def test_gone_in_mid_run(broken_server: Broken, through: Through, tmp_path: Path) -> None:
    def talk(connection: socket.socket) -> None:
        shake(connection)
        for _ in range(100):
            answer(connection, request(connection)[1])

    assert "closed the connection in the middle of the run" in fails(through, broken_server(talk))
    run = vb.open_run(tmp_path / "run1")
    rows = rows_of(run, "chain")
    assert run.exit.startswith("failed: 1 rounds lost: nbd+unix://")
    assert (rows["status"] == 0).sum() == 100
    lost = rows.filter(rows["status"] != 0)
    # All that was in flight, and nothing that was not.
    assert 1 <= len(lost) <= 16
    assert set(lost["status"]) <= {104, 32}


def test_never_answers(broken_server: Broken, through: Through, tmp_path: Path) -> None:
    def talk(connection: socket.socket) -> None:
        shake(connection)
        for _ in range(20):
            answer(connection, request(connection)[1])
        time.sleep(20)

    assert "did not answer a request within 0.5 s" in fails(through, broken_server(talk))
    rows = rows_of(vb.open_run(tmp_path / "run1"), "chain")
    assert (rows["status"] == 0).sum() == 20
    assert (rows["status"] == 110).sum() == 8


def test_one_request_is_never_answered(broken_server: Broken, through: Through) -> None:
    """That others are answered all the time does not make up for it."""

    def talk(connection: socket.socket) -> None:
        shake(connection)
        request(connection)
        while True:
            answer(connection, request(connection)[1])
            time.sleep(0.02)

    assert "did not answer a request" in fails(through, broken_server(talk))


def dies_in_its_second_round(path: Path) -> threading.Thread:
    """Serves one connection to its end, the next for 30 requests; nobody listens from then on."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        for requests in (len(IOS), 30):
            connection, _ = listener.accept()
            with connection:
                shake(connection)
                for _ in range(requests):
                    answer(connection, request(connection)[1])
        listener.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_one_that_dies_costs_a_comparison_its_own_rounds_alone(tmp_path: Path) -> None:
    path = tmp_path / "dies.sock"
    server = dies_in_its_second_round(path)
    uri = f"nbd+unix://{path}"
    began = time.monotonic()
    found = vb.compare(
        write_trace(tmp_path / "t.parquet", IOS),
        out=tmp_path / "run",
        policies=[policy_file(tmp_path, filters({"use": uri})), "pass"],
        rounds=3,
        settings=Settings(pace="asap", depth=4, backend="mem", destroy_data=True),
    )
    assert time.monotonic() - began < 60
    server.join(timeout=5)
    first, second = found["lost_rounds"]
    assert [lost["policy"] for lost in (first, second)] == ["chain", "chain"]
    assert first["reason"].startswith(f"{uri}: ")
    assert "in the middle of the run" in first["reason"]
    assert second["reason"].startswith(f"{uri}: cannot connect to the NBD server")
    run = vb.open_run(tmp_path / "run")
    assert run.exit.startswith(f"failed: 2 rounds lost: {uri}")
    # What the lost round has done is there, and counts in nothing.
    assert (rows_of(run, "chain", first["round"])["status"] == 0).sum() == 30
    complete = {name: len(run.rounds(name, complete_only=True)) for name in run.policies}
    assert complete == {"direct": 3, "direct-again": 3, "chain": 1, "pass": 3}


def falls_silent(path: Path) -> None:
    """Serves one connection to its end; the next ones are greeted, and then not at all."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        kept = [listener]
        for requests in (len(IOS), 3):
            connection, _ = listener.accept()
            kept.append(connection)
            shake(connection)
            for _ in range(requests):
                answer(connection, request(connection)[1])
        time.sleep(60)

    threading.Thread(target=serve, daemon=True).start()


def test_a_policy_whose_server_is_silent_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def run(job: dict[str, Any], progress: Any) -> Any:
        tried.append(job["options"]["policy"])
        return round_here(job, progress)

    monkeypatch.setattr(round_loop, "run_round", run)
    monkeypatch.setattr(runner._core, "harness_floor", lambda: {"null_ns": 100.0})
    uri = f"nbd+unix://{tmp_path}/silent.sock"
    falls_silent(tmp_path / "silent.sock")
    server = {"use": uri, "timeout": "300ms", "connect_timeout": "300ms"}
    found = vb.compare(
        write_trace(tmp_path / "t.parquet", IOS),
        out=tmp_path / "run",
        policies=[policy_file(tmp_path, filters(server)), "pass"],
        rounds=6,
        settings=Settings(pace="asap", depth=4, backend="mem", destroy_data=True),
    )
    assert {name: tried.count(name) for name in tried} == {
        "direct": 6, "direct-again": 6, "pass": 6, "chain": 3}  # fmt: skip
    first, second, *left = found["lost_rounds"]
    assert first["reason"] == f"{uri}: the server did not answer a request within 0.3 s"
    assert second["reason"] == f"{uri}: the server did not answer the handshake"
    assert [each["round"] for each in left] == [3, 4, 5]
    for each in left:
        assert each["tried"] is False
        assert each["reason"] == f"not tried, as 2 rounds in a row ended so: {second['reason']}"
    [lost] = [each["lost"] for each in found["policies"] if each["name"] == "chain"]
    assert (lost["rounds"], lost["untried"]) == ([1, 2, 3, 4, 5], 3)
    told = "policy chain lost 5 of 6 rounds (2, 3, 4, 5, 6), 3 of them not tried as it was given up"
    assert f"{told}: {first['reason']}" in found["notes"]
    [warning] = [each for each in found["warnings"] if each["code"] == "policy-given-up"]
    assert "did not answer in 2 rounds in a row, and 3 round(s)" in warning["text"]


GARBAGE = {
    "magic": lambda cookie: b"\xde\xad\xbe\xef" + bytes(12),
    "a few bytes of it": lambda cookie: b"\xde\xad\xbe\xef",
    "unknown cookie": lambda cookie: struct.pack(">II", 0x67446698, 0) + b"\xff" * 8,
    "chunk of no type": lambda cookie: struct.pack(">IHH8sI", 0x668E33EF, 1, 99, cookie, 4),
    "data for a write": lambda cookie: (
        struct.pack(">IHH8sIQ", 0x668E33EF, 1, 1, cookie, 16, 0) + bytes(8)
    ),
    "endless error": lambda cookie: struct.pack(">IHH8sI", 0x668E33EF, 1, 32769, cookie, 1 << 31),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_in_place_of_a_reply(broken_server: Broken, through: Through, kind: str) -> None:
    def talk(connection: socket.socket) -> None:
        shake(connection)
        connection.sendall(GARBAGE[kind](request(connection)[1]))
        time.sleep(5)

    assert "the server sent garbage" in fails(through, broken_server(talk), timeout="10s")


def chunk(cookie: bytes, kind: int, body: bytes, *, last: bool = True) -> bytes:
    return struct.pack(">IHH8sI", 0x668E33EF, int(last), kind, cookie, len(body)) + body


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("before the range", lambda at, n: (1, struct.pack(">Q", at - 1) + bytes(n))),
        ("behind the range", lambda at, n: (1, struct.pack(">Q", at + 1) + bytes(n))),
        ("far away", lambda at, n: (2, struct.pack(">QI", 1 << 63, n))),
        ("too little", lambda at, n: (1, struct.pack(">Q", at) + bytes(n - 1))),
    ],
)
def test_reads_are_answered_within_their_range(
    broken_server: Broken,
    through: Through,
    name: str,
    body: Callable[[int, int], tuple[int, bytes]],
) -> None:
    del name

    def talk(connection: socket.socket) -> None:
        shake(connection)
        _, cookie, offset, length = request(connection)
        connection.sendall(chunk(cookie, *body(offset, length)))
        time.sleep(5)

    uri = broken_server(talk)
    [lost] = through([Io(0, "read", 8192, 4096)], uri, verify=False).found["lost_rounds"]
    assert "the server sent garbage" in lost


def test_structured_replies_in_any_shape(broken_server: Broken, through: Through) -> None:
    """Data, a hole and an end of its own, byte by byte; an error with a text; holes only."""

    def talk(connection: socket.socket) -> None:
        shake(connection)
        _, cookie, offset, _ = request(connection)
        whole = (
            chunk(cookie, 2, struct.pack(">QI", offset + 100, 3996), last=False)
            + chunk(cookie, 1, struct.pack(">Q", offset) + b"\x01" * 100, last=False)
            + chunk(cookie, 0, b"")
        )
        for at in range(len(whole)):
            connection.sendall(whole[at : at + 1])
        _, cookie, _, _ = request(connection)
        connection.sendall(chunk(cookie, 32769, struct.pack(">IH", 28, 4) + b"full"))
        _, cookie, _, _ = request(connection)
        connection.sendall(chunk(cookie, 32770, struct.pack(">IHQ", 9999, 0, 5)))
        receive(connection, 28)

    ios = [Io(i, "read", 4096 * i, 4096) for i in range(3)]
    found = through(ios, broken_server(talk), verify=False, depth=1)
    # An error that the protocol does not name counts as EINVAL.
    assert rows_of(found.run, "chain")["status"].to_list() == [0, 28, 22]


@pytest.mark.parametrize("op", ["read", "write"])
def test_every_answer_twice(broken_server: Broken, through: Through, op: str) -> None:
    """The second of them, cut in the middle or not, ends the round at once."""

    def talk(connection: socket.socket) -> None:
        shake(connection)
        while True:
            command, cookie, _, length = request(connection)
            once = struct.pack(">II", 0x67446698, 0) + cookie + bytes(length * (command == 0))
            connection.sendall(once + once[:100])
            time.sleep(0.001)
            connection.sendall(once[100:])

    uri = broken_server(talk)
    ios = [Io(i, op, i * 4096, 4096) for i in range(200)]
    found = through(ios, uri, params={"timeout": "2s"}, verify=False, depth=8).found
    assert "the server sent garbage" in found["lost_rounds"][0]


@pytest.mark.parametrize(
    ("hello", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "greets with"),
        (b"NBDMAGIC" + struct.pack(">Q", 0x00420281861253) + bytes(140), "oldstyle handshake"),
        (b"NBDMAGICNONSENSE" + bytes(10), "IHAVEOPT was expected"),
        (b"NBDMAGICIHAVEOPT\x00\x03" + b"\xff" * 200, "no reply to option"),
        (b"NBDMAGIC", "did not answer the handshake"),
        (b"", "did not answer the handshake"),
        (None, "closed the connection in the handshake"),
    ],
)
def test_handshakes(
    broken_server: Broken, through: Through, tmp_path: Path, hello: bytes | None, told: str
) -> None:
    def talk(connection: socket.socket) -> None:
        if hello is not None:
            connection.sendall(hello)
            time.sleep(5)

    assert told in fails(through, broken_server(talk))
    # A run that never began leaves no folder.
    assert not (tmp_path / "run1").exists()


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (8192, "the server has 8192"),
        (1 << 63, "its export has 9223372036854775808 bytes: expected at most"),
    ],
)
def test_a_size_that_cannot_be(
    broken_server: Broken, through: Through, size: int, told: str
) -> None:
    def talk(connection: socket.socket) -> None:
        shake(connection, size)
        time.sleep(1)

    uri = broken_server(talk)
    kind = InputError if size < SIZE else VaioBenchError
    with pytest.raises(kind, match=told) as raised:
        through(IOS, uri)
    assert uri in str(raised.value)


def test_a_size_that_is_a_lie(broken_server: Broken, through: Through) -> None:
    """It has less than it says: those I/Os fail, by errno, and the run ends with status 1."""

    def talk(connection: socket.socket) -> None:
        shake(connection)
        while True:
            command, cookie, offset, _ = request(connection)
            if command == 2:
                return
            answer(connection, cookie, 28 if offset >= 400_000 else 0)

    found = through(IOS, broken_server(talk), verify=False)
    rows = rows_of(found.run, "chain")
    assert set(rows.filter(rows["offset_bytes"] >= 400_000)["status"]) == {28}
    assert found.found["errors"] == (rows["offset_bytes"] >= 400_000).sum()
    assert found.run.exit.startswith("failed: ")


def test_a_server_without_flush_is_warned_about(broken_server: Broken, through: Through) -> None:
    def talk(connection: socket.socket) -> None:
        shake(connection, flags=1)
        while True:
            answer(connection, request(connection)[1])

    ios = [Io(0, "write", 0, 4096), Io(1, "flush"), Io(2, "write", 4096, 4096, flags=1)]
    found = through(ios, broken_server(talk), verify=False)
    assert found.totals["unflushed"] == 2
    assert "server-without-flush" in found.found["warnings"]


def test_exit_status_and_one_line(
    broken_server: Broken, cli: Callable[..., Ended], tmp_path: Path
) -> None:
    def talk(connection: socket.socket) -> None:
        shake(connection)
        for _ in range(50):
            answer(connection, request(connection)[1])

    uri = broken_server(talk)
    policy = policy_file(tmp_path, filters({"use": uri}))
    trace = write_trace(tmp_path / "t.parquet", IOS)
    ended = cli(
        "replay", trace, "--policy", policy, "--pace", "asap", "--destroy-data",
        "-o", tmp_path / "run",
    )  # fmt: skip
    assert ended.exit_status == 1
    assert ended.stderr.count("\n") == 1
    assert uri in ended.stderr
    assert len(rows_of(vb.open_run(tmp_path / "run"), "chain")) > 50


def test_nobody_there_leaves_nothing(cli: Callable[..., Ended], tmp_path: Path) -> None:
    uri = f"nbd+unix://{tmp_path}/none.sock"
    policy = policy_file(tmp_path, filters({"use": uri}))
    trace = write_trace(tmp_path / "t.parquet", IOS)
    words = [trace, "--policy", policy, "--pace", "asap", "--destroy-data"]
    out = tmp_path / "new" / "run"
    ended = cli("replay", *words, "-o", out)
    assert ended.exit_status == 2
    assert "cannot connect to the NBD server" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()
    # A folder of the user's stays, with what is in it.
    out.mkdir(parents=True)
    assert cli("replay", *words, "-o", out).exit_status == 2
    assert not list(out.iterdir())
