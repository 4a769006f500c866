"""Builders of domain values and rows for tests, with defaults for everything."""

from sqlalchemy import Connection, text

from service.domain.coupon import Coupon, Override
from service.domain.record import RawRecord, Record
from service.domain.request import FINAL_STATES, LogPosition, ReasonCode, Request, RequestState
from service.domain.request_id import RequestIds
from service.stream.codec import FAULT_HEADER, REQUEST_ID_HEADER, RecordReader, encode_key, encode_value
from service.stream.partitioner import partition_of
from service.usecases.key_register import KeyRegister

AT_MS = 1_767_225_600_000
#: as Kafka would write it
TOPIC_ID = "Zm9yIHRlc3RzIG9ubHkhIQ"
PARTITIONS = 6


def coupon(
    coupon_id: int = 1,
    quantity: int = 10,
    issued: int = 0,
    held: int = 0,
    standby: int = 0,
    *,
    waitlist: int = 0,
    opens_at_ms: int | None = None,
    closes_at_ms: int | None = None,
    override: Override = Override.NONE,
) -> Coupon:
    """Return a coupon with these values, without a database."""
    window = (opens_at_ms, closes_at_ms)
    return Coupon(coupon_id, "a coupon", quantity, waitlist, issued, held, standby, *window, override, 0, AT_MS, AT_MS)


def key_register() -> KeyRegister:
    """Return the register as a process sees it whose key is of no importance."""
    return KeyRegister(RequestIds([b"a key for tests!"]))


def request(
    offset: int, user_id: int | None = None, coupon_id: int = 1, *, request_id: str | None = None, accepted: bool = True
) -> Request:
    """Return a request at an offset of partition 0; by default each offset has a user of its own."""
    return Request(
        LogPosition(0, offset),
        coupon_id,
        offset + 1 if user_id is None else user_id,
        f"request-{offset}" if request_id is None else request_id,
        AT_MS + offset,
        AT_MS + offset,
        accepted,
    )


def raw(
    ids: RequestIds,
    coupon_id: int,
    user_id: int,
    offset: int,
    *,
    fault: str | None = None,
    request_id: str | None = None,
) -> RawRecord:
    """Return the record that the API produces for this request, at the partition that Kafka chooses for its key."""
    request_id = request_id or ids.mint(coupon_id, user_id, AT_MS)
    headers = [(REQUEST_ID_HEADER, request_id.encode())] + ([(FAULT_HEADER, fault.encode())] if fault else [])
    log_position = LogPosition(partition_of(coupon_id, PARTITIONS), offset)
    return RawRecord(
        log_position, encode_key(coupon_id), encode_value(coupon_id, user_id, AT_MS), tuple(headers), AT_MS + offset
    )


def records(
    reader: RecordReader,
    ids: RequestIds,
    coupon_id: int,
    users: range,
    *,
    first: int = 0,
    faults: dict[int, str] | None = None,
) -> list[Record]:
    """Return one decoded record for each user, from offset `first` on.

    `faults` maps user ids to the value of the header `Fault`.
    """
    return [
        reader.decode(raw(ids, coupon_id, user, first + index, fault=(faults or {}).get(user)), TOPIC_ID)
        for index, user in enumerate(users)
    ]


def insert_request(
    tx: Connection,
    offset: int,
    *,
    coupon_id: int,
    user_id: int | None = None,
    state: RequestState = RequestState.ISSUED,
    sequence: int | None = None,
    log_id: int = 1,
    request_id: str | None = None,
) -> None:
    """Insert a row into table `requests` without the code of the service, as a faulty caller would."""
    tx.execute(
        text(
            'INSERT INTO requests (log_id, partition, "offset", coupon_id, user_id, request_id, state, code, sequence,'
            " attempts, requested_at, decided_at) VALUES (:log_id, 0, :offset, :coupon_id, :user_id, :request_id,"
            " :state, :code, :sequence, 1, now(), CASE WHEN :final THEN now() END)"
        ),
        {
            "log_id": log_id,
            "offset": offset,
            "coupon_id": coupon_id,
            "user_id": offset + 1 if user_id is None else user_id,
            "request_id": request_id or f"request-{offset}",
            "state": state.value,
            "code": ReasonCode.SOLD_OUT.value if state in (RequestState.REFUSED, RequestState.DEAD) else None,
            "sequence": sequence,
            "final": state in FINAL_STATES,
        },
    )
