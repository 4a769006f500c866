"""A key of request ids is registered before it signs, and an id that no key verifies is never decided by mistake."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery import Celery
from pydantic import SecretStr
from redis import Redis
from sqlalchemy import Engine

from service.config import Settings
from service.domain.coupon import Coupon
from service.domain.errors import Conflict, KeyMissing, NotFound, UnverifiedRequestId
from service.domain.failures import FailureClass, classify, error_type_name
from service.domain.request import RequestState
from service.domain.request_id import RequestIds
from service.gate.gate_admin import GateAdmin
from service.resources import Resources
from service.stream.codec import RecordReader
from service.usecases.alerts import Alert
from service.usecases.gate_sync import release_expired_seats
from service.usecases.issue import Issuer
from service.usecases.key_register import KeyRegister
from service.usecases.key_removal import KeyAdministration
from service.usecases.lookup import Lookup
from service.usecases.replay import DeadLetterService
from service.verification.history import ClientAnswer
from service.verification.verify import Verifier
from tests.builders import AT_MS
from tests.gate_client import GateClient, seat
from tests.integration.conftest import Query
from tests.log import Log
from tests.lookups import find
from workers.issuer.health import Health
from workers.issuer.monitor import Monitor

MakeCoupon = Callable[..., Coupon]
OLD, NEW = b"the key until today", b"the key from now on"


def _register(store: Engine, *keys: bytes, announce: bool = False) -> None:
    """Start a process with these keys: an issuer, or one that announces none."""
    with store.begin() as tx:
        KeyRegister(RequestIds(keys)).register(tx, announce=announce)


def _fault(store: Engine, *keys: bytes) -> str | None:
    """Return what a process with these keys reports."""
    register = KeyRegister(RequestIds(keys))
    with store.begin() as tx:
        register.compare(tx)
    return register.fault


def test_the_documented_order_never_needs_to_wait(store: Engine) -> None:
    """The new key in the last place everywhere, then in the first place everywhere: no process is refused."""
    _register(store, OLD, announce=True)
    _register(store, OLD)

    for keys in [(OLD, NEW), (NEW, OLD)]:
        _register(store, *keys, announce=True)
        _register(store, *keys)
        assert _fault(store, *keys) is None


def test_a_new_key_does_not_sign_before_an_issuer_has_it(store: Engine) -> None:
    """The API first is the wrong order: it waits until an issuer was started with the key."""
    _register(store, OLD)

    with pytest.raises(KeyMissing, match="no issuer has it"):
        _register(store, NEW, OLD)
    _register(store, OLD, NEW, announce=True)

    _register(store, NEW, OLD)
    assert _fault(store, OLD, NEW) is None


def test_a_process_without_a_key_that_signs_reports_it(store: Engine, query: Query) -> None:
    """It names the key by its fingerprint; a key that only verifies is not needed by anybody yet."""
    _register(store, OLD)
    _register(store, OLD, NEW, announce=True)
    before = _fault(store, OLD)
    _register(store, NEW, OLD)

    assert before is None
    assert RequestIds([NEW]).fingerprints[0] in (_fault(store, OLD) or "")
    assert classify(KeyMissing("")).failure_class is FailureClass.SYSTEM
    assert NEW.decode() not in str(query("SELECT request_id_keys::text FROM request_id_keys"))


def test_two_first_keys_cannot_both_be_registered(store: Engine) -> None:
    """Two processes with different keys start at the same moment: one of them finds that it lacks the other's."""

    def start(key: bytes) -> bool:
        try:
            _register(store, key)
        except KeyMissing:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(start, [OLD, NEW])) == [False, True]


@pytest.fixture
def rotated(settings: Settings, store: Engine, ids: RequestIds) -> RequestIds:
    """The keys of an API that signs with a new key, which no other process has."""
    keys = RequestIds([NEW, *settings.mac_keys])
    with store.begin() as tx:
        KeyRegister(ids).register(tx, announce=False)
        keys_of_an_issuer = KeyRegister(RequestIds([*settings.mac_keys, NEW]))
        keys_of_an_issuer.register(tx, announce=True)
        KeyRegister(keys).register(tx, announce=False)
    return keys


def test_a_record_whose_key_is_missing_is_not_decided(
    rotated: RequestIds,
    real_log: Log,
    make_coupon: MakeCoupon,
    settings: Settings,
    store: Engine,
    log_id: int,
    lookup: Lookup,
    verifier: Verifier,
    query: Query,
) -> None:
    """P4, P5: an issuer without the new key decides nothing of that batch; one with it issues under the user's id."""
    coupon = make_coupon()
    real_log.append_request(coupon.id, 1)
    request_id = rotated.mint(coupon.id, 2, AT_MS)
    log_position = real_log.append(coupon.id, 2, request_id)

    with pytest.raises(KeyMissing, match=f"partition {log_position.partition}, offset {log_position.offset}"):
        real_log.issue()
    rows_before = query("SELECT count(*) FROM requests"), query("SELECT count(*) FROM dead_letters")
    reader = RecordReader(rotated, settings.topic_partitions, faults=False)
    complete = KeyRegister(rotated)
    Issuer(store, log_id, complete, notices=False).issue(
        [reader.decode(record.raw, "topic") for record in real_log.undecided()], real_log.positions
    )

    assert rows_before == ([(0,)], [(0,)])
    assert query("SELECT user_id, request_id, state FROM requests WHERE user_id = 2") == [(2, request_id, "issued")]
    with pytest.raises(KeyMissing):
        find(lookup, request_id)
    with pytest.raises(KeyMissing):
        verifier.verify()
    checks = Verifier(settings, store, rotated, reader).verify(
        [ClientAnswer(2, coupon.id, "accepted", request_id=request_id), ClientAnswer(1, coupon.id, "unknown")]
    )
    assert [check for check in checks if not check.ok] == []


