"""A response that is made page by page, in a thread, as fast as its client reads it."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Send

from service.domain.errors import CouponsError, Unavailable
from service.log import get_logger
from service.log_events import LogEvent
from service.usecases.operator_work import BoundedStreams

_log = get_logger(__name__)


class PagedResponse(StreamingResponse):
    """Reads the next page when the client has taken the last one; in between it holds no thread and no transaction.

    When the client goes, no further page is read. If a page cannot be read, or the process shuts down, the connection
    is closed without the end of the response, so that the client does not take the part for the whole.
    """

    def __init__(
        self, request: Request, streams: BoundedStreams, pages: Iterator[bytes], headers: Mapping[str, str]
    ) -> None:
        super().__init__(self._read(streams, pages), headers=headers)
        self._connection = request.state

    async def _read(self, streams: BoundedStreams, pages: Iterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the pages; pause after each for as long as it took to make, so that requests have priority."""
        began = time.monotonic()
        while (page := await streams.run(lambda: next(pages, None))) is not None:
            pause_seconds = time.monotonic() - began
            yield page
            if self._connection.is_draining():
                raise Unavailable("The API", "the process shuts down")
            await asyncio.sleep(pause_seconds)
            began = time.monotonic()

    async def stream_response(self, send: Send) -> None:
        """Send the pages. Starlette cancels this when the connection is gone."""
        try:
            await super().stream_response(send)
        except Exception as error:  # noqa: BLE001  # the status is sent: only the connection can tell the client
            _log.error(LogEvent.STREAM_CUT, reason=str(error), exc_info=not isinstance(error, CouponsError))
            self._connection.abort()
            await asyncio.Event().wait()
