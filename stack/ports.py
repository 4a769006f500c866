"""Ports on loopback: assigned once, remembered in a file, and used again while they are free."""

import json
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

from service.config.parsing import is_service_address
from stack.errors import PortTaken, StackError
from stack.files import write_atomically
from stack.server_env import LOOPBACK

# Below the range that Linux and macOS use for outgoing connections, which could otherwise take a remembered port.
MIN_PORT, MAX_PORT = 20_000, 32_000
ATTEMPTS = 200
MAX_VALID_PORT = 65_535


def is_free(port: int) -> bool:
    """Return whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as candidate:
        # Servers set this option too: a connection in TIME_WAIT does not make a port taken.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def user_ports(user_env: Mapping[str, str], names: Mapping[str, str]) -> dict[str, int]:
    """Return the ports that the user set by variables.

    `names` maps a variable to the name of its port. Raises PortTaken for a port in use, StackError for a value that
    is not a port; both name the variable.
    """
    chosen = {
        name: _parse(variable, text)
        for variable, name in names.items()
        if (text := user_env.get(variable)) and not is_service_address(text)
    }
    for variable, name in names.items():
        if name in chosen and not is_free(chosen[name]):
            raise PortTaken(
                f"{variable}={chosen[name]} is in use: stop the process that listens there, or set another {variable}"
            )
    return chosen


def assign(memory: Path, preferred: Mapping[str, int | None]) -> dict[str, int]:
    """Return a free port for each name: the one remembered in the file `memory`, else the preferred one, else any.

    The ports are written to `memory` for the next start.
    """
    remembered = json.loads(memory.read_text()) if memory.exists() else {}
    ports: dict[str, int] = {}
    for name, preference in preferred.items():
        ports[name] = _first_free([remembered.get(name), preference], set(ports.values()))
    write_atomically(memory, json.dumps(remembered | ports, indent=2) + "\n")
    return ports


def any_free() -> int:
    """Return a port on which nothing listens."""
    return _first_free([], set())


def _first_free(preferred: list[int | None], taken: set[int]) -> int:
    candidates = [*preferred, *(MIN_PORT + secrets.randbelow(MAX_PORT - MIN_PORT) for _ in range(ATTEMPTS))]
    for port in candidates:
        if port and port not in taken and is_free(port):
            return port
    raise StackError(f"no free port between {MIN_PORT} and {MAX_PORT} on {LOOPBACK}: stop processes that listen there")


def _parse(variable: str, text: str) -> int:
    if text.isascii() and text.isdecimal() and 0 < int(text) <= MAX_VALID_PORT:
        return int(text)
    raise StackError(f"{variable}={text} is not a port: set it to a number from 1 to {MAX_VALID_PORT}")
