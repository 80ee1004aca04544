"""Where an array lies that a reader of nnU-Net turned: every orientation, every reader."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from fastcal.core.errors import DataError
from fastcal.data import PredictionFolder
from fastcal.data.orientation import Turn
from fastcal.evaluate import evaluate_folder
from fastcal.predict import ensemble_folders
from fastcal.recalibrate import TemperatureScaling, fit_folders, load
from fastcal.recalibrate.apply import apply_folders

SHAPE = (4, 5, 6)
LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))
ORIENTATIONS = [
    (axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]
"""All 48: the world axis that each voxel axis runs along, and which way."""
READERS = ("SimpleITKIO", "NibabelIO", "NibabelIOWithReorient", "SimpleITKIOWithReorient")


def letters(axes: tuple[int, ...], flips: tuple[int, ...]) -> str:
    return "".join(LETTERS[axis][flip > 0] for axis, flip in zip(axes, flips, strict=True))


def affine_of(axes: tuple[int, ...], flips: tuple[int, ...], *, oblique: bool) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for voxel, (world, flip) in enumerate(zip(axes, flips, strict=True)):
        affine[world, voxel] = flip * (1.0, 1.5, 2.5)[voxel]
    if oblique:
        cos, sin = np.cos(0.3), np.sin(0.3)
        affine[:2] = np.array([[cos, -sin], [sin, cos]]) @ affine[:2]
        cos, sin = np.cos(0.15), np.sin(0.15)
        affine[1:3] = np.array([[cos, -sin], [sin, cos]]) @ affine[1:3]
    affine[:3, 3] = 3, -7, 11
    return affine


def probabilities(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """[C, X, Y, Z] on the axes of the image."""
    drawn = np.random.default_rng(seed).dirichlet((1, 1, 1), shape).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(drawn, -1, 0))


def to_ras(
    data: np.ndarray, affine: np.ndarray, axes: tuple[int, ...], flips: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Turn [C, X, Y, Z] to RAS by hand: voxel axis k becomes world axis axes[k]."""
    turned, columns, start = data, affine[:, :3].copy(), affine[:, 3].copy()
    for voxel, flip in enumerate(flips):
        if flip < 0:
            turned = np.flip(turned, 1 + voxel)
            start = start + columns[:, voxel] * (data.shape[1 + voxel] - 1)
            columns[:, voxel] *= -1
    order = [axes.index(world) for world in range(3)]
    turned = turned.transpose(0, *(1 + voxel for voxel in order))
    return turned, np.concatenate([columns[:, order], start[:, None]], axis=1)


def sitk_stuff(affine: np.ndarray) -> dict[str, Any]:
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return {
        "spacing": tuple(spacing.tolist()),
        "origin": tuple(lps[:3, 3].tolist()),
        "direction": tuple((lps[:3, :3] / spacing).ravel().tolist()),
    }


