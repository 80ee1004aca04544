"""Losses by the names that configurations and the command line know them by."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fastcal.losses.average_calibration import HardL1ACELoss, SoftL1ACELoss
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
"""Name -> segmentation loss."""

AUXILIARIES: Mapping[str, Callable[..., nn.Module]] = {
    "hard-l1ace": HardL1ACELoss,
    "soft-l1ace": SoftL1ACELoss,
}
"""Name -> loss that is added to one of `LOSSES`."""


class AuxiliaryLoss(nn.Module):
    """``L + factor A``: a segmentation loss and one that calibrates.

    Args:
        loss, auxiliary: of ``(logits [B, C, *S], target [B, *S])``.
        factor: of the auxiliary loss, 0 or more.

    Raises:
        ValueError: a negative factor.
    """

    def __init__(self, loss: nn.Module, auxiliary: nn.Module, *, factor: float = 1.0) -> None:
        super().__init__()
        if not factor >= 0:
            raise ValueError(f"factor: got {factor}, expected 0 or more")
        self.loss, self.auxiliary, self.factor = loss, auxiliary, factor

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
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
    """The loss of a name, of logits ``[B, C, *S]`` and integer targets ``[B, *S]``.

    Args:
        name: one of `LOSSES`, alone or with one of `AUXILIARIES` added: ``"dice-ce+soft-l1ace"``.
        head: what turns the network's logits into probabilities, ``"softmax"`` or ``"sigmoid"``.
        num_classes: C.
        class_weights: one factor a class.
        ignore_index: target of voxels that do not count.
        auxiliary: the auxiliary loss's own arguments, and its ``factor`` (1).
        options: the loss's own arguments.

    Raises:
        ValueError: a name, head or option there is not, or that the loss has no use for.

    Example:
        >>> build_loss("dice", head="sigmoid", num_classes=3, eps=1e-3).eps
        0.001
    """
    check_head(head)
    if class_weights is not None and len(class_weights) != num_classes:
        raise ValueError(
            f"class_weights: got {len(class_weights)} numbers, expected one a class: {num_classes}"
        )
    first, plus, second = name.partition("+")
    if first not in LOSSES or (plus and second not in AUXILIARIES):
        raise ValueError(
            f"loss: got {name!r}, expected one of {', '.join(LOSSES)}, "
            f"alone or with {' or '.join('+' + it for it in AUXILIARIES)}"
        )
    if not plus and auxiliary:
        raise ValueError(f"auxiliary: got {dict(auxiliary)}, but the loss {name!r} has none")
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
        raise ValueError(f"{name}: no option {', '.join(unknown)}; its options are: {own}")
    if "head" not in known and shared["head"] != "softmax":
        raise ValueError(f"head: got {shared['head']!r}, but the loss {name!r} needs 'softmax'")
    for argument, shown in (("weight", "class_weights"), ("ignore_index", "ignore_index")):
        if argument not in known and shared[argument] is not None:
            raise ValueError(f"{shown}: the loss {name!r} has no use for it")
    return make(**{k: v for k, v in shared.items() if k in known}, **options)
