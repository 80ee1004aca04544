"""Calls of every kernel on inputs that are the same on every machine, and digests of the results.

    python tests/saved_integers.py    # writes saved_integers.json from the build that is installed

Inputs are made from integers and one division each, so that no library's rounding is in them. From
probabilities the counted integers are the same on every backend and instruction set. Maps, and what
is computed from logits, depend on the instruction set and on what the compiler contracts.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fastcal
from fastcal import CalibrationStatistics, EnsembleAccumulator, ops
from fastcal.core.problem import MAPS

FILE = Path(__file__).parent / "data" / "saved_integers.json"
VOXELS = 3001
"""Beyond a block, and not a multiple of a vector."""
CLASSES = (2, 3, 4, 9, 20)


def whole(shape: tuple[int, ...], below: int, seed: int) -> np.ndarray:
    """Integers in [0, below) by a multiplicative hash of their position."""
    at = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(seed * 1_000_003)
    mixed = (at * np.uint64(0x9E3779B97F4A7C15)) ^ (at >> np.uint64(7))
    mixed = (mixed * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(33)
    return (mixed % np.uint64(below)).astype(np.int64).reshape(shape)


def probabilities(classes: int, seed: int, dtype: torch.dtype) -> Tensor:
    """``[2, C, VOXELS]``: most voxels are nearly certain, some are shared between the classes."""
    parts = whole((2, classes, VOXELS), 1000, seed)
    winner = whole((2, 1, VOXELS), classes, seed + 1)
    sure = whole((2, 1, VOXELS), 4, seed + 2) > 0
    at = np.arange(classes).reshape(1, -1, 1)
    parts = np.where(sure, np.where(at == winner, 10**6, parts // 300), parts + 1)
    shares = parts.astype(np.float64) / parts.sum(1, keepdims=True)
    return torch.from_numpy(shares).to(dtype)


def logits(classes: int, seed: int, dtype: torch.dtype) -> Tensor:
    """``[2, C, VOXELS]``: multiples of 1/32 in [-8, 8), exact in every type."""
    return torch.from_numpy((whole((2, classes, VOXELS), 512, seed) - 256) / 32.0).to(dtype)


def target(classes: int, seed: int = 5) -> Tensor:
    return torch.from_numpy(whole((2, VOXELS), classes, seed))


def from_probabilities() -> Iterator[tuple[str, str]]:
    """Name and digest of the integers counted from probabilities."""
    for classes in CLASSES:
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            probs = probabilities(classes, 11, dtype)
            kind = f"C={classes} {str(dtype).removeprefix('torch.')}"
            for closed in ("right", "left"):
                statistics = CalibrationStatistics(
                    classes, 15, closed, moments=True, fine_bins=512, entropy_bins=7
                )
                # Rounded to a half type, they do not sum to 1.
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)
                    statistics.update(
                        probs,
                        target(classes),
                        mask=torch.from_numpy(whole((2, VOXELS), 9, 3) > 0),
                        ignore_index=classes - 1,
                        case_id=["a", "b"],
                        nan_policy="omit",
                    )
                yield f"{kind} {closed}", _digest(_integers(statistics))
        statistics = CalibrationStatistics(classes, multilabel=True)
        truth = torch.from_numpy(whole((2, classes, VOXELS), 2, 8))
        statistics.update(probabilities(classes, 17, torch.float32), truth)
        yield f"C={classes} multilabel", _digest(_integers(statistics))


def from_logits() -> Iterator[tuple[str, str]]:
    """Name and digest of maps, integers and sums computed from logits."""
    for classes in CLASSES:
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            kind = f"C={classes} {str(dtype).removeprefix('torch.')}"
            members = [logits(classes, seed, dtype) for seed in (1, 2, 3)]
            found = fastcal.ensemble_statistics(members, target(classes), maps=MAPS)
            for name in MAPS:
                yield f"{kind} {name}", _digest(getattr(found, name).numpy())
            assert found.calibration is not None
            yield f"{kind} integers", _digest(_integers(found.calibration))
            stream = EnsembleAccumulator(maps=MAPS)
            for member in members:
                stream.update(member)
            again = stream.finalize(target(classes))
            yield f"{kind} streamed", _digest(again.entropy.numpy())  # type: ignore[union-attr]
        yield from _losses(classes)
        yield from _temperature(classes)


def _losses(classes: int) -> Iterator[tuple[str, str]]:
    values, labels = logits(classes, 4, torch.float32)[None], target(classes)[None]
    for head in ("softmax", "sigmoid"):
        sums = torch.zeros(1, 2, 6, classes, dtype=torch.float64)
        ops.class_sums(values, labels, head, None, True, True, True, sums)
        yield f"C={classes} {head} class_sums", _digest(sums.numpy())
        gaps = torch.zeros(1, 2, classes, 41, dtype=torch.float64)
        ops.bin_gaps(values, labels, head, None, 20, True, gaps)
        yield f"C={classes} {head} bin_gaps", _digest(gaps.numpy())


def _temperature(classes: int) -> Iterator[tuple[str, str]]:
    values, labels = logits(classes, 4, torch.float32)[0], target(classes)[0]
    counts = torch.zeros(3, dtype=torch.int64)
    sums = torch.zeros(3, dtype=torch.float64)
    ops.temperature_sums(
        *(values, labels, None, None, True, False, False, 2.0**-126, 2.0**-25),
        *([0.75], False, counts, sums),
    )
    yield f"C={classes} temperature_sums", _digest(sums.numpy())


def _integers(statistics: CalibrationStatistics) -> Any:
    return np.concatenate([statistics.state.totals.ravel(), statistics.state.case_groups.ravel()])


def _digest(values: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


def record() -> dict[str, Any]:
    """What this build gives: one digest per call; those from logits by instruction set."""
    from engines import Engine, using

    from fastcal import _cpu

    by_isa = {}
    for isa in _cpu.isa_levels():
        with using(Engine("cpu", isa)):
            by_isa[isa] = dict(from_logits())
    with using(Engine("cpu", _cpu.isa_levels()[0])):
        shared = dict(from_probabilities())
    return {"compiler": compiler(), "probabilities": shared, "logits": by_isa}


def compiler() -> str:
    """What built the module, from the mark that GCC leaves in an object file."""
    from fastcal import _cpu

    found = re.search(rb"GCC: \([^)]*\) ([0-9.]+)", Path(_cpu.__file__).read_bytes())
    return "unknown" if found is None else f"GCC {found.group(1).decode()}"


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(record(), indent=1) + "\n", encoding="utf-8")
