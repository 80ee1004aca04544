"""Sizes of training steps, and synthetic cases to draw their batches from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastcal.data.prepared import PreparedCases
from fastcal.train import TrainConfig
from fastcal.train.batches import BatchSource
from fastcal.train.recipe import Recipe

CLASSES = 3


@dataclass(frozen=True)
class Workload:
    """The size of a training step."""

    name: str
    size: tuple[int, ...]
    batch_size: int
    preset: str
    loss: str
    unit: str
    widths: tuple[int, ...] | None = None

    def recipe(self, device: torch.device, **changes: Any) -> Recipe:
        widths = {} if self.widths is None else {"network.widths": list(self.widths)}
        config = TrainConfig.preset(
            self.preset,  # type: ignore[arg-type]
            dims=len(self.size),
        ).with_values({"loss.name": self.loss, **widths, **changes})
        return Recipe(
            folder=Path("nowhere"),
            config=config,
            seed=0,
            in_channels=1,
            num_classes=CLASSES,
            ignore_label=None,
            patch=self.size,
            iterations=1000,
            class_counts=(90, 5, 5),
            device=device,
        )


GPU = (
    Workload("2-D 192x160, batch 128", (192, 160), 128, "paper", "dice-ce", "img/s"),
    Workload("2-D 192x160, batch 128", (192, 160), 128, "standard", "dice-ce", "img/s"),
    Workload("3-D 128^3, batch 4", (128, 128, 128), 4, "standard", "dice-ce", "vol/s"),
)
CPU = (
    Workload("2-D 192x160, batch 8", (192, 160), 8, "paper", "dice-ce", "img/s"),
    Workload("3-D 48^3, batch 2", (48,) * 3, 2, "paper", "dice-ce", "vol/s", (8, 16, 32, 64)),
)
QUICK = (
    Workload("2-D 48x40, batch 4", (48, 40), 4, "paper", "dice-ce", "img/s", (8, 16, 32)),
    Workload("3-D 16^3, batch 2", (16,) * 3, 2, "paper", "dice-ce", "vol/s", (4, 8, 16)),
)
ENSEMBLES = {
    "gpu": Workload("2-D 192x160, batch 16", (192, 160), 16, "paper", "dice-ce", "img/s"),
    "cpu": Workload("2-D 96x80, batch 8", (96, 80), 8, "paper", "dice-ce", "img/s"),
    "quick": Workload("2-D 32x32, batch 4", (32, 32), 4, "paper", "dice-ce", "img/s", (8, 16, 32)),
}


def synthetic_cases(workload: Workload, device: torch.device, count: int = 4) -> PreparedCases:
    """Make cases of noise with boxes of two classes, somewhat larger than a patch."""
    random = torch.Generator().manual_seed(0)
    extents = tuple(extent + extent // 4 for extent in workload.size)
    items = 1 if len(extents) == 3 else 4 * workload.batch_size // count + 1
    images, labels = [], []
    for _ in range(count):
        label = torch.zeros((items, *extents), dtype=torch.uint8)
        for value, share in ((1, 0.5), (2, 0.3)):
            box = tuple(
                slice(int(n * (0.5 - share / 2)), int(n * (0.5 + share / 2))) for n in extents
            )
            label[(slice(None), *box)] = value
        images.append(label[:, None] + torch.randn((items, 1, *extents), generator=random))
        labels.append(label)
    foreground = [[(label == k).flatten().nonzero()[:, 0] for k in (1, 2)] for label in labels]
    names = [f"case_{number}" for number in range(count)]
    cases = PreparedCases(names, images, labels, foreground, CLASSES, "synthetic", names)
    return cases.to(device)


def source(workload: Workload, recipe: Recipe, cases: PreparedCases, member: int) -> BatchSource:
    config = recipe.config
    return BatchSource(
        cases,
        batch_size=workload.batch_size,
        patch=workload.size,
        oversample=1 / 3,
        augmentation=config.augmentation,
        seed=0,
        member=member,
        device=recipe.device,
    )


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
