"""Prints the peak of the resident memory of a ``fastcal`` command: ``memory_run.py WORDS``.

What the imports take is printed first, so that a test can choose a bound above it.
"""

from __future__ import annotations

import sys
from pathlib import Path


def status(key: str) -> int:
    """A size of this process in bytes, from ``/proc/self/status``."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")


if __name__ == "__main__":
    import nibabel  # noqa: F401 - what every run loads
    import scipy.ndimage  # noqa: F401
    import torch

    import fastcal.predict  # noqa: F401
    from fastcal.cli import main

    torch.set_num_threads(1)
    print(status("VmHWM"))
    if sys.argv[1:]:
        code = main(sys.argv[1:])
        print(status("VmHWM"))
        sys.exit(code)
