"""How the threads of a training wait for each other, where other processes want the cores too."""

from __future__ import annotations

import os
import time
from pathlib import Path

_LOAD = Path("/proc/loadavg")
_LOOKS = 3
_BETWEEN = 0.01


def wait_politely_where_it_is_busy() -> bool:
    """Let threads of OpenMP sleep at barriers where other processes run. Call it before torch.

    By default they spin for a while, which is fastest on a quiet machine. Where another process has
    one of the cores, a thread that spins takes the time of the very thread that it waits for, and a
    training of two threads becomes many times slower. A policy that is set already is kept.

    Returns:
        Whether the policy was set.
    """
    if "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ:
        return False
    looks = []
    for _ in range(_LOOKS):
        looks.append(_running())
        time.sleep(_BETWEEN)
    if min(looks) <= 1:  # this process is one
        return False
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    return True


def _running() -> int:
    """Return how many threads of this machine are running or could, 0 where nobody says."""
    try:
        return int(_LOAD.read_text(encoding="ascii").split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return 0
