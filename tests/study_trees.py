"""The paper's three applications as they are downloaded: official layouts around drawn bodies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastcal.data.phantom import PhantomCase, make_case
from tests.trees import save

SHAPE = (24, 24, 6)
BRATS_VALUES = (0, 2, 1, 4)
"""Labels in the files of BraTS 2017 of the phantom's edema, non-enhancing and enhancing parts."""


def drawn(kind: str, index: int, *, ood: bool = False) -> PhantomCase:
    return make_case(kind=kind, index=index, shape=SHAPE, ood=ood)


def brats2017(root: Path, centres: Sequence[str]) -> Path:
    """High-grade cases of these centres (``CBICA``, ``TCIA01``), and a low-grade one."""
    for number, centre in enumerate((*centres, "2013")):
        grade = "LGG" if centre == "2013" else "HGG"
        name = f"Brats17_{centre}_{'ABCDEFGHIJKLMNOP'[number]}AA_1"
        case = drawn("brain", number)
        affine = case.geometry.affine
        # T1 without contrast, which phantoms lack, is that with contrast, darker.
        channels = (case.image[0] // 2, *case.image)
        for word, image in zip(("t1", "t1ce", "t2", "flair"), channels, strict=True):
            path = root / "Brats17TrainingData" / grade / name / f"{name}_{word}.nii.gz"
            save(path, image.astype(np.int16), affine)
        seg = np.array(BRATS_VALUES, np.uint8)[case.label]
        save(path.with_name(f"{name}_seg.nii.gz"), seg, affine)
    return root


def acdc(root: Path, patients: int) -> Path:
    """Patients of the training part, each with two frames in a file of four dimensions."""
    for number in range(1, patients + 1):
        name = f"patient{number:03d}"
        place = root / "database/training" / name
        frames = {1: drawn("heart", 2 * number), 9: drawn("heart", 2 * number + 1)}
        affine = frames[1].geometry.affine
        whole = np.zeros((*SHAPE, 12), np.int16)
        for frame, case in frames.items():
            whole[..., frame - 1] = case.image[0]
            save(place / f"{name}_frame{frame:02d}.nii.gz", case.image[0], affine)
            save(place / f"{name}_frame{frame:02d}_gt.nii.gz", case.label, affine)
        save(place / f"{name}_4d.nii.gz", whole, affine)
        group = ("DCM", "NOR")[number % 2]
        info = f"ED: 1\nES: 9\nGroup: {group}\nHeight: 184.0\nNbFrame: 12\nWeight: 95.0\n"
        (place / "Info.cfg").write_text(info)
        (place / "MANDATORY_CITATION.md").write_text("cite\n")
    return root / "database"


def prostatex(root: Path, patients: int) -> Path:
    """Images in NRRD, and labels of Meyer et al. on another, finer grid."""
    for number in range(patients):
        name = f"ProstateX-{4 + number:04d}"
        case = drawn("prostate", number)
        affine = case.geometry.affine
        save(root / f"PROSTATEx/{name}/07-08-2011/t2_tse_tra.nrrd", case.image[0], affine)
        fine = np.repeat(np.repeat(case.label, 2, 0), 2, 1)
        halved = affine @ np.diag([0.5, 0.5, 1.0, 1.0])
        halved[:3, 3] += affine[:3, :3] @ [-0.25, -0.25, 0.0]
        save(root / f"PROSTATEx-Seg-HiRes/{name}/1.nrrd", fine, halved)
    return root


def promise12(root: Path, cases: int) -> Path:
    """Prostates of another scanner, in MetaImage."""
    for number in range(cases):
        case = drawn("prostate", 50 + number, ood=True)
        affine = case.geometry.affine
        place = root / "training_data"
        save(place / f"Case{number:02d}.mhd", case.image[0], affine)
        save(place / f"Case{number:02d}_segmentation.mhd", case.label, affine)
    return root
