"""A look-up of a request's state from the socket to its response: one task, and no FastAPI for users who ask again."""

import asyncio

from service.api.errors import error_response
from service.api.plain_exchange import EXCHANGE_SLOTS, PlainExchange
from service.api.routes.issuances import status_response
from service.api_resources import ApiResources
from service.domain.caller import Caller
from service.server.guarded_protocol import GuardedProtocol


class PlainLookup(PlainExchange):
    """A look-up by an id that has the form of this service's, with or without the entity tag of the last response."""

    __slots__ = (*EXCHANGE_SLOTS, "_if_none_match", "_request_id", "trace")

    def __init__(
        self, protocol: GuardedProtocol, request_id: str, if_none_match: str | None, *, keep_alive: bool
    ) -> None:
        self.begin(protocol, keep_alive=keep_alive)
        self._request_id = request_id
        self._if_none_match = if_none_match

    def submit(self, protocol: GuardedProtocol, caller: Caller) -> None:
        """Look the request up with the others of the moment. The server waits for the task when it shuts down."""
        api = protocol.app_state["api"]
        task = asyncio.get_running_loop().create_task(self._look_up(api, caller))
        protocol.tasks.add(task)
        task.add_done_callback(protocol.tasks.discard)

    async def _look_up(self, api: ApiResources, caller: Caller) -> None:
        try:
            response = await status_response(self._request_id, api, caller, self._if_none_match)
        except Exception as error:  # noqa: BLE001  # rendered as the application's exception handlers do
            self.fail(error)
        else:
            self.respond(response)

    def fail(self, error: Exception) -> None:
        """Respond with problem details."""
        self.respond(error_response(error))
