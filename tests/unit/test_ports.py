"""The address and port to listen on: what is free is taken, and what cannot be had is refused by its cause."""

from __future__ import annotations

import errno
import re
import socket

import pytest

from irl_core.errors import InputError
from train.serving import ports
from train.serving.ports import bound, free_port


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with pytest.raises(InputError, match=re.escape(f"Port {port} is taken. Name a free one with --port")):
            free_port(port)
    assert free_port(port) == port
    assert ports.FIRST_PORT <= free_port(None) < ports.FIRST_PORT + ports.PORTS_TRIED


def test_a_socket_has_the_address_that_was_asked_for() -> None:
    with bound("127.0.0.1", 0) as one, bound("localhost", None) as other:
        assert one.getsockname()[0] == "127.0.0.1" and one.getsockname()[1] > 0
        assert other.getsockname()[1] >= ports.FIRST_PORT


def test_an_address_of_the_sixth_version_is_one_too() -> None:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with bound("::1", 0) as found:
        assert found.family == socket.AF_INET6


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("192.0.2.1", 0, r"--host 192\.0\.2\.1: is no address of this machine; 0\.0\.0\.0 stands for all"),
        ("nobody.invalid", 0, r"--host nobody\.invalid: is no address that is known here"),
        ("a..b", 0, r"--host a\.\.b: is no address that is known here"),
        ("127.0.0.1", 65536, r"--port 65536: ports are numbers from 0 to 65535"),
        ("127.0.0.1", -1, r"--port -1: ports are numbers"),
    ],
)
def test_what_cannot_be_listened_on_is_refused_by_its_cause(host: str, port: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        bound(host, port)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "--port 80: the system keeps it for its own services; name one above 1023"),
        (errno.EIO, "--host 127.0.0.1 --port 80: cannot be listened on"),
    ],
)
def test_what_the_system_refuses_is_said(monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise OSError(number, "no")

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(InputError, match=re.escape(words)):
        bound("127.0.0.1", 80)
