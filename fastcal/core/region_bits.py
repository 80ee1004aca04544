"""Named regions of a volume, packed into one byte per voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastcal.core.arguments import choice
from fastcal.core.arrays import Array, to_tensor
from fastcal.core.problem import MAX_REGIONS


@dataclass(frozen=True, slots=True)
class Regions:
    """Named regions of a volume, each one bit of a byte per voxel.

    Raises:
        TypeError: ``bits`` is not a uint8 tensor, or ``names`` are not strings.
        ValueError: There are more than eight names, or two of them are equal.

    Example:
        >>> inside = torch.tensor([[True, True, False]])
        >>> regions = Regions.of({"box": inside, "rest": ~inside})
        >>> regions.bits, regions.names
        (tensor([[1, 1, 2]], dtype=torch.uint8), ('box', 'rest'))
    """

    bits: Tensor
    """uint8 of the voxel shape ``[B, *S]``, or ``[*S]`` for one batch item. Bit r is region r."""
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        check_names(self.names)
        if not isinstance(self.bits, Tensor) or self.bits.dtype != torch.uint8:
            found = self.bits.dtype if isinstance(self.bits, Tensor) else type(self.bits).__name__
            raise TypeError(f"bits must be a uint8 tensor (Regions.of packs masks), got {found}")

    @classmethod
    def of(cls, masks: Mapping[str, Array]) -> Regions:
        """Pack bool masks of one shape, by name.

        Raises:
            TypeError: A mask is not bool.
            ValueError: There is none, there are more than eight, or shapes differ.
        """
        names = check_names(tuple(masks))
        if not names:
            raise ValueError("regions must name at least one mask, got none")
        bits: Tensor | None = None
        for r, name in enumerate(names):
            mask = to_tensor(masks[name], f"region {name!r}")
            if mask.dtype != torch.bool:
                raise TypeError(f"region {name!r} must be bool, got {mask.dtype}")
            if bits is None:
                bits = torch.zeros(mask.shape, dtype=torch.uint8, device=mask.device)
            elif mask.shape != bits.shape:
                raise ValueError(
                    f"region {name!r} must have shape {tuple(bits.shape)}, as {names[0]!r}, "
                    f"got {tuple(mask.shape)}"
                )
            bits |= mask.view(torch.uint8) << r
        assert bits is not None
        return cls(bits, names)

    def mask(self, name: str) -> Tensor:
        """Give the voxels of a region, bool.

        Raises:
            ValueError: There is no such region.
        """
        choice(name, "region", self.names)
        return (self.bits >> self.names.index(name)) & 1 != 0


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Give ``names`` as a tuple of up to eight different names.

    Raises:
        TypeError: They are not strings.
        ValueError: There are too many, two are equal, or one is empty.
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"regions must be a list of names, got {names!r}")
    if len(names) > MAX_REGIONS:
        raise ValueError(f"regions must be at most {MAX_REGIONS} names, got {len(names)}")
    if len(set(names)) < len(names) or not all(names):
        raise ValueError(f"regions must be different, non-empty names, got {tuple(names)}")
    return tuple(names)


def read_regions(
    regions: Regions | Mapping[str, Array] | None,
    names: tuple[str, ...] | None,
    voxels: torch.Size,
    device: torch.device,
) -> Regions | None:
    """Check the regions that a call gave against its voxels.

    Args:
        regions: Masks by name, packed or not.
        names: The names that are expected, in their order. None accepts any names.
        voxels: The voxel shape. Regions of a single batch item may lack the batch axis.
        device: Device of the predictions.

    Raises:
        TypeError: ``regions`` are not masks by name.
        ValueError: Names, shape or device do not fit.
    """
    if regions is None:
        if names:
            raise ValueError(f"regions must be masks of {names}, got None")
        return None
    if not isinstance(regions, Regions):
        if not isinstance(regions, Mapping):
            raise TypeError(
                f"regions must be Regions or masks by name, got {type(regions).__name__}"
            )
        regions = Regions.of(regions)
    if names is not None and regions.names != names:
        if set(regions.names) != set(names):
            expected = f"masks of {names}" if names else "None"
            raise ValueError(f"regions must be {expected}, got {regions.names}")
        regions = Regions.of({name: regions.mask(name) for name in names})
    bits = regions.bits
    if bits.shape == voxels[1:] and len(voxels) > 0 and voxels[0] == 1:
        bits = bits.unsqueeze(0)
    if bits.shape != voxels:
        raise ValueError(f"regions must have shape {tuple(voxels)}, got {tuple(bits.shape)}")
    if bits.device != device:
        raise ValueError(f"regions must be on {device}, got {bits.device}")
    return Regions(bits, regions.names)