def saved(
    reader: str, data: np.ndarray, axes: tuple[int, ...], flips: tuple[int, ...], affine: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """What nnU-Net saves with a reader: the array (C, Z, Y, X) and its properties."""
    stored, place = data, affine
    if reader.endswith("WithReorient"):
        stored, place = to_ras(data, affine, axes, flips)
    if reader.startswith("Nibabel"):
        stuff: dict[str, Any] = {"original_affine": affine}
        if reader.endswith("WithReorient"):
            stuff["reoriented_affine"] = place
        properties: dict[str, Any] = {"nibabel_stuff": stuff}
    else:
        properties = {"sitk_stuff": sitk_stuff(place)}
        if reader.endswith("WithReorient"):
            properties["sitk_stuff"]["original_orientation"] = letters(axes, flips)
    stored = stored.transpose(0, 3, 2, 1)
    properties["spacing"] = np.linalg.norm(place[:3, :3], axis=0)[::-1].tolist()
    properties["shape_before_cropping"] = stored.shape[1:]
    return stored, properties


def write_case(
    folder: Path,
    case: str,
    saved_by_reader: tuple[np.ndarray, dict[str, Any]],
    labels: np.ndarray | None = None,
    affine: np.ndarray | None = None,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stored, properties = saved_by_reader
    np.savez(folder / f"{case}.npz", probabilities=stored)
    (folder / f"{case}.pkl").write_bytes(pickle.dumps(properties))
    if labels is not None:
        nib.Nifti1Image(labels.astype(np.uint8), affine).to_filename(folder / f"{case}.nii.gz")


@pytest.mark.parametrize("oblique", [False, True], ids=["straight", "oblique"])
@pytest.mark.parametrize("reader", READERS)
def test_an_array_returns_to_the_axes_of_its_image_from_all_48_orientations(
    tmp_path: Path, reader: str, oblique: bool
) -> None:
    data = probabilities(0)
    folder = PredictionFolder(tmp_path)
    for axes, flips in ORIENTATIONS:
        affine = affine_of(axes, flips, oblique=oblique)
        stored = saved(reader, data, axes, flips, affine)
        write_case(tmp_path, "alone", stored)
        write_case(tmp_path, "beside", stored, data[0], affine)
        for case in ("alone", "beside"):
            found = folder.probabilities(case)
            np.testing.assert_array_equal(found.data, data, err_msg=letters(axes, flips))
            np.testing.assert_allclose(found.affine, affine, atol=1e-5)
            torch.from_numpy(found.data)


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO"])
@pytest.mark.parametrize(("axes", "flips"), ORIENTATIONS[1::5])
def test_a_label_map_that_was_turned_since_turns_its_array(
    tmp_path: Path, axes: tuple[int, ...], flips: tuple[int, ...], reader: str
) -> None:
    """A tool that brings all NIfTI files to RAS leaves npz and pkl as they were."""
    affine = affine_of(axes, flips, oblique=True)
    data = probabilities(0)
    ras, place = to_ras(data, affine, axes, flips)
    write_case(tmp_path, "a", saved(reader, data, axes, flips, affine), ras[0], place)
    found = PredictionFolder(tmp_path).probabilities("a")
    np.testing.assert_array_equal(found.data, ras)
    np.testing.assert_allclose(found.affine, place, atol=1e-5)


AXES, FLIPS = (1, 2, 0), (-1, 1, -1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p["nibabel_stuff"]["original_affine"].__setitem__((0, 3), 99.0), "elsewhere"),
        (lambda p: p.update(shape_before_cropping=(4, 5, 7)), "shape_before_cropping must hold"),
        (lambda p: p.update(spacing=(1.0, 0.0, 1.0)), "no usable geometry"),
        (lambda p: p.update(spacing=(1.0, 1.0)), "no usable geometry"),
        (
            lambda p: p["nibabel_stuff"].update(reoriented_affine=np.eye(4)),
            "original_affine and reoriented_affine contradict",
        ),
        (
            lambda p: p["nibabel_stuff"].update(original_affine=np.zeros((4, 4))),
            "an affine that is singular",
        ),
        (
            lambda p: p.update(
                nibabel_stuff=None, sitk_stuff=sitk_stuff(np.eye(4)) | {"original_orientation": 7}
            ),
            "no usable geometry",
        ),
    ],
)
def test_a_pkl_that_contradicts_itself_or_its_array_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    affine = affine_of(AXES, FLIPS, oblique=True)
    data = probabilities(0)
    stored, properties = saved("NibabelIO", data, AXES, FLIPS, affine.copy())
    change(properties)
    write_case(tmp_path, "a", (stored, properties), data[0], affine)
    with pytest.raises(DataError, match=words) as caught:
        PredictionFolder(tmp_path).probabilities("a")
    assert str(caught.value).startswith(f"{tmp_path / 'a.pkl'}: ")


