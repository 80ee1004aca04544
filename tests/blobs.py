"""A small dataset with bright squares, and trainings on it that take a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from fastcal.models import Run, load_member
from fastcal.train import TrainConfig, train_ensemble

TINY = TrainConfig().with_values(
    {
        "network.widths": [4, 8],
        "sampling.batch_size": 8,
        "loop.iterations_per_epoch": 4,
        "loop.max_epochs": 3,
        "loop.channels_last": True,
        "loop.tensorboard": False,
    }
)
AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])


def write_blobs(
    folder: Path, n_cases: int = 5, shape: tuple[int, int, int] = (14, 18, 4), seed: int = 0
) -> Path:
    """Write noise with a bright square of label 1 and a brighter one of label 2."""
    random = np.random.default_rng(seed)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(n_cases):
        label = np.zeros(shape, np.uint8)
        row, column = random.integers(1, 5, 2)
        label[row : row + 8, column : column + 5] = 1
        label[row : row + 8, column + 5 : column + 9] = 2
        image = (100 * label + random.normal(0, 10, shape)).astype(np.float32)
        name = f"blob_{number:02d}"
        nib.save(nib.Nifti1Image(image, AFFINE), folder / "imagesTr" / f"{name}_0000.nii.gz")
        nib.save(nib.Nifti1Image(label, AFFINE), folder / "labelsTr" / f"{name}.nii.gz")
    description = {
        "name": "Blobs",
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "left": 1, "right": 2},
        "numTraining": n_cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def train(dataset: Path, folder: Path, config: TrainConfig = TINY, **options: Any) -> Run:
    """Train members one after another, because what `auto` chooses depends on the machine."""
    chosen = {"strategy": "sequential", "device": "cpu", "progress": False, **options}
    return train_ensemble(dataset, folder, config=config, **chosen)


def weights(member: Path) -> dict[str, Tensor]:
    """The weights of a trained member."""
    return load_member(member).state_dict()


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two networks have the same weights, bit for bit."""
    return all(torch.equal(first[name], second[name]) for name in first)
