"""Ensemble maps and calibration from one pass over the members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastcal import ops
from fastcal.calibration import NOTHING_COUNTED, CalibrationKind, CalibrationStatistics, OpenCount
from fastcal.core import bins, outputs
from fastcal.core.arguments import flag
from fastcal.core.arrays import Array
from fastcal.core.members import Members, check_reading, read_members
from fastcal.core.problem import CALIBRATIONS, Activation, Space
from fastcal.core.region_bits import Regions
from fastcal.core.targets import CaseId, check_nan_policy, read_targets


@dataclass(slots=True)
class EnsembleStatistics:
    """What a pass gave: every map asked for (None otherwise), and the calibration.

    Float maps are float32, float64 for float64 members; voxels without valid probabilities hold
    NaN there and -1 in ``label`` (all bits set in unsigned types).
    """

    mean: Array | None = None
    """Mean probabilities, ``[B, C, *S]``."""
    label: Array | None = None
    """Argmax of the mean, the lowest class of ties, ``[B, *S]``; ``[B, C, *S]`` of 0 and 1 when
    multilabel."""
    confidence: Array | None = None
    """Largest mean probability, ``[B, *S]``; ``max(p, 1 - p)``, ``[B, C, *S]``, when multilabel."""
    entropy: Array | None = None
    """Entropy of the mean in nats, ``[B, *S]``."""
    expected_entropy: Array | None = None
    """Mean entropy of the members in nats, ``[B, *S]``."""
    mutual_information: Array | None = None
    """Entropy less expected entropy, at least 0, ``[B, *S]``."""
    variance: Array | None = None
    """Variance over members, mean over classes, ``[B, *S]``."""
    disagreement: Array | None = None
    """Share of members whose label is not the most frequent one, ``[B, *S]``."""
    calibration: CalibrationStatistics | None = None
    """Calibration of the mean against the target."""


def ensemble_entropy(
    preds: Array | Sequence[Array],
    *,
    class_dim: int = 1,
    from_logits: bool = True,
    activation: Activation = "softmax",
    multilabel: bool = False,
    space: Space = "prob",
    temperature: float | Sequence[float] = 1.0,
    weights: Sequence[float] | None = None,
    out: Array | None = None,
) -> Array:
    """Entropy of the mean prediction, ``H = -sum_k p_k ln p_k`` with ``p = sum_m w_m p_m``.

    Args:
        preds: List or tuple of M members ``[B, C, *S]``, or one tensor ``[M, B, C, *S]``; torch
            tensors, NumPy arrays or anything with ``__dlpack__``, of float16, bfloat16, float32
            or float64 and of any strides. Nothing is stacked or copied. Members that require
            grad are detached: results never carry a gradient.
        class_dim: Axis of the classes in a member: 1, or 0 for ``[C, *S]``.
        from_logits: Members are logits; False: probabilities. Never guessed.
        activation: ``"softmax"``, or ``"sigmoid"`` for exclusive classes whose probabilities do
            not sum to 1, which are used as they are.
        multilabel: Every class is a Bernoulli of its own (always a sigmoid); entropies are
            summed over classes.
        space: ``"prob"`` averages probabilities, ``"logit"`` averages logits and activates then.
        temperature: Divides the logits (the logarithms of probabilities), one for all or one a
            member.
        weights: One a member, not negative, normalised to sum 1; a member of weight 0 is left
            out. Equal by default.
        out: Tensor to write to, ``[B, *S]``, of the result's type; it must not share memory with
            the members.

    Returns:
        Nats, ``[B, *S]``; float32 (float64 for float64 members); NaN for invalid voxels (a NaN,
        a +inf, or -inf for all classes). NumPy where the members are NumPy.

    Raises:
        TypeError, ValueError: An argument does not fit; the message names it.

    Example:
        >>> import torch
        >>> members = [torch.tensor([[[10.0], [-10.0]]]), torch.tensor([[[-10.0], [10.0]]])]
        >>> ensemble_entropy(members)
        tensor([[0.6931]])
    """
    return _one_map(
        "entropy",
        read_members(preds, class_dim, weights, temperature),
        from_logits,
        check_reading(from_logits, activation, multilabel, space),
        multilabel,
        space,
        out,
    )


def ensemble_mean(
    preds: Array | Sequence[Array],
    *,
    class_dim: int = 1,
    from_logits: bool = True,
    activation: Activation = "softmax",
    multilabel: bool = False,
    space: Space = "prob",
    temperature: float | Sequence[float] = 1.0,
    weights: Sequence[float] | None = None,
    out: Array | None = None,
) -> Array:
    """Mean probabilities of the members, ``p = sum_m w_m p_m``, ``[B, C, *S]``.

    Arguments, types and what is raised are those of `ensemble_entropy`; ``out`` has the shape of
    a member. With ``space="logit"`` the result is the activated mean of the logits.

    Example:
        >>> import numpy as np
        >>> members = np.array([[[0.9, 0.1]], [[0.5, 0.5]]])
        >>> ensemble_mean(members, from_logits=False)
        array([[0.7, 0.3]])
    """
    return _one_map(
        "mean",
        read_members(preds, class_dim, weights, temperature),
        from_logits,
        check_reading(from_logits, activation, multilabel, space),
        multilabel,
        space,
        out,
    )


def ensemble_statistics(
    preds: Array | Sequence[Array],
    target: Array | None = None,
    *,
    maps: str | Sequence[str] = ("entropy",),
    class_dim: int = 1,
    from_logits: bool = True,
    activation: Activation = "softmax",
    multilabel: bool = False,
    space: Space = "prob",
    temperature: float | Sequence[float] = 1.0,
    weights: Sequence[float] | None = None,
    normalise: bool = False,
    calibration: CalibrationKind = "both",
    n_bins: int = 15,
    closed: bins.Closed = "right",
    mask: Array | None = None,
    ignore_index: int | None = None,
    case_id: CaseId | Sequence[CaseId] | None = None,
    nan_policy: str = "raise",
    eps: float | None = None,
    fine_bins: int = 0,
    moments: bool = False,
    entropy_bins: int = 0,
    regions: Regions | Mapping[str, Array] | None = None,
    out: Mapping[str, Array] | Array | None = None,
) -> EnsembleStatistics:
    """Any of the maps, and exact calibration statistics, from one pass over the members.

    Args:
        preds: As in `ensemble_entropy`, like every argument not listed here.
        target: Integers in [0, C), ``[B, *S]``; ``[B, C, *S]`` of 0 and 1 when multilabel. With
            it, calibration statistics are counted; the arguments from ``calibration`` to ``eps``
            belong to them.
        maps: Which of ``mean, label, confidence, entropy, expected_entropy, mutual_information,
            variance, disagreement``; may be empty where there is a target. The entropies of
            members, their mutual information and their variance need ``space="prob"``.
        normalise: Divide each voxel's mean probabilities by their sum first (for sigmoid models
            of exclusive classes).
        calibration: ``"top-label"``, ``"classwise"`` or ``"both"``.
        n_bins: See `CalibrationStatistics`, as for ``closed`` and ``eps``.
        closed: ``"right"`` or ``"left"``.
        mask: bool ``[B, *S]``, True keeps; maps are written everywhere all the same.
        ignore_index: Target value that is left out.
        case_id: One id a batch item, for the metrics by case.
        nan_policy: What invalid voxels among those counted do: ``"raise"``, or ``"omit"`` to
            leave them out and count them in ``calibration.n_invalid``.
        eps: Lower clip of the probability inside the NLL.
        fine_bins: See `CalibrationStatistics`, as for ``moments`` and ``entropy_bins``.
        regions: bool masks ``[B, *S]`` by name, or `fastcal.regions.Regions`, whose statistics
            are counted in the same pass and given by ``calibration.region(name)``.
        out: Map name to the tensor it is written to, for some or all maps; a tensor where there
            is one map. Labels may be of any integer type.

    Returns:
        The maps as attributes, and ``.calibration`` when a target is given.

    Raises:
        TypeError, ValueError: An argument does not fit; the message names it. Bad data (targets
            outside [0, C), invalid voxels) raise on return for CPU tensors, and when a statistic
            is first read for CUDA tensors and under ``torch.compile``.

    Example:
        >>> import torch
        >>> members = torch.tensor([[[2.0, 0.0]], [[0.0, 1.0]]])
        >>> result = ensemble_statistics(members, torch.tensor([0]), maps=("label", "variance"))
        >>> result.label, result.variance, round(result.calibration.brier(), 4)
        (tensor([0]), tensor([0.0936]), 0.3615)
    """
    activation_used = check_reading(from_logits, activation, multilabel, space)
    names = outputs.check_maps(maps, space)
    members = read_members(preds, class_dim, weights, temperature)
    first, axis = members.tensors[0], members.class_dim
    tensors = outputs.map_tensors(
        names, out, first.shape, first.device, axis, members.real, multilabel
    )
    if flag(normalise, "normalise") and multilabel:
        raise ValueError("normalise=True is not defined with multilabel=True")
    count = open_count(
        target,
        names,
        shape=first.shape,
        device=first.device,
        class_dim=axis,
        real=members.real,
        multilabel=multilabel,
        calibration=calibration,
        n_bins=n_bins,
        closed=closed,
        eps=eps,
        mask=mask,
        ignore_index=ignore_index,
        case_id=case_id,
        nan_policy=nan_policy,
        fine_bins=fine_bins,
        moments=moments,
        entropy_bins=entropy_bins,
        regions=regions,
    )
    if out is not None:
        outputs.check_apart(names, tensors, {"preds": members.tensors, **read_by(count)})
    ops.ensemble_statistics(
        members.tensors,
        members.weights,
        members.temperatures,
        axis,
        from_logits,
        activation_used,
        multilabel,
        space,
        list(names),
        tensors,
        normalise,
        *(NOTHING_COUNTED if count is None else count.arguments),
    )
    statistics = None if count is None else count.close()
    return gather(names, tensors, out, members.numpy, statistics)


def open_count(
    target: Array | None,
    maps: tuple[str, ...],
    *,
    shape: torch.Size,
    device: torch.device,
    class_dim: int,
    real: torch.dtype,
    multilabel: bool,
    calibration: CalibrationKind,
    n_bins: int,
    closed: bins.Closed,
    eps: float | None,
    mask: Array | None,
    ignore_index: int | None,
    case_id: CaseId | Sequence[CaseId] | None,
    nan_policy: str,
    fine_bins: int,
    moments: bool,
    entropy_bins: int,
    regions: Regions | Mapping[str, Array] | None,
) -> OpenCount | None:
    """Statistics for a pass to count into; None where there is no target.

    Raises:
        TypeError, ValueError: The target or what belongs to it does not fit.
    """
    check_nan_policy(nan_policy)
    if target is None:
        of_target = {
            "mask": mask,
            "ignore_index": ignore_index,
            "case_id": case_id,
            "fine_bins": fine_bins or None,
            "moments": moments or None,
            "entropy_bins": entropy_bins or None,
            "regions": regions,
        }
        for name, value in of_target.items():
            if value is not None:
                raise ValueError(f"{name} needs a target")
        if not maps:
            raise ValueError("maps must not be empty without a target")
        return None
    num_classes = shape[class_dim]
    if num_classes == 1 and not multilabel:
        raise ValueError(
            f"one class (class_dim {class_dim} of shape {tuple(shape)}) cannot be counted as "
            "exclusive: pass multilabel=True for binary data"
        )
    if calibration not in CALIBRATIONS:
        raise ValueError(f"calibration must be one of {CALIBRATIONS}, got {calibration!r}")
    targets = read_targets(
        target, mask, ignore_index, case_id, shape, device, class_dim, multilabel, regions
    )
    statistics = CalibrationStatistics(
        num_classes,
        n_bins,
        closed,
        calibration,
        multilabel=multilabel,
        eps=eps,
        fine_bins=fine_bins,
        moments=moments,
        entropy_bins=entropy_bins,
        regions=targets.region_names,
    )
    return statistics.open_count(targets, device, real, nan_policy, "preds")


def read_by(count: OpenCount | None) -> dict[str, list[Tensor]]:
    """The tensors that counting reads, by argument."""
    if count is None:
        return {}
    found = {"target": count.targets.target, "mask": count.targets.mask}
    return {name: [tensor] for name, tensor in found.items() if tensor is not None}


def gather(
    names: tuple[str, ...],
    tensors: list[Tensor],
    out: Mapping[str, Array] | Array | None,
    numpy: bool,
    calibration: CalibrationStatistics | None,
) -> EnsembleStatistics:
    """The results of a pass as the caller wants them."""
    result = EnsembleStatistics(calibration=calibration)
    for name, tensor in zip(names, tensors, strict=True):
        setattr(result, name, outputs.given_back(name, tensor, out, numpy))
    return result


def _one_map(
    name: str,
    members: Members,
    from_logits: bool,
    activation: str,
    multilabel: bool,
    space: str,
    out: Array | None,
) -> Array:
    first, axis = members.tensors[0], members.class_dim
    if isinstance(out, Mapping):
        raise TypeError("out must be a tensor or an array, got a mapping")
    tensors = outputs.map_tensors(
        (name,), out, first.shape, first.device, axis, members.real, multilabel
    )
    if out is not None:
        outputs.check_apart((name,), tensors, {"preds": members.tensors})
    ops.ensemble_statistics(
        members.tensors,
        members.weights,
        members.temperatures,
        axis,
        from_logits,
        activation,
        multilabel,
        space,
        [name],
        tensors,
        False,
        *NOTHING_COUNTED,
    )
    return outputs.given_back(name, tensors[0], out, members.numpy)
