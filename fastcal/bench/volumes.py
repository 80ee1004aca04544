"""Member logits like those of segmentation networks: a saturated background and an object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SyntheticCase:
    """Logits ``[1, C, *S]`` of each member, and the true classes ``[1, *S]``."""

    members: list[Tensor]
    target: Tensor


def make_case(
    n_members: int,
    n_classes: int,
    shape: Sequence[int],
    *,
    background: float,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> SyntheticCase:
    """Make a volume of which a share ``background`` is background and the rest one round object.

    Background voxels have softmax(class 0) > 0.9999, as those of trained networks do, so nearly all
    of them fall into the last bin. Confidences in the object are spread evenly over [1/C, 1], and
    members disagree a little. With ``background=0`` the volume is diffuse. The target is drawn so
    that the shared confidences are calibrated.
    """
    generator = torch.Generator(device).manual_seed(seed)
    size = (1, *shape)
    n_voxels = torch.Size(shape).numel()
    n_inside = round((1 - background) * n_voxels)
    inside = _object(shape, n_inside, device)

    def uniform() -> Tensor:
        return torch.rand(size, generator=generator, device=device)

    def whole(low: int, high: int) -> Tensor:
        return torch.randint(low, high, size, generator=generator, device=device)

    confidence = (uniform() * (1 - 1 / n_classes) + 1 / n_classes).clamp_(max=1 - 1e-6)
    top = whole(0, n_classes)
    margin = (confidence * max(n_classes - 1, 1) / (1 - confidence)).log()
    margin.masked_fill_(~inside, 12.0)  # background: softmax of (6, -6, -6, ...)
    shared = torch.where(inside, 0.0, -6.0).unsqueeze(1).repeat(1, n_classes, 1, 1, 1)
    shared.scatter_add_(1, (top * inside).unsqueeze(1), margin.unsqueeze(1))

    members = []
    for _ in range(n_members):
        noise = torch.randn(shared.shape, generator=generator, device=device)
        members.append(noise.mul_(0.3).add_(shared).to(dtype))

    right = uniform() < confidence
    other = (top + whole(1, max(n_classes, 2))) % n_classes
    target = torch.where(inside, torch.where(right, top, other), torch.zeros_like(top))
    return SyntheticCase(members, target)


def _object(shape: Sequence[int], n_inside: int, device: torch.device | str) -> Tensor:
    """Make a mask ``[1, *S]`` of the ``n_inside`` voxels nearest to the middle, with ties."""
    axes = [torch.linspace(-1, 1, n, device=device).square() for n in shape]
    radius = (axes[0][:, None, None] + axes[1][:, None] + axes[2]).unsqueeze(0)
    if n_inside == 0:
        return torch.zeros_like(radius, dtype=torch.bool)
    return radius <= radius.flatten().kthvalue(n_inside).values
