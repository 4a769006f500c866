"""The demo's steps in their order: the stack, the coupons, the race, what became of it, a replay, the proof."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from rich.console import Console

from demo import audit, coupons, desk, ground, pages, proof, race, sale, table, tale, verdict
from demo.findings import Findings, Snapshot
from demo.history import History
from demo.proof import Check
from demo.receiver import Receiver
from demo.sale import Sale
from demo.view import View
from stack.local import LocalStack


@contextmanager
def held(console: Console, plan: Sale) -> Iterator[bool]:
    """Holds the sale and gives whether everything promised is so; the stack runs on until the block ends."""
    receiver = Receiver()
    with ground.prepared(console, receiver) as stack:
        checks = _shown(console, plan, stack, receiver)
        console.print(f"\nAPI     {stack.api_url}\ndocs    {stack.api_url}/docs\nFlower  {stack.flower_url}")
        yield all(check.ok for check in checks)


def _shown(console: Console, plan: Sale, stack: LocalStack, receiver: Receiver) -> list[Check]:
    with (
        View(stack.database_url, stack.kafka_bootstrap_servers) as view,
        History(stack.directory / "history.jsonl") as history,
    ):
        found = _sold(console, plan, stack, receiver, view, history)
        table.show_sale(console, found)
        found = _brought_back(console, plan, stack, view, found)
    console.print(tale.told(found))
    checks = [*proof.prove(stack.environment, history.path), *audit.checks(found), *verdict.checks(found)]
    table.show_proof(console, checks)
    return checks


def _sold(
    console: Console, plan: Sale, stack: LocalStack, receiver: Receiver, view: View, history: History
) -> Findings:
    """Holds the race; what became of it once all is final."""
    ids = [coupons.make(stack.api_url, offer).id for offer in sale.offers(plan.quantities)]
    with pages.watched(stack.api_url, view) as noted:
        malformed = race.run(console, plan, stack, ids, view, history)
        final = _settled(console, stack, view)
    made = [coupons.look(stack.api_url, coupon_id) for coupon_id in ids]
    return Findings(plan.asks, history.calls, noted, made, final, receiver, malformed, plan.outsider)


def _brought_back(console: Console, plan: Sale, stack: LocalStack, view: View, found: Findings) -> Findings:
    """Has the operator bring back one of those that failed until they were dead, where some were made to."""
    if not found.faults:
        return found
    console.print("the operator brings a dead letter back", style="dim")
    replay = desk.bring_back(stack.api_url, found.coupons[sale.biggest(plan.quantities)].id)
    return replace(found, replay=replay, after=_settled(console, stack, view))


def _settled(console: Console, stack: LocalStack, view: View) -> Snapshot:
    return Snapshot(race.settled(console, view), view.rows(), desk.letters(stack.api_url))
