"""Losses by the names they have in settings and on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fastcal.losses.average_calibration import HardL1ACELoss, SoftL1ACELoss
from fastcal.losses.base import Loss
from fastcal.losses.checks import check_head
from fastcal.losses.dice import DiceCELoss, DiceLoss
from fastcal.losses.dice_plus_plus import DicePlusPlusLoss
from fastcal.losses.from_monai import FocalLoss, NACLLoss
from fastcal.losses.margin import MbLSLoss
from fastcal.losses.paper import PaperDiceLoss, WeightedCrossEntropy
from fastcal.losses.smoothing import LabelSmoothingLoss, SVLSLoss

LOSSES: Mapping[str, Callable[..., nn.Module]] = {
    "ce": WeightedCrossEntropy,
    "dice": PaperDiceLoss,
    "soft-dice": DiceLoss,
    "dice-ce": DiceCELoss,
    "dice-plus-plus": DicePlusPlusLoss,
    "focal": FocalLoss,
    "label-smoothing": LabelSmoothingLoss,
    "svls": SVLSLoss,
    "nacl": NACLLoss,
    "mbls": MbLSLoss,
}
"""Segmentation losses by name."""

AUXILIARIES: Mapping[str, Callable[..., nn.Module]] = {
    "hard-l1ace": HardL1ACELoss,
    "soft-l1ace": SoftL1ACELoss,
}
"""Losses that are added to one of `LOSSES`, by name."""


class AuxiliaryLoss(Loss):
    """The sum ``L + factor A`` of a segmentation loss and a loss that calibrates.

    Args:
        loss: L, a function of logits ``[B, C, *S]`` and a target ``[B, *S]``.
        auxiliary: A, likewise.
        factor: The factor of the auxiliary loss, at least 0.

    Raises:
        ValueError: The factor is negative.
    """

    def __init__(self, loss: nn.Module, auxiliary: nn.Module, *, factor: float = 1.0) -> None:
        super().__init__()
        if not factor >= 0:
            raise ValueError(f"factor must be at least 0, got {factor}")
        self.loss, self.auxiliary, self.factor = loss, auxiliary, factor

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits ``[B, C, *S]`` and targets ``[B, *S]``, a scalar."""
        value: Tensor = self.loss(logits, target)
        added: Tensor = self.auxiliary(logits, target)
        return value + self.factor * added


def build_loss(
    name: str,
    *,
    head: str,
    num_classes: int,
    class_weights: Sequence[float] | None = None,
    ignore_index: int | None = None,
    auxiliary: Mapping[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    """Build a loss of logits ``[B, C, *S]`` and integer targets ``[B, *S]`` by its name.

    Args:
        name: One of `LOSSES`, alone or with one of `AUXILIARIES` added, for example
            ``"dice-ce+soft-l1ace"``.
        head: How logits become probabilities, ``"softmax"`` or ``"sigmoid"``.
        num_classes: C.
        class_weights: One factor per class.
        ignore_index: Voxels with this target do not count.
        auxiliary: Arguments of the auxiliary loss, and its ``factor`` (1 by default).
        options: Arguments of the loss.

    Raises:
        ValueError: The name, the head or an option is unknown, or the loss has no use for it.

    Example:
        >>> build_loss("dice", head="sigmoid", num_classes=3, eps=1e-3).eps
        0.001
    """
    check_head(head)
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if class_weights is not None and len(class_weights) != num_classes:
        raise ValueError(
            f"class_weights must hold one number per class: {num_classes}, got {len(class_weights)}"
        )
    first, plus, second = name.partition("+")
    if first not in LOSSES or (plus and second not in AUXILIARIES):
        raise ValueError(
            f"loss must be one of {', '.join(LOSSES)}, alone or with "
            f"{' or '.join('+' + it for it in AUXILIARIES)}, got {name!r}"
        )
    if not plus and auxiliary:
        raise ValueError(
            f"auxiliary must be empty for {name!r}, which has no auxiliary loss, "
            f"got {dict(auxiliary)}"
        )
    shared = {
        "head": head,
        "num_classes": num_classes,
        "weight": class_weights,
        "ignore_index": ignore_index,
    }
    loss = _make(first, LOSSES[first], shared, options)
    if not plus:
        return loss
    rest = dict(auxiliary or {})
    factor = rest.pop("factor", 1.0)
    unweighted = {**shared, "weight": None}
    added = _make(second, AUXILIARIES[second], unweighted, rest)
    return AuxiliaryLoss(loss, added, factor=factor)


def _make(
    name: str,
    make: Callable[..., nn.Module],
    shared: Mapping[str, Any],
    options: Mapping[str, Any],
) -> nn.Module:
    known = inspect.signature(make).parameters
    unknown = [option for option in options if option not in known or option in shared]
    if unknown:
        own = ", ".join(it for it in known if it not in shared) or "none"
        raise ValueError(f"options of {name} must be among {own}, got {', '.join(unknown)}")
    if "head" not in known and shared["head"] != "softmax":
        raise ValueError(f"head must be 'softmax' for the loss {name!r}, got {shared['head']!r}")
    for argument, shown in (("weight", "class_weights"), ("ignore_index", "ignore_index")):
        if argument not in known and shared[argument] is not None:
            raise ValueError(
                f"{shown} must be None for the loss {name!r}, got {shared[argument]!r}"
            )
    return make(**{k: v for k, v in shared.items() if k in known}, **options)
