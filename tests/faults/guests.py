"""Processes that a row adds to the stack for a while."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from stack.errors import StackError
from stack.local import LocalStack
from stack.part import Part


@contextmanager
def guest(stack: LocalStack, part: Part) -> Iterator[None]:
    """One more process, stopped at the end of the block; of a name that was a guest before it is started again."""
    try:
        stack.start(part.name)
    except StackError:
        stack.add(part)
    try:
        yield
    finally:
        with suppress(StackError):  # a row may have ended it
            stack.stop(part.name)
