"""The plain pipeline: what a good engineer writes today with PyTorch, torchmetrics and MONAI.

It is the yardstick of the benchmarks. Every function takes a list of M member logits
``[B, C, *S]``. Members are streamed through a running sum that is updated in place, because
stacking them would cost twice their bytes in traffic and memory. Half-precision logits are
activated in float32. ``p ln p`` is written as `clamp_min(tiny).log()` times p, which is vectorised
on the CPU, where `torch.special.entr` is scalar code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

N_BINS = 15


@dataclass(frozen=True, slots=True)
class PlainScores:
    """Scores of the mean against a target. Classwise ECE and Dice have one number per class."""

    ece: Tensor
    classwise_ece: Tensor
    nll: Tensor
    brier: Tensor
    dice: Tensor


def entropy_of(probs: Tensor) -> Tensor:
    """Compute the entropy of ``[B, C, *S]`` over the class axis in nats, with 0 ln 0 = 0."""
    return -(probs * probs.clamp_min(torch.finfo(probs.dtype).tiny).log()).sum(dim=1)


def _softmax(logits: Tensor) -> Tensor:
    return torch.softmax(logits, dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))


def mean_probabilities(members: Sequence[Tensor]) -> Tensor:
    """Compute the mean softmax of the members, ``[B, C, *S]``."""
    total = _softmax(members[0])
    for logits in members[1:]:
        total += _softmax(logits)
    return total.div_(len(members))


def ensemble_entropy(members: Sequence[Tensor]) -> Tensor:
    """Compute the entropy of the mean probabilities, ``[B, *S]``."""
    return entropy_of(mean_probabilities(members))


def six_maps(members: Sequence[Tensor]) -> dict[str, Tensor]:
    """Compute mean, label, confidence, entropy, expected entropy and mutual information."""
    total = _softmax(members[0])
    expected = entropy_of(total)
    for logits in members[1:]:
        probs = _softmax(logits)
        total += probs
        expected += entropy_of(probs)
    mean = total.div_(len(members))
    expected = expected.div_(len(members))
    confidence, label = mean.max(dim=1)
    entropy = entropy_of(mean)
    return {
        "mean": mean,
        "label": label,
        "confidence": confidence,
        "entropy": entropy,
        "expected_entropy": expected,
        "mutual_information": (entropy - expected).clamp_min(0),
    }


def six_maps_into(members: Sequence[Tensor], out: dict[str, Tensor]) -> None:
    """Compute `six_maps` in place, with running sums in ``out`` and one scratch volume.

    This is the faster form of the baseline where outputs are given, because page faults of new
    outputs cost as much as the arithmetic.
    """
    mean, expected, entropy = out["mean"], out["expected_entropy"], out["entropy"]
    mean.copy_(_softmax(members[0]))
    expected.copy_(entropy_of(mean))
    for logits in members[1:]:
        probs = _softmax(logits)
        mean.add_(probs)
        expected.add_(entropy_of(probs))
    mean.div_(len(members))
    expected.div_(len(members))
    torch.max(mean, dim=1, out=(out["confidence"], out["label"]))
    entropy.copy_(entropy_of(mean))
    torch.sub(entropy, expected, out=out["mutual_information"]).clamp_min_(0)


def all_maps(members: Sequence[Tensor]) -> dict[str, Tensor]:
    """Compute `six_maps`, and the variance and disagreement of the members."""
    total = _softmax(members[0])
    square, expected = total.square(), entropy_of(total)
    votes = torch.zeros_like(total)
    label, one = total.argmax(1, keepdim=True), torch.ones_like(total[:, :1])
    votes.scatter_add_(1, label, one)
    for logits in members[1:]:
        probs = _softmax(logits)
        votes.scatter_add_(1, probs.argmax(1, keepdim=True), one)
        expected += entropy_of(probs)
        total += probs
        square += probs.square_()
    n = len(members)
    mean, expected = total.div_(n), expected.div_(n)
    confidence, label = mean.max(dim=1)
    entropy = entropy_of(mean)
    return {
        "mean": mean,
        "label": label,
        "confidence": confidence,
        "entropy": entropy,
        "expected_entropy": expected,
        "mutual_information": (entropy - expected).clamp_min(0),
        "variance": (square.div_(n) - mean.square()).clamp_min_(0).mean(1),
        "disagreement": 1 - votes.amax(1) / n,
    }


def torchmetrics_ece(mean: Tensor, target: Tensor) -> Tensor:
    """Compute top-label ECE by torchmetrics, which counts in the type of the probabilities."""
    from torchmetrics.classification import MulticlassCalibrationError

    metric = MulticlassCalibrationError(mean.shape[1], n_bins=N_BINS, validate_args=False)
    metric.to(mean.device).update(mean, target)
    return metric.compute()


def one_hot_like(mean: Tensor, target: Tensor) -> Tensor:
    """Encode the target as ``[B, C, *S]`` of the type of the probabilities."""
    return functional.one_hot(target, mean.shape[1]).movedim(-1, 1).to(mean.dtype)


def monai_classwise_ece(mean: Tensor, one_hot: Tensor) -> Tensor:
    """Compute classwise ECE ``[C]`` by MONAI, which also counts in float32."""
    from monai.metrics.calibration import CalibrationErrorMetric

    metric = CalibrationErrorMetric(num_bins=N_BINS, metric_reduction="mean_batch")
    metric(y_pred=mean, y=one_hot)
    return cast(Tensor, metric.aggregate())


def scores(mean: Tensor, label: Tensor, target: Tensor) -> PlainScores:
    """Compute top-label ECE (torchmetrics), classwise ECE (MONAI), NLL, Brier score and Dice.

    Args:
        mean: Probabilities ``[B, C, *S]``.
        label: Predicted class ``[B, *S]``, int64.
        target: True class ``[B, *S]``, int64.
    """
    n_classes = mean.shape[1]
    one_hot = one_hot_like(mean, target)
    ece, classwise = torchmetrics_ece(mean, target), monai_classwise_ece(mean, one_hot)
    p_target = mean.gather(1, target.unsqueeze(1))
    nll = -p_target.clamp_min(torch.finfo(mean.dtype).tiny).log().mean()
    brier = (mean - one_hot).square().sum(dim=1).mean()

    confusion = torch.bincount(
        (target * n_classes + label).flatten(), minlength=n_classes * n_classes
    ).reshape(n_classes, n_classes)
    dice = 2 * confusion.diagonal() / (confusion.sum(0) + confusion.sum(1))
    return PlainScores(ece, classwise, nll, brier, dice)


def pipeline(members: Sequence[Tensor], target: Tensor) -> tuple[dict[str, Tensor], PlainScores]:
    """Compute six maps and all scores, as the fused pass does in one reading of the members."""
    maps = six_maps(members)
    return maps, scores(maps["mean"], maps["label"], target)
