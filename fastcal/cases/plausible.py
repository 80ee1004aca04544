"""Saved probabilities that contradict themselves, their fellows or the label map beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastcal.core.errors import DataError
from fastcal.core.predictions import memory_order
from fastcal.data.predictions import as_tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastcal.data.predictions import Probabilities

SUM_TOLERANCE = 0.02
"""Distance from 1 of the sum over the classes; rounding to float16 moves it by less than 0.001."""
_RANGE_TOLERANCE = 1e-3
"""Of a probability beyond [0, 1], which interpolation may leave."""
_TIE = 1e-3
"""Probabilities that are this near could be either's in the precision they were saved in."""
_ACTIVATIONS = ("softmax", "sigmoid")


def check_activation(
    found: Probabilities, expected: str | None = None, *, multilabel: bool = False
) -> None:
    """Refuse a file whose channels were activated in another way than those of its fellows.

    Args:
        found: The file's probabilities.
        expected: ``"softmax"`` or ``"sigmoid"``; None for either.
        multilabel: The channels are label groups, so that a file about which nothing is said holds
            those of a sigmoid, as nnU-Net saves them; otherwise it holds those of a softmax.

    Raises:
        DataError: It records another activation, or none that is known.
    """
    activation = found.activation or ("sigmoid" if multilabel else "softmax")
    if activation not in _ACTIVATIONS:
        raise DataError(
            found.source, f"activation must be 'softmax' or 'sigmoid', got {activation!r}"
        )
    if expected is not None and activation != expected:
        raise DataError(
            found.source,
            f"activation must be {expected!r}, as that of the other files, got {activation!r}",
        )


def check_read(
    found: Probabilities, *, from_logits: bool, activation: str | None, multilabel: bool
) -> None:
    """Refuse a file whose numbers are not what they are said to be.

    Args:
        found: The file's numbers.
        from_logits: They are logits.
        activation: See `check_activation`.
        multilabel: See `check_activation`.

    Raises:
        DataError: It holds no probabilities, those of another activation, or the logits of a box
            of its image, around which none are known.
    """
    check_activation(found, activation, multilabel=multilabel)
    if not from_logits:
        check_probabilities(found, multilabel=multilabel)
    elif found.put_back:
        raise DataError(
            found.source,
            "must hold logits of the whole image, got a box of it, around which there are none",
        )


def check_probabilities(found: Probabilities, *, multilabel: bool, counted: bool = False) -> None:
    """Refuse numbers that are no probabilities of the classes, which logits are not either.

    NaN passes; whoever counts it names its voxels.

    Args:
        found: Probabilities ``[C, X, Y, Z]``.
        multilabel: The channels are label groups, whose probabilities have no sum.
        counted: The caller counts every voxel and calls `check_range` where one was invalid, so
            that numbers of exclusive classes are read once here.

    Raises:
        DataError: A number lies outside [0, 1], or those of exclusive classes do not sum to 1.
    """
    values, class_axis = _as_it_lies(found)
    if values.numel() == 0:
        return
    values = values.permute(0, *(1 + axis for axis in _slowest_first(values[0])))
    exclusive = not (multilabel or found.activation == "sigmoid")
    count = 0
    if exclusive:
        sums = values.sum(class_axis, dtype=torch.float32)
        off = (sums - 1).abs_() > SUM_TOLERANCE
        count = int(torch.count_nonzero(off))
        if counted and not count:
            return
    check_range(found)
    if count:
        lowest, highest = (float(one) for one in sums[off].aminmax())
        raise DataError(
            found.source,
            f"probabilities must sum to 1 over the classes, got sums of {lowest:.4g} to "
            f"{highest:.4g} in {count} of {off.numel()} voxels",
        )


def check_range(found: Probabilities) -> None:
    """Refuse numbers outside [0, 1]; NaN passes.

    Raises:
        DataError: There is one.
    """
    low, high = (float(one) for one in _as_it_lies(found)[0].aminmax())
    if low < -_RANGE_TOLERANCE or high > 1 + _RANGE_TOLERANCE:
        raise DataError(
            found.source,
            f"probabilities must be from 0 to 1, got {low:.4g} to {high:.4g}; logits need "
            "from_logits",
        )


def _as_it_lies(found: Probabilities) -> tuple[torch.Tensor, int]:
    """Return probabilities in the order of memory, and their axis of classes.

    torch sums what is turned in seven times the time.
    """
    values = as_tensor(found)
    order = memory_order(values)
    return (values, 0) if order is None else (values.permute(order), order.index(0))


def contradicted(found: Probabilities, labels: NDArray[Any], kept: NDArray[np.bool_] | None) -> int:
    """Count the voxels whose label is not the most probable class.

    A near tie may go either way. Postprocessing, such as nnU-Net's removal of all but the largest
    component, is a reason that is no fault.

    Args:
        found: Probabilities ``[C, X, Y, Z]`` of exclusive classes.
        labels: The label map beside them, ``[X, Y, Z]``, of values below C.
        kept: Voxels that count; None for all.
    """
    values = as_tensor(found)
    order = _slowest_first(values[0])
    planes = values.permute(0, *(1 + axis for axis in order))
    places = torch.from_numpy(np.ascontiguousarray(labels.transpose(order), dtype=np.int64))[None]
    of_label = planes.gather(0, places.clamp(0, len(values) - 1))[0]
    differs = (of_label < planes.amax(0) - _TIE).numpy()
    counted = differs if kept is None else differs & kept.transpose(order)
    return int(np.count_nonzero(counted))


def _slowest_first(plane: torch.Tensor) -> list[int]:
    """Return the axes of ``[X, Y, Z]`` as they lie in memory: in that order a pass is faster."""
    return sorted(range(plane.dim()), key=lambda axis: -plane.stride()[axis])
