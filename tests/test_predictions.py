"""Folders of probabilities as nnU-Net, NIfTI and NumPy users have them."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from probabilities import (
    SHAPE,
    TURNED,
    sitk_stuff,
    softmax,
    version_1,
    write_labels,
    write_pickle,
)

from fastcal.core.errors import DataError
from fastcal.data import PredictionFolder, predictions, properties
from fastcal.evaluate import evaluate_folder
from fastcal.predict import ensemble_folders


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_read_in_nibabels_order(tmp_path: Path, save: Any, dtype: str) -> None:
    probs = softmax(dtype=dtype)
    save(tmp_path / "a.npz", probabilities=probs.transpose(0, 3, 2, 1))
    write_labels(tmp_path)
    folder = PredictionFolder(tmp_path)
    assert folder.cases() == ["a"]
    found = folder.probabilities("a")
    assert found.data.shape == SHAPE
    assert found.data.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(found.data, probs)
    assert (found.activation, found.label_groups) == (None, None)
    assert found.source == tmp_path / "a.npz"
    assert found.affine is not None
    np.testing.assert_allclose(found.affine, TURNED, atol=1e-5)
    torch.from_numpy(found.data)


def test_a_stored_npz_is_mapped_and_never_written_to(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", probabilities=softmax().transpose(0, 3, 2, 1))
    before = (tmp_path / "a.npz").read_bytes()
    data = PredictionFolder(tmp_path).probabilities("a").data
    owner = data
    while owner.base is not None and not isinstance(owner, np.memmap):
        owner = owner.base
    assert isinstance(owner, np.memmap)
    torch.from_numpy(data).zero_()
    assert (tmp_path / "a.npz").read_bytes() == before


def test_an_array_saved_in_fortran_order_is_the_same_array(tmp_path: Path) -> None:
    probs = np.asfortranarray(softmax().transpose(0, 3, 2, 1))
    np.savez(tmp_path / "a.npz", probabilities=probs)
    np.save(tmp_path / "b.npy", probs)
    for case in "ab":
        found = PredictionFolder(tmp_path).probabilities(case)
        np.testing.assert_array_equal(found.data, softmax())


def test_npy_has_the_axes_of_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", softmax(dtype="float16").transpose(0, 3, 2, 1))
    write_labels(tmp_path)
    found = PredictionFolder(tmp_path).probabilities("a")
    np.testing.assert_array_equal(found.data, softmax(dtype="float16"))
    assert found.like is not None
    assert found.like.shape == SHAPE[1:]


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_4d_nifti_has_its_classes_last(tmp_path: Path, ending: str) -> None:
    stack = np.moveaxis(softmax(), 0, -1)
    nib.Nifti1Image(stack, TURNED).to_filename(tmp_path / f"a{ending}")
    nib.Nifti1Image(stack[:, :, :, None], TURNED).to_filename(tmp_path / f"b{ending}")
    write_labels(tmp_path, "labels_alone")
    folder = PredictionFolder(tmp_path)
    assert folder.cases() == ["a", "b"]
    for case in "ab":
        found = folder.probabilities(case)
        np.testing.assert_array_equal(found.data, softmax())
        assert found.like is not None
        assert found.like.shape == SHAPE[1:]


def test_write_npz_is_what_nnunet_writes_and_reads_back(tmp_path: Path) -> None:
    predictions.write_npz(tmp_path / "a.npz", softmax())
    with np.load(tmp_path / "a.npz") as archive:
        assert archive.files == ["probabilities"]
        np.testing.assert_array_equal(archive["probabilities"], softmax().transpose(0, 3, 2, 1))
    predictions.write_npz(tmp_path / "b.npz", softmax(), activation="sigmoid")
    folder = PredictionFolder(tmp_path)
    assert folder.probabilities("a").activation is None
    assert folder.probabilities("b").activation == "sigmoid"
    assert folder.probabilities("b").label_groups is None
    with pytest.raises(ValueError, match=r"must have shape \[C, X, Y, Z\]"):
        predictions.write_npz(tmp_path / "c.npz", softmax()[0])


def test_cases_are_files_with_probabilities_and_nothing_else(tmp_path: Path) -> None:
    for case in ("b", "a"):
        predictions.write_npz(tmp_path / f"{case}.npz", softmax())
        write_labels(tmp_path, case)
    np.savez(tmp_path / "calibration.npz", state=np.zeros(3))
    (tmp_path / ".tmp-1-c.npz").write_bytes(b"left by a killed run")
    (tmp_path / "entropy").mkdir()
    (tmp_path / "broken.npz").write_bytes(b"no zip")
    assert PredictionFolder(tmp_path).cases() == ["a", "b", "broken"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("plain", [True, False])
def test_version_2_geometry_from_simpleitk(tmp_path: Path, protocol: int, plain: bool) -> None:
    predictions.write_npz(tmp_path / "a.npz", softmax())
    stuff: dict[str, Any] = sitk_stuff(TURNED)
    if not plain:
        stuff = {key: np.array(value) for key, value in stuff.items()}
        stuff["spacing"] = list(stuff["spacing"])
    content = {
        "sitk_stuff": stuff,
        "spacing": [3.9, 1.4, 1.4],
        "shape_before_cropping": (4, 5, 6),
        "bbox_used_for_cropping": [[0, 4], [1, 5], [np.int64(0), 6]],
    }
    write_pickle(tmp_path, content, protocol=protocol)
    found = PredictionFolder(tmp_path).probabilities("a")
    assert found.affine is not None
    np.testing.assert_allclose(found.affine, TURNED, atol=1e-12)
    assert found.like is not None
    assert found.like.spacing == pytest.approx(np.linalg.norm(TURNED[:3, :3], axis=0))
    np.testing.assert_array_equal(found.data, softmax())


def test_simpleitk_counts_to_the_left_and_back_where_nibabel_counts_right_and_front(
    tmp_path: Path,
) -> None:
    """An axial scan whose indices run right to left and front to back: identity in ITK."""
    stuff = {
        "spacing": (2.0, 2.0, 5.0),
        "origin": (-10.0, 20.0, 30.0),
        "direction": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    }
    affine = properties.read(write_pickle(tmp_path, {"sitk_stuff": stuff})).stored_affine
    expected = [[-2, 0, 0, 10], [0, -2, 0, -20], [0, 0, 5, 30], [0, 0, 0, 1]]
    np.testing.assert_array_equal(affine, expected)


def test_a_pkl_that_contradicts_the_label_map_is_refused(tmp_path: Path) -> None:
    predictions.write_npz(tmp_path / "a.npz", softmax())
    write_labels(tmp_path)
    path = write_pickle(tmp_path, {"sitk_stuff": sitk_stuff(np.eye(4))})
    with pytest.raises(DataError, match=r"a\.pkl: puts the array of a\.npz elsewhere than"):
        PredictionFolder(tmp_path).probabilities("a")
    path.unlink()
    found = PredictionFolder(tmp_path).probabilities("a")
    assert found.affine is not None
    np.testing.assert_allclose(found.affine, TURNED, atol=1e-5)


@pytest.mark.parametrize(
    "axes",
    [np.diag([-1.0, -1.0, 2.0]), [[0, 0, -2.0], [1.0, 0, 0], [0, -1.0, 0]], TURNED[:3, :3]],
)
def test_probabilities_of_a_reader_that_reorients_return_to_the_image(
    tmp_path: Path, axes: Any
) -> None:
    """nnU-Net's NibabelIOWithReorient saves the npz in RAS, the label map in the image's axes."""
    affine = np.eye(4)
    affine[:3, :3] = axes
    image = nib.Nifti1Image(np.moveaxis(softmax(), 0, -1), affine)
    turned = nib.as_closest_canonical(image)
    ras = np.moveaxis(turned.get_fdata(dtype=np.float32), -1, 0)
    np.savez_compressed(tmp_path / "a.npz", probabilities=ras.transpose(0, 3, 2, 1))
    stuff = {"original_affine": image.affine, "reoriented_affine": turned.affine}
    write_pickle(tmp_path, {"nibabel_stuff": stuff, "spacing": [1.0, 1.0, 2.0]})
    write_labels(tmp_path, affine=affine)
    found = PredictionFolder(tmp_path).probabilities("a")
    np.testing.assert_array_equal(found.data, softmax())
    torch.from_numpy(found.data)


def test_without_reorientation_the_nibabel_affine_is_taken_as_it_is(tmp_path: Path) -> None:
    predictions.write_npz(tmp_path / "a.npz", softmax())
    write_pickle(tmp_path, {"nibabel_stuff": {"original_affine": TURNED}, "spacing": [1, 1, 1]})
    found = PredictionFolder(tmp_path).probabilities("a")
    np.testing.assert_array_equal(found.affine, TURNED)
    np.testing.assert_array_equal(found.data, softmax())


def test_version_1_boxes_return_to_their_image_with_background_around(tmp_path: Path) -> None:
    stored = softmax(dtype="float16").transpose(0, 3, 2, 1)
    np.savez_compressed(tmp_path / "a.npz", softmax=stored)
    write_pickle(tmp_path, version_1(stored))
    found = PredictionFolder(tmp_path).probabilities("a")
    assert found.data.shape == (3, 10, 9, 8)
    np.testing.assert_array_equal(found.data[:, 3:9, 2:7, 1:5], softmax(dtype="float16"))
    outside = np.ones((10, 9, 8), bool)
    outside[3:9, 2:7, 1:5] = False
    assert (found.data[0][outside] == 1).all()
    assert not found.data[1:][:, outside].any()
    assert found.affine is not None
    np.testing.assert_allclose(found.affine, TURNED, atol=1e-12)


def _dataset_json(path: Path, **change: Any) -> None:
    content = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]},
        "regions_class_order": [1, 2, 3],
        "file_ending": ".nii.gz",
    }
    path.write_text(json.dumps(content | change))


@pytest.mark.parametrize("inside", ["", "fold_0/validation"])
def test_models_of_label_groups_are_sigmoid_with_a_channel_per_group(
    tmp_path: Path, inside: str
) -> None:
    folder = tmp_path / inside
    folder.mkdir(parents=True, exist_ok=True)
    _dataset_json(tmp_path / "dataset.json")
    predictions.write_npz(folder / "a.npz", softmax())
    predictions.write_npz(folder / "b.npz", softmax()[:2])
    found = PredictionFolder(folder).probabilities("a")
    assert found.activation == "sigmoid"
    assert found.label_groups == ((1, 2, 3), (2, 3), (3,))
    with pytest.raises(
        DataError, match=r"must have 3 channels, one per label group of dataset\.json, got 2"
    ):
        PredictionFolder(folder).probabilities("b")


def test_properties_without_geometry_leave_it_open(tmp_path: Path) -> None:
    predictions.write_npz(tmp_path / "a.npz", softmax())
    write_pickle(tmp_path, {"spacing": [1.0, 1.0, 1.0]})
    found = PredictionFolder(tmp_path).probabilities("a")
    assert found.affine is None
    assert found.like is None
    assert properties.read(tmp_path / "a.pkl").spacing == (1.0, 1.0, 1.0)


def test_an_npz_of_more_than_4_gib_is_found_by_its_local_header(tmp_path: Path) -> None:
    """Zip64 members carry an extra field that the central directory need not repeat."""
    path = tmp_path / "a.npz"
    with (
        zipfile.ZipFile(path, "w") as archive,
        archive.open("probabilities.npy", "w", force_zip64=True) as stream,
    ):
        np.lib.format.write_array(stream, softmax().transpose(0, 3, 2, 1))
    raw = path.read_bytes()
    assert struct.unpack("<H", raw[28:30])[0] > 0
    np.testing.assert_array_equal(PredictionFolder(tmp_path).probabilities("a").data, softmax())


@pytest.mark.parametrize("classes", [3, 1])
def test_no_label_group_is_outside_the_box_of_version_1_wherever_its_description_lies(
    tmp_path: Path, classes: int
) -> None:
    folder, labels = tmp_path / "model", tmp_path / "labels"
    folder.mkdir()
    labels.mkdir()
    stored = softmax().transpose(0, 3, 2, 1)[:classes]
    np.savez(folder / "a.npz", softmax=stored)
    write_pickle(folder, version_1(stored))
    nib.Nifti1Image(np.zeros((10, 9, 8), np.uint8), TURNED).to_filename(labels / "a.nii.gz")
    options: dict[str, Any] = {"num_classes": 1}
    if classes == 3:
        (tmp_path / "elsewhere").mkdir()
        _dataset_json(tmp_path / "elsewhere/dataset.json")
        options = {"dataset_json": tmp_path / "elsewhere/dataset.json"}
        for memory in (None, "8G"):
            out = tmp_path / f"out_{memory}"
            ensemble_folders([folder], out, save_probabilities=True, memory=memory, **options)
            written = PredictionFolder(out).probabilities("a").data
            assert written.shape == (3, 10, 9, 8)
            np.testing.assert_allclose(written[:, 3:9, 2:7, 1:5], softmax()[:classes], atol=1e-6)
            assert np.count_nonzero(written) == stored.size
            assert nib.load(out / "a.nii.gz").get_fdata()[0].max() == 0
    write_labels(folder, shape=(10, 9, 8))
    found = evaluate_folder(labels, folder, tmp_path / "scores.json", surface=False, **options)
    # Nothing is there: the Brier score is that of the probabilities alone, summed over the groups.
    expected = (stored.astype(np.float64) ** 2).sum() / 720
    assert found["calibration"]["pooled"]["Brier"] == pytest.approx(expected, rel=1e-6)
