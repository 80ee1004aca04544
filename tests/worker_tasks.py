"""A source of cases that does to its worker what a file beside the case says.

``CASE.kill``, ``CASE.memory``, ``CASE.full`` and ``CASE.bad`` hold how often that is still done.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from fastcal.cases import Member, MemberReading, Origin
from fastcal.cases.labels import LabelScheme
from fastcal.core.errors import DataError


def is_due(folder: Path, case: str, what: str) -> bool:
    """Whether something is still to be done to a case; counts it."""
    file = folder / f"{case}.{what}"
    left = int(file.read_text()) if file.exists() else 0
    if left:
        file.write_text(str(left - 1))
    return left > 0


def misbehave(folder: Path, case: str) -> None:
    if is_due(folder, case, "kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if is_due(folder, case, "memory"):
        held = []
        while True:  # until the nanny ends it
            held.append(bytearray(os.urandom(1 << 20)) * 16)
            time.sleep(0.01)
    if is_due(folder, case, "full"):
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / case))
    if is_due(folder, case, "bad"):
        raise DataError(folder / f"{case}.npy", "is torn")


class OddSource:
    """Members of a case in ``CASE.npy`` ``[M, C, X, Y, Z]``, probabilities."""

    reading = MemberReading(LabelScheme.of_classes(3))
    dataset_json = None
    advice = "out of memory: use fewer members"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cases = sorted(path.stem for path in folder.glob("*.npy"))
        self.origin = Origin(command="odd", settings={}, folders=[folder])

    def moved(self, device: torch.device) -> OddSource:
        assert device.type == "cpu"
        return self

    def inputs(self, case: str) -> list[Path]:
        return [self.folder / f"{case}.npy"]

    def read(self, case: str) -> Iterator[np.ndarray]:
        for number, member in enumerate(np.load(self.folder / f"{case}.npy")):
            if number == 1:
                misbehave(self.folder, case)
            yield member

    def members(self, case: str, pieces: Iterator[np.ndarray]) -> Iterator[Member]:
        for member in pieces:
            yield Member(torch.from_numpy(member)[None], None, self.folder / f"{case}.npy")
