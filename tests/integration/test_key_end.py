"""A key of request ids has an end: an id that it signs later is foreign, and an id from before keeps its promise."""

from collections.abc import Callable

import pytest
from celery import Celery
from pydantic import SecretStr
from sqlalchemy import Engine

from service.clock import now_ms
from service.config import Settings
from service.domain.coupon import Coupon
from service.domain.errors import Conflict, KeyEnded, NotFound
from service.domain.request_id import RequestIds, fingerprint
from service.gate.gate_admin import GateAdmin
from service.resources import Resources
from service.usecases import key_register as key_register_module
from service.usecases.alerts import Alert
from service.usecases.issue import Issuer
from service.usecases.key_register import KeyRegister, KeyWatch
from service.usecases.key_removal import KeyAdministration
from service.verification.history import ClientAnswer
from service.verification.verify import Verifier
from tests.integration.conftest import Query
from tests.log import Log
from tests.waiting import eventually
from workers.issuer.health import Health
from workers.issuer.monitor import Monitor

MakeCoupon = Callable[..., Coupon]
OLD = b"the key until today"
OLD_FINGERPRINT = fingerprint(OLD)


@pytest.fixture
def ids(settings: Settings) -> RequestIds:
    """The keys of every process after a rotation: the old one verifies."""
    return RequestIds([*settings.mac_keys, OLD])


@pytest.fixture
def keys(settings: Settings, store: Engine, ids: RequestIds, gate_admin: GateAdmin) -> KeyAdministration:
    """The operator's actions after a rotation: the old key has signed, and now the new one does."""
    for in_use in (RequestIds([OLD]), RequestIds([OLD, *settings.mac_keys]), ids):
        with store.begin() as tx:
            KeyRegister(in_use).register(tx, announce=True)
    both = SecretStr(",".join(key.decode() for key in (*settings.mac_keys, OLD)))
    return KeyAdministration(settings.model_copy(update={"request_id_keys": both}), store, gate_admin)


@pytest.fixture
def ended(keys: KeyAdministration, store: Engine, key_register: KeyRegister) -> RequestIds:
    """The old key, which has just ended, in the hands of somebody else."""
    keys.end(OLD_FINGERPRINT, in_seconds=0)
    with store.begin() as tx:
        key_register.compare(tx)
    return RequestIds([OLD])


def test_an_id_that_was_signed_after_the_end_is_foreign(
    ended: RequestIds,
    keys: KeyAdministration,
    real_log: Log,
    make_coupon: MakeCoupon,
    ids: RequestIds,
    resources: Resources,
    verifier: Verifier,
    query: Query,
) -> None:
    """P4, P5: an earlier id is issued as it is, also if it is appended later. The proof agrees; an alert is raised."""
    coupon = make_coupon(quantity=9)
    early, late = ended.mint(coupon.id, 1, now_ms() - 60_000), ended.mint(coupon.id, 2, now_ms() + 60_000)
    for user, request_id in ((1, early), (2, late)):
        real_log.append(coupon.id, user, request_id)
    own = real_log.append_request(coupon.id, 3)
    health = Health()

    real_log.issue()
    Monitor(resources, Celery(), health).check()

    rows = {row.user_id: row for row in query("SELECT user_id, request_id, state FROM requests")}
    claims = ids.decode(rows[2].request_id)
    assert {row.state for row in rows.values()} == {"issued"}
    assert (rows[1].request_id, rows[3].request_id) == (early, own)
    assert claims
    assert (rows[2].request_id != late, claims.foreign) == (True, True)
    assert query("SELECT count(*) FROM dead_letters") == [(0,)]
    answers = [ClientAnswer(user, coupon.id, "accepted", request_id=given) for user, given in ((1, early), (3, own))]
    assert [check for check in verifier.verify(answers) if not check.ok] == []
    assert f"the key {OLD_FINGERPRINT} signed after its end" in health.alerts[Alert.KEY_ENDED]
    assert [one.key.late_id_at is not None for one in keys.list_keys()] == [True, False]
    with pytest.raises(Conflict, match="2 requests have an id"):  # the proof needs the key for the late one, too
        keys.remove(OLD_FINGERPRINT, even_if_used=False)


