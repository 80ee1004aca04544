"""Preprocessing settled from the data: axes, spacing, sizes, windows and patches."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastcal.core.errors import DataError
from fastcal.data.dataset import Dataset
from fastcal.data.preprocess import Preprocessing
from fastcal.train.plan import PreprocessingConfig, plan_patch, plan_preprocessing

SPACINGS = [(1.0, 1.0, 3.0), (1.2, 1.2, 3.0), (1.0, 2.0, 6.0)]
SHAPES = [(30, 20, 9), (24, 22, 12), (36, 15, 7)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three cases of a CT and another channel, whose first axis runs from head to foot."""
    folder = tmp_path_factory.mktemp("data") / "Dataset003_Plan"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number, (spacing, shape) in enumerate(zip(SPACINGS, SHAPES, strict=True)):
        affine = np.zeros((4, 4))
        affine[[2, 0, 1, 3], range(4)] = [-spacing[0], spacing[1], spacing[2], 1.0]
        label = np.zeros(shape, np.uint8)
        label[:2, :3, :4] = 1
        label[5, 5, 5] = 2
        for channel in range(2):
            image = np.full(shape, -1000, np.int16)
            image[label == 1] = 10 * number + np.arange(24)
            image[label == 2] = 9999
            nib.Nifti1Image(image, affine).to_filename(
                folder / f"imagesTr/c{number}_{channel:04d}.nii.gz"
            )
        nib.Nifti1Image(label, affine).to_filename(folder / f"labelsTr/c{number}.nii.gz")
    described = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "organ": 1, "ignore": 2},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(described))
    return Dataset.open(folder)


def plan(dataset: Dataset, *, divisor: int = 8, patches: bool = False, **config: object):  # type: ignore[no-untyped-def]
    settings = PreprocessingConfig.model_validate(config)
    return plan_preprocessing(dataset, dataset.cases, settings, divisor=divisor, patches=patches)


def test_slices_lie_along_the_coarsest_axis_and_share_the_largest_size(dataset: Dataset) -> None:
    assert plan(dataset) == Preprocessing(slice_axis=2, size=(40, 24))
    assert plan(dataset, slice_axis=0, divisor=4).size == (24, 12)
    # Reoriented, the coarsest axis is the anterior one, and slices are right by superior.
    turned = plan(dataset, reorient=True, spacing="median")
    assert (turned.slice_axis, turned.spacing) == (1, pytest.approx((1.2, 1.0)))
    assert turned.size == (32, 40)
    assert plan(dataset, patches=True).size is None
    assert plan(dataset, size=(16, 16)).size == (16, 16)


def test_volumes_take_the_median_spacing_axis_by_axis(dataset: Dataset) -> None:
    planned = plan(dataset, dims=3, spacing="median", normalisation="zscore", patches=True)
    assert planned.spacing == pytest.approx((1.2, 3.0, 1.0))
    assert (planned.reorients, planned.size, planned.label_interpolation) == (True, None, "linear")
    whole = plan(dataset, dims=3, spacing=(1.0, 3.0, 1.0))
    assert whole.size == (32, 16, 40)


def test_ct_channels_get_the_window_of_the_annotated_foreground(dataset: Dataset) -> None:
    planned = plan(dataset, dims=3, normalisation="auto", patches=True)
    assert planned.normalisation == ("ct", "zscore")
    values = np.concatenate([10 * number + np.arange(24.0) for number in range(3)])
    low, high = np.percentile(values, (0.5, 99.5))
    assert planned.windows is not None
    assert planned.windows[0] == pytest.approx((low, high, values.mean(), values.std()))
    with pytest.raises(
        ValueError, match="normalisation must hold one scheme per channel: 2, got 1"
    ):
        plan(dataset, normalisation=("ct",))


def test_patches_are_the_median_case_as_far_as_voxels_allow(dataset: Dataset) -> None:
    planned = Preprocessing(dims=3, reorient=False)
    assert plan_patch(dataset.cases, planned, divisor=8) == (32, 24, 16)
    assert plan_patch(dataset.cases, planned, divisor=8, voxels=8000) == (16, 24, 16)
    assert plan_patch(dataset.cases, Preprocessing(), divisor=4) == (32, 20)


def test_cases_that_cannot_be_read_have_no_say(dataset: Dataset, tmp_path: Path) -> None:
    broken = tmp_path / "Dataset004_Broken"
    for path in dataset.folder.rglob("*.*"):
        copy = broken / path.relative_to(dataset.folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (broken / "imagesTr/c0_0000.nii.gz").write_bytes(b"no gzip")
    (broken / "labelsTr/c1.nii.gz").unlink()
    flat = np.diag([1.0, 0.0, 1.0, 1.0])
    image = nib.Nifti1Image(np.zeros((99, 99, 99), np.int16), None)
    image.header.set_sform(flat, code=1)
    image.header["pixdim"][2] = np.inf
    image.to_filename(broken / "imagesTr/c2_0000.nii.gz")
    planned = plan(Dataset.open(broken), normalisation="zscore")
    assert planned.size == (24, 24)
    for path in broken.glob("imagesTr/*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"c0_0000\.nii\.gz"):
        plan(Dataset.open(broken))
