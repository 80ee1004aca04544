"""Small prediction folders for the tests of reports: two losses, two members each, six cases."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from fastcal.data.predictions import write_npz

SHAPE = (14, 12, 6)
CASES = tuple(f"case_{number}" for number in range(6))
STRUCTURES = ("core", "rim")
AFFINE = np.diag([1.0, 1.5, 3.0, 1.0])


def labels_of(case: int) -> np.ndarray:
    """A core within a rim, a little larger from case to case."""
    x, y, z = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    far = np.maximum(np.abs(x - 6) / (3 + 0.3 * case), np.abs(y - 5) / 3.5)
    far = np.maximum(far, np.abs(z - 2.5) / 2)
    return np.where(far < 0.5, 1, np.where(far < 1.0, 2, 0)).astype(np.uint8)


def probabilities_of(case: int, seed: int, sharpness: float) -> np.ndarray:
    """Softmax of the truth and of noise, ``[3, X, Y, Z]``; the noise grows with the case."""
    random = np.random.default_rng(1000 * seed + case)
    onehot = np.stack([labels_of(case) == k for k in range(3)])
    logits = 2.0 * onehot + (0.6 + 0.25 * case) * random.normal(size=onehot.shape)
    logits *= sharpness
    p = np.exp(logits - logits.max(0))
    return (p / p.sum(0)).astype(np.float32)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, AFFINE), path)


def write_member(
    folder: Path, seed: int, sharpness: float, *, npz: bool = True, cases: Sequence[int] = range(6)
) -> Path:
    """A folder as ``nnUNetv2_predict --save_probabilities`` leaves it."""
    folder.mkdir(parents=True)
    for case in cases:
        p = probabilities_of(case, seed, sharpness)
        save(folder / f"{CASES[case]}.nii.gz", p.argmax(0).astype(np.uint8))
        if npz:
            write_npz(folder / f"{CASES[case]}.npz", p)
    return folder


def write_cohort(root: Path) -> Mapping[str, Path]:
    """Labels, images, and the ensembles of two losses with their members."""
    from fastcal.predict import ensemble_folders

    root.mkdir(parents=True, exist_ok=True)
    described = {
        "name": "Cohort <1>",
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "core": 1, "rim": 2},
        "numTraining": 6,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(described))
    for number, case in enumerate(CASES):
        labels = labels_of(number)
        save(root / "labels" / f"{case}.nii.gz", labels)
        image = 100.0 * labels + np.random.default_rng(number).normal(0, 10, SHAPE)
        save(root / "images" / f"{case}_0000.nii.gz", image.astype(np.float32))
    found = {"labels": root / "labels", "images": root / "images"}
    for loss, seed, sharpness in (("ce", 1, 1.0), ("dice", 5, 3.0)):
        members = [write_member(root / loss / f"member_{m}", seed + m, sharpness) for m in range(2)]
        ensemble_folders(
            members, root / loss / "ensemble", maps=("entropy",), save_probabilities=True
        )
        found |= {loss: root / loss / "ensemble", f"{loss} member": members[0]}
    return found
