"""Runs a module that py-spy may look at: `python -m benchmarks.sampled MODULE …`.

Some Linux systems let only a parent, or root, look into a process; here the process lets everyone of its user.
"""

import ctypes
import runpy
import sys

_SET_PTRACER, _ANYONE = 0x59616D61, ctypes.c_ulong(-1)


def main() -> None:
    """Runs the module as `python -m` would."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PTRACER, _ANYONE, 0, 0, 0)
    module = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
