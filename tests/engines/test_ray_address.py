"""The address of a Ray cluster is checked before Ray tries for minutes; Ray itself is not needed."""

from __future__ import annotations

import socket
import threading

import pytest

from hwnas.engines.ray import _HTTP2, _knock


def served(answer: bytes) -> tuple[str, threading.Thread]:
    """A server on the loopback for one connection."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with server, server.accept()[0] as connection:
            received = b""
            while len(received) < len(_HTTP2):
                received += connection.recv(100)
            connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return f"127.0.0.1:{server.getsockname()[1]}", thread


def test_a_server_of_grpc_is_accepted() -> None:
    address, thread = served(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    _knock(address)
    thread.join(10)


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2", b"HTTP/1.1 400 Bad Request", b"x", b""])
def test_another_server_is_refused(answer: bytes) -> None:
    address, thread = served(answer)
    with pytest.raises(OSError, match="something else than Ray listens there"):
        _knock(address)
    thread.join(10)


def test_nobody_listens() -> None:
    with pytest.raises(ConnectionRefusedError):
        _knock("127.0.0.1:1")
