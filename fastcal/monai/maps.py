"""Maps as MONAI wants them: a channel axis in each, and the metadata of what they came from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from monai.utils.type_conversion import convert_to_dst_type
from torch import Tensor

from fastcal.core.arrays import Array
from fastcal.core.problem import MAPS
from fastcal.ensemble import EnsembleStatistics


def check_maps(maps: str | Sequence[str]) -> tuple[str, ...]:
    """``maps`` as a tuple.

    Raises:
        ValueError: None, or one that no pass gives.
    """
    names = (maps,) if isinstance(maps, str) else tuple(maps)
    if not names:
        raise ValueError("maps must name at least one map")
    for name in names:
        if name not in MAPS:
            raise ValueError(f"maps must be among {', '.join(MAPS)}; got {name!r}")
    return names


def check_weights(weights: Sequence[float] | Array | None) -> list[float] | None:
    """One number a member.

    Raises:
        ValueError: Weights of classes too, as `MeanEnsemble` takes them: the result would be no
            mean of the members' distributions.
    """
    if weights is None:
        return None
    try:
        array = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"weights must be one number a member, got {weights!r}") from None
    if array.ndim != 1:
        raise ValueError(f"weights must be one number a member, got shape {array.shape}")
    numbers: list[float] = array.tolist()
    return numbers


def channel_first(
    result: EnsembleStatistics, names: tuple[str, ...], like: Array, class_dim: int, dims: int
) -> dict[str, Array]:
    """The maps by name, each of the kind of ``like`` and on the device it was made on.

    Args:
        result: Of a pass.
        names: Of its maps.
        like: A NumPy array, a tensor, or a `MetaTensor` whose metadata the maps get.
        class_dim: Of a member.
        dims: Axes of a member.
    """
    maps = {}
    for name in names:
        array = getattr(result, name)
        if array.ndim < dims:  # reduced over the classes
            array = array[(slice(None),) * class_dim + (None,)]
        device = array.device if isinstance(array, Tensor) else None
        maps[name], *_ = convert_to_dst_type(array, like, dtype=array.dtype, device=device)
    return maps
