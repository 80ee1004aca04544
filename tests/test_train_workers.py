"""Processes that train members end with the process that started them, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PARENT = """
import os, time
from pathlib import Path
from types import SimpleNamespace

import torch
from fastcal.data.preprocess import Preprocessing
from fastcal.train.cases import CaseFolder
from fastcal.train.processes import Workers

if __name__ == "__main__":
    recipe = SimpleNamespace(device=torch.device("cpu"))
    with Workers(recipe, CaseFolder(Path(), {}, Preprocessing(), Path()), 2) as workers:
        busy = workers._pool.submit(time.sleep, 600)
        while not busy.running():
            time.sleep(0.01)
        workers._pool.submit(os.getpid).result()  # in the other worker, which is idle again
        print(*workers._pool._processes, flush=True)
        time.sleep(600)
"""


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_busy_and_idle_workers_end_with_their_parent(end: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        workers = [int(word) for word in parent.stdout.readline().split()]
        try:
            assert len(workers) == 2
            assert all(map(_alive, workers))
            parent.send_signal(end)
            parent.wait()
            limit = time.monotonic() + 60
            while any(map(_alive, workers)) and time.monotonic() < limit:
                time.sleep(0.05)
            assert not any(map(_alive, workers))
        finally:
            parent.kill()
            for worker in filter(_alive, workers):
                os.kill(worker, signal.SIGKILL)
