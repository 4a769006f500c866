"""The real topic under a test's control: append records, then let the issuer decide them."""

from confluent_kafka import KafkaError, Message

from service.config import Settings
from service.domain.record import Record
from service.domain.request import LogPosition
from service.domain.request_id import RequestIds
from service.stream import clients, log_reader
from service.stream.codec import FAULT_HEADER, REQUEST_ID_HEADER, RecordReader, encode_key, encode_value
from service.stream.topics import Topic
from service.usecases.issue import Issuer
from tests.builders import AT_MS, TOPIC_ID


class Log:
    """Appends records to Kafka as the API does, and has them decided when the test says so."""

    def __init__(
        self, settings: Settings, ids: RequestIds, reader: RecordReader, issuer: Issuer, positions: dict[int, int]
    ) -> None:
        self._settings = settings
        self._ids = ids
        self._reader = reader
        self._issuer = issuer
        self._producer = clients.build_producer(settings)
        self.positions = positions

    def append_request(self, coupon_id: int, user_id: int, *, fault: str | None = None) -> str:
        """Append a request as the API does and return its id."""
        request_id = self._ids.mint(coupon_id, user_id, AT_MS)
        self.append(coupon_id, user_id, request_id, fault)
        return request_id

    def append(self, coupon_id: int, user_id: int, request_id: str | None, fault: str | None = None) -> LogPosition:
        """Append a record; without a request id it is one of another producer."""
        headers = [(REQUEST_ID_HEADER, request_id.encode())] if request_id else []
        headers += [(FAULT_HEADER, fault.encode())] if fault else []
        return self.append_raw(encode_key(coupon_id), encode_value(coupon_id, user_id, AT_MS), headers)

    def append_raw(self, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> LogPosition:
        """Append any bytes as a record."""
        positions: list[LogPosition] = []

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            assert error is None, error
            positions.append(LogPosition(message.partition() or 0, message.offset() or 0))

        self._producer.produce(Topic.ISSUE_COUPON, key=key, value=value, headers=list(headers), on_delivery=on_delivery)
        assert self._producer.flush(10) == 0
        return positions[0]

    def issue(self) -> list[LogPosition]:
        """Decide every undecided record and return the LogPositions of the held requests."""
        issued = self._issuer.issue(self.undecided(), self.positions)
        self.positions = self.positions | issued.next_offsets
        return issued.held

    def undecided(self) -> list[Record]:
        """Read the records that were appended and not decided."""
        return [
            self._reader.decode(raw, TOPIC_ID)
            for partition, first in self.positions.items()
            for raw in log_reader.read_records(self._settings, Topic.ISSUE_COUPON, partition, first)
        ]
