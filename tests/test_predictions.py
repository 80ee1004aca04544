"""Folders of probabilities as nnU-Net, NIfTI and NumPy users have them; hostile and broken ones."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from fastcal.core.errors import DataError
from fastcal.data import PredictionFolder, predictions, properties

SHAPE = (3, 6, 5, 4)
"""Classes, X, Y, Z."""
TURNED = np.array(
    [[-1.4, 0.3, 0.1, 20.5], [-0.3, -1.4, 0.5, 31.25], [0.2, 0.4, 3.9, -12.0], [0, 0, 0, 1.0]]
)


def _softmax(seed: int = 0, dtype: str = "float32") -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=SHAPE)
    weights = np.exp(logits)
    return (weights / weights.sum(axis=0)).astype(dtype)


def _labels(folder: Path, case: str = "a", affine: np.ndarray = TURNED) -> None:
    nib.Nifti1Image(np.zeros(SHAPE[1:], np.uint8), affine).to_filename(folder / f"{case}.nii.gz")


def _sitk_stuff(affine: np.ndarray) -> dict[str, Any]:
    """The geometry as SimpleITK gives it: LPS, direction by rows."""
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return {
        "spacing": tuple(spacing.tolist()),
        "origin": tuple(lps[:3, 3].tolist()),
        "direction": tuple((lps[:3, :3] / spacing).ravel().tolist()),
    }


def _pickle(folder: Path, content: object, case: str = "a", protocol: int = 4) -> Path:
    path = folder / f"{case}.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_read_in_nibabels_order(tmp_path: Path, save: Any, dtype: str) -> None:
    probs = _softmax(dtype=dtype)
    save(tmp_path / "a.npz", probabilities=probs.transpose(0, 3, 2, 1))
    _labels(tmp_path)
    folder = PredictionFolder(tmp_path)
    assert folder.cases() == ["a"]
    found = folder.probabilities("a")
    assert found.data.shape == SHAPE
    assert found.data.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(found.data, probs)
    assert (found.activation, found.label_groups) == ("softmax", None)
    assert found.source == tmp_path / "a.npz"
    assert found.affine is not None
    np.testing.assert_allclose(found.affine, TURNED, atol=1e-5)
    torch.from_numpy(found.data)


def test_a_stored_npz_is_mapped_and_never_written_to(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", probabilities=_softmax().transpose(0, 3, 2, 1))
    before = (tmp_path / "a.npz").read_bytes()
    data = PredictionFolder(tmp_path).probabilities("a").data
    owner = data
    while owner.base is not None and not isinstance(owner, np.memmap):
        owner = owner.base
    assert isinstance(owner, np.memmap)
    torch.from_numpy(data).zero_()
    assert (tmp_path / "a.npz").read_bytes() == before


def test_an_array_saved_in_fortran_order_is_the_same_array(tmp_path: Path) -> None:
    probs = np.asfortranarray(_softmax().transpose(0, 3, 2, 1))
    np.savez(tmp_path / "a.npz", probabilities=probs)
    np.save(tmp_path / "b.npy", probs)
    for case in "ab":
        found = PredictionFolder(tmp_path).probabilities(case)
        np.testing.assert_array_equal(found.data, _softmax())


def test_npy_has_the_axes_of_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", _softmax(dtype="float16").transpose(0, 3, 2, 1))
    _labels(tmp_path)
    found = PredictionFolder(tmp_path).probabilities("a")
    np.testing.assert_array_equal(found.data, _softmax(dtype="float16"))
    assert found.like is not None
    assert found.like.shape == SHAPE[1:]


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_4d_nifti_has_its_classes_last(tmp_path: Path, ending: str) -> None:
    stack = np.moveaxis(_softmax(), 0, -1)
    nib.Nifti1Image(stack, TURNED).to_filename(tmp_path / f"a{ending}")
    nib.Nifti1Image(stack[:, :, :, None], TURNED).to_filename(tmp_path / f"b{ending}")
    _labels(tmp_path, "labels_alone")
    folder = PredictionFolder(tmp_path)
    assert folder.cases() == ["a", "b"]
    for case in "ab":
        found = folder.probabilities(case)
        np.testing.assert_array_equal(found.data, _softmax())
        assert found.like is not None
        assert found.like.shape == SHAPE[1:]


def test_write_npz_is_what_nnunet_writes_and_reads_back(tmp_path: Path) -> None:
    predictions.write_npz(tmp_path / "a.npz", _softmax())
    with np.load(tmp_path / "a.npz") as archive:
        assert archive.files == ["probabilities"]
        np.testing.assert_array_equal(archive["probabilities"], _softmax().transpose(0, 3, 2, 1))
    predictions.write_npz(tmp_path / "b.npz", _softmax(), activation="sigmoid")
    folder = PredictionFolder(tmp_path)
    assert folder.probabilities("a").activation == "softmax"
    assert folder.probabilities("b").activation == "sigmoid"
    assert folder.probabilities("b").label_groups is None
    with pytest.raises(ValueError, match=r"must have shape \[C, X, Y, Z\]"):
        predictions.write_npz(tmp_path / "c.npz", _softmax()[0])


def test_cases_are_files_with_probabilities_and_nothing_else(tmp_path: Path) -> None:
    for case in ("b", "a"):
        predictions.write_npz(tmp_path / f"{case}.npz", _softmax())
        _labels(tmp_path, case)
    np.savez(tmp_path / "calibration.npz", state=np.zeros(3))
    (tmp_path / ".tmp-1-c.npz").write_bytes(b"left by a killed run")
    (tmp_path / "entropy").mkdir()
    (tmp_path / "broken.npz").write_bytes(b"no zip")
    assert PredictionFolder(tmp_path).cases() == ["a", "b", "broken"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("plain", [True, False])
def test_version_2_geometry_from_simpleitk(tmp_path: Path, protocol: int, plain: bool) -> None:
    predictions.write_npz(tmp_path / "a.npz", _softmax())
    stuff: dict[str, Any] = _sitk_stuff(TURNED)
    if not plain:
        stuff = {key: np.array(value) for key, value in stuff.items()}
        stuff["spacing"] = list(stuff["spacing"])
    content = {
        "sitk_stuff": stuff,
        "spacing": [3.9, 1.4, 1.4],
        "shape_before_cropping": (4, 5, 6),
        "bbox_used_for_cropping": [[0, 4], [1, 5], [np.int64(0), 6]],
    }
    _pickle(tmp_path, content, protocol=protocol)
    found = PredictionFolder(tmp_path).probabilities("a")
    assert found.affine is not None
    np.testing.assert_allclose(found.affine, TURNED, atol=1e-12)
    assert found.like is not None
    assert found.like.spacing == pytest.approx(np.linalg.norm(TURNED[:3, :3], axis=0))
    np.testing.assert_array_equal(found.data, _softmax())


def test_simpleitk_counts_to_the_left_and_back_where_nibabel_counts_right_and_front(
    tmp_path: Path,
) -> None:
    """An axial scan whose indices run right to left and front to back: identity in ITK."""
    stuff = {
        "spacing": (2.0, 2.0, 5.0),
        "origin": (-10.0, 20.0, 30.0),
        "direction": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    }
    affine = properties.read(_pickle(tmp_path, {"sitk_stuff": stuff})).affine
    expected = [[-2, 0, 0, 10], [0, -2, 0, -20], [0, 0, 5, 30], [0, 0, 0, 1]]
    np.testing.assert_array_equal(affine, expected)


def test_a_label_map_tells_more_than_the_pkl(tmp_path: Path) -> None:
    predictions.write_npz(tmp_path / "a.npz", _softmax())
    _labels(tmp_path)
    _pickle(tmp_path, {"sitk_stuff": _sitk_stuff(np.eye(4))})
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
    image = nib.Nifti1Image(np.moveaxis(_softmax(), 0, -1), affine)
    turned = nib.as_closest_canonical(image)
    ras = np.moveaxis(turned.get_fdata(dtype=np.float32), -1, 0)
    np.savez_compressed(tmp_path / "a.npz", probabilities=ras.transpose(0, 3, 2, 1))
    stuff = {"original_affine": image.affine, "reoriented_affine": turned.affine}
    _pickle(tmp_path, {"nibabel_stuff": stuff, "spacing": [1.0, 1.0, 2.0]})
    _labels(tmp_path, affine=affine)
    found = PredictionFolder(tmp_path).probabilities("a")
    np.testing.assert_array_equal(found.data, _softmax())
    torch.from_numpy(found.data)


def test_without_reorientation_the_nibabel_affine_is_taken_as_it_is(tmp_path: Path) -> None:
    predictions.write_npz(tmp_path / "a.npz", _softmax())
    _pickle(tmp_path, {"nibabel_stuff": {"original_affine": TURNED}, "spacing": [1, 1, 1]})
    found = PredictionFolder(tmp_path).probabilities("a")
    np.testing.assert_array_equal(found.affine, TURNED)
    np.testing.assert_array_equal(found.data, _softmax())


def _version_1(stored: np.ndarray) -> OrderedDict[str, Any]:
    stuff = _sitk_stuff(TURNED)
    return OrderedDict(
        original_size_of_raw_data=np.array([8, 9, 10]),
        original_spacing=np.array([3.9, 1.4, 1.4]),
        list_of_data_files=["a_0000.nii.gz"],
        seg_file=None,
        itk_origin=stuff["origin"],
        itk_spacing=stuff["spacing"],
        itk_direction=stuff["direction"],
        crop_bbox=[[1, 1 + stored.shape[1]], [2, 2 + stored.shape[2]], [3, 3 + stored.shape[3]]],
        classes=np.array([-1.0, 0.0, 1.0], dtype=np.float32),
        size_after_cropping=stored.shape[1:],
        use_nonzero_mask_for_norm=OrderedDict([(0, False)]),
    )


def test_version_1_boxes_return_to_their_image_with_background_around(tmp_path: Path) -> None:
    stored = _softmax(dtype="float16").transpose(0, 3, 2, 1)
    np.savez_compressed(tmp_path / "a.npz", softmax=stored)
    _pickle(tmp_path, _version_1(stored))
    found = PredictionFolder(tmp_path).probabilities("a")
    assert found.data.shape == (3, 10, 9, 8)
    np.testing.assert_array_equal(found.data[:, 3:9, 2:7, 1:5], _softmax(dtype="float16"))
    outside = np.ones((10, 9, 8), bool)
    outside[3:9, 2:7, 1:5] = False
    assert (found.data[0][outside] == 1).all()
    assert not found.data[1:][:, outside].any()
    assert found.affine is not None
    np.testing.assert_allclose(found.affine, TURNED, atol=1e-12)


def test_a_box_beyond_its_image_is_refused(tmp_path: Path) -> None:
    stored = _softmax().transpose(0, 3, 2, 1)
    np.savez_compressed(tmp_path / "a.npz", softmax=stored)
    _pickle(tmp_path, _version_1(stored) | {"crop_bbox": [[6, 10], [2, 7], [3, 9]]})
    with pytest.raises(DataError, match=r"a\.npz: .*does not fit"):
        PredictionFolder(tmp_path).probabilities("a")


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
    predictions.write_npz(folder / "a.npz", _softmax())
    predictions.write_npz(folder / "b.npz", _softmax()[:2])
    found = PredictionFolder(folder).probabilities("a")
    assert found.activation == "sigmoid"
    assert found.label_groups == ((1, 2, 3), (2, 3), (3,))
    with pytest.raises(
        DataError, match=r"must have 3 channels, one per label group of dataset\.json, got 2"
    ):
        PredictionFolder(folder).probabilities("b")


class _Bomb:
    """Pickles to a call, as an attacker's object does."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {}",), "system"),
        (eval, ("open('{}', 'w')",), "eval"),
        (getattr, (dict, "keys"), "getattr"),
        (np.load, ("{}",), "load"),
        (np.memmap, ("{}", "u1", "w+", 0, (4,)), "memmap"),
        (Path, ("{}",), "pathlib"),
    ],
)
def test_a_pkl_that_calls_something_is_refused_and_nothing_is_called(
    tmp_path: Path, function: Any, arguments: tuple[Any, ...], name: str, protocol: int
) -> None:
    victim = tmp_path / "executed"
    arguments = tuple(a.format(victim) if isinstance(a, str) else a for a in arguments)
    predictions.write_npz(tmp_path / "a.npz", _softmax())
    content = {"sitk_stuff": _sitk_stuff(TURNED), "x": _Bomb(function, *arguments)}
    path = _pickle(tmp_path, content, protocol=protocol)
    with pytest.raises(DataError, match=name) as caught:
        PredictionFolder(tmp_path).probabilities("a")
    assert str(caught.value).startswith(f"{path}: asks for ")
    assert not victim.exists()