def test_it_is_refused_where_foreign_records_are(
    ended: RequestIds,
    real_log: Log,
    make_coupon: MakeCoupon,
    store: Engine,
    log_id: int,
    key_register: KeyRegister,
    verifier: Verifier,
    query: Query,
) -> None:
    """So somebody who has an old key gets no coupon with it."""
    real_log._issuer = Issuer(store, log_id, key_register, notices=True, refuse_foreign=True)
    coupon = make_coupon(quantity=9)
    real_log.append(coupon.id, 1, ended.mint(coupon.id, 1, now_ms() - 60_000))
    real_log.append(coupon.id, 2, ended.mint(coupon.id, 2, now_ms() + 60_000))

    real_log.issue()

    assert query("SELECT user_id, state, code FROM requests ORDER BY 1") == [
        (1, "issued", None),
        (2, "refused", "foreign"),
    ]
    assert [check for check in verifier.verify() if not check.ok] == []


def test_only_a_key_that_another_one_has_replaced_can_end(
    keys: KeyAdministration, settings: Settings, store: Engine, gate_admin: GateAdmin, query: Query
) -> None:
    """The last key that signs has no end; nor has one that this shell would still sign with. An end does not move."""
    new = fingerprint(settings.mac_keys[0])
    with pytest.raises(Conflict, match="still signs with"):
        keys.end(new, in_seconds=60)
    with pytest.raises(NotFound):
        keys.end("00000000", in_seconds=60)

    ends_at = keys.end(OLD_FINGERPRINT, in_seconds=60)

    assert keys.end(OLD_FINGERPRINT, in_seconds=600) == ends_at
    of_old = KeyAdministration(
        settings.model_copy(update={"request_id_keys": SecretStr(OLD.decode())}), store, gate_admin
    )
    with pytest.raises(Conflict, match="No other key signs"):
        of_old.end(new, in_seconds=60)
    assert query("SELECT count(*) FROM request_id_keys WHERE ends_at IS NOT NULL") == [(1,)]


def test_a_process_that_signs_with_a_key_that_ends_reports_it(
    keys: KeyAdministration, settings: Settings, store: Engine
) -> None:
    """It goes on until the end."""
    register = KeyRegister(RequestIds([OLD, *settings.mac_keys]))
    keys.end(OLD_FINGERPRINT, in_seconds=60)
    with store.begin() as tx:
        register.compare(tx)

    assert register.alert
    assert f"signs request ids with the key {OLD_FINGERPRINT}, which ends at" in register.alert
    assert register.fault is None
    assert register.ids.mint(1, 1, now_ms())


def test_a_running_process_reads_the_end_by_itself(
    keys: KeyAdministration, settings: Settings, store: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to read its readiness for that; from the end on it signs nothing."""
    monkeypatch.setattr(key_register_module, "_INTERVAL_SECONDS", 0.05)
    register = KeyRegister(RequestIds([OLD, *settings.mac_keys]))
    watch = KeyWatch(store, register)
    watch.start()
    try:
        keys.end(OLD_FINGERPRINT, in_seconds=0)
        eventually(lambda: register.alert)
    finally:
        watch.close()

    with pytest.raises(KeyEnded):
        register.ids.mint(1, 1, now_ms() + 1_000)


def test_a_process_whose_first_key_has_ended_does_not_start(
    ended: RequestIds, settings: Settings, store: Engine
) -> None:
    """It would sign nothing; the error names the key."""
    assert ended
    with pytest.raises(KeyEnded, match=OLD_FINGERPRINT), store.begin() as tx:
        KeyRegister(RequestIds([OLD, *settings.mac_keys])).register(tx, announce=True)
