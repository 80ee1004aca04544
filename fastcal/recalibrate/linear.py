"""Calibrators that are linear in their parameters: new logits a = A(theta; z), and their loss."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from fastcal.core.likelihood import likelihood
from fastcal.recalibrate.volumes import FitVolume


class LinearMap(ABC):
    """New logits [C, n] that depend linearly on parameters [P] and on features z [C, n]."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    @abstractmethod
    def identity(self) -> Tensor:
        """The parameters that leave logits as they are, float64 [P]."""

    def features(self, logits: Tensor) -> Tensor:
        """What ``forward`` and ``adjoint`` take as z, [C, n]: the logits as they are."""
        return logits

    @abstractmethod
    def forward(self, theta: Tensor, z: Tensor) -> Tensor:
        """New logits [C, n]."""

    @abstractmethod
    def adjoint(self, z: Tensor, r: Tensor) -> Tensor:
        """Derivative of ``sum(r * forward(theta, z))`` by theta, [P]."""


class ScaleMap(LinearMap):
    """a_k = b_k z_k."""

    def identity(self) -> Tensor:
        return torch.ones(self.num_classes, dtype=torch.float64)

    def forward(self, theta: Tensor, z: Tensor) -> Tensor:
        return theta[:, None] * z

    def adjoint(self, z: Tensor, r: Tensor) -> Tensor:
        return (r * z).sum(1)


class VectorMap(LinearMap):
    """a_k = w_k z_k + b_k; parameters (w, b)."""

    def identity(self) -> Tensor:
        theta = torch.zeros(2 * self.num_classes, dtype=torch.float64)
        theta[: self.num_classes] = 1
        return theta

    def forward(self, theta: Tensor, z: Tensor) -> Tensor:
        w, b = theta.view(2, -1, 1).unbind()
        return w * z + b

    def adjoint(self, z: Tensor, r: Tensor) -> Tensor:
        return torch.cat([(r * z).sum(1), r.sum(1)])


class DirichletMap(LinearMap):
    """a = W ln p + b; parameters are the rows of (W, b)."""

    def features(self, logits: Tensor) -> Tensor:
        return logits.log_softmax(0)

    def identity(self) -> Tensor:
        return torch.eye(self.num_classes, self.num_classes + 1, dtype=torch.float64).flatten()

    def forward(self, theta: Tensor, z: Tensor) -> Tensor:
        rows = theta.view(self.num_classes, -1)
        return rows[:, :-1] @ z + rows[:, -1:]

    def adjoint(self, z: Tensor, r: Tensor) -> Tensor:
        return torch.cat([r @ z.T, r.sum(1, keepdim=True)], 1).flatten()


@dataclass(frozen=True, slots=True)
class LinearSums:
    """Sums over voxels at one theta, float64."""

    n_voxels: int
    loss: float
    """Negative log-likelihood in nats."""
    gradient: Tensor
    """[P]"""
    hessian: Tensor | None = None
    """[P, P], where the pass gives it."""

    def __add__(self, other: LinearSums) -> LinearSums:
        hessian = None
        if self.hessian is not None and other.hessian is not None:
            hessian = self.hessian + other.hessian
        return LinearSums(
            self.n_voxels + other.n_voxels,
            self.loss + other.loss,
            self.gradient + other.gradient,
            hessian,
        )


def total(sums: Iterable[LinearSums]) -> LinearSums:
    """The sum of one at least."""
    return reduce(operator.add, sums)


def linear_pass(volume: FitVolume, model: LinearMap, theta: Tensor) -> LinearSums:
    """Read a volume once: loss and gradient, a block of voxels at a time.

    Raises:
        ValueError: Targets outside [0, C), or voxels without valid values.
    """
    theta = theta.to(volume.values.device)
    sums = LinearSums(0, 0.0, torch.zeros_like(theta))
    for block in volume.blocks():
        z = model.features(volume.reading.logits(block.values, volume.dtype))
        loss, residual, _ = likelihood(model.forward(theta, z), block.target)
        sums = sums + LinearSums(z.shape[1], float(loss.sum()), model.adjoint(z, residual))
    return LinearSums(sums.n_voxels, sums.loss, sums.gradient.cpu())
