"""The form of a record: what the report's Spring producer writes and what we write, to bytes and back."""

import re
from functools import lru_cache
from typing import Annotated

import msgspec

from service.domain.coupon import MAX_ID
from service.domain.failures import FailureClass, PoisonRecord, classify
from service.domain.record import InjectedFault, RawRecord, Record
from service.domain.request import Request
from service.domain.request_id import RequestIds
from service.stream.partitioner import partition_of

REQUEST_ID_HEADER = "request_id"
FAULT_HEADER = "fault"
#: stands for headers whose names are not UTF-8
UNREADABLE_HEADERS = ("unreadable headers", None)
#: SQLSTATE and number of attempts that fail, for example `22012 1`
FAULT_FORM = re.compile(r"(22[0-9A-Z]{3}) ([1-9])")
MAX_VALUE_BYTES = 65_536
#: the year 9999, the last that a timestamp of the database's driver can carry
MAX_TIMESTAMP_MS = 253_370_764_800_000


_Id = Annotated[int, msgspec.Meta(ge=1, le=MAX_ID)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIMESTAMP_MS)]


class Payload(msgspec.Struct, frozen=True, gc=False):
    """The report's JSON; fields it does not know are ignored."""

    user_id: _Id = msgspec.field(name="userId")
    coupon_id: _Id = msgspec.field(name="couponId")
    request_time_millis: _Time = msgspec.field(name="requestTimeMillis")


_decode = msgspec.json.Decoder(Payload).decode
_encode = msgspec.json.Encoder().encode


def encode_value(coupon_id: int, user_id: int, requested_at_ms: int) -> bytes:
    """The value of a record."""
    return _encode(Payload(user_id, coupon_id, requested_at_ms))


def encode_key(coupon_id: int) -> bytes:
    """The key of a record: the coupon's id in decimal, so that a coupon is one ordered partition."""
    return b"%d" % coupon_id


def parse_injected_fault(text: str) -> InjectedFault | None:
    """Reads a Fault header; None when it has another form or a class of error that is not a record's."""
    match = FAULT_FORM.fullmatch(text)
    return InjectedFault(match[1], int(match[2])) if match else None


class RecordReader:
    """Reads records; what cannot be read becomes poison, never an exception."""

    def __init__(self, ids: RequestIds, partitions: int, *, faults: bool) -> None:
        self._ids = ids
        self._partitions = partitions
        self._faults = faults

    def decode(self, raw: RawRecord) -> Record:
        """The record with its request, or with the failure that makes it poison."""
        try:
            return self._read(raw)
        except (PoisonRecord, msgspec.MsgspecError, ValueError, RecursionError) as error:
            return Record(raw, None, poison=classify(error)._replace(failure_class=FailureClass.POISON))

    def _read(self, raw: RawRecord) -> Record:
        if UNREADABLE_HEADERS in raw.headers:
            raise PoisonRecord("the headers' names are not UTF-8")
        payload = _payload(raw.value)
        self._check_place(raw, payload.coupon_id)
        request_id, accepted = self._identity(dict(raw.headers).get(REQUEST_ID_HEADER), raw, payload)
        request = Request(
            raw.log_position,
            payload.coupon_id,
            payload.user_id,
            request_id,
            payload.request_time_millis,
            raw.appended_at_ms,
            accepted,
        )
        return Record(raw, request, None, self.injected_fault(raw))

    def injected_fault(self, raw: RawRecord) -> InjectedFault | None:
        """The failure that the record asks for, where that is obeyed."""
        if not self._faults:
            return None
        header = dict(raw.headers).get(FAULT_HEADER)
        return parse_injected_fault(header.decode("ascii", "replace")) if header else None

    def _check_place(self, raw: RawRecord, coupon_id: int) -> None:
        key, partition = _home(coupon_id, self._partitions)
        if raw.key != key:
            raise PoisonRecord(f"the key is {raw.key!r}, the couponId is {coupon_id}")
        if raw.log_position.partition != partition:
            raise PoisonRecord(f"coupon {coupon_id} does not belong on partition {raw.log_position.partition}")

    def _identity(self, header: bytes | None, raw: RawRecord, payload: Payload) -> tuple[str, bool]:
        if header is not None and self._ids.was_minted_for(header, payload.coupon_id, payload.user_id):
            return header.decode("ascii"), True
        return self._ids.derive(raw.log_position, payload.coupon_id, payload.user_id, raw.appended_at_ms), False


def _payload(value: bytes | None) -> Payload:
    if value is None:
        raise PoisonRecord("the record has no value")
    if len(value) > MAX_VALUE_BYTES:
        raise PoisonRecord(f"the value has {len(value)} bytes, {MAX_VALUE_BYTES} are the most")
    return _decode(value)


@lru_cache(maxsize=65_536)
def _home(coupon_id: int, partitions: int) -> tuple[bytes, int]:
    """The key and the partition of a coupon's records."""
    return encode_key(coupon_id), partition_of(coupon_id, partitions)
