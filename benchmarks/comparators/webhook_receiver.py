"""A webhook receiver that responds 204 to everything: `python -m benchmarks.comparators.webhook_receiver`."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator

from benchmarks import ROOT

_RESPONSE = b"HTTP/1.1 204 No Content\r\n\r\n"
_CONTENT_LENGTH = b"content-length:"
_COMMAND = (sys.executable, "-m", "benchmarks.comparators.webhook_receiver")


@contextlib.contextmanager
def run_receiver() -> Iterator[str]:
    """Run the receiver in a process of its own while the block runs; yield its URL."""
    with subprocess.Popen(_COMMAND, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def _respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Respond to every POST of a keep-alive connection; the bodies are read and dropped."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(_CONTENT_LENGTH)[2].split(b"\r\n", 1)[0]))
            writer.write(_RESPONSE)
            await writer.drain()
    writer.close()


async def main() -> None:
    """Listen on a free loopback port, print the URL, and serve until the process is terminated."""
    server = await asyncio.start_server(_respond, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/notices", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
