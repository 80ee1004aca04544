"""Small problems for the torchmetrics adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torchmetrics
from torch import Tensor

CLASSES = 4


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These tensors are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def problem(n: int = 60, seed: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    probs = (2 * torch.randn(2, CLASSES, n, generator=generator, dtype=torch.float64)).softmax(1)
    return probs, torch.randint(0, CLASSES, (2, n), generator=generator)


def binary_problem() -> tuple[Tensor, Tensor]:
    probs, target = problem()
    return probs[:, 0], (target == 0).long()


def labels_problem() -> tuple[Tensor, Tensor]:
    probs, target = problem()
    return probs, torch.stack([(target == k) | (target == 0) for k in range(CLASSES)], 1).long()


Make = Callable[..., torchmetrics.Metric]
Data = Callable[[], tuple[Tensor, Tensor]]


def double(metric: torchmetrics.Metric) -> torchmetrics.Metric:
    return metric.set_dtype(torch.float64)
