"""How well a network does on the validation slices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastcal.models.unet import UNet
from fastcal.train.slices import SliceSet


@dataclass(frozen=True, slots=True)
class Validation:
    """Scores on the preprocessed grid, padding included."""

    dice: float
    """Mean over foreground classes and cases, each case's slices taken together; a class that a
    case neither has nor is given does not count."""
    dice_per_class: list[float]
    """Mean over cases, the background first; NaN where no case counts."""
    nll: float
    """Mean over voxels of ``-ln p_y``, nats."""


@torch.inference_mode()
def validate(
    model: UNet, slices: SliceSet, *, batch_size: int, ignore_label: int | None = None
) -> Validation:
    """Scores of a network; its training mode is left as it was."""
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    classes = model.num_classes
    confusion = torch.zeros(len(slices.names) * classes * classes, dtype=torch.int64, device=device)
    total = torch.zeros((), dtype=torch.float64, device=device)
    for start in range(0, len(slices), batch_size):
        part = slice(start, start + batch_size)
        image = slices.images[part].to(device, memory_format=torch.channels_last)
        target = slices.labels[part].to(device).long()
        case = slices.case[part].to(device)
        logits = model(image)
        kept = torch.ones_like(target, dtype=torch.bool)
        if ignore_label is not None:
            kept = target != ignore_label
            target = target.masked_fill(~kept, 0)
        joint = (case[:, None, None] * classes + target) * classes + logits.argmax(1)
        confusion += torch.bincount(joint[kept], minlength=confusion.numel())
        total += _log_likelihood(logits, target, model.head)[kept].sum(dtype=torch.float64)
    model.train(training)
    per_class = dice_of_confusion(confusion.view(-1, classes, classes).cpu()).nanmean(0)
    return Validation(
        dice=float(per_class[1:].nanmean()),
        dice_per_class=per_class.tolist(),
        nll=float(-total / confusion.sum()),
    )


def dice_of_confusion(confusion: Tensor) -> Tensor:
    """Dice ``[N, C]`` (float64) of counts ``[N, reference class, predicted class]``."""
    hits = confusion.diagonal(dim1=1, dim2=2).double()
    return 2 * hits / (confusion.sum(1) + confusion.sum(2))


def _log_likelihood(logits: Tensor, target: Tensor, head: str) -> Tensor:
    logs = logits.log_softmax(1) if head == "softmax" else torch.nn.functional.logsigmoid(logits)
    return logs.gather(1, target.unsqueeze(1)).squeeze(1)
