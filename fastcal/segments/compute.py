"""Scores of the segments of a mean prediction that is there already."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fastcal import ops
from fastcal.core.arguments import flag
from fastcal.core.arrays import INTEGERS, Array, real_dtype, to_tensor
from fastcal.core.members import check_member, check_several_classes
from fastcal.core.predictions import Predictions
from fastcal.core.problem import Finish, Reading
from fastcal.segments.measure import Prediction, measure, nothing
from fastcal.segments.scores import SegmentScores
from fastcal.segments.settings import SegmentSettings


def segment_scores(
    mean: Array,
    label: Array | None = None,
    *,
    class_dim: int = 1,
    entropy: Array | None = None,
    mutual_information: Array | None = None,
    spacing: Sequence[float] | None = None,
    paper_clip: bool = False,
    multilabel: bool = False,
    interior_voxels: float = 4.0,
    interior_mm: float | None = None,
    patch: int = 10,
    component_voxels: int | None = 10,
) -> SegmentScores:
    """Score the predicted segment of every class: its uncertainty, its size and its shape.

    Sums over voxels are exact integers, so that the scores are bit-identical for any number of
    threads. Scores that need the members come from ``segments=True`` of `ensemble_statistics` and
    `EnsembleAccumulator`, which give the others too.

    Args:
        mean: Mean probabilities, ``[B, C, *S]``.
        label: Class of each voxel, ``[B, *S]``; -1, or all bits set in an unsigned type, belongs
            to nothing. ``[B, C, *S]`` of 0 and 1 when multilabel. By default the class of the
            largest probability; when multilabel, the classes whose probability exceeds 0.5.
        class_dim: Axis of the classes in ``mean``: 1, or 0 for ``[C, *S]``.
        entropy: Entropy of the mean in nats, ``[B, *S]``. It is computed where it is not given.
        mutual_information: Mutual information in nats, ``[B, *S]``, for the score of that name.
        spacing: Distance between voxels in mm, one number per spatial axis. Without it volumes are
            numbers of voxels.
        paper_clip: Read p below 0.01 as 0.001 and p above 0.99 as 0.999 in the binary entropy, as
            the code of Mehrtash et al. (2020) does.
        multilabel: Every class is a Bernoulli variable of its own.
        interior_voxels: The interior of a segment is farther than this from its boundary.
        interior_mm: The same in mm, which then counts instead.
        patch: Voxels along each edge of the patch of ``patch_entropy``.
        component_voxels: Smallest connected component that is counted; None counts none.

    Returns:
        The scores, each ``[B, C]`` in float64; a NumPy array where ``mean`` is one.

    Raises:
        ImportError: Components are counted, which needs SciPy here, and it is not installed.
        TypeError: An argument has the wrong type. The message names it.
        ValueError: An argument does not fit, or holds numbers that are no probabilities, labels or
            entropies. The message names it.

    Example:
        >>> import torch
        >>> mean = torch.tensor([[[0.9, 0.6, 0.2], [0.1, 0.4, 0.8]]])
        >>> scores = segment_scores(mean, spacing=[2.0])
        >>> scores.volume, scores.binary_entropy
        (tensor([[4., 2.]], dtype=torch.float64), tensor([[0.4990, 0.5004]], dtype=torch.float64))
    """
    settings = SegmentSettings(
        spacing=spacing,
        paper_clip=paper_clip,
        interior_voxels=interior_voxels,
        interior_mm=interior_mm,
        patch=patch,
        component_voxels=component_voxels,
    )
    flag(multilabel, "multilabel")
    tensor = to_tensor(mean, "mean")
    real = real_dtype(tensor, "mean")
    axis = check_member(tensor, class_dim, "mean")
    predictions = Predictions(tensor.shape, tensor.device, real, axis, multilabel)
    check_several_classes(predictions)
    tensor = tensor[None] if axis == 0 else tensor.movedim(axis, 1)
    axes = tensor.dim() - 2
    settings.check_axes(axes)
    voxels = (tensor.shape[0], *tensor.shape[2:])
    given = None if label is None else to_tensor(label, "label")
    if given is not None:
        if given.dtype not in INTEGERS and given.dtype != torch.bool:
            raise TypeError(f"label must hold integers, got {given.dtype}")
        given = _fitted(given, "label", predictions, with_classes=multilabel)
        given = _comparable(given, 2 if multilabel else predictions.num_classes)
        if multilabel:
            given = given[None] if axis == 0 else given.movedim(axis, 1)
        elif axis == 0:
            given = given[None]
    chosen, computed = _computed(tensor, real, multilabel, given, entropy)
    maps = []
    for name, array in (("entropy", entropy), ("mutual_information", mutual_information)):
        if array is None:
            maps.append(computed if name == "entropy" else None)
            continue
        values = _fitted(to_tensor(array, name), name, predictions, with_classes=False)
        real_dtype(values, name)
        maps.append(values.to(real).reshape(voxels))
    assert maps[0] is not None
    found = Prediction(tensor, chosen, maps[0], maps[1], None, multilabel)
    return measure(found, settings, numpy=isinstance(mean, np.ndarray))


def _computed(
    mean: Tensor, real: torch.dtype, multilabel: bool, label: Tensor | None, entropy: Array | None
) -> tuple[Tensor, Tensor | None]:
    """Give the labels, and the entropy where it was not given, from one pass over the mean."""
    device, voxels = mean.device, (mean.shape[0], *mean.shape[2:])
    maps: dict[str, Tensor] = {}
    if label is None:
        shape = mean.shape if multilabel else torch.Size(voxels)
        maps["label"] = torch.empty(shape, dtype=torch.int32, device=device)
    if entropy is None:
        maps["entropy"] = torch.empty(voxels, dtype=real, device=device)
    if maps:
        reading = Reading(1, False, "sigmoid", multilabel, "prob")
        finish = Finish(maps, False, None)
        ops.ensemble_statistics([mean], [1.0], [1.0], *reading.flatten(), *finish.flatten())
    if label is None:
        label = maps["label"]
        if bool((label < 0).any()):
            bad = label if not multilabel else label.amin(1)
            raise ValueError(
                "mean must hold probabilities in [0, 1], "
                f"got {int((bad < 0).sum())} voxels with other numbers"
            )
    return label, maps.get("entropy")


def _comparable(label: Tensor, classes: int) -> Tensor:
    """Give labels of a type that torch can compare: it lacks that of the wide unsigned ones."""
    if label.dtype == torch.bool:
        return label.to(torch.uint8)
    if label.dtype not in (torch.uint16, torch.uint32, torch.uint64):
        return label
    mark = nothing(label.dtype, classes)
    label = label.to(torch.int64)
    return label if mark is None else torch.where(label == mark, -1, label)


def _fitted(tensor: Tensor, name: str, predictions: Predictions, *, with_classes: bool) -> Tensor:
    """Check shape and device of what belongs to the mean."""
    expected = predictions.shape if with_classes else predictions.voxel_shape
    if tensor.shape != expected:
        raise ValueError(
            f"{name} must have shape {tuple(expected)} for mean of shape "
            f"{tuple(predictions.shape)}, got {tuple(tensor.shape)}"
        )
    if tensor.device != predictions.device:
        raise ValueError(f"{name} must be on {predictions.device}, as mean, got {tensor.device}")
    return tensor
