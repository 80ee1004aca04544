"""How far the members of an ensemble agree on each segment."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastcal import backends

_CHUNK = 1 << 18
"""Voxels that are compared at once. This bounds the memory, and keeps float32 sums of them exact.
"""


def overlaps(labels: Sequence[Tensor], num_classes: int, *, multilabel: bool = False) -> Tensor:
    """Count the voxels that each pair of members gives to each class.

    Where all members agree, which is nearly everywhere, one count serves every pair. The other
    voxels are counted by a product of matrices of 0 and 1.

    Args:
        labels: M members, ``[B, *S]``, or ``[B, C, *S]`` of 0 and 1 when multilabel. Other values
            belong to no class.
        num_classes: C.
        multilabel: Every class has labels of its own.

    Returns:
        int64 ``[B, C, M, M]``; the sizes of the members' segments lie on the diagonal.

    Example:
        >>> overlaps([torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 1]])], 2)[0, 1]
        tensor([[2, 1],
                [1, 1]])
    """
    n_members, batch = len(labels), len(labels[0])
    device = labels[0].device
    shape = (batch, num_classes, n_members, n_members)
    found = torch.zeros(shape, dtype=torch.int64, device=device)
    shapes = backends.shapes(device)
    if shapes is not None and all(label.dtype == torch.uint8 for label in labels):
        whole = [label.contiguous() for label in labels]
        for item in range(batch):
            if multilabel:
                for k in range(num_classes):
                    both = torch.zeros((2, n_members, n_members), dtype=torch.int64)
                    shapes.member_overlaps([label[item, k] for label in whole], both)
                    found[item, k] = both[1]
            else:
                shapes.member_overlaps([label[item] for label in whole], found[item])
        return found
    for item in range(batch):
        if multilabel:
            for k in range(num_classes):
                planes = [label[item, k].reshape(-1) for label in labels]
                _add(planes, (1,), found[item, k : k + 1])
        else:
            _add([label[item].reshape(-1) for label in labels], range(num_classes), found[item])
    return found


def _add(planes: list[Tensor], classes: Sequence[int], found: Tensor) -> None:
    """Add the overlaps of the classes with these labels to ``found``, ``[classes, M, M]``."""
    for start in range(0, planes[0].numel(), _CHUNK):
        parts = torch.stack([plane[start : start + _CHUNK] for plane in planes])
        split = (parts != parts[0]).any(0)
        agreed, disputed = parts[0][~split], parts[:, split]
        for position, k in enumerate(classes):
            found[position] += (agreed == k).sum()
            if disputed.numel():
                chosen = (disputed == k).to(torch.float32)
                found[position] += (chosen @ chosen.T).to(torch.int64)


def pairwise_dice(found: Tensor) -> Tensor:
    """Compute the mean Dice coefficient over all pairs of members (Zenk et al., 2025).

    A pair counts where at least one of the two has the structure.

    Args:
        found: The result of `overlaps`.

    Returns:
        float64 ``[B, C]``; NaN where there is no pair.
    """
    n_members = found.shape[-1]
    sizes = found.diagonal(dim1=-2, dim2=-1)
    first, second = torch.triu_indices(n_members, n_members, 1, device=found.device)
    both = (sizes[..., first] + sizes[..., second]).to(torch.float64)
    dice = 2 * found[..., first, second] / both
    return dice.nanmean(-1)


def pooled_pairwise_dice(votes: Tensor, vote_pairs: Tensor, n_members: int) -> Tensor:
    """Compute ``sum_i v_i (v_i - 1) / ((M - 1) sum_i v_i)`` with v the votes of a voxel.

    It is the Dice coefficient of all pairs of members, with their overlaps and sizes summed first.

    Args:
        votes: The sum of v over voxels.
        vote_pairs: The sum of v (v - 1).
        n_members: M.

    Returns:
        float64; NaN for a single member, and where no member has the structure.
    """
    return vote_pairs.to(torch.float64) / ((n_members - 1) * votes.to(torch.float64))
