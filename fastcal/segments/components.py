"""How many connected components a predicted segment has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcal import backends

_Parts = Callable[[NDArray[Any]], NDArray[Any]]
"""Numbers the components of an image, in which 0 belongs to none."""


def count_components(
    label: Tensor, num_classes: int, smallest: int, *, multilabel: bool = False
) -> Tensor:
    """Count the connected components of each segment that have enough voxels.

    Voxels that share a face, an edge or a corner are connected. Labels of one byte of up to three
    axes are counted by the compiled module where it serves their device. Of others,
    connected-components-3d numbers the components of all classes at once; SciPy does so class by
    class where it is missing, and for more than three axes.

    Args:
        label: ``[B, *S]``, or ``[B, C, *S]`` of 0 and 1 when multilabel.
        num_classes: C.
        smallest: Voxels of the smallest component that counts.
        multilabel: Every class has labels of its own.

    Returns:
        int64 ``[B, C]``.

    Raises:
        ImportError: One of the two packages is needed, and neither is installed.

    Example:
        >>> count_components(torch.tensor([[[1, 0, 0], [0, 0, 1]]]), 2, 1)
        tensor([[1, 2]])
    """
    axes = label.dim() - (2 if multilabel else 1)
    found = torch.zeros((len(label), num_classes), dtype=torch.int64)
    shapes = backends.shapes(label.device)
    if shapes is not None and label.dtype == torch.uint8 and axes <= 3:
        for item, volume in enumerate(label.contiguous()):
            if multilabel:
                of_plane = torch.zeros(2, dtype=torch.int64)  # those outside the class, and of it
                for k, plane in enumerate(volume):
                    shapes.component_counts(plane, smallest, of_plane)
                    found[item, k] = of_plane[1]
            else:
                shapes.component_counts(volume, smallest, found[item])
        return found
    parts = _parts(axes)
    for item, volume in enumerate(label.cpu().numpy()):
        if multilabel:
            for k in range(num_classes):
                # Bytes: connected-components-3d 4.1 miscounts lines of booleans.
                plane = (volume[k] == 1).astype(np.uint8)
                found[item, k] = _count(plane, 1, smallest, parts)[0]
        else:
            found[item] = _count(_objects(volume, num_classes), num_classes, smallest, parts)
    return found.to(label.device)


def _parts(axes: int) -> _Parts:
    if axes <= 3:
        try:
            import cc3d
        except ImportError:
            pass
        else:
            return lambda image: cc3d.connected_components(
                np.atleast_2d(image), connectivity=26 if axes == 3 else 8
            )
    try:
        from scipy import ndimage
    except ImportError as error:
        raise ImportError(
            "components need connected-components-3d or SciPy: pip install 'fastcal[quality]', "
            "or component_voxels=None"
        ) from error
    neighbours = np.ones((3,) * axes, np.bool_)

    def each_class(image: NDArray[Any]) -> NDArray[Any]:
        numbers = np.zeros(image.shape, np.int32)
        total = 0
        for k, box in enumerate(ndimage.find_objects(image.astype(np.int32))):
            if box is not None:
                part = image[box] == k + 1
                own, more = ndimage.label(part, neighbours)
                numbers[box][part] = own[part] + total
                total += more
        return numbers

    return each_class


def _objects(label: NDArray[Any], classes: int) -> NDArray[Any]:
    """Give label k as k + 1, and what is no class as 0, in the smallest type."""
    objects = np.zeros(label.shape, np.uint8 if classes < 256 else np.uint32)
    is_class = label < classes if label.dtype.kind == "u" else (label >= 0) & (label < classes)
    np.add(label, 1, out=objects, where=is_class, casting="unsafe")
    return objects


def _count(image: NDArray[Any], classes: int, smallest: int, parts: _Parts) -> Tensor:
    """Count the components of each object number 1, ..., ``classes``."""
    numbers = parts(image).reshape(-1)
    sizes = np.bincount(numbers)
    owner = np.zeros(len(sizes), np.int64)
    owner[numbers] = image.reshape(-1)
    large = (sizes >= smallest) & (owner > 0)
    return torch.from_numpy(np.bincount(owner[large], minlength=classes + 1)[1:])
