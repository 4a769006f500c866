"""A TLS proxy on loopback before a server without TLS: `python -m stack.servers.tls_proxy PORT UPSTREAM_PORT FILE`.

FILE has the certificate and its key. A line is printed for each connection whose handshake was completed.
"""

import asyncio
import socket
import ssl
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from stack.process_spec import ProcessSpec
from stack.server_env import LOOPBACK, ROOT, clean_environment

CHUNK = 65_536
TIMEOUT_SECONDS = 2.0


def spec(name: str, port: int, upstream_port: int, certificate: Path, ca: Path) -> ProcessSpec:
    """Return the specification of the proxy as a process of a stack."""
    arguments = (str(port), str(upstream_port), str(certificate))
    return ProcessSpec(
        name=name,
        argv=(sys.executable, "-m", "stack.servers.tls_proxy", *arguments),
        env=clean_environment(),
        cwd=ROOT,
        healthy=lambda: _answers(port, ca),
    )


async def serve(port: int, upstream_port: int, certificate: Path) -> None:
    """Accept connections until the task is cancelled."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = await asyncio.start_server(partial(_forward, upstream_port), LOOPBACK, port, ssl=context)
    async with server:
        await server.serve_forever()


async def _forward(upstream_port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    print("a connection was accepted", flush=True)
    try:
        upstream_reader, upstream_writer = await asyncio.open_connection(LOOPBACK, upstream_port)
    except OSError:
        writer.close()
        return
    await asyncio.gather(_copy(reader, upstream_writer), _copy(upstream_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction until an end closes it, then close the other end."""
    with suppress(OSError):
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
    writer.close()


def _answers(port: int, ca: Path) -> bool:
    context = ssl.create_default_context(cafile=ca)
    try:
        with (
            socket.create_connection((LOOPBACK, port), TIMEOUT_SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=LOOPBACK),
        ):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
