"""Folders of probabilities that are hostile, broken or do not fit."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probabilities import (
    TURNED,
    sitk_stuff,
    softmax,
    version_1,
    write_labels,
    write_pickle,
)

from fastcal.core.errors import DataError
from fastcal.data import PredictionFolder, predictions, properties
from fastcal.predict import ensemble_folders


def test_a_box_beyond_its_image_is_refused(tmp_path: Path) -> None:
    stored = softmax().transpose(0, 3, 2, 1)
    np.savez_compressed(tmp_path / "a.npz", softmax=stored)
    write_pickle(tmp_path, version_1(stored) | {"crop_bbox": [[6, 10], [2, 7], [3, 9]]})
    with pytest.raises(DataError, match=r"a\.pkl: has no usable geometry .*crop_bbox"):
        PredictionFolder(tmp_path).probabilities("a")


def test_a_box_of_another_size_than_its_array_is_refused(tmp_path: Path) -> None:
    stored = softmax().transpose(0, 3, 2, 1)
    np.savez_compressed(tmp_path / "a.npz", softmax=stored)
    write_pickle(tmp_path, version_1(stored) | {"crop_bbox": [[1, 4], [2, 7], [3, 9]]})
    with pytest.raises(DataError, match=r"a\.npz: .*does not fit the box \(3, 5, 6\)"):
        PredictionFolder(tmp_path).probabilities("a")


@pytest.mark.parametrize("memory", [None, "2G"])
def test_logits_of_a_box_are_refused_for_nothing_is_known_around_it(
    tmp_path: Path, memory: str | None
) -> None:
    folder = tmp_path / "fold"
    folder.mkdir()
    stored = softmax().transpose(0, 3, 2, 1)
    np.savez_compressed(folder / "a.npz", softmax=stored)
    write_pickle(folder, version_1(stored))
    content = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "a": 1, "b": 2}}
    (folder / "dataset.json").write_text(json.dumps({**content, "file_ending": ".nii.gz"}))
    ensemble_folders([folder], tmp_path / "out", memory=memory)
    with pytest.raises(DataError, match=r"a\.npz: must hold logits of the whole image"):
        ensemble_folders([folder], tmp_path / "logits", from_logits=True, memory=memory)


def test_an_image_that_no_memory_holds_is_refused_before_it_is_made(tmp_path: Path) -> None:
    stored = softmax().transpose(0, 3, 2, 1)
    np.savez_compressed(tmp_path / "a.npz", softmax=stored)
    write_pickle(tmp_path, version_1(stored) | {"original_size_of_raw_data": (10**5,) * 3})
    with pytest.raises(DataError, match=r"a\.pkl: the image must fit the memory"):
        PredictionFolder(tmp_path).probabilities("a")


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    predictions.write_npz(tmp_path / "a.npz", softmax())
    for name in ("a.nii.gz", "a.pkl", "b.npz"):
        os.mkfifo(tmp_path / name)
    folder = PredictionFolder(tmp_path)
    assert folder.cases() == ["a", "b"]
    for case, name in (("a", "a.pkl"), ("b", "b.npz")):
        with pytest.raises(DataError, match=f"{name}: must be a regular file, got a named pipe"):
            folder.probabilities(case)
    (tmp_path / "a.pkl").unlink()
    with pytest.raises(DataError, match=r"a\.nii\.gz: must be a regular file"):
        folder.probabilities("a")


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
    predictions.write_npz(tmp_path / "a.npz", softmax())
    content = {"sitk_stuff": sitk_stuff(TURNED), "x": _Bomb(function, *arguments)}
    path = write_pickle(tmp_path, content, protocol=protocol)
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
    good = write_pickle(tmp_path, {"nibabel_stuff": {"original_affine": TURNED}}, "b")
    np.testing.assert_array_equal(properties.read(good).stored_affine, TURNED)


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
    path = write_pickle(tmp_path, content)
    with pytest.raises(DataError) as caught:
        properties.read(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("raw", [b"", b"\x80\x04", b"no pickle", b"\x80\x04K\x01", b"(((((."])
def test_a_broken_pkl_names_its_file(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.pkl: damaged, or not a pickle"):
        properties.read(tmp_path / "a.pkl")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("keep", [0, 10, 300, -60, -1])
def test_a_truncated_npz_names_its_file(tmp_path: Path, save: Any, keep: int) -> None:
    path = tmp_path / "a.npz"
    save(path, probabilities=softmax())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"a\.npz: damaged, or not an npz file") as caught:
        PredictionFolder(tmp_path).probabilities("a")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_one_flipped_bit_in_an_npz_is_found(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "a.npz"
    save(path, probabilities=softmax())
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 16
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.npz: damaged, or not an npz file"):
        PredictionFolder(tmp_path).probabilities("a")


def test_an_npz_whose_header_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(tmp_path / "whole.npz", probabilities=softmax())
    with zipfile.ZipFile(tmp_path / "whole.npz") as archive:
        raw = archive.read("probabilities.npy")
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        for claimed in (b"(9, 6, 5, 4)", b"(3, 6, 5, 2)"):
            with zipfile.ZipFile(path, "w", compression) as archive:
                archive.writestr("probabilities.npy", raw.replace(b"(3, 6, 5, 4)", claimed))
            with pytest.raises(DataError, match=r"a\.npz: "):
                PredictionFolder(tmp_path).probabilities("a")


def test_a_truncated_npy_names_its_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", softmax())
    raw = (tmp_path / "a.npy").read_bytes()
    for keep in (0, 5, 100, len(raw) - 1):
        (tmp_path / "a.npy").write_bytes(raw[:keep])
        with pytest.raises(DataError, match=r"a\.npy: (damaged, or not an array|its array must)"):
            PredictionFolder(tmp_path).probabilities("a")


def test_a_truncated_label_map_is_no_silent_loss_of_geometry(tmp_path: Path) -> None:
    predictions.write_npz(tmp_path / "a.npz", softmax())
    (tmp_path / "a.nii.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match=r"a\.nii\.gz: damaged, or not a NIfTI file"):
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
    np.savez_compressed(tmp_path / "a.npz", probabilities=softmax())
    write_labels(tmp_path)
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
    with pytest.raises(DataError, match="must have one array named probabilities or softmax"):
        folder.probabilities("other")
