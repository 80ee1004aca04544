"""Ensemble maps and calibration from one pass over the members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from fastcal import ops
from fastcal.calibration import CalibrationKind, CalibrationStatistics, OpenCount
from fastcal.core import bins, outputs
from fastcal.core.arguments import choice, flag
from fastcal.core.arrays import Array
from fastcal.core.members import Members, check_reading, read_members
from fastcal.core.predictions import Predictions
from fastcal.core.problem import CALIBRATIONS, Activation, Finish, Reading, Space
from fastcal.core.region_bits import Regions
from fastcal.core.sums_to_one import MOST_CLASSES, warn_of_logits, warn_of_sums
from fastcal.core.targets import CaseId, GivenTarget, Wording, check_nan_policy, read_targets
from fastcal.results import EnsembleStatistics
from fastcal.segments import SegmentScores, SegmentSettings, SegmentStream, read_settings


class CountSettings(NamedTuple):
    """What is counted where there is a target; see `CalibrationStatistics`."""

    calibration: CalibrationKind
    n_bins: int
    closed: bins.Closed
    eps: float | None
    fine_bins: int
    moments: bool
    entropy_bins: int


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
    """Compute the entropy of the mean prediction.

    The entropy is ``H = -sum_k p_k ln p_k`` with ``p = sum_m w_m p_m``.

    Args:
        preds: List or tuple of M members ``[B, C, *S]``, or one tensor ``[M, B, C, *S]``. Members
            are torch tensors, NumPy arrays or objects with ``__dlpack__``, of float16, bfloat16,
            float32 or float64 and of any strides. They are neither stacked nor copied. Members that
            require a gradient are detached: results never carry one.
        class_dim: Axis of the classes in a member: 1, or 0 for ``[C, *S]``.
        from_logits: Members are logits; pass False for probabilities. A call never guesses.
        activation: ``"softmax"``, or ``"sigmoid"`` for exclusive classes whose probabilities do
            not sum to 1. Those are used as they are.
        multilabel: Every class is a Bernoulli variable of its own. The activation is then the
            sigmoid, and entropies are summed over classes. A single class needs it.
        space: ``"prob"`` averages probabilities, ``"logit"`` averages logits and activates
            afterwards.
        temperature: Divides the logits, or the logarithms of probabilities. One number for all
            members, or one per member.
        weights: One per member, not negative; they are normalised to the sum 1. A member of weight
            0 is left out. Equal by default.
        out: Tensor to write to, ``[B, *S]``, of the type of the result. It must not share memory
            with the members.

    Returns:
        Entropy in nats, ``[B, *S]``, float32 (float64 for float64 members). Invalid voxels hold
        NaN: those where a logit is NaN or +inf, or all are -inf. A NumPy array where the members
        are NumPy arrays.

    Raises:
        TypeError: An argument has the wrong type. The message names it.
        ValueError: An argument does not fit. The message names it.

    Example:
        >>> import torch
        >>> members = [torch.tensor([[[10.0], [-10.0]]]), torch.tensor([[[-10.0], [10.0]]])]
        >>> ensemble_entropy(members)
        tensor([[0.6931]])
    """
    members = read_members(preds, class_dim, weights, temperature)
    used = check_reading(from_logits, activation, multilabel, space)
    reading = Reading(members.class_dim, from_logits, used, multilabel, space)
    return _one_map("entropy", members, reading, out)


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
    """Compute the mean probabilities of the members, ``p = sum_m w_m p_m``.

    Args:
        preds: M members; see `ensemble_entropy`.
        class_dim: Axis of the classes in a member: 1, or 0 for ``[C, *S]``.
        from_logits: Members are logits; pass False for probabilities. A call never guesses.
        activation: ``"softmax"`` or ``"sigmoid"``; see `ensemble_entropy`.
        multilabel: Every class is a Bernoulli variable of its own.
        space: ``"prob"`` averages probabilities, ``"logit"`` averages logits and activates
            afterwards.
        temperature: One number for all members, or one per member.
        weights: One per member. Equal by default.
        out: Tensor to write to, of the shape of a member and the type of the result.

    Returns:
        Probabilities, ``[B, C, *S]``, float32 (float64 for float64 members). Invalid voxels hold
        NaN.

    Raises:
        TypeError: An argument has the wrong type. The message names it.
        ValueError: An argument does not fit. The message names it.

    Example:
        >>> import numpy as np
        >>> members = np.array([[[0.9, 0.1]], [[0.5, 0.5]]])
        >>> ensemble_mean(members, from_logits=False)
        array([[0.7, 0.3]])
    """
    members = read_members(preds, class_dim, weights, temperature)
    used = check_reading(from_logits, activation, multilabel, space)
    reading = Reading(members.class_dim, from_logits, used, multilabel, space)
    return _one_map("mean", members, reading, out)


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
    segments: bool | SegmentSettings = False,
    out: Mapping[str, Array] | Array | None = None,
) -> EnsembleStatistics:
    """Compute maps and exact calibration statistics in one pass over the members.

    Args:
        preds: M members; see `ensemble_entropy`.
        target: Integers in [0, C), ``[B, *S]``; ``[B, C, *S]`` of 0 and 1 when multilabel. With a
            target, calibration statistics of the mean are counted.
        maps: Which of ``mean, label, confidence, entropy, expected_entropy, mutual_information,
            variance, disagreement`` to compute. May be empty where there is a target. Expected
            entropy, mutual information and variance need ``space="prob"``.
        class_dim: Axis of the classes in a member: 1, or 0 for ``[C, *S]``.
        from_logits: Members are logits; pass False for probabilities. A call never guesses.
        activation: ``"softmax"`` or ``"sigmoid"``; see `ensemble_entropy`.
        multilabel: Every class is a Bernoulli variable of its own.
        space: ``"prob"`` averages probabilities, ``"logit"`` averages logits and activates
            afterwards.
        temperature: One number for all members, or one per member.
        weights: One per member. Equal by default.
        normalise: Divide the mean probabilities of each voxel by their sum first, for sigmoid
            models of exclusive classes.
        calibration: Which bins are counted: ``"top-label"``, ``"classwise"`` or ``"both"``.
        n_bins: Number of bins of equal width over [0, 1].
        closed: Which side of a bin belongs to it, ``"right"`` or ``"left"``.
        mask: bool ``[B, *S]``; True counts a voxel. Maps are written everywhere.
        ignore_index: Target value whose voxels are not counted.
        case_id: One id per batch item, for metrics per case.
        nan_policy: What invalid voxels among those to be counted do: ``"raise"`` an error, or
            ``"omit"`` to leave them out and count them in ``calibration.n_invalid``.
        eps: Lower clip of the probability inside the negative log-likelihood.
        fine_bins: Number of cells in a fine histogram; see `CalibrationStatistics`. 0 for none.
        moments: Keep second moments of the classwise bins; see `CalibrationStatistics`.
        entropy_bins: Number of bins in the histogram of entropies; see `CalibrationStatistics`. 0
            for none.
        regions: bool masks ``[B, *S]`` by name, or `fastcal.regions.Regions`. Their statistics are
            counted in the same pass, and ``calibration.region(name)`` gives them.
        segments: Also score the segment of every class, or `SegmentSettings` to say how. Each
            member is then read a second time, for its own segments. ``maps`` may be empty.
        out: Name of a map to the tensor it is written to, for some or all maps, or a tensor where
            there is one map. Labels may have any integer type.

    Returns:
        The maps as attributes, ``.calibration`` when a target is given, and ``.segments`` where
        they are wanted.

    Raises:
        ImportError: Components of segments are counted, and SciPy is not installed.
        TypeError: An argument has the wrong type. The message names it.
        ValueError: An argument does not fit, or the data are bad (targets outside [0, C), invalid
            voxels). Bad data raise on return for CPU tensors. For CUDA tensors and under
            ``torch.compile`` they raise when a statistic is first read.

    Example:
        >>> import torch
        >>> members = torch.tensor([[[2.0, 0.0]], [[0.0, 1.0]]])
        >>> result = ensemble_statistics(members, torch.tensor([0]), maps=("label", "variance"))
        >>> result.label, result.variance, round(result.calibration.brier(), 4)
        (tensor([0]), tensor([0.0936]), 0.3615)
    """
    used = check_reading(from_logits, activation, multilabel, space)
    names = outputs.check_maps(maps, space)
    members = read_members(preds, class_dim, weights, temperature, confirmed=target is not None)
    predictions = members.predictions(multilabel=multilabel)
    tensors = outputs.map_tensors(names, out, predictions)
    if flag(normalise, "normalise") and multilabel:
        raise ValueError("normalise must be False with multilabel=True, got True")
    given = GivenTarget(target, mask, ignore_index, case_id, regions, nan_policy)
    settings = CountSettings(calibration, n_bins, closed, eps, fine_bins, moments, entropy_bins)
    scored = read_settings(segments)
    stream = None if scored is None else SegmentStream(scored, predictions)
    of_scores = () if stream is None else stream.maps(space)
    reading = Reading(members.class_dim, from_logits, used, multilabel, space)
    count = open_count(given, settings, predictions, names or of_scores)
    check_room_for_sums(predictions, reading, normalise, counts=count is not None)
    if out is not None:
        outputs.check_apart(names, tensors, {"preds": members.tensors, **read_by(count)})
    if count is None and not normalise:
        _warn_of_sums(members, reading, stacklevel=4)
    written = dict(zip(names, tensors, strict=True))
    finish = Finish(written, normalise, None if count is None else count.counting)
    if stream is not None:
        scores = stream.run(members, reading, finish)
    else:
        scores = None
        ops.ensemble_statistics(
            members.tensors,
            members.weights,
            members.temperatures,
            *reading.flatten(),
            *finish.flatten(),
        )
    if logits_of_exclusive_classes(reading):  # after the op, which refuses vmap in plain words
        warn_of_logits(members.tensors[0], members.class_dim, stacklevel=3)
    statistics = None if count is None else count.close()
    return gather(names, tensors, out, members.numpy, statistics, scores)


def open_count(
    given: GivenTarget, settings: CountSettings, predictions: Predictions, maps: tuple[str, ...]
) -> OpenCount[CalibrationStatistics] | None:
    """Open statistics for a pass to count into; None where there is no target.

    Args:
        given: The target and what belongs to it, unchecked.
        settings: What is counted, unchecked.
        predictions: What the target is compared with.
        maps: Names of the maps that the pass writes.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The target or what belongs to it does not fit.
    """
    if given.target is None:
        check_nan_policy(given.nan_policy)
        of_target = {
            "mask": given.mask,
            "ignore_index": given.ignore_index,
            "case_id": given.case_id,
            "fine_bins": settings.fine_bins or None,
            "moments": settings.moments or None,
            "entropy_bins": settings.entropy_bins or None,
            "regions": given.regions,
        }
        for name, value in of_target.items():
            if value is not None:
                raise ValueError(f"target must be given with {name}, got None")
        if not maps:
            raise ValueError("maps must hold at least one map without a target, got none")
        return None
    num_classes, multilabel = predictions.num_classes, predictions.multilabel
    choice(settings.calibration, "calibration", CALIBRATIONS)
    targets = read_targets(given, predictions)
    statistics = CalibrationStatistics(
        num_classes,
        settings.n_bins,
        settings.closed,
        settings.calibration,
        multilabel=multilabel,
        eps=settings.eps,
        fine_bins=settings.fine_bins,
        moments=settings.moments,
        entropy_bins=settings.entropy_bins,
        regions=targets.region_names,
    )
    wording = Wording("preds", logits="pass from_logits=True")
    return statistics.open_count(targets, predictions, wording)


def check_room_for_sums(
    predictions: Predictions, reading: Reading, normalise: bool, *, counts: bool
) -> None:
    """Check that the squares of one voxel's Brier score sum to what can be counted.

    Raises:
        ValueError: Too many classes whose probabilities do not sum to 1 are to be counted.
    """
    unnormalised = reading.activation == "sigmoid" and not (reading.multilabel or normalise)
    if counts and unnormalised and predictions.num_classes > MOST_CLASSES:
        raise ValueError(
            f"normalise must be True to count more than {MOST_CLASSES} classes with "
            f"activation='sigmoid', got False for {predictions.num_classes} classes"
        )


def means_are_members(reading: Reading) -> bool:
    """Whether members are probabilities of exclusive classes that are averaged as they are."""
    exclusive = reading.activation == "softmax" and not reading.multilabel
    return exclusive and not reading.from_logits and reading.space == "prob"


def logits_of_exclusive_classes(reading: Reading) -> bool:
    """Whether members are read as logits of classes that exclude each other."""
    return reading.from_logits and not reading.multilabel


def read_by(count: OpenCount[CalibrationStatistics] | None) -> dict[str, list[Tensor]]:
    """Give the tensors that counting reads, by argument."""
    if count is None:
        return {}
    targets = count.targets
    regions = None if targets.regions is None else targets.regions.bits
    found = {"target": targets.target, "mask": targets.mask, "regions": regions}
    return {name: [tensor] for name, tensor in found.items() if tensor is not None}


def gather(
    names: tuple[str, ...],
    tensors: list[Tensor],
    out: Mapping[str, Array] | Array | None,
    numpy: bool,
    calibration: CalibrationStatistics | None,
    segments: SegmentScores | None,
) -> EnsembleStatistics:
    """Gather the results of a pass as the caller wants them."""
    result = EnsembleStatistics(calibration=calibration, segments=segments)
    for name, tensor in zip(names, tensors, strict=True):
        setattr(result, name, outputs.given_back(name, tensor, out, numpy))
    return result


def _warn_of_sums(members: Members, reading: Reading, stacklevel: int) -> None:
    if means_are_members(reading) and all(value == 1.0 for value in members.temperatures):
        warn_of_sums(members.tensors, members.weights, members.class_dim, stacklevel=stacklevel)


def _one_map(name: str, members: Members, reading: Reading, out: Array | None) -> Array:
    if isinstance(out, Mapping):
        raise TypeError(f"out must be a tensor or an array, got {type(out).__name__}")
    predictions = members.predictions(multilabel=reading.multilabel)
    (tensor,) = tensors = outputs.map_tensors((name,), out, predictions)
    if out is not None:
        outputs.check_apart((name,), tensors, {"preds": members.tensors})
    _warn_of_sums(members, reading, stacklevel=5)
    ops.ensemble_statistics(
        members.tensors,
        members.weights,
        members.temperatures,
        *reading.flatten(),
        *Finish({name: tensor}, False, None).flatten(),
    )
    if logits_of_exclusive_classes(reading):
        warn_of_logits(members.tensors[0], members.class_dim, stacklevel=4)
    return outputs.given_back(name, tensor, out, members.numpy)
