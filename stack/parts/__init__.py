"""The parts of the local stack, one module each; every one says how its process is started and judged."""
