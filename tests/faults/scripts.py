"""Kinds that run commands on files of their own and compare with NumPy: what they share."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .kinds import Kind

Array = npt.NDArray[Any]


def said_by(*words: object) -> tuple[int, list[str]]:
    """Run a command; its exit code, and its lines on stderr."""
    from fastcal.cli import main

    said = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        code = main([str(word) for word in words])
    return code, said.getvalue().strip().splitlines()


def fastcal(*words: object) -> str | None:
    """Run a command; its line if it is refused, None if it is done.

    Raises:
        RuntimeError: it is refused otherwise than by exit code 2 and a line.
    """
    code, lines = said_by(*words)
    if code == 0:
        return None
    if code != 2 or len(lines) != 1:
        raise RuntimeError(f"exit code {code}, {lines}")
    return lines[0]


def script(name: str, group: str, run: Callable[[Path], str | None]) -> Kind:
    """A kind that does it all itself."""
    return Kind(name=name, group=group, script=run)


def hd95(a: Array, b: Array, spacing: tuple[float, ...]) -> float:
    """The 95th percentile of distances between the surfaces of two masks, in float64.

    The larger of both directions, as MONAI has it. A voxel is of the surface where a neighbour
    along an axis of more than one voxel is outside.
    """

    def surface(mask: Array) -> Array:
        kept = mask.copy()
        for axis in range(mask.ndim):
            if mask.shape[axis] == 1:
                continue
            padded = np.pad(mask, [(int(k == axis),) * 2 for k in range(mask.ndim)])
            for offset in (0, 2):
                part = [slice(None)] * mask.ndim
                part[axis] = slice(offset, offset + mask.shape[axis])
                kept &= padded[tuple(part)]
        return np.argwhere(mask & ~kept) * np.array(spacing)

    x, y = surface(a), surface(b)
    d = np.linalg.norm(x[:, None] - y[None], axis=-1)
    return float(max(np.percentile(d.min(0), 95), np.percentile(d.min(1), 95)))


def dice(a: Array, b: Array) -> float:
    """Twice the common part over the sum."""
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())
