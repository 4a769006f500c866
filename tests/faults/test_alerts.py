"""Faults of the running system: one alert reports each within 15 s, and a step of its runbook mends it."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from service.domain.caller import Role
from stack import ports
from stack.credentials import Credentials
from stack.servers import postgres
from tests.alert_watch import AlertWatch
from tests.faults.alert_faults import FAULTS, Environment, Fault, run
from tests.faults.proxy import Proxy
from tests.faults.small_disk import small_file_system
from tests.fixtures.browser import NARROW, view
from tests.fixtures.running import running
from tests.prometheus_server import has_evaluated, prometheus
from tests.waiting import eventually

pytestmark = pytest.mark.all_rows

_MEGABYTES = 192
_SOON_MS = 10_000


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """The system on a stack of its own. Without the right to mount a file system only the full disk is left out."""
    directory = tmp_path_factory.mktemp("alerts")
    credentials = Credentials.load_or_create(directory / "secrets")
    port = ports.any_free()
    with ExitStack() as opened:
        disk = _small_disk(opened, tmp_path_factory.mktemp("disk"))
        database = opened.enter_context(Proxy(ports.any_free(), port))
        url = {"DATABASE_URL": postgres.application_url(database.port, credentials)}
        commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        system = opened.enter_context(
            running(
                directory,
                {"PATH": commands},
                overrides={"api": url, "issuer": url},
                directories={"postgres": disk / "postgres"} if disk else None,
                preferred_ports={"postgres": port},
            )
        )
        yield Environment(system, database, disk)


def _small_disk(opened: ExitStack, folder: Path) -> Path | None:
    try:
        opened.enter_context(small_file_system(folder, _MEGABYTES))
    except pytest.skip.Exception:
        return None
    return folder


@pytest.fixture(scope="module")
def server(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client | None]:
    """Prometheus beside the system, where it is installed."""
    with prometheus(environment.system, tmp_path_factory.mktemp("prometheus")) as client:
        if client:
            eventually(lambda: has_evaluated(client))
        yield client


@pytest.fixture(scope="module")
def page(environment: Environment, request: pytest.FixtureRequest) -> Iterator[Page | None]:
    """The dashboard in a browser, where there is one."""
    try:
        browser: Browser = request.getfixturevalue("browser")
    except pytest.skip.Exception:
        yield None
        return
    headers = environment.system.credentials.headers(Role.ADMIN)
    context = browser.new_context(**view(NARROW, "light", "en-US"), extra_http_headers=headers)
    opened = context.new_page()
    opened.goto(f"{environment.system.stack.api_url}/dashboard")
    yield opened
    context.close()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_fault_is_reported_by_one_alert_and_mended_by_its_runbook(
    environment: Environment, server: httpx.Client | None, page: Page | None, fault: Fault
) -> None:
    """In words, within 15 s, and nothing else is reported from before the fault until after it: nowhere."""
    system = environment.system
    system.wait_until_ready()
    with AlertWatch(system, server) as watch:
        watch.wait_until_none()
        watch.forget()
        began = time.monotonic()
        with ExitStack() as injected:
            try:
                injected.enter_context(fault.inject(environment))
                watch.wait_for(fault.alert, began)
                _assert_shown(page, fault)
                _assert_confirmed(environment, fault)
            finally:
                fault.mend.do(environment)
        watch.wait_until_none()
        _assert_shown_as_well(page)
        seen = {where: dict(source.seen) for where, source in watch.sources.items()}

    assert {where: set(alerts) for where, alerts in seen.items()} == {where: {fault.alert} for where in watch.sources}
    for where in ("GET /alerts", "dashboard"):
        assert any(fault.words in cause for cause in seen[where][fault.alert]), seen


def _assert_shown(page: Page | None, fault: Fault) -> None:
    if page:
        alerts = page.locator(".alerts li")
        expect(alerts).to_contain_text(fault.words, timeout=_SOON_MS)
        expect(alerts.get_by_role("link", name=f"Runbook of {fault.alert}")).to_be_visible()


def _assert_shown_as_well(page: Page | None) -> None:
    if page:
        expect(page.get_by_role("heading", name="All is well")).to_be_visible(timeout=_SOON_MS)


def _assert_confirmed(environment: Environment, fault: Fault) -> None:
    """Run the command with which the runbook confirms the alert."""
    if confirm := fault.confirm:
        done = run(environment, confirm.command)
        assert (done.returncode, confirm.output in done.stdout + done.stderr) == (confirm.status, True), done


def test_the_accepted_requests_are_final_afterwards(environment: Environment) -> None:
    """What the faults left is worked off, and the promises hold."""
    environment.system.wait_until_idle()
    environment.system.assert_promises()
