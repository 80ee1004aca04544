"""How many connected components a predicted segment has."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def count_components(
    label: Tensor, num_classes: int, smallest: int, *, multilabel: bool = False
) -> Tensor:
    """Count the connected components of each segment that have enough voxels.

    Voxels that share a face, an edge or a corner are connected.

    Args:
        label: ``[B, *S]``, or ``[B, C, *S]`` of 0 and 1 when multilabel.
        num_classes: C.
        smallest: Voxels of the smallest component that counts.
        multilabel: Every class has labels of its own.

    Returns:
        int64 ``[B, C]``.

    Raises:
        ImportError: SciPy is not installed.

    Example:
        >>> count_components(torch.tensor([[[1, 0, 0], [0, 0, 1]]]), 2, 1)
        tensor([[1, 2]])
    """
    try:
        from scipy import ndimage
    except ImportError as error:
        raise ImportError(
            "components need SciPy: pip install 'fastcal[report]', or component_voxels=None"
        ) from error
    found = torch.zeros((len(label), num_classes), dtype=torch.int64)
    for item, volume in enumerate(label.cpu().numpy()):
        planes = [(volume[k], 1, k) for k in range(num_classes)] if multilabel else [(volume, 0, 0)]
        for plane, least, first in planes:
            # Label l becomes l - least + 1, so that nothing else is an object.
            objects = np.clip(plane.astype(np.int32) - (least - 1), 0, None)
            boxes = ndimage.find_objects(objects, 1 if multilabel else num_classes)
            for k, box in enumerate(boxes):
                if box is None:
                    continue
                part = objects[box] == k + 1
                parts, _ = ndimage.label(part, np.ones((3,) * part.ndim, np.bool_))
                sizes = np.bincount(parts.ravel())[1:]
                found[item, first + k] = int((sizes >= smallest).sum())
    return found.to(label.device)
