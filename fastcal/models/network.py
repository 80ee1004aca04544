"""The interface of every network of fastcal, whatever its layers are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Head = Literal["softmax", "sigmoid"]
HEADS: tuple[Head, ...] = ("softmax", "sigmoid")


class SegmentationNetwork(nn.Module):
    """A network from images ``[B, in_channels, *S]`` to logits ``[B, num_classes, *S]``.

    In training mode, a network with deep supervision returns a list of logits, finest first. The
    coarser ones have the size of their level.

    Args:
        in_channels: Channels of the image.
        num_classes: Classes, the background included.
        dims: Spatial axes, 2 or 3.
        head: How logits become probabilities: ``"softmax"``, or ``"sigmoid"`` for each class alone.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(self, in_channels: int, num_classes: int, dims: int, head: Head) -> None:
        super().__init__()
        for name, number in (("in_channels", in_channels), ("num_classes", num_classes)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number!r}")
        if dims not in (2, 3):
            raise ValueError(f"dims must be 2 or 3, got {dims!r}")
        if head not in HEADS:
            raise ValueError(f"head must be 'softmax' or 'sigmoid', got {head!r}")
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.dims = dims
        self.head: Head = head
        self._checkpointing = False

    @property
    def spec(self) -> dict[str, Any]:
        """What `build_network` builds this network from, except for its weights."""
        raise NotImplementedError

    @property
    def classifiers(self) -> list[nn.Module]:
        """Layers that compute the logits, finest first; empty where they are not known."""
        return []

    @property
    def bottleneck(self) -> nn.Module | None:
        """The deepest block, whose output is the coarsest; None where it is not known."""
        return None

    @property
    def multiples(self) -> tuple[int, ...]:
        """Spatial extents are padded to multiples of these."""
        return (1,) * self.dims

    @property
    def checkpointing(self) -> bool:
        """Whether training recomputes features in the backward pass instead of keeping them."""
        return self._checkpointing

    @checkpointing.setter
    def checkpointing(self, active: bool) -> None:
        if active:
            raise ValueError(
                f"checkpointing must be False for {self.spec['name']}, got True: only UNet has it"
            )

    def probabilities(self, logits: Tensor) -> Tensor:
        """Turn logits into class probabilities ``[B, C, *S]``, by the head of this network."""
        return logits.softmax(1) if self.head == "softmax" else logits.sigmoid()

    def check_image(self, image: Tensor) -> None:
        """Raise a ValueError for an image with another number of axes or channels."""
        if image.ndim != self.dims + 2 or image.shape[1] != self.in_channels:
            raise ValueError(
                f"image must have shape [B, {self.in_channels}, *S] with {self.dims} spatial axes, "
                f"got {tuple(image.shape)}"
            )


def pad_to_multiple(image: Tensor, multiples: Sequence[int]) -> Tensor:
    """Append zeros up to multiples of these extents, one per spatial axis."""
    missing = [-extent % by for extent, by in zip(image.shape[2:], multiples, strict=True)]
    # A traced network must pad for sizes other than that of the example, too.
    traced = torch._C._get_tracing_state() is not None or torch.compiler.is_exporting()
    if not traced and not any(missing):
        return image
    pads = [amount for extent in reversed(missing) for amount in (0, extent)]
    return functional.pad(image, pads)


def crop_to(values: Tensor, size: Sequence[int]) -> Tensor:
    """Keep the first ``size`` voxels of the spatial axes."""
    for axis, extent in enumerate(size, start=2):
        values = values.narrow(axis, 0, extent)
    return values
