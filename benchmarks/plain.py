"""The plain pipeline: what a good engineer writes today with PyTorch, torchmetrics and MONAI.

The yardstick of `bench_ensemble`. Every function takes a list of M member logits ``[B, C, *S]``.
Members are streamed through a running sum updated in place, because stacking them would cost twice
their bytes in traffic and memory. Half-precision logits are activated in float32. ``p ln p`` is
`clamp_min(tiny).log()` times p: vectorised on the CPU, where `torch.special.entr` is scalar code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

N_BINS = 15


@dataclass(frozen=True, slots=True)
class Scores:
    """Quality of the mean probabilities against a target; classwise and Dice one number a class."""

    ece: Tensor
    classwise_ece: Tensor
    nll: Tensor
    brier: Tensor
    dice: Tensor


def entropy_of(probs: Tensor) -> Tensor:
    """Entropy in nats of ``[B, C, *S]`` over the class axis, 0 ln 0 = 0."""
    return -(probs * probs.clamp_min(torch.finfo(probs.dtype).tiny).log()).sum(dim=1)


def _softmax(logits: Tensor) -> Tensor:
    return torch.softmax(logits, dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))


def mean_probabilities(members: Sequence[Tensor]) -> Tensor:
    """Mean softmax of the members, ``[B, C, *S]``."""
    total = _softmax(members[0])
    for logits in members[1:]:
        total += _softmax(logits)
    return total.div_(len(members))


def ensemble_entropy(members: Sequence[Tensor]) -> Tensor:
    """Entropy of the mean probabilities, ``[B, *S]``."""
    return entropy_of(mean_probabilities(members))


def six_maps(members: Sequence[Tensor]) -> dict[str, Tensor]:
    """mean, label, confidence, entropy, expected entropy and mutual information."""
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
    """`six_maps` in place: running sums in ``out`` and one scratch volume, nothing else allocated.

    The favourable form of the baseline where outputs are given (page faults of fresh outputs
    cost as much as the arithmetic).
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


def scores(mean: Tensor, label: Tensor, target: Tensor) -> Scores:
    """Top-label ECE (torchmetrics), classwise ECE (MONAI), NLL, Brier and Dice of one volume.

    Args:
        mean: probabilities ``[B, C, *S]``.
        label: predicted class ``[B, *S]``, int64.
        target: true class ``[B, *S]``, int64.
    """
    from monai.metrics.calibration import CalibrationErrorMetric
    from torchmetrics.classification import MulticlassCalibrationError

    n_classes = mean.shape[1]
    top_label = MulticlassCalibrationError(n_classes, n_bins=N_BINS, validate_args=False)
    top_label.update(mean, target)

    one_hot = functional.one_hot(target, n_classes).movedim(-1, 1).to(mean.dtype)
    classwise = CalibrationErrorMetric(num_bins=N_BINS, metric_reduction="mean_batch")
    classwise(y_pred=mean, y=one_hot)

    p_target = mean.gather(1, target.unsqueeze(1))
    nll = -p_target.clamp_min(torch.finfo(mean.dtype).tiny).log().mean()
    brier = (mean - one_hot).square().sum(dim=1).mean()

    confusion = torch.bincount(
        (target * n_classes + label).flatten(), minlength=n_classes * n_classes
    ).reshape(n_classes, n_classes)
    dice = 2 * confusion.diagonal() / (confusion.sum(0) + confusion.sum(1))
    by_class = classwise.aggregate()
    assert isinstance(by_class, Tensor)
    return Scores(top_label.compute(), by_class, nll, brier, dice)


def pipeline(members: Sequence[Tensor], target: Tensor) -> tuple[dict[str, Tensor], Scores]:
    """Six maps and all scores: what the fused pass does in one read of the members."""
    maps = six_maps(members)
    return maps, scores(maps["mean"], maps["label"], target)
