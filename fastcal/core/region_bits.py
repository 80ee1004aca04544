"""Named regions of a volume, a bit each of one byte a voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastcal.core.arrays import Array, to_tensor
from fastcal.core.problem import MAX_REGIONS


@dataclass(frozen=True, slots=True)
class Regions:
    """Named regions, a bit each.

    Raises:
        TypeError, ValueError: ``bits`` is no uint8 tensor, or ``names`` are not up to eight
            different names.

    Example:
        >>> inside = torch.tensor([[True, True, False]])
        >>> regions = Regions.of({"box": inside, "rest": ~inside})
        >>> regions.bits, regions.names
        (tensor([[1, 1, 2]], dtype=torch.uint8), ('box', 'rest'))
    """

    bits: Tensor
    """uint8 of the voxel shape ``[B, *S]`` (or ``[*S]`` for one item): bit r for region r."""
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        check_names(self.names)
        if not isinstance(self.bits, Tensor) or self.bits.dtype != torch.uint8:
            raise TypeError("bits must be a uint8 tensor: Regions.of packs masks")

    @classmethod
    def of(cls, masks: Mapping[str, Array]) -> Regions:
        """Pack bool masks of one shape, by name.

        Raises:
            TypeError: A mask is not bool.
            ValueError: There is none, there are more than eight, or shapes differ.
        """
        names = check_names(tuple(masks))
        if not names:
            raise ValueError("regions must name at least one mask")
        bits: Tensor | None = None
        for r, name in enumerate(names):
            mask = to_tensor(masks[name], f"region {name!r}")
            if mask.dtype != torch.bool:
                raise TypeError(f"region {name!r} must be bool, got {mask.dtype}")
            if bits is None:
                bits = torch.zeros(mask.shape, dtype=torch.uint8, device=mask.device)
            elif mask.shape != bits.shape:
                raise ValueError(
                    f"region {name!r} must have shape {tuple(bits.shape)} as the first, "
                    f"got {tuple(mask.shape)}"
                )
            bits |= mask.view(torch.uint8) << r
        assert bits is not None
        return cls(bits, names)

    def mask(self, name: str) -> Tensor:
        """bool, which voxels lie in a region.

        Raises:
            ValueError: There is no such region.
        """
        if name not in self.names:
            raise ValueError(f"region must be one of {self.names}, got {name!r}")
        return (self.bits >> self.names.index(name)) & 1 != 0


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """``names`` as a tuple of up to eight different ones.

    Raises:
        TypeError, ValueError: They are something else.
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"regions must be names, got {names!r}")
    if len(names) > MAX_REGIONS:
        raise ValueError(f"regions must be at most {MAX_REGIONS}, got {len(names)}")
    if len(set(names)) < len(names) or not all(names):
        raise ValueError(f"regions must have different names, got {tuple(names)}")
    return tuple(names)


def read_regions(
    regions: Regions | Mapping[str, Array] | None,
    names: tuple[str, ...] | None,
    voxels: torch.Size,
    device: torch.device,
) -> Regions | None:
    """What a call gave, checked against its voxels.

    Args:
        regions: Masks by name, packed or not.
        names: Those expected, in their order; None for whatever comes.
        voxels: Shape of the target's voxels; a batch axis of one item may be missing.
        device: Of the predictions.

    Raises:
        TypeError, ValueError: They do not fit.
    """
    if regions is None:
        if names:
            raise ValueError(f"regions must be given for {names}")
        return None
    if not isinstance(regions, Regions):
        if not isinstance(regions, Mapping):
            raise TypeError(
                f"regions must be Regions or masks by name, got {type(regions).__name__}"
            )
        regions = Regions.of(regions)
    if names is not None and regions.names != names:
        if set(regions.names) != set(names):
            expected = names or "none"
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