def test_a_forged_id_becomes_a_dead_letter_and_the_line_goes_on(
    real_log: Log,
    make_coupon: MakeCoupon,
    ids: RequestIds,
    store: Engine,
    resources: Resources,
    verifier: Verifier,
    dead_letter_service: DeadLetterService,
    lookup: Lookup,
    query: Query,
) -> None:
    """P4: a writer to the topic can neither stop a partition nor have a forged id issued, and an alert reports it."""
    with store.begin() as tx:
        KeyRegister(ids).register(tx, announce=True)
    coupon = make_coupon(quantity=9)
    forged = RequestIds([NEW]).mint(coupon.id, 1, AT_MS)
    real_log.append(coupon.id, 1, forged)
    own = real_log.append_request(coupon.id, 2)
    health = Health()
    monitor = Monitor(resources, Celery(), health)

    real_log.issue()
    monitor.check()
    alert = health.alerts.get(Alert.UNVERIFIED_IDS, "")
    with pytest.raises(Conflict, match="still cannot be decoded"):
        dead_letter_service.replay(1)
    dead_letter_service.discard(1)
    monitor.check()

    assert query("SELECT user_id, request_id FROM requests") == [(2, own)]
    assert query("SELECT code, error_type FROM dead_letters") == [("poison", error_type_name(UnverifiedRequestId))]
    assert alert.startswith("1 records carry a request id that no registered key signed")
    assert Alert.UNVERIFIED_IDS not in health.alerts
    assert find(lookup, forged) is None
    assert [check for check in verifier.verify() if not check.ok] == []


def test_a_dead_letter_whose_key_is_found_again_is_replayed(
    rotated: RequestIds,
    real_log: Log,
    make_coupon: MakeCoupon,
    settings: Settings,
    store: Engine,
    gate_admin: GateAdmin,
    query: Query,
) -> None:
    """P4: also if an operator removed the key from the register too early, the request is not lost."""
    coupon = make_coupon()
    request_id = rotated.mint(coupon.id, 7, AT_MS)
    real_log.append(coupon.id, 7, request_id)
    KeyAdministration(settings, store, gate_admin).remove(rotated.fingerprints[0], even_if_used=True)
    real_log.issue()

    reader = RecordReader(rotated, settings.topic_partitions, faults=False)
    replayed = DeadLetterService(store, reader, gate_admin, notices=False, acted_by="cli").replay(1)

    assert replayed.state is RequestState.ISSUED
    assert query("SELECT request_id, state FROM requests") == [(request_id, "issued")]


def test_a_seat_is_not_resolved_while_a_key_is_missing(
    rotated: RequestIds,
    make_coupon: MakeCoupon,
    settings: Settings,
    store: Engine,
    ids: RequestIds,
    key_register: KeyRegister,
    gate_admin: GateAdmin,
    gate_client: GateClient,
    positions: dict[int, int],
) -> None:
    """P5: a worker without the new key must not take an unknown outcome for an acknowledged one."""
    coupon = make_coupon()
    gate_admin.fill(coupon, [])
    request_id = rotated.mint(coupon.id, 7, AT_MS)
    gate_client.admit(seat(7, request_id, coupon.id))
    assert positions

    with pytest.raises(KeyMissing):
        release_expired_seats(settings, store, ids, key_register, gate_admin, AT_MS + 10**6)

    assert set(gate_admin.unacknowledged(2**52, 100)) == {request_id}


def test_a_key_is_removed_once_no_request_has_an_id_of_it(
    rotated: RequestIds,
    real_log: Log,
    make_coupon: MakeCoupon,
    settings: Settings,
    store: Engine,
    gate_admin: GateAdmin,
    gate_client: GateClient,
    redis: Redis,
) -> None:
    """Decided requests, undecided records and unacknowledged requests count. Without a use no process needs the key."""
    both = SecretStr(",".join(key.decode() for key in (NEW, *settings.mac_keys)))
    keys = KeyAdministration(settings.model_copy(update={"request_id_keys": both}), store, gate_admin)
    old, new = RequestIds(settings.mac_keys).fingerprints[0], rotated.fingerprints[0]
    coupon = make_coupon()
    real_log.append_request(coupon.id, 1)

    with pytest.raises(Conflict, match="1 requests have an id"):
        keys.remove(old, even_if_used=False)
    real_log.issue()
    with pytest.raises(Conflict, match="1 requests have an id"):
        keys.remove(old, even_if_used=False)
    with pytest.raises(NotFound):
        keys.remove("00000000", even_if_used=True)
    gate_admin.fill(coupon, [])
    gate_client.admit(seat(2, request_id := rotated.mint(coupon.id, 2, AT_MS), coupon.id))
    redis.zadd("gate:unacknowledged", {"something else": 1})
    with pytest.raises(Conflict, match="1 requests have an id"):
        keys.remove(new, even_if_used=False)
    gate_admin.resolve_unacknowledged([request_id])
    listed = {one.key.fingerprint: one.place for one in keys.list_keys()}
    unused = keys.remove(new, even_if_used=False)

    assert listed == {new: 0, old: 1}
    assert unused == 0
    assert [one.key.fingerprint for one in keys.list_keys()] == [old]
    assert _fault(store, *settings.mac_keys) is None
