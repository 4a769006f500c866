"""The generator: `python -m benchmarks.load PLAN PRESSED`, a file with a plan, and one for what became of it."""

import gc
import sys
from pathlib import Path

import msgspec
import uvloop

from benchmarks.load.generator import Generator
from benchmarks.load.plan import Plan


def main() -> None:
    """Runs one plan; the collector of cycles stays away meanwhile."""
    told, done = map(Path, sys.argv[1:])
    plan = msgspec.json.decode(told.read_bytes(), type=Plan)
    gc.disable()
    pressed = uvloop.run(Generator(plan).run())
    done.write_bytes(msgspec.json.encode(pressed))


if __name__ == "__main__":
    main()
