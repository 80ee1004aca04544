"""One axis of a volume after another, in pieces that stay in the cache of a processor."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

_PIECE = 1 << 17
"""Values of a piece on a CPU. Other devices take a volume at once."""


def pieces(volume: Tensor, axis: int) -> Iterator[slice]:
    """Split an axis so that each part of the volume is small enough for the cache.

    Args:
        volume: Any tensor with at least one value.
        axis: The axis to split.

    Example:
        >>> list(pieces(torch.zeros(3, 400, 400), 0))
        [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None)]
    """
    extent = volume.shape[axis]
    step = extent
    if volume.device.type == "cpu":
        step = max(1, _PIECE * extent // max(1, volume.numel()))
    for start in range(0, extent, step):
        yield slice(start, min(start + step, extent))


def sweep(volume: Tensor, axis: int, function: Callable[..., Tensor], *beside: Tensor) -> Tensor:
    """Apply a function that works along one axis, one piece of another axis after another.

    The result does not depend on the pieces, as the function treats lines of the axis alone.

    Args:
        volume: What the function reads first, ``[*S]``.
        axis: The axis that it works along, and may shorten.
        function: Takes pieces of ``volume`` and of ``beside``, and gives a new tensor.
        beside: More tensors of the same shape.

    Example:
        >>> sweep(torch.ones(2, 4), 1, lambda piece: piece.sum(1, keepdim=True))
        tensor([[4.],
                [4.]])
    """
    if volume.dim() == 1:
        return function(volume, *beside)
    split = 1 if axis == 0 else 0
    whole = (*(slice(None),) * split,)
    result: Tensor | None = None
    for part in pieces(volume, split):
        at = (*whole, part)
        piece = function(volume[at], *(tensor[at] for tensor in beside))
        if result is None:
            shape = list(piece.shape)
            shape[split] = volume.shape[split]
            result = torch.empty(shape, dtype=piece.dtype, device=piece.device)
        result[at] = piece
    assert result is not None
    return result
