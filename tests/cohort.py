"""Small cases for the tests of prediction: labels, saved probabilities, images, untrained runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from fastcal.data.preprocess import Preprocessing
from fastcal.models import UNet

SHAPE = (7, 6, 5)
CASES = ("case_a", "case_b", "case_c")


def oblique_header() -> nib.Nifti1Header:
    """2 x 1.5 x 3 mm, turned, with different qform and sform codes and units."""
    angle = np.deg2rad(20)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-2.0, 1.5, 3.0])
    affine[:3, 3] = [12.5, -30.25, 7.0]
    header = nib.Nifti1Header()
    header.set_data_shape(SHAPE)
    header.set_xyzt_units("mm", "sec")
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=2)
    return header


def write_nifti(path: Path, array: np.ndarray, header: nib.Nifti1Header | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    own = (header or oblique_header()).copy()
    own.set_data_dtype(array.dtype)
    nib.save(nib.Nifti1Image(array, None, own), path)


def shifted_header(millimetres: float) -> nib.Nifti1Header:
    header = oblique_header()
    affine = header.get_best_affine()
    affine[0, 3] += millimetres
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=2)
    return header


def assert_same_geometry(path: Path, source: Path) -> None:
    made, given = nib.load(path), nib.load(source)
    assert made.shape[:3] == given.shape[:3]
    np.testing.assert_array_equal(made.affine, given.affine)
    assert made.header.get_zooms()[:3] == given.header.get_zooms()[:3]
    assert made.header.get_xyzt_units()[0] == given.header.get_xyzt_units()[0]
    for code in ("qform_code", "sform_code"):
        assert made.header[code] == given.header[code]


def random_labels(rng: np.random.Generator, num_classes: int = 3) -> np.ndarray:
    return rng.integers(0, num_classes, SHAPE).astype(np.uint8)


def random_probabilities(rng: np.random.Generator, num_classes: int = 3) -> np.ndarray:
    """[C, X, Y, Z], float32."""
    drawn = rng.dirichlet(np.ones(num_classes), SHAPE).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(drawn, -1, 0))


def labels_of(rng: np.random.Generator, probabilities: np.ndarray) -> np.ndarray:
    """Draw a label per voxel by its probabilities [C, X, Y, Z].

    Predictions are then right and wrong by turns, so that a temperature has a best value.
    """
    below = rng.random(SHAPE) >= probabilities.cumsum(axis=0)[:-1]
    return below.sum(axis=0).astype(np.uint8)


def write_member(
    folder: Path, probabilities: dict[str, np.ndarray], *, key: str = "probabilities"
) -> None:
    """A folder of nnU-Net's ``--save_probabilities``: npz (C, Z, Y, X) beside the label map."""
    for case, values in probabilities.items():
        write_nifti(folder / f"{case}.nii.gz", values.argmax(0).astype(np.uint8))
        np.savez_compressed(folder / f"{case}.npz", **{key: values.transpose(0, 3, 2, 1)})


def write_dataset_json(folder: Path, **content: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    described = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "anterior": 1, "posterior": 2},
        "numTraining": 0,
        "file_ending": ".nii.gz",
    } | content
    (folder / "dataset.json").write_text(json.dumps(described))


def write_cohort(
    folder: Path, *, members: int = 3, cases: Sequence[str] = CASES, seed: int = 0
) -> tuple[list[Path], Path, dict[str, list[np.ndarray]], dict[str, np.ndarray]]:
    """Member folders, the labels' folder, and what is in them, by case.

    The labels are drawn by the mean of the members.
    """
    rng = np.random.default_rng(seed)
    drawn = {case: [random_probabilities(rng) for _ in range(members)] for case in cases}
    labels = {case: labels_of(rng, np.mean(drawn[case], axis=0)) for case in cases}
    for case in cases:
        write_nifti(folder / "labels" / f"{case}.nii.gz", labels[case])
    folders = [folder / f"fold_{member}" for member in range(members)]
    for member, place in enumerate(folders):
        write_member(place, {case: drawn[case][member] for case in cases})
    return folders, folder / "labels", drawn, labels


def write_run(
    folder: Path,
    *,
    members: int = 2,
    head: str = "softmax",
    dropout: float = 0.0,
    num_classes: int = 3,
    preprocessing: Preprocessing | None = None,
    patch: tuple[int, ...] | None = None,
    dims: int = 2,
) -> list[UNet]:
    """An untrained run in the layout of `fastcal.models.run`; returns its networks."""
    folder.mkdir(parents=True, exist_ok=True)
    write_dataset_json(folder)
    network = {
        "in_channels": 1,
        "num_classes": num_classes,
        "dims": dims,
        "widths": (4, 8, 8),
        "dropout": dropout,
        "norm": "batch",
        "head": head,
    }
    labels = {"background": 0} | {f"organ_{k}": k for k in range(1, num_classes)}
    config = {
        "format": 1,
        "loss": "ce" if head == "softmax" else "dice",
        "network": network,
        "preprocessing": asdict(preprocessing or Preprocessing()),
        "patch": patch,
        "dataset": {
            "labels": labels,
            "channel_names": ["T1"],
            "ignore_label": None,
            "file_ending": ".nii.gz",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    splits = {"train": [], "val": [CASES[0]], "test": list(CASES[1:])}
    (folder / "splits.json").write_text(json.dumps(splits))
    networks = []
    for member in range(members):
        with torch.random.fork_rng():
            torch.manual_seed(member)
            model = UNet(**network).eval()
        place = folder / f"member_{member:02d}"
        place.mkdir()
        torch.save({"network": network, "model": model.state_dict()}, place / "best.pt")
        (place / "member.json").write_text("{}")
        networks.append(model)
    return networks


def write_images(folder: Path, *, channels: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    """``CASE_0000.nii.gz`` ... of every case; returns [X, Y, Z] of the first channel."""
    rng = np.random.default_rng(seed)
    images = {}
    for case in CASES:
        for channel in range(channels):
            image = rng.normal(100, 20, SHAPE).astype(np.float32)
            write_nifti(folder / f"{case}_{channel:04d}.nii.gz", image)
            if channel == 0:
                images[case] = image
    return images


def write_references(folder: Path) -> None:
    """Random label maps of every case."""
    rng = np.random.default_rng(5)
    for case in CASES:
        write_nifti(folder / f"{case}.nii.gz", random_labels(rng))


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes; hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
