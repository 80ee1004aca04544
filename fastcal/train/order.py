"""Everything random in a member's training, as functions of the seed, the member and the moment.

Nothing depends on what was drawn before, so that a resumed training needs no generator states.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

INITIALISATION, ORDER, AUGMENTATION, DROPOUT, PATCHES = range(5)


def derived_seed(seed: int, member: int, purpose: int, moment: int = 0) -> int:
    """A seed of its own for each purpose and moment of each member."""
    sequence = np.random.SeedSequence([seed, member, purpose, moment])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


def batches(
    n_slices: int, *, batch_size: int, iterations: int, epoch: int, seed: int, member: int
) -> Iterator[Tensor]:
    """Slice indices of each step of an epoch (counted from 1), int64 ``[batch_size]``.

    The slices come in one random order after another, without regard to where epochs end: every
    batch is full, and every slice is seen equally often.
    """
    position = (epoch - 1) * iterations * batch_size
    end = position + iterations * batch_size
    pending = torch.empty(0, dtype=torch.int64)
    while position < end or len(pending) >= batch_size:
        while len(pending) < batch_size:
            number, offset = divmod(position, n_slices)
            generator = torch.Generator().manual_seed(derived_seed(seed, member, ORDER, number))
            order = torch.randperm(n_slices, generator=generator)[offset : offset + end - position]
            pending = torch.cat((pending, order))
            position += len(order)
        yield pending[:batch_size]
        pending = pending[batch_size:]


def augmented(
    images: Tensor,
    labels: Tensor,
    *,
    mirror: tuple[int, ...],
    jitter: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Slices ``[B, Ch, H, W]`` and labels ``[B, H, W]``, mirrored and with other intensities."""
    for axis in mirror:
        chosen = torch.rand(len(images), generator=generator) < 0.5
        chosen = chosen.to(images.device)
        images = torch.where(chosen[:, None, None, None], images.flip(2 + axis), images)
        labels = torch.where(chosen[:, None, None], labels.flip(1 + axis), labels)
    if jitter:
        shape = (2, *images.shape[:2], 1, 1)
        scale, shift = (jitter * (2 * torch.rand(shape, generator=generator) - 1)).to(images.device)
        images = images * (1 + scale) + shift
    return images, labels
