"""The format of a record: the JSON and key that the report's Spring producer writes, encoded and decoded."""

import re
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from confluent_kafka import Message

from service.domain.errors import PoisonRecord, UnverifiedRequestId
from service.domain.failures import FailureClass, classify
from service.domain.record import InjectedFault, RawRecord, Record
from service.domain.request import Request
from service.domain.request_id import RequestIds
from service.limits import MAX_ID, MAX_TIMESTAMP_MS, MAX_VALUE_BYTES
from service.stream.partitioner import partition_of

REQUEST_ID_HEADER = "request_id"
FAULT_HEADER = "fault"
#: replaces headers whose names are not UTF-8
UNREADABLE_HEADERS = ("unreadable headers", None)
#: SQLSTATE and number of failing attempts, for example `22012 1`
FAULT_FORM = re.compile(r"(22[0-9A-Z]{3}) ([1-9])")


_Id = Annotated[int, msgspec.Meta(ge=1, le=MAX_ID)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIMESTAMP_MS)]


class Payload(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The report's JSON, with the request id if it is written there; unknown fields are ignored."""

    user_id: _Id = msgspec.field(name="userId")
    coupon_id: _Id = msgspec.field(name="couponId")
    request_time_millis: _Time = msgspec.field(name="requestTimeMillis")
    #: another producer may have anything in a field of this name
    request_id: Any = msgspec.field(default=None, name="requestId")


#: makes a Record of its fields in a quarter of the time of Record(...), for it runs for every record
_new_record = tuple.__new__
_decode = msgspec.json.Decoder(Payload).decode
_encode = msgspec.json.Encoder().encode


def encode_value(coupon_id: int, user_id: int, requested_at_ms: int, request_id: str | None = None) -> bytes:
    """Return the value of a record, with its request id if it is given."""
    return _encode(Payload(user_id, coupon_id, requested_at_ms, request_id))


def encode_key(coupon_id: int) -> bytes:
    """Return the key of a record: the coupon id in decimal, so that a coupon is one ordered partition."""
    return b"%d" % coupon_id


def parse_injected_fault(text: str) -> InjectedFault | None:
    """Parse a Fault header; return None for another form or a SQLSTATE that is not the record's own failure."""
    match = FAULT_FORM.fullmatch(text)
    return InjectedFault(match[1], int(match[2])) if match else None


class RecordReader:
    """Decodes records. One that cannot be decoded becomes poison, never an exception."""

    def __init__(self, ids: RequestIds, partitions: int, *, faults: bool) -> None:
        """Create a reader.

        partitions: TOPIC_PARTITIONS, not the topic's own number. faults: whether injected faults are applied.
        """
        self._ids = ids
        self._partitions = partitions
        self._faults = faults

    def decode(self, raw: RawRecord, topic_id: str) -> Record:
        """Return the record with its request, or with the failure that makes it poison.

        topic_id: Kafka's id of the topic that holds the record; the id of a foreign request is derived from it.
        """
        try:
            request, stated_id = self._request(raw, topic_id)
            ended_key = None if request.accepted else self._ended_key(stated_id, request)
            return Record.of(raw, request, None, self.injected_fault(raw), ended_key)
        except (PoisonRecord, msgspec.MsgspecError, ValueError, RecursionError) as error:
            return Record.of(raw, None, classify(error)._replace(failure_class=FailureClass.POISON))

    def decode_plain(self, message: Message) -> Record | None:
        """Return what decode() returns for a message with our request id and no other header, in half of its time.

        Return None for every other message. `message` has no error.
        """
        try:
            headers: Any = message.headers() or ()
            value = message.value()
            if len(headers) > 1 or value is None or len(value) > MAX_VALUE_BYTES:
                return None
            payload = _decode(value)
        except (SystemError, ValueError, RecursionError, msgspec.MsgspecError):  # names that are not UTF-8, bad JSON
            return None
        name, header = headers[0] if headers else (REQUEST_ID_HEADER, None)
        request_id = _stated_request_id(header, payload)
        coupon_id, user_id = payload.coupon_id, payload.user_id
        key, partition, appended_at_ms = message.key(), message.partition() or 0, message.timestamp()[1]
        if (
            name != REQUEST_ID_HEADER
            or request_id is None
            or (key, partition) != _key_and_partition(coupon_id, self._partitions)
            or not self._ids.was_minted_for(request_id, coupon_id, user_id, appended_at_ms)
        ):
            return None
        decoded = coupon_id, user_id, request_id.decode("ascii"), payload.request_time_millis, appended_at_ms, True
        plain = (None, None, None)  # no poison, no fault, no ended key
        return _new_record(Record, (partition, message.offset() or 0, *decoded, key, value, tuple(headers), *plain))

    def injected_fault(self, raw: RawRecord) -> InjectedFault | None:
        """Return the failure that the record asks for, if injected faults are applied."""
        if not self._faults:
            return None
        header = dict(raw.headers).get(FAULT_HEADER)
        return parse_injected_fault(header.decode("ascii", "replace")) if header else None

    def _request(self, raw: RawRecord, topic_id: str) -> tuple[Request, bytes | None]:
        """Return the request of a record and the id that the record states; raise PoisonRecord or a decoding error."""
        if UNREADABLE_HEADERS in raw.headers:
            raise PoisonRecord("the names of the headers are not UTF-8")
        if raw.value is None:
            raise PoisonRecord("the record has no value")
        if len(raw.value) > MAX_VALUE_BYTES:
            raise PoisonRecord(f"the value has {len(raw.value)} bytes, the limit is {MAX_VALUE_BYTES}")
        payload = _decode(raw.value)
        coupon_id, user_id = payload.coupon_id, payload.user_id
        key, partition = _key_and_partition(coupon_id, self._partitions)
        if raw.key != key:
            raise PoisonRecord(f"the key is {raw.key!r}, the couponId is {coupon_id}")
        if raw.log_position.partition != partition:
            raise PoisonRecord(f"coupon {coupon_id} does not belong on partition {raw.log_position.partition}")
        stated_id = _stated_request_id(dict(raw.headers).get(REQUEST_ID_HEADER), payload)
        if stated_id is not None and self._ids.was_minted_for(stated_id, coupon_id, user_id, raw.appended_at_ms):
            request_id, accepted = stated_id.decode("ascii"), True
        elif stated_id is not None and self._ids.is_unverified_for(stated_id, coupon_id, user_id):
            raise UnverifiedRequestId(
                "no key of REQUEST_ID_KEYS verifies the request id: it is forged, or the key that signed it is missing"
            )
        else:
            request_id = self._ids.derive(topic_id, raw.log_position, coupon_id, user_id, raw.appended_at_ms)
            accepted = False
        at_ms = payload.request_time_millis
        request = Request(raw.log_position, coupon_id, user_id, request_id, at_ms, raw.appended_at_ms, accepted)
        return request, stated_id

    def _ended_key(self, stated_id: bytes | None, foreign: Request) -> str | None:
        if stated_id is None:
            return None
        return self._ids.ended_key_of(stated_id, foreign.coupon_id, foreign.user_id, foreign.appended_at_ms)


def _stated_request_id(header: bytes | None, payload: Payload) -> bytes | None:
    """Return the request id in the header or in the value; None if there is none, or if the two differ."""
    if not isinstance(payload.request_id, str):
        return header
    in_value = payload.request_id.encode("ascii", "replace")
    return in_value if header is None or header == in_value else None


@lru_cache(maxsize=65_536)
def _key_and_partition(coupon_id: int, partitions: int) -> tuple[bytes, int]:
    """Return the key and the partition of a coupon's records."""
    return encode_key(coupon_id), partition_of(coupon_id, partitions)
