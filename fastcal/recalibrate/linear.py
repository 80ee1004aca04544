"""Maps of logits that are linear in their parameters, and the loss of the new logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from fastcal.core.likelihood import likelihood
from fastcal.recalibrate.volumes import FitVolume


class LinearMap(ABC):
    """New logits ``[C, n]`` that are linear in parameters ``[P]`` and in features z ``[C, n]``.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    @abstractmethod
    def identity(self) -> Tensor:
        """Return the parameters that leave logits unchanged, float64 ``[P]``."""

    def features(self, logits: Tensor) -> Tensor:
        """Return the z ``[C, n]`` of `forward` and `adjoint`; by default the logits themselves."""
        return logits

    @abstractmethod
    def forward(self, theta: Tensor, z: Tensor) -> Tensor:
        """Compute new logits ``[C, n]``."""

    @abstractmethod
    def adjoint(self, z: Tensor, r: Tensor) -> Tensor:
        """Compute the derivative ``[P]`` of ``sum(r * forward(theta, z))`` by theta."""


class ScaleMap(LinearMap):
    """The map a_k = b_k z_k."""

    def identity(self) -> Tensor:
        """Return ones."""
        return torch.ones(self.num_classes, dtype=torch.float64)

    def forward(self, theta: Tensor, z: Tensor) -> Tensor:
        """Compute new logits ``[C, n]``."""
        return theta[:, None] * z

    def adjoint(self, z: Tensor, r: Tensor) -> Tensor:
        """Compute the derivative by theta; see `LinearMap.adjoint`."""
        return (r * z).sum(1)


class VectorMap(LinearMap):
    """The map a_k = w_k z_k + b_k with parameters (w, b)."""

    def identity(self) -> Tensor:
        """Return weights of 1 and biases of 0."""
        theta = torch.zeros(2 * self.num_classes, dtype=torch.float64)
        theta[: self.num_classes] = 1
        return theta

    def forward(self, theta: Tensor, z: Tensor) -> Tensor:
        """Compute new logits ``[C, n]``."""
        w, b = theta.view(2, -1, 1).unbind()
        return w * z + b

    def adjoint(self, z: Tensor, r: Tensor) -> Tensor:
        """Compute the derivative by theta; see `LinearMap.adjoint`."""
        return torch.cat([(r * z).sum(1), r.sum(1)])


class DirichletMap(LinearMap):
    """The map a = W ln p + b, whose parameters are the rows of (W, b)."""

    def features(self, logits: Tensor) -> Tensor:
        """Return ln p, the log-softmax of the logits."""
        return logits.log_softmax(0)

    def identity(self) -> Tensor:
        """Return a unit matrix and biases of 0."""
        return torch.eye(self.num_classes, self.num_classes + 1, dtype=torch.float64).flatten()

    def forward(self, theta: Tensor, z: Tensor) -> Tensor:
        """Compute new logits ``[C, n]``."""
        rows = theta.view(self.num_classes, -1)
        return rows[:, :-1] @ z + rows[:, -1:]

    def adjoint(self, z: Tensor, r: Tensor) -> Tensor:
        """Compute the derivative by theta; see `LinearMap.adjoint`."""
        return torch.cat([r @ z.T, r.sum(1, keepdim=True)], 1).flatten()


@dataclass(frozen=True, slots=True)
class LinearSums:
    """Float64 sums over voxels at one theta."""

    n_voxels: int
    loss: float
    """Negative log-likelihood in nats."""
    gradient: Tensor
    """Gradient ``[P]`` of the loss."""
    hessian: Tensor | None = None
    """Hessian ``[P, P]`` of the loss, if the pass computes it."""

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


def linear_pass(volume: FitVolume, model: LinearMap, theta: Tensor) -> LinearSums:
    """Read a volume once, block by block, and compute loss and gradient.

    Raises:
        ValueError: Targets lie outside [0, C), or voxels have no valid values.
    """
    theta = theta.to(volume.values.device)
    sums = LinearSums(0, 0.0, torch.zeros_like(theta))
    for block in volume.blocks():
        z = model.features(volume.reading.logits(block.values, volume.dtype))
        loss, residual, _ = likelihood(model.forward(theta, z), block.target)
        sums = sums + LinearSums(z.shape[1], float(loss.sum()), model.adjoint(z, residual))
    return LinearSums(sums.n_voxels, sums.loss, sums.gradient.cpu())
