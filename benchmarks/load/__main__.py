"""The generator's process: a plan on standard input, what became of it on standard output."""

import gc
import sys

import msgspec
import uvloop

from benchmarks.load.generator import Generator
from benchmarks.load.plan import Plan


def main() -> None:
    """Runs one plan; the collector of cycles stays away meanwhile."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    gc.disable()
    pressed = uvloop.run(Generator(plan).run())
    sys.stdout.buffer.write(msgspec.json.encode(pressed))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
