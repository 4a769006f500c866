"""The demo's steps in their order: the stack, the coupons, the race, the wait until all is final, the proof."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from rich.console import Console

from demo import audit, client, coupons, ground, progress, proof, sale, table
from demo.audit import Findings
from demo.history import History, Outcome
from demo.progress import Tick
from demo.receiver import Receiver
from demo.records import Outsider, springs
from demo.sale import Sale
from demo.view import Pending, View
from stack.local import LocalStack

FINAL_SECONDS = 60.0


@contextmanager
def held(console: Console, plan: Sale) -> Iterator[bool]:
    """Holds the sale and gives whether everything promised is so; the stack runs on until the block ends."""
    receiver = Receiver()
    with ground.prepared(console, receiver) as stack:
        checks = _shown(console, plan, stack, receiver)
        console.print(f"\nAPI     {stack.api_url}\ndocs    {stack.api_url}/docs\nFlower  {stack.flower_url}")
        yield all(check.ok for check in checks)


def _shown(console: Console, plan: Sale, stack: LocalStack, receiver: Receiver) -> list[proof.Check]:
    ids = [coupons.make(stack.api_url, offer).id for offer in sale.offers(plan.quantities)]
    with View(stack.database_url, stack.kafka_bootstrap_servers) as view:
        with History(stack.directory / "history.jsonl") as history:
            malformed = _race(console, plan, stack, ids, view, history)
        pending, rows, letters = _settled(console, view), view.rows(), view.dead_letters()
    made = [coupons.look(stack.api_url, coupon_id) for coupon_id in ids]
    found = Findings(plan.asks, history.calls, made, pending, rows, letters, receiver, malformed, plan.outsider)
    checks = [*proof.prove(stack.environment, history.path), *audit.checks(found)]
    table.show(console, found, checks)
    return checks


def _race(console: Console, plan: Sale, stack: LocalStack, ids: Sequence[int], view: View, history: History) -> int:
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


def _asked(history: History, view: View, total: int) -> Tick:
    accepted, refused, unknown = (history.counts[outcome] for outcome in Outcome)
    text = f"accepted {accepted:,}, issued {view.issued():,}, refused {refused:,}, unknown {unknown:,}"
    return Tick(history.counts.total(), total, text)


def _settled(console: Console, view: View) -> Pending:
    total = view.records()

    def decided() -> Tick:
        pending = view.pending()
        return Tick(total - pending.records - pending.undecided, total, str(pending))

    with progress.shown(console, "decided ", decided):
        return view.settle(FINAL_SECONDS)
