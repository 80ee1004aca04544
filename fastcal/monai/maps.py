"""Maps as MONAI wants them: with a channel axis, and the metadata of their input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from monai.utils.type_conversion import convert_to_dst_type
from torch import Tensor

from fastcal.core.arrays import Array
from fastcal.core.problem import MAPS
from fastcal.results import EnsembleStatistics


def check_maps(maps: str | Sequence[str]) -> tuple[str, ...]:
    """Return ``maps`` as a tuple.

    Raises:
        ValueError: There is none, or one that no pass gives.
    """
    names = (maps,) if isinstance(maps, str) else tuple(maps)
    if not names:
        raise ValueError("maps must name at least one map, got none")
    for name in names:
        if name not in MAPS:
            raise ValueError(f"maps must be among {', '.join(MAPS)}, got {name!r}")
    return names


def check_weights(weights: Sequence[float] | Array | None) -> list[float] | None:
    """Return one number per member, or None.

    Raises:
        ValueError: They are something else. Weights per class, as `MeanEnsemble` takes them, are
            refused: the result would not be a mean of the members' distributions.
    """
    if weights is None:
        return None
    try:
        array = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"weights must be one number per member, got {weights!r}") from None
    if array.ndim != 1:
        raise ValueError(f"weights must be one number per member, got shape {array.shape}")
    numbers: list[float] = array.tolist()
    return numbers


def channel_first(
    result: EnsembleStatistics, names: tuple[str, ...], like: Array, class_dim: int, dims: int
) -> dict[str, Array]:
    """Return the maps by name, each of the kind of ``like`` and on the device it was made on.

    Args:
        result: What a pass gave.
        names: The maps wanted.
        like: A NumPy array, a tensor, or a `MetaTensor` whose metadata the maps get.
        class_dim: Class axis of a member.
        dims: Number of axes of a member.
    """
    maps = {}
    for name in names:
        array = getattr(result, name)
        if array.ndim < dims:  # the class axis was reduced
            array = array[(slice(None),) * class_dim + (None,)]
        device = array.device if isinstance(array, Tensor) else None
        maps[name], *_ = convert_to_dst_type(array, like, dtype=array.dtype, device=device)
    return maps
