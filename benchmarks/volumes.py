"""Member logits as segmentation networks give them: a saturated background around an object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
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
) -> Case:
    """A volume of which a share ``background`` is background, the rest one round object.

    Background voxels have softmax(class 0) > 0.9999, as trained networks do, so nearly all of them
    fall into the last bin. Confidences in the object are spread evenly over [1/C, 1], with the
    members disagreeing a little; ``background=0`` is therefore the diffuse volume. The target is
    drawn so that the shared confidences are calibrated.
    """
    generator = torch.Generator().manual_seed(seed)
    size = (1, *shape)
    n_voxels = torch.Size(shape).numel()
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = torch.stack([a.square() for a in axes]).sum(0).reshape(-1)
    n_inside = round((1 - background) * n_voxels)
    inside = torch.zeros(n_voxels, dtype=torch.bool)
    inside[radius.argsort()[:n_inside]] = True
    inside = inside.reshape(size)

    confidence = torch.rand(size, generator=generator) * (1 - 1 / n_classes) + 1 / n_classes
    confidence = confidence.clamp(max=1 - 1e-6)
    top = torch.randint(0, n_classes, size, generator=generator)
    margin = (confidence * max(n_classes - 1, 1) / (1 - confidence)).log()
    shared = torch.zeros(1, n_classes, *shape)
    shared.scatter_(1, top.unsqueeze(1), margin.unsqueeze(1))
    sure = torch.full_like(shared, -6.0)
    sure[:, 0] = 6.0
    shared = torch.where(inside.unsqueeze(1), shared, sure)

    members = []
    for _ in range(n_members):
        noise = torch.randn(shared.shape, generator=generator)
        members.append(noise.mul_(0.3).add_(shared).to(dtype))

    right = torch.rand(size, generator=generator) < confidence
    other = (top + torch.randint(1, max(n_classes, 2), size, generator=generator)) % n_classes
    target = torch.where(inside, torch.where(right, top, other), torch.zeros_like(top))
    return Case(members, target)
