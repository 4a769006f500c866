"""A server of the tests' own process, in a thread."""

import asyncio
import socket
import threading
from typing import Any

import uvicorn


class ServerThread(threading.Thread):
    """uvicorn on a free port, with one of the project's protocol classes."""

    def __init__(self, application: Any, protocol: type[asyncio.Protocol], **options: Any) -> None:
        """`options` are those of uvicorn."""
        super().__init__(name=protocol.__name__, daemon=True)
        self.uvicorn = uvicorn.Server(
            uvicorn.Config(application, http=protocol, ws="none", log_config=None, access_log=False, **options)
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        #: host and port
        self.address: tuple[str, int] = self._listener.getsockname()

    def run(self) -> None:
        """Serve until `stop`."""
        self.uvicorn.run([self._listener])

    def stop(self) -> None:
        """End the server and the thread."""
        self.uvicorn.should_exit = True
        self.join()