def test_a_pkl_cannot_change_what_later_pkls_are_read_with(tmp_path: Path) -> None:
    """The BUILD instruction sets attributes of whatever lies on the stack."""
    poison = b"cnumpy.core.multiarray\nscalar\n(N}X\x0c\x00\x00\x00__defaults__Nstb."
    (tmp_path / "a.pkl").write_bytes(poison)
    with pytest.raises(DataError, match=r"a\.pkl: "):
        properties.read(tmp_path / "a.pkl")
    good = _pickle(tmp_path, {"nibabel_stuff": {"original_affine": TURNED}}, "b")
    np.testing.assert_array_equal(properties.read(good).affine, TURNED)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2, 3],
        {"sitk_stuff": {"spacing": (1, 1, 1)}},
        {"sitk_stuff": {"spacing": (1, 1, 1), "origin": (0, 0, 0), "direction": (1, 0, 0)}},
        {"nibabel_stuff": {"original_affine": np.array([None, "x"], dtype=object)}},
        {"nibabel_stuff": {"original_affine": np.full((4, 4), np.nan)}},
    ],
)
def test_a_pkl_without_a_usable_geometry_names_its_file(tmp_path: Path, content: object) -> None:
    path = _pickle(tmp_path, content)
    with pytest.raises(DataError) as caught:
        properties.read(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("raw", [b"", b"\x80\x04", b"no pickle", b"\x80\x04K\x01", b"(((((."])
def test_a_broken_pkl_names_its_file(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.pkl: is truncated or corrupt"):
        properties.read(tmp_path / "a.pkl")


def test_properties_without_geometry_leave_it_open(tmp_path: Path) -> None:
    predictions.write_npz(tmp_path / "a.npz", _softmax())
    _pickle(tmp_path, {"spacing": [1.0, 1.0, 1.0]})
    found = PredictionFolder(tmp_path).probabilities("a")
    assert found.affine is None
    assert found.like is None


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("keep", [0, 10, 300, -60, -1])
def test_a_truncated_npz_names_its_file(tmp_path: Path, save: Any, keep: int) -> None:
    path = tmp_path / "a.npz"
    save(path, probabilities=_softmax())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"a\.npz: is truncated or corrupt") as caught:
        PredictionFolder(tmp_path).probabilities("a")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_one_flipped_bit_in_an_npz_is_found(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "a.npz"
    save(path, probabilities=_softmax())
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 16
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.npz: is truncated or corrupt"):
        PredictionFolder(tmp_path).probabilities("a")


def test_an_npz_whose_header_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(tmp_path / "whole.npz", probabilities=_softmax())
    with zipfile.ZipFile(tmp_path / "whole.npz") as archive:
        raw = archive.read("probabilities.npy")
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        for claimed in (b"(9, 6, 5, 4)", b"(3, 6, 5, 2)"):
            with zipfile.ZipFile(path, "w", compression) as archive:
                archive.writestr("probabilities.npy", raw.replace(b"(3, 6, 5, 4)", claimed))
            with pytest.raises(DataError, match=r"a\.npz: "):
                PredictionFolder(tmp_path).probabilities("a")


def test_a_truncated_npy_names_its_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", _softmax())
    raw = (tmp_path / "a.npy").read_bytes()
    for keep in (0, 5, 100, len(raw) - 1):
        (tmp_path / "a.npy").write_bytes(raw[:keep])
        with pytest.raises(DataError, match=r"a\.npy: is truncated or corrupt"):
            PredictionFolder(tmp_path).probabilities("a")


def test_a_truncated_label_map_is_no_silent_loss_of_geometry(tmp_path: Path) -> None:
    predictions.write_npz(tmp_path / "a.npz", _softmax())
    (tmp_path / "a.nii.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match=r"a\.nii\.gz: is truncated"):
        PredictionFolder(tmp_path).probabilities("a")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((6, 5, 4), np.float32), "must have shape \\(classes, Z, Y, X\\)"),
        (np.zeros((3, 6, 5, 4), np.int64), "int64"),
        (np.array([[[[None]]]]), "a.npz"),
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_that_are_no_probabilities_are_refused(
    tmp_path: Path, save: Any, array: np.ndarray, words: str
) -> None:
    save(tmp_path / "a.npz", probabilities=array)
    with pytest.raises(DataError, match=words):
        PredictionFolder(tmp_path).probabilities("a")


def test_probabilities_must_fit_their_label_map(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", probabilities=_softmax())
    _labels(tmp_path)
    with pytest.raises(
        DataError, match=r"a\.npz: must have the \(X, Y, Z\) of a\.nii\.gz.* got \(4, 5, 6\)"
    ):
        PredictionFolder(tmp_path).probabilities("a")


def test_absent_folders_and_cases_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        PredictionFolder(tmp_path / "nowhere")
    np.savez(tmp_path / "other.npz", state=np.zeros(2))
    folder = PredictionFolder(tmp_path)
    assert folder.cases() == []
    with pytest.raises(DataError, match="no probabilities of case a"):
        folder.probabilities("a")
    with pytest.raises(DataError, match="no array named probabilities or softmax"):
        folder.probabilities("other")


def test_an_npz_of_more_than_4_gib_is_found_by_its_local_header(tmp_path: Path) -> None:
    """Zip64 members carry an extra field that the central directory need not repeat."""
    path = tmp_path / "a.npz"
    with (
        zipfile.ZipFile(path, "w") as archive,
        archive.open("probabilities.npy", "w", force_zip64=True) as stream,
    ):
        np.lib.format.write_array(stream, _softmax().transpose(0, 3, 2, 1))
    raw = path.read_bytes()
    assert struct.unpack("<H", raw[28:30])[0] > 0
    np.testing.assert_array_equal(PredictionFolder(tmp_path).probabilities("a").data, _softmax())
