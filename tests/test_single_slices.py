"""Axes of extent 1 and fewer than three axes, in every reader, score, region and plan."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastcal import regions
from fastcal.data import Dataset, PredictionFolder, nifti
from fastcal.evaluate import evaluate_folder, surface_scores
from fastcal.predict import ensemble_folders
from fastcal.train.plan import PreprocessingConfig, plan_preprocessing

SPACING = (0.7, 0.8, 2.0)
AFFINE = np.diag([*SPACING, 1.0])


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(array, AFFINE).to_filename(path)
    return path


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ((6,), (6, 1, 1)),
        ((6, 5), (6, 5, 1)),
        ((6, 5, 1), (6, 5, 1)),
        ((1, 5, 4), (1, 5, 4)),
        ((6, 5, 4, 1), (6, 5, 4)),
        ((6, 5, 4, 1, 1), (6, 5, 4)),
        ((6, 5, 4, 3), (6, 5, 4, 3)),
        ((6, 5, 4, 1, 3), (6, 5, 4, 3)),
        ((6, 5, 1, 1, 3), (6, 5, 1, 3)),
    ],
)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_every_shape_is_read_as_a_volume(
    tmp_path: Path, stored: tuple[int, ...], read: tuple[int, ...], ending: str
) -> None:
    data = np.arange(np.prod(stored), dtype=np.int16).reshape(stored)
    volume = nifti.read(save(tmp_path / f"a{ending}", data))
    np.testing.assert_array_equal(volume.data, data.reshape(read))
    assert volume.shape == read[:3]
    assert nifti.geometry(tmp_path / f"a{ending}").channels == (read[3] if len(read) > 3 else 1)


@pytest.mark.parametrize(("shape", "written"), [((6, 5), (6, 5)), ((6, 5, 1), (6, 5, 1))])
def test_maps_have_as_many_axes_as_their_image(
    tmp_path: Path, shape: tuple[int, ...], written: tuple[int, ...]
) -> None:
    like = nifti.geometry(save(tmp_path / "a.nii.gz", np.zeros(shape, np.uint8)))
    labels = np.arange(30).reshape(6, 5, 1)
    nifti.write(tmp_path / "b.nii.gz", labels, like, dtype="int")
    made = nib.load(tmp_path / "b.nii.gz")
    assert made.shape == written
    np.testing.assert_array_equal(np.asarray(made.dataobj), labels.reshape(written))
    nifti.write(tmp_path / "c.nii.gz", np.zeros((6, 5, 1, 3)), like)
    assert nifti.read(tmp_path / "c.nii.gz").data.shape == (6, 5, 1, 3)


def surface(mask: np.ndarray) -> np.ndarray:
    """Voxels with a neighbour outside along an axis of more than one voxel, by hand."""
    found = []
    for index in np.argwhere(mask):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                other = index.copy()
                other[axis] += step
                inside = 0 <= other[axis] < mask.shape[axis] and mask[tuple(other)]
                if mask.shape[axis] > 1 and not inside:
                    found.append(tuple(index))
    return np.array(sorted(set(found)), dtype=float)


def expected(a: np.ndarray, b: np.ndarray, tolerance: float) -> dict[str, float]:
    steps = np.array(SPACING[: a.ndim])
    distances = np.linalg.norm((surface(a) * steps)[:, None] - (surface(b) * steps)[None], axis=-1)
    one, other = distances.min(0), distances.min(1)
    near = (one <= tolerance).sum() + (other <= tolerance).sum()
    return {
        "HD95": max(np.percentile(one, 95), np.percentile(other, 95)),
        "SurfaceDice": near / (len(one) + len(other)),
    }


EXTENTS = [
    *((30, 8), (8, 30), (30, 8, 1), (1, 30, 8), (30, 1, 8), (12, 1, 1), (1, 12, 1), (1, 1, 12)),
    *((12,), (1, 12), (12, 1), (8, 7, 6)),
]


@pytest.mark.parametrize("extents", EXTENTS, ids=str)
def test_the_surface_of_a_slice_is_its_boundary(extents: tuple[int, ...]) -> None:
    """In the 95th percentile of a whole area, a shifted edge would not show."""
    a = np.zeros(extents, bool)
    a[tuple(slice(n // 4, max(n // 4 + 1, 3 * n // 4)) for n in extents)] = True
    b = np.roll(a, 2, int(np.argmax(extents)))
    found = surface_scores(a, b, spacing=SPACING[: len(extents)], tolerance_mm=1.0)
    assert found == pytest.approx(expected(a, b, 1.0), rel=1e-5)


def test_a_single_voxel_has_a_surface() -> None:
    voxel = np.ones((1, 1, 1), bool)
    assert surface_scores(voxel, voxel, spacing=SPACING) == {"HD95": 0.0, "SurfaceDice": 1.0}
    assert surface_scores(voxel, ~voxel, spacing=SPACING)["SurfaceDice"] == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(
    "shape", [(12, 10), (12, 10, 1), (12, 10, 1, 1), (1, 12, 10), (12, 5, 2, 1)]
)
def test_label_maps_of_any_shape_are_evaluated(
    tmp_path: Path, shape: tuple[int, ...], dtype: type
) -> None:
    """Those of (X, Y, Z, 1) are no probabilities, whatever their type."""
    volume = (*shape, 1, 1)[:3]
    truth = np.zeros(volume, bool)
    truth[tuple(slice(n // 4, max(n // 4 + 1, 3 * n // 4)) for n in volume)] = True
    guess = np.roll(truth, 1, int(np.argmax(volume)))
    save(tmp_path / "labels/c.nii.gz", truth.reshape(shape).astype(dtype))
    save(tmp_path / "predicted/c.nii.gz", guess.reshape(shape).astype(dtype))
    summary = evaluate_folder(
        tmp_path / "labels", tmp_path / "predicted", tmp_path / "s.json", num_classes=2
    )
    found = summary["mean"]["1"]
    assert found["HD95"] == pytest.approx(expected(truth, guess, 1.0)["HD95"], rel=1e-5)
    assert found["volume_ref_ml"] == pytest.approx(truth.sum() * np.prod(SPACING) / 1000, rel=1e-5)
    assert summary["calibration"] is None


def test_one_class_in_4d_nifti_is_told_from_a_label_map_by_its_fractions(tmp_path: Path) -> None:
    save(tmp_path / "labels.nii.gz", np.ones((4, 3, 2, 1), np.float32))
    save(tmp_path / "one.nii.gz", np.full((4, 3, 2, 1), 0.25, np.float32))
    folder = PredictionFolder(tmp_path)
    assert folder.cases() == ["one"]
    assert folder.probabilities("one").data.shape == (1, 4, 3, 2)


@pytest.mark.parametrize("axes", [2, 3])
def test_npz_beside_flat_images_is_combined(tmp_path: Path, axes: int) -> None:
    """nnU-Net's npz of a 2-D image is (C, 1, Y, X), its pkl that of two axes."""
    rng = np.random.default_rng(0)
    mean = np.zeros((2, 6, 5, 1))
    stuff = {"spacing": (0.7, 0.8), "origin": (0.0, 0.0), "direction": (-1.0, 0.0, 0.0, -1.0)}
    for fold in range(2):
        p = np.moveaxis(rng.dirichlet((1, 1), (6, 5, 1)), -1, 0)
        mean += p / 2
        place = tmp_path / f"fold_{fold}"
        place.mkdir()
        np.savez(place / "c.npz", probabilities=p.transpose(0, 3, 2, 1))
        content = {"sitk_stuff": stuff, "spacing": [799.2, 0.8, 0.7]}
        (place / "c.pkl").write_bytes(pickle.dumps(content))
        labels = p.argmax(0).astype(np.uint8)
        save(place / "c.nii.gz", labels[..., 0] if axes == 2 else labels)
    ensemble_folders([tmp_path / "fold_0", tmp_path / "fold_1"], tmp_path / "out")
    made = nib.load(tmp_path / "out/c.nii.gz")
    assert made.shape == (6, 5, 1)[:axes]
    np.testing.assert_array_equal(
        np.asarray(made.dataobj).reshape(6, 5, 1), mean.argmax(0).astype(np.uint8)
    )