@pytest.mark.parametrize("bad", ["RAS ", "RAR", "ABC", "", "ras"])
def test_letters_that_are_no_orientation_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="the orientation must be like RAS or LPS, got"):
        Turn.between("RAS", bad)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small nnU-Net tree of two folds: a case of each reader, each in an orientation of its own.

    All extents are equal, so that an array in another orientation fits and only its contents tell.
    """
    root = tmp_path_factory.mktemp("nnunet")
    model = root / "Dataset001_Small" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    description = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "a": 1, "b": 2},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    model.mkdir(parents=True)
    (model / "dataset.json").write_text(json.dumps(description))
    (model / "plans.json").write_text(json.dumps({"image_reader_writer": READERS[3]}))
    for number, reader in enumerate(READERS):
        axes, flips = ORIENTATIONS[11 * number + 5]
        affine = affine_of(axes, flips, oblique=number % 2 == 1)
        mean = np.zeros((3, 5, 5, 5))
        for fold in range(2):
            data = probabilities(10 * number + fold, (5, 5, 5))
            mean += data.astype(np.float64) / 2
            write_case(
                model / f"fold_{fold}/validation",
                reader,
                saved(reader, data, axes, flips, affine),
                data.argmax(0),
                affine,
            )
        labels = root / "labelsTr"
        labels.mkdir(exist_ok=True)
        nib.Nifti1Image(mean.argmax(0).astype(np.uint8), affine).to_filename(
            labels / f"{reader}.nii.gz"
        )
    return root


def test_ensembles_of_a_tree_are_the_mean_of_its_folds(tree: Path, tmp_path: Path) -> None:
    model = next(tree.glob("Dataset*/*"))
    folds = sorted(model.glob("fold_*/validation"))
    ensemble_folders(folds, tmp_path, labels=tree / "labelsTr", maps=("entropy",))
    for number, reader in enumerate(READERS):
        mean = sum(probabilities(10 * number + k, (5, 5, 5)).astype(np.float64) for k in (0, 1)) / 2
        made = nib.load(tmp_path / f"{reader}.nii.gz")
        wanted = nib.load(tree / f"labelsTr/{reader}.nii.gz")
        np.testing.assert_allclose(made.affine, wanted.affine, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(made.dataobj), mean.argmax(0))
        entropy = nib.load(tmp_path / f"entropy/{reader}.nii.gz").get_fdata()
        np.testing.assert_allclose(entropy, -(mean * np.log(mean)).sum(0), atol=1e-5)


def test_evaluation_and_recalibration_of_a_tree_see_the_same_voxels(
    tree: Path, tmp_path: Path
) -> None:
    fold = next(tree.glob("Dataset*/*/fold_0/validation"))
    labels = tree / "labelsTr"
    summary = evaluate_folder(labels, fold, tmp_path / "s.json", surface=False)
    of_cases = {one["case"]: one["calibration"]["NLL"] for one in summary["metric_per_case"]}
    fit_folders([fold], labels, tmp_path / "t.json")
    volumes, targets = [], []
    for number, reader in enumerate(READERS):
        data = probabilities(10 * number, (5, 5, 5))
        target = np.asarray(nib.load(labels / f"{reader}.nii.gz").dataobj).astype(np.int64)
        nll = -np.log(np.take_along_axis(data.astype(np.float64), target[None], 0)).mean()
        assert of_cases[reader] == pytest.approx(nll, rel=1e-4)
        volumes.append(data.reshape(3, -1))
        targets.append(target.ravel())
    right = TemperatureScaling(from_logits=False).fit(
        torch.from_numpy(np.concatenate(volumes, 1))[None],
        torch.from_numpy(np.concatenate(targets))[None],
    )
    found = load(tmp_path / "t.json")
    assert found.temperature_ == pytest.approx(right.temperature_, rel=1e-3)
    apply_folders(tmp_path / "t.json", [fold], tmp_path / "out", maps=("label",))
    for number, reader in enumerate(READERS):
        made = np.asarray(nib.load(tmp_path / f"out/{reader}.nii.gz").dataobj)
        np.testing.assert_array_equal(made, probabilities(10 * number, (5, 5, 5)).argmax(0))


def test_simpleitk_turns_images_as_these_tests_do(tmp_path: Path) -> None:
    """nnU-Net's SimpleITKIOWithReorient calls these two functions."""
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is an extra")
    for oblique in (False, True):
        for axes, flips in ORIENTATIONS:
            affine = affine_of(axes, flips, oblique=oblique)
            data = np.arange(120, dtype=np.float32).reshape(1, *SHAPE)
            nib.Nifti1Image(data[0], affine).to_filename(tmp_path / "a.nii")
            image = sitk.ReadImage(str(tmp_path / "a.nii"))
            name = sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(
                image.GetDirection()
            )
            assert name == letters(axes, flips)
            turned = sitk.DICOMOrient(image, "RAS")
            ras, place = to_ras(data, affine, axes, flips)
            np.testing.assert_array_equal(sitk.GetArrayFromImage(turned), ras[0].transpose())
            stuff = sitk_stuff(place)
            np.testing.assert_allclose(turned.GetOrigin(), stuff["origin"], atol=1e-4)
            np.testing.assert_allclose(turned.GetDirection(), stuff["direction"], atol=1e-4)
