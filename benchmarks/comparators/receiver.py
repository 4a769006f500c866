"""A receiver of notices that takes everything and looks at nothing; it prints its URL and runs until terminated."""

import asyncio
import contextlib

_TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
_LENGTH = b"content-length:"


async def _take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers every POST of a kept connection."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(_LENGTH)[2].split(b"\r\n", 1)[0]))
            writer.write(_TAKEN)
            await writer.drain()
    writer.close()


async def main() -> None:
    """Listens on a free port of loopback."""
    server = await asyncio.start_server(_take, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/notices", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
