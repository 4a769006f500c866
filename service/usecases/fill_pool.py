"""Threads that fill the gate for the API's requests, so that fills delay no other blocking work."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from service.domain.errors import Unavailable
from service.usecases.gate_fill import GateFiller

#: fills at the same time; each takes at most one of the ten connections of the API's pool
_THREADS = 4
#: above this many coupons that are being filled or wait for it, the API responds with 503 at once
_MAX_FILLS = 1_000


class FillPool:
    """Fills cold coupons, each at most once at a time, in threads of its own."""

    def __init__(self, gate_filler: GateFiller) -> None:
        self._gate_filler = gate_filler
        self._executor = ThreadPoolExecutor(_THREADS, "fill")
        #: by coupon id, those that have not ended
        self._fills: dict[int, asyncio.Future[None]] = {}

    async def fill(self, coupon_id: int) -> None:
        """Fill the gate for the coupon, or wait for the fill in progress; raise Unavailable.

        A caller that is cancelled does not end the fill.
        """
        fill = self._fills.get(coupon_id)
        if fill is None:
            if len(self._fills) >= _MAX_FILLS:
                raise Unavailable("The gate", "too many coupons wait to be filled")
            loop = asyncio.get_running_loop()
            fill = self._fills[coupon_id] = loop.run_in_executor(self._executor, self._gate_filler.fill, coupon_id)
            fill.add_done_callback(lambda _: self._fills.pop(coupon_id, None))
        await asyncio.shield(fill)

    def close(self) -> None:
        """Wait for the fills in progress; those that have not begun are cancelled."""
        self._executor.shutdown(cancel_futures=True)
