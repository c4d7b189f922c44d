"""NBD servers, real and broken, and replays through them."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import find_tool
from replay_kit import Io, filters, policy_file, round_here, write_trace

import vaio_bench as vb
from vaio_bench import round_loop, runner
from vaio_bench.runner import Settings
from vaio_bench.store import Run


@dataclass(frozen=True)
class Replayed:
    """A run through a server and the document that `replay` gave."""

    run: Run
    found: dict[str, Any]

    @property
    def server(self) -> dict[str, Any]:
        """What the first disk's server said of itself."""
        server: dict[str, Any] = self.run.manifest["policies"]["chain"]["servers"][0]
        return server

    @property
    def totals(self) -> dict[str, Any]:
        """Those of the only round."""
        return self.run.totals("chain", 0)


Through = Callable[..., Replayed]


@pytest.fixture
def through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Through:
    """Replays I/Os through filters and a server: `through(ios, uri, "pass", timeout="1s")`."""
    monkeypatch.setattr(round_loop, "run_round", round_here)
    monkeypatch.setattr(runner._core, "harness_floor", lambda: {"null_ns": 100.0})
    count = 0

    def run(
        ios: list[Io],
        uri: str,
        *before: str | dict[str, Any],
        params: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Replayed:
        nonlocal count
        count += 1
        trace = write_trace(tmp_path / f"t{count}.parquet", ios)
        chain = filters(*before, {"use": uri, **(params or {})})
        chosen = {"pace": "asap", "verify": True, "destroy_data": True, **settings}
        out = tmp_path / f"run{count}"
        found = vb.replay(
            trace, out=out, policy=policy_file(tmp_path, chain), settings=Settings(**chosen)
        )
        return Replayed(vb.open_run(out), found)

    return run


class Servers:
    """Server processes of one test, each on a socket of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def nbdkit(self, *args: str, name: str = "s") -> str:
        """Starts nbdkit with these filters, plugin and keys; its URI."""
        path = self.folder / f"{name}.sock"
        return self._start(["nbdkit", "-f", "-U", str(path), *args], path)

    def nbdkit_tcp(self, *args: str) -> str:
        """The same on a port of the loopback."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = ["nbdkit", "-f", "-i", "127.0.0.1", "-p", str(port), *args]
        self._processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        _until(lambda: _answers(port))
        return f"nbd://127.0.0.1:{port}"

    def qemu(self, image: Path, *args: str) -> str:
        """Starts qemu-nbd on a raw image; its URI."""
        path = self.folder / "q.sock"
        return self._start(
            ["qemu-nbd", "-t", "-f", "raw", "-k", str(path), *args, str(image)], path
        )

    def _start(self, command: list[str], path: Path) -> str:
        command[0] = find_tool(command[0]) or command[0]
        self._processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        _until(path.exists)
        return f"nbd+unix://{path}"

    def stop(self) -> None:
        """Ends all of them."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(timeout=20)
        self._processes.clear()


def _until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.02)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Starts servers; all are gone at the test's end."""
    started = Servers(tmp_path)
    yield started
    started.stop()


@pytest.fixture
def broken_server(tmp_path: Path) -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Listens, and lets the given function talk to whoever connects; gives the URI."""
    listeners: list[socket.socket] = []

    def start(talk: Callable[[socket.socket], None]) -> str:
        path = tmp_path / "broken.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        listeners.append(listener)

        def serve() -> None:
            try:
                connection, _ = listener.accept()
                with connection:
                    talk(connection)
            except OSError:
                pass  # The client, or the test, has had enough.

        threading.Thread(target=serve, daemon=True).start()
        return f"nbd+unix://{path}"

    yield start
    for listener in listeners:
        listener.close()
