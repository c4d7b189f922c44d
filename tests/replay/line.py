"""A line in a process of its own: `python line.py PORT TO_PORT` forwards until it is killed."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading


def forward(come: socket.socket, go: socket.socket) -> None:
    """Everything from one to the other; the end of one is the end of both."""
    try:
        while data := come.recv(1 << 16):
            go.sendall(data)
    except OSError:
        pass
    for end in (come, go):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """Listens on the first port, connects to the second."""
    port, to_port = (int(word) for word in sys.argv[1:])
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            near, _ = server.accept()
            try:
                far = socket.create_connection(("127.0.0.1", to_port))
            except OSError:
                near.close()
                continue
            for ends in ((near, far), (far, near)):
                threading.Thread(target=forward, args=ends, daemon=True).start()


if __name__ == "__main__":
    main()
