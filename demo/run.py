"""Steps of the demo in their order: stack, coupons, sale, replay, verification, last page."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import httpx
from rich.console import Console

from demo import checks, environment, operator_api, sale
from demo.foreign_producer import ForeignProducer, spring_record
from demo.progress import Tick, show_progress
from demo.report import print_report
from demo.result import SaleResult, Snapshot
from demo.sale import IssuanceRequest, Sale
from demo.system_state import SystemReader, observe_statuses
from stack.local import LocalStack
from testkit import credentials
from testkit.credentials import Credentials
from testkit.history import AnswerHistory
from testkit.issuance_client import IssuanceClient
from testkit.webhook_receiver import WebhookReceiver

RESPONSE_TIMEOUT_SECONDS = 15.0
FINAL_WITHIN_SECONDS = 60.0


@contextmanager
def run_demo(console: Console, plan: Sale, *, details: bool) -> Iterator[bool]:
    """Run the demo and print its last page; yield whether every check passed. The stack runs until the block ends."""
    with WebhookReceiver() as receiver, environment.started(console, receiver) as stack:
        callers = credentials.create(stack.environment)
        with (
            SystemReader(stack.database_url, stack.kafka_bootstrap_servers) as reader,
            operator_api.connect(stack.api_url, callers) as api,
        ):
            operator_api.wait_until_admitted(api)
            history = AnswerHistory(stack.directory / "history.jsonl")
            result = run_sale(console, plan, stack, api, callers, receiver, reader, history)
            if result.faults:
                result = replay_dead_letter(console, plan, api, reader, result)
        console.print("verifying the promises", style="dim")
        all_checks = [*checks.verify(stack.environment, history.path), *checks.demo_checks(result)]
        print_report(console, result, all_checks, details=details)
        user, password = stack.flower_login
        console.print(f"\nAPI       {stack.api_url}\ndocs      {stack.api_url}/docs")
        console.print(f"dashboard {stack.api_url}/dashboard")
        console.print(f"Flower    {stack.flower_url}  user {user}, password {password}")
        console.print(f"logs      {stack.directory / 'log'}")
        yield all(check.ok for check in all_checks)


def run_sale(
    console: Console,
    plan: Sale,
    stack: LocalStack,
    api: httpx.Client,
    callers: Credentials,
    receiver: WebhookReceiver,
    reader: SystemReader,
    history: AnswerHistory,
) -> SaleResult:
    """Create the coupons, send every request, and wait until all is final."""
    coupon_ids = [operator_api.create_coupon(api, offer).id for offer in sale.offers(plan.quantities)]
    valid = spring_record(coupon_ids[sale.biggest_offer(plan.quantities)], plan.foreign_user)

    def progress() -> Tick:
        accepted, refused, unknown = (history.counts[outcome] for outcome in ("accepted", "refused", "unknown"))
        text = f"accepted {accepted:,}, issued {reader.issued():,}, refused {refused:,}, unknown {unknown:,}"
        return Tick(history.counts.total(), len(plan.requests), text)

    with observe_statuses(api, reader) as statuses:
        with (
            history,
            ForeignProducer(stack.kafka_bootstrap_servers) as foreign_producer,
            ThreadPoolExecutor(1) as thread,
            show_progress(console, "requests", progress),
        ):
            (partition,) = foreign_producer.append([valid])
            malformed = thread.submit(foreign_producer.append_malformed, valid, partition)
            asyncio.run(send(stack.api_url, callers, sale.stages(plan.requests), coupon_ids, history))
        after_sale = snapshot(console, api, reader)
    coupons = [operator_api.read_coupon(api, coupon_id) for coupon_id in coupon_ids]
    return SaleResult(
        plan.requests, history.answers, statuses, coupons, after_sale, receiver, malformed.result(), plan.foreign_user
    )


async def send(
    api_url: str,
    callers: Credentials,
    stages: Sequence[Sequence[IssuanceRequest]],
    coupon_ids: Sequence[int],
    history: AnswerHistory,
) -> None:
    """Send all requests in their order, stage by stage, as many at a time as there are connections."""
    async with IssuanceClient(api_url, sale.CONNECTIONS, RESPONSE_TIMEOUT_SECONDS, callers) as client:

        async def send_next(requests: Iterator[IssuanceRequest]) -> None:
            for user_id, offer, fault in requests:
                history.add(await client.request(user_id, coupon_ids[offer], fault))

        for stage in stages:
            requests = iter(stage)
            async with asyncio.TaskGroup() as group:
                for _ in range(sale.CONNECTIONS):
                    group.create_task(send_next(requests))


def snapshot(console: Console, api: httpx.Client, reader: SystemReader) -> Snapshot:
    """Wait until everything is final, with progress, and read the state; after the timeout, read what there is."""
    total = reader.records()

    def progress() -> Tick:
        pending = reader.pending()
        return Tick(total - pending.records - pending.undecided, total, str(pending))

    with show_progress(console, "decided ", progress):
        pending = reader.wait_until_final(FINAL_WITHIN_SECONDS)
    return Snapshot(pending, reader.rows(), operator_api.list_dead_letters(api))


def replay_dead_letter(
    console: Console, plan: Sale, api: httpx.Client, reader: SystemReader, result: SaleResult
) -> SaleResult:
    """Replay one dead letter of the biggest coupon as an operator would, and wait until all is final again."""
    console.print("the operator replays a dead letter", style="dim")
    coupon_id = result.coupons[sale.biggest_offer(plan.quantities)].id
    replay = operator_api.replay_first(api, coupon_id)
    return replace(result, replay=replay, after_replay=snapshot(console, api, reader))
