"""The assignment of a group member is decoded, whatever another application's client has written into it."""

import struct

import pytest

from service.stream.partition_holders import assigned_partitions
from service.stream.topics import Topic


def encoded(*topics: tuple[str, list[int]]) -> bytes:
    """Return an assignment as Kafka's consumers encode it, with user data."""
    body = b"".join(
        struct.pack(f">h{len(topic)}si{len(partitions)}i", len(topic), topic.encode(), len(partitions), *partitions)
        for topic, partitions in topics
    )
    return struct.pack(">hi", 1, len(topics)) + body + struct.pack(">i", -1)


def test_only_the_partitions_of_the_topic_are_returned() -> None:
    """A stranger may have subscribed to other topics as well."""
    assert assigned_partitions(encoded(("other", [7]), (Topic.ISSUE_COUPON, [0, 3]), ("x", []))) == [0, 3]


@pytest.mark.parametrize(
    "assignment",
    [
        None,
        b"",
        b"\x00",
        b"not an assignment",
        b"\xff" * 40,
        encoded((Topic.ISSUE_COUPON, [0, 3]))[:-8],
        struct.pack(">hihsi", 0, 1, 1, b"\xff", 0),
        struct.pack(">hihsi", 0, 1, 1, b"x", 2**31 - 1),
    ],
)
def test_another_form_has_no_partitions(assignment: bytes | None) -> None:
    """A member without an assignment has none; one of another form is not an error."""
    assert assigned_partitions(assignment) == []
