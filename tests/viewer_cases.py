"""A small prediction folder for the tests of the viewer, of known numbers on a turned grid."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastcal.data import nifti, predictions
from fastcal.data.nifti import Geometry

SHAPE = (20, 16, 6)
# LPS axes with slices of 3 mm: two axes are flipped against RAS.
AFFINE = np.array([[-1.0, 0, 0, 40], [0, -2.0, 0, 30], [0, 0, 3.0, -5], [0, 0, 0, 1]])
CASES = ("alpha", "beta")


@dataclass(frozen=True)
class Made:
    out: Path
    images: Path
    labels: Path
    entropy: dict[str, NDArray[np.float32]]
    prediction: dict[str, NDArray[np.uint8]]
    reference: dict[str, NDArray[np.uint8]]
    image: dict[str, NDArray[np.float32]]
    mean: dict[str, NDArray[np.float32]]


def make(folder: Path) -> Made:
    """Write two cases: images, labels, predictions, entropies, probabilities, and segments.json."""
    made = Made(folder / "out", folder / "images", folder / "labels", {}, {}, {}, {}, {})
    for path in (made.out / "entropy", made.out / "disagreement", made.images, made.labels):
        path.mkdir(parents=True)
    like = Geometry.from_affine(AFFINE, SHAPE)
    generator = np.random.default_rng(7)
    x, y, z = np.indices(SHAPE)
    for number, case in enumerate(CASES):
        image = generator.normal(100, 5, SHAPE).astype(np.float32)
        reference = ((abs(x - 10) < 5) & (abs(y - 8) < 4) & (z > 0)).astype(np.uint8)
        prediction = ((abs(x - 10 - number) < 5) & (abs(y - 8) < 4) & (z > 0)).astype(np.uint8)
        prediction[6, 8, 4] = 0  # one hole: the most uncertain error
        image[reference > 0] += 60
        entropy = generator.uniform(0, 0.1, SHAPE).astype(np.float32)
        entropy[6, 8, 4] = 0.69
        entropy[15, 3, 2] = 0.6
        entropy[0, 0, 0] = np.nan
        foreground = np.where(prediction > 0, 0.9, 0.05).astype(np.float32)
        made.entropy[case], made.prediction[case] = entropy, prediction
        made.reference[case], made.image[case] = reference, image
        made.mean[case] = np.stack([1 - foreground, foreground])
        nifti.write(made.images / f"{case}_0000.nii.gz", image, like)
        nifti.write(made.labels / f"{case}.nii.gz", reference, like, dtype="int")
        nifti.write(made.out / f"{case}.nii.gz", prediction, like, dtype="int")
        nifti.write(made.out / "entropy" / f"{case}.nii.gz", entropy, like)
        votes = np.full(SHAPE, 0.2, np.float32)
        nifti.write(made.out / "disagreement" / f"{case}.nii.gz", votes, like)
        predictions.write_npz(made.out / f"{case}.npz", made.mean[case])
    (made.out / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "T2"},
                "labels": {"background": 0, "<b>gland</b>": 1},
                "numTraining": 2,
                "file_ending": ".nii.gz",
            }
        )
    )
    scores = {case: {"0": {}, "1": {"binary_entropy": 0.1 + n}} for n, case in enumerate(CASES)}
    (made.out / "segments.json").write_text(
        json.dumps({"version": 1, "structures": ["0", "1"], "cases": scores})
    )
    (made.out / "prediction.json").write_text(json.dumps({"format": 2, "weights": [1.0] * 5}))
    return made
