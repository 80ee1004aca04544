"""Test inputs: member logits and probabilities in every dtype and memory layout."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

LAYOUTS = ("contiguous", "channels_last", "cropped", "strided", "stacked", "class_first")
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def logits(
    n_members: int,
    n_classes: int,
    shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    batch: int = 2,
    scale: float = 3.0,
    seed: int = 0,
) -> list[Tensor]:
    """Independent normal logits, ``[B, C, *S]`` each."""
    generator = torch.Generator().manual_seed(seed)
    size = (batch, n_classes, *shape)
    return [(scale * torch.randn(size, generator=generator)).to(dtype) for _ in range(n_members)]


def probabilities(
    n_members: int,
    n_classes: int,
    shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    batch: int = 2,
    scale: float = 2.0,
    seed: int = 0,
    exclusive: bool = True,
) -> list[Tensor]:
    """Softmax (or independent sigmoid) outputs rounded to the type, ``[B, C, *S]`` each."""
    values = logits(
        n_members, n_classes, shape, dtype=torch.float64, batch=batch, scale=scale, seed=seed
    )
    return [(z.softmax(1) if exclusive else z.sigmoid()).to(dtype) for z in values]


def labels(n_classes: int, size: Sequence[int], *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, n_classes, tuple(size), generator=generator)


def arranged(tensor: Tensor, layout: str) -> Tensor:
    """The same numbers ``[B, C, *S]``, laid out differently in memory."""
    if layout == "channels_last":
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "cropped":
        pad = [1, 2] * (tensor.ndim - 2)
        filler = float("nan") if tensor.is_floating_point() else 77
        padded = torch.nn.functional.pad(tensor, pad, value=filler)
        for axis in range(2, tensor.ndim):
            padded = padded.narrow(axis, 1, tensor.shape[axis])
        return padded
    if layout == "strided":
        base = tensor.new_full([2 * n for n in reversed(tensor.shape)], 77)
        view = base[tuple(slice(None, None, 2) for _ in tensor.shape)]
        view = view.permute(*reversed(range(tensor.ndim)))
        return view.copy_(tensor)
    return tensor.contiguous()


def exact(tensor: Tensor) -> np.ndarray:
    """float64 numpy copy; exact for every dtype tested."""
    return tensor.to(torch.float64).numpy().copy()


def pairwise(*axes: Sequence[object]) -> list[tuple[object, ...]]:
    """Cases in which every pair of values of two axes occurs, far fewer than the product.

    Greedy: of the cases of the full product, the one that covers the most pairs not yet seen.
    """
    cases = list(itertools.product(*(range(len(axis)) for axis in axes)))
    pairs = [set(itertools.combinations(enumerate(case), 2)) for case in cases]
    missing = set().union(*pairs)
    chosen = []
    while missing:
        best = max(range(len(cases)), key=lambda i: len(pairs[i] & missing))
        missing -= pairs[best]
        chosen.append(tuple(axis[i] for axis, i in zip(axes, cases[best], strict=True)))
    return chosen