@pytest.mark.parametrize("across", [0, 1, 2])
@pytest.mark.parametrize("coarse", [0, 1, 2])
def test_margins_of_a_single_slice_lie_in_its_plane(across: int, coarse: int) -> None:
    shape, spacing = [15, 15, 15], [1.0, 1.0, 1.0]
    shape[across], spacing[coarse] = 1, 1.5
    labels = np.zeros(shape, np.uint8)
    labels[tuple(n // 2 for n in shape)] = 1
    box = regions.dilated_box(labels, 3.0, 6, affine=np.diag([*spacing, 1.0]))
    wanted = [1 if k == across else 1 + 2 * int(3 / spacing[k]) for k in range(3)]
    extents = [int(box.any(tuple({0, 1, 2} - {k})).sum()) for k in range(3)]
    assert extents == wanted


def test_regions_of_flat_arrays_take_the_affine_of_a_volume() -> None:
    labels = np.zeros((9, 9), np.uint8)
    labels[4, 4] = 1
    affine = np.diag([1.0, 2.0, 5.0, 1.0])
    box = regions.dilated_box(labels, 2.0, 4, affine=affine)
    assert (box.any(1).sum(), box.any(0).sum()) == (5, 3)
    band = regions.boundary_band(labels, 1.0, affine=affine)
    assert band.sum() == 3


@pytest.mark.parametrize("shape", [(1, 16, 12), (16, 1, 12), (16, 12, 1), (16, 12)])
def test_the_plan_stacks_slices_along_the_axis_that_has_one(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    """Whichever spacing is the largest: here always that of the last axis."""
    description = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "a": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    for case in "ab":
        save(tmp_path / f"imagesTr/{case}_0000.nii.gz", np.ones(shape, np.float32))
        save(tmp_path / f"labelsTr/{case}.nii.gz", np.ones(shape, np.uint8))
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    dataset = Dataset.open(tmp_path)
    planned = plan_preprocessing(dataset, dataset.cases, PreprocessingConfig(), divisor=4)
    assert planned.slice_axis == (*shape, 1).index(1)
    assert planned.size == (16, 12)
    image, label, like = dataset.cases[0].load()
    assert label is not None
    assert planned.apply(image, like).shape == (1, 1, 16, 12)
    assert planned.apply_label(label, like).shape == (1, 16, 12)
