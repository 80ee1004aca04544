"""Volumes whose right recalibration is known, and the loss by PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastcal.recalibrate.volumes import FitVolume, PredictionReading, read_volume

ROOT = Path(__file__).resolve().parent.parent
SOFTMAX, BERNOULLI = PredictionReading(), PredictionReading(activation="sigmoid", multilabel=True)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exactly_calibrated(seed: int, num_classes: int = 4) -> tuple[Tensor, Tensor]:
    """Logits [1, C, n], float64, and a target that has each class as often as they say.

    A voxel stands 200 times, and its probabilities are multiples of 1/200: the likelihood of
    ``z / T`` is largest at T = 1 exactly.
    """
    drawn = torch.randn(num_classes, 60, generator=generator(seed), dtype=torch.float64)
    shares = (2 * drawn).softmax(0)
    counts = 1 + (shares * (200 - num_classes)).floor().long()
    counts[0] += 200 - counts.sum(0)
    target = torch.cat([torch.arange(num_classes).repeat_interleave(one) for one in counts.T])
    return (counts.double() / 200).log().repeat_interleave(200, 1)[None], target[None]


def overconfident(seed: int, shape: tuple[int, ...], num_classes: int = 4) -> tuple[Tensor, Tensor]:
    """Logits [B, C, *S] that are 2.5 times too large, mostly background, and their target."""
    batch, *voxels = shape
    z = 2 * torch.randn(batch, num_classes, *voxels, generator=generator(seed), dtype=torch.float64)
    z[:, 0] += 2.0
    p = z.softmax(1).movedim(1, -1).reshape(-1, num_classes)
    target = torch.multinomial(p, 1, generator=generator(seed + 1)).reshape(shape)
    return 2.5 * z, target


def volume(preds: Tensor, target: Tensor, reading: PredictionReading = SOFTMAX) -> FitVolume:
    return read_volume(preds, target, reading=reading)


def bernoulli_target(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randint(2, shape, generator=generator(seed))


def plain_loss(a: Tensor, target: Tensor) -> Tensor:
    """Sum of the negative log-likelihood of logits [C, n]."""
    if target.dim() == 1:
        return torch.nn.functional.cross_entropy(a.T, target, reduction="sum")
    return torch.nn.functional.binary_cross_entropy_with_logits(a, target.double(), reduction="sum")
