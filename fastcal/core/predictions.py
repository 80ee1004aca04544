"""The shape and kind of predictions, which maps and targets have to fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Predictions(NamedTuple):
    """What is known of predictions without reading them.

    Example:
        >>> cpu = torch.device("cpu")
        >>> Predictions(torch.Size([2, 3, 8, 9]), cpu, torch.float32, 1, False).voxel_shape
        torch.Size([2, 8, 9])
    """

    shape: torch.Size
    """Of a member, ``[B, C, *S]`` where the class axis is 1."""
    device: torch.device
    real: torch.dtype
    """The accumulation type."""
    class_dim: int
    """Not negative."""
    multilabel: bool
    """Every class is a Bernoulli variable with a target of its own."""
    stored: torch.dtype | None = None
    """The type of the probabilities that were given; None for those computed in `real`."""
    order: tuple[int, ...] | None = None
    """The axes of a member from the slowest in memory to the fastest, see `memory_order`; None for
    that of the shape."""

    @property
    def num_classes(self) -> int:
        """C."""
        return self.shape[self.class_dim]

    @property
    def voxel_shape(self) -> torch.Size:
        """The shape without the class axis."""
        return self.shape[: self.class_dim] + self.shape[self.class_dim + 1 :]

    def empty(self, dtype: torch.dtype, *, classes: bool) -> Tensor:
        """Allocate numbers of each voxel, or of each class of it, that lie in memory as members do.

        A pass that reads one and writes the other then walks along both.
        """
        if classes:
            return laid_out(self.shape, self.order, dtype, self.device)
        return laid_out(self.voxel_shape, self._order_of_voxels, dtype, self.device)

    def zeros(self, planes: int) -> Tensor:
        """Allocate planes ``[planes, *voxel_shape]`` of zeros, of which each lies as members do."""
        order = self._order_of_voxels
        behind = None if order is None else (0, *(axis + 1 for axis in order))
        size = (planes, *self.voxel_shape)
        return laid_out(size, behind, self.real, self.device).zero_()

    @property
    def _order_of_voxels(self) -> tuple[int, ...] | None:
        if self.order is None:
            return None
        axis = self.class_dim
        return tuple(one - (one > axis) for one in self.order if one != axis)


def memory_order(tensor: Tensor) -> tuple[int, ...] | None:
    """Return the axes of a tensor of the CPU from the slowest in memory to the fastest.

    Returns:
        None where that is the order of its shape, on other devices, and in a graph that is traced.

    Example:
        >>> memory_order(torch.zeros(5, 4, 3).permute(1, 2, 0))
        (2, 0, 1)
    """
    if tensor.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    strides = tensor.stride()
    order = tuple(sorted(range(tensor.dim()), key=lambda axis: -strides[axis]))
    return None if order == tuple(range(tensor.dim())) else order


def laid_out(
    shape: Sequence[int],
    order: Sequence[int] | None,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Tensor:
    """Allocate a tensor whose axes lie in memory in an order of their own.

    Args:
        shape: Its shape.
        order: Its axes from the slowest to the fastest; None for that of the shape.
        dtype: Its type.
        device: Where it is.

    Example:
        >>> laid_out((2, 3), (1, 0), torch.float32, "cpu").stride()
        (1, 2)
    """
    if order is None:
        return torch.empty(tuple(shape), dtype=dtype, device=device)
    made = torch.empty([shape[axis] for axis in order], dtype=dtype, device=device)
    return made.permute(sorted(range(len(order)), key=order.__getitem__))
