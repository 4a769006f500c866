"""The race: everybody asks at once, and amidst them another producer; then the wait until all is final."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console

from demo import client, progress, sale
from demo.history import History, Outcome
from demo.progress import Tick
from demo.records import Outsider, springs
from demo.sale import Sale
from demo.view import Pending, View
from stack.local import LocalStack

FINAL_SECONDS = 60.0


def run(console: Console, plan: Sale, stack: LocalStack, ids: Sequence[int], view: View, history: History) -> int:
    """Sends everybody, and amidst them malformed records; gives the number of those."""
    sound = springs(ids[sale.biggest(plan.quantities)], plan.outsider)
    with (
        Outsider(stack.kafka_bootstrap_servers) as outsider,
        ThreadPoolExecutor(1) as aside,
        progress.shown(console, "the race", lambda: _asked(history, view, len(plan.asks))),
    ):
        (home,) = outsider.append([sound])
        malformed = aside.submit(outsider.append_malformed, sound, home)
        asyncio.run(client.send(stack.api_url, sale.stages(plan.asks), ids, history))
        return malformed.result()


def settled(console: Console, view: View) -> Pending:
    """Waits until all is final, and shows how far it is; what still is not after a minute."""
    total = view.records()

    def decided() -> Tick:
        pending = view.pending()
        return Tick(total - pending.records - pending.undecided, total, str(pending))

    with progress.shown(console, "decided ", decided):
        return view.settle(FINAL_SECONDS)


def _asked(history: History, view: View, total: int) -> Tick:
    accepted, refused, unknown = (history.counts[outcome] for outcome in Outcome)
    text = f"accepted {accepted:,}, issued {view.issued():,}, refused {refused:,}, unknown {unknown:,}"
    return Tick(history.counts.total(), total, text)
