"""Ports on loopback: chosen once, remembered, used again while they are free."""

import json
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

from stack.errors import PortTaken, StackError
from stack.files import write_atomically

# Below what Linux and macOS hand out to outgoing connections: a remembered port is not lost to one of those.
LOWEST, HIGHEST = 20_000, 32_000
TRIES = 200
HIGHEST_OF_ALL = 65_535


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as candidate:
        # As servers do: a connection that is still timing out does not make a port taken.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def chosen_by_user(environ: Mapping[str, str], names: Mapping[str, str]) -> dict[str, int]:
    """The ports set by variables (variable → part in `names`); raises PortTaken or StackError naming the variable."""
    chosen = {part: _parsed(variable, environ[variable]) for variable, part in names.items() if environ.get(variable)}
    for variable, part in names.items():
        if part in chosen and not is_free(chosen[part]):
            raise PortTaken(f"{variable}={chosen[part]} is in use: stop what listens there, or set another {variable}")
    return chosen


def assign(memory: Path, preferred: Mapping[str, int | None]) -> dict[str, int]:
    """A free port for each name: the remembered one, else the preferred, else any; remembers them in `memory`."""
    remembered = json.loads(memory.read_text()) if memory.exists() else {}
    ports: dict[str, int] = {}
    for name, wish in preferred.items():
        ports[name] = _first_free([remembered.get(name), wish], set(ports.values()))
    write_atomically(memory, json.dumps(remembered | ports, indent=2) + "\n")
    return ports


def any_free() -> int:
    """A port that nobody listens on."""
    return _first_free([], set())


def _first_free(wishes: list[int | None], taken: set[int]) -> int:
    candidates = [*wishes, *(LOWEST + secrets.randbelow(HIGHEST - LOWEST) for _ in range(TRIES))]
    for port in candidates:
        if port and port not in taken and is_free(port):
            return port
    raise StackError(f"no free port between {LOWEST} and {HIGHEST} on 127.0.0.1")


def _parsed(variable: str, text: str) -> int:
    if text.isascii() and text.isdecimal() and 0 < int(text) <= HIGHEST_OF_ALL:
        return int(text)
    raise StackError(f"{variable}={text} is not a port: set it to a number from 1 to {HIGHEST_OF_ALL}")
