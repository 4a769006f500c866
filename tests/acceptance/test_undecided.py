"""Another application's consumer in the issuers' group: issuer and API name it, and nothing is lost."""

import httpx

from service.usecases.alerts import Alert
from tests.other_clients import NAMED_STRANGER, stranger_in_group
from tests.system import System

_COUPONS = 12  # enough that the stranger's partitions have some of them


def test_a_stranger_in_the_group_is_reported_until_it_leaves(system: System) -> None:
    """The issuer is unready and the API has an alert, both with the stranger's name; then all is decided."""
    coupons = [system.make_coupon(quantity=1) for _ in range(_COUPONS)]
    with stranger_in_group(system.stack.kafka_bootstrap_servers):
        answers = [system.request_until_answered(coupon, 1) for coupon in coupons]
        system.eventually(lambda: NAMED_STRANGER in alert_of(system.stack.api_url, ready=True))
        system.eventually(lambda: NAMED_STRANGER in alert_of(system.stack.issuer_url, ready=False))
        age = 'coupons_oldest_undecided_age_seconds{partition="'
        metrics = httpx.get(f"{system.stack.issuer_url}/metrics", auth=system.credentials).text.splitlines()
        ages = [float(line.split()[1]) for line in metrics if line.startswith(age)]
        assert len(ages) == system.settings.topic_partitions
        assert min(ages) < 10 < max(ages)

    assert {system.wait_until_final(answer.json()["request_id"])["state"] for answer in answers} == {"issued"}
    system.eventually(lambda: not alert_of(system.stack.api_url, ready=True))
    system.eventually(lambda: not alert_of(system.stack.issuer_url, ready=True))


def alert_of(url: str, *, ready: bool) -> str:
    """Return the text of the process's alert; it must be ready, or not, as given."""
    answer = httpx.get(f"{url}/readyz")
    assert answer.status_code == (200 if ready else 503), answer.text
    return str(answer.json()["alerts"].get(Alert.UNDECIDED, ""))
