"""The address and port to listen on."""

from __future__ import annotations

import errno
import socket

from irl_core.errors import InputError

LOCAL = "127.0.0.1"
FIRST_PORT = 8501
PORTS_TRIED = 100


def free_port(asked: int | None) -> int:
    """The port of this machine's own address that was asked for, else the first free one. Raises as ``bound`` does."""
    with bound(LOCAL, asked) as probe:
        port: int = probe.getsockname()[1]
        return port


def bound(host: str, port: int | None) -> socket.socket:
    """A socket with an address and the port that was asked for, else with the first free port.

    Raises:
        InputError: the address is no name or is not this machine's, the port is none, is taken, or is the system's.
    """
    if port is not None and not 0 <= port < 2**16:
        raise InputError(f"--port {port}: ports are numbers from 0 to 65535, 0 for any free one.")
    try:
        family, *_, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host {host}: is no address that is known here ({error}); try {LOCAL}.") from None
    for number in [port] if port is not None else range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((address[0], number, *address[2:]))
        except OSError as error:
            found.close()
            if error.errno != errno.EADDRINUSE:
                raise InputError(_refused(host, number, error)) from None
            continue
        return found
    taken = f"{FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1} are all" if port is None else f"{port} is"
    raise InputError(f"Port {taken} taken. Name a free one with --port (make app PORT=...).")


def _refused(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host}: is no address of this machine; 0.0.0.0 stands for all that it has."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"--port {port}: the system keeps it for its own services; name one above 1023."
    return f"--host {host} --port {port}: cannot be listened on ({error.strerror or error})."
