"""Load for a row: users request coupons and repeat until they have an answer; some requests fail on purpose."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple, Self

from service.verification.history import ClientAnswer
from testkit.credentials import Credentials
from testkit.issuance_client import IssuanceClient

#: the request fails in its first attempt, in its first two, in every one
FAULTS = ("22012 1", "22012 2", "22012 9")
#: share of the requests that carry one of FAULTS
FAILING_SHARE = 0.03
_REPEATED_SHARE = 0.05
_TIMEOUT_SECONDS = 6.0
_REPEAT_AFTER_SECONDS = 0.4
#: a user repeats for so long after the row has ended; longer than any promised recovery
_GIVE_UP_AFTER_SECONDS = 60.0


class IssuanceRequest(NamedTuple):
    """What one user requests; `twice`: again, after the first answer."""

    coupon_id: int
    user_id: int
    fault: str | None = None
    twice: bool = False


class LoadGenerator:
    """Sends issuance requests while the `with` block runs, from an event loop in a thread of its own.

    `history` receives every answer. At most `concurrency` users are active, and at most `per_second` new ones begin
    each second.
    """

    def __init__(
        self,
        api_url: str,
        credentials: Credentials,
        history: list[ClientAnswer],
        requests: Iterator[IssuanceRequest],
        per_second: float,
        concurrency: int,
    ) -> None:
        self.accepted = 0
        #: requests without an answer when the load ended
        self.unanswered: list[IssuanceRequest] = []
        self._api_url = api_url
        self._credentials = credentials
        self._history = history
        self._requests = requests
        self._interval_seconds = concurrency / per_second
        self._concurrency = concurrency
        self._ended = threading.Event()
        self._give_up_at = float("inf")
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Begin no new request and wait until the active ones have an answer or give up."""
        self._give_up_at = time.monotonic() + _GIVE_UP_AFTER_SECONDS
        self._ended.set()
        self._thread.join()

    async def _run(self) -> None:
        async with (
            IssuanceClient(self._api_url, self._concurrency, _TIMEOUT_SECONDS, self._credentials) as client,
            asyncio.TaskGroup() as group,
        ):
            for number in range(self._concurrency):
                group.create_task(
                    self._run_user(client, start_after=self._interval_seconds * number / self._concurrency)
                )

    async def _run_user(self, client: IssuanceClient, start_after: float) -> None:
        await asyncio.sleep(start_after)
        while not self._ended.is_set() and (request := next(self._requests, None)):
            began = time.monotonic()
            for _ in range(1 + request.twice):
                await self._request_until_answered(client, request)
            await asyncio.sleep(max(0.0, began + self._interval_seconds - time.monotonic()))

    async def _request_until_answered(self, client: IssuanceClient, request: IssuanceRequest) -> None:
        coupon_id, user_id, fault, _ = request
        while (answer := await client.request(user_id, coupon_id, fault)).outcome == "unknown":
            self._history.append(answer)
            if time.monotonic() > self._give_up_at:
                self.unanswered.append(request)
                return
            await asyncio.sleep(_REPEAT_AFTER_SECONDS)
        self._history.append(answer)
        self.accepted += answer.outcome == "accepted"


def random_requests(
    coupons: Sequence[int], weights: Sequence[int], random: Random, failing_share: float = FAILING_SHARE
) -> Iterator[IssuanceRequest]:
    """Yield requests without end, each by a new user; `weights` are the coupons' shares of the requests."""
    user_id = 0
    while True:
        user_id += 1
        (coupon,) = random.choices(coupons, weights)
        fault = random.choice(FAULTS) if random.random() < failing_share else None
        yield IssuanceRequest(coupon, user_id, fault, twice=random.random() < _REPEATED_SHARE)
