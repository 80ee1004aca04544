"""Saved probabilities that contradict themselves, their fellows or the label map beside them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cohort import random_labels, random_probabilities, write_dataset_json, write_nifti

from fastcal.cases.plausible import contradicted
from fastcal.cli import main
from fastcal.core.errors import DataError, DataWarning
from fastcal.data.predictions import Probabilities
from fastcal.evaluate import evaluate_folder
from fastcal.predict import ensemble_folders
from fastcal.recalibrate import apply_folders, fit_folders

P = random_probabilities(np.random.default_rng(3))


def write_case(folder: Path, p: np.ndarray, labels: np.ndarray | None = None, **more: Any) -> None:
    write_nifti(folder / "a.nii.gz", (p.argmax(0) if labels is None else labels).astype(np.uint8))
    np.savez_compressed(folder / "a.npz", probabilities=p.transpose(0, 3, 2, 1), **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_case(tmp_path / "good", P)
    write_nifti(tmp_path / "labels/a.nii.gz", random_labels(np.random.default_rng(5)))
    write_dataset_json(tmp_path)
    fit_folders([tmp_path / "good"], tmp_path / "labels", tmp_path / "fit.json", method="vector")
    return tmp_path


def halved(p: np.ndarray) -> np.ndarray:
    return p / 2


def one_voxel_of_zeros(p: np.ndarray) -> np.ndarray:
    p = p.copy()
    p[:, 2, 3, 1] = 0
    return p


def one_voxel_beyond_one(p: np.ndarray) -> np.ndarray:
    p = p.copy()
    p[:, 2, 3, 1] = 1.4, -0.4, 0.0
    return p


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (halved, r"sum to 1 over the classes, got sums of 0\.5 to 0\.5 in 210 of 210 voxels"),
        (np.zeros_like, r"sum to 1 over the classes, got sums of 0 to 0 in 210 of 210 voxels"),
        (one_voxel_of_zeros, r"got sums of 0 to 0 in 1 of 210 voxels"),
        (one_voxel_beyond_one, r"be from 0 to 1, got -0\.4 to 1\.4"),
        (np.log, r"be from 0 to 1, got -.* logits need from_logits"),
    ],
)
@pytest.mark.parametrize("reader", ["ensemble", "evaluate", "fit", "apply"])
def test_what_are_no_probabilities_is_refused_by_every_reader(
    folder: Path, reader: str, damage: Any, words: str
) -> None:
    write_case(folder / "bad", damage(P), P.argmax(0))
    bad, labels, out = folder / "bad", folder / "labels", folder / "out"
    readers: dict[str, Callable[[], object]] = {
        "ensemble": lambda: ensemble_folders([folder / "good", bad], out),
        "evaluate": lambda: evaluate_folder(labels, bad, folder / "x.json", surface=False),
        "fit": lambda: fit_folders([bad], labels, folder / "x.json", method="vector"),
        "apply": lambda: apply_folders(folder / "fit.json", [bad], out),
    }
    with pytest.raises(DataError, match=rf"bad/a\.npz: probabilities must .*{words}"):
        readers[reader]()


def test_rounded_and_independent_probabilities_are_none_of_these(folder: Path) -> None:
    write_case(folder / "half", P.astype(np.float16))
    write_case(folder / "sigmoid", P / 2, activation=np.array("sigmoid"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ensemble_folders([folder / "good", folder / "half"], folder / "out")
        for name in ("good", "half", "sigmoid"):
            evaluate_folder(
                folder / "labels", folder / name, folder / f"{name}.json", surface=False
            )


@pytest.mark.parametrize(
    ("activation", "words"),
    [
        ("sigmoid", "must be 'softmax', as that of the other files, got 'sigmoid'"),
        ("bogus", "must be 'softmax' or 'sigmoid', got 'bogus'"),
    ],
)
def test_members_of_other_activations_are_not_averaged(
    folder: Path, activation: str, words: str
) -> None:
    write_case(folder / "other", P, activation=np.array(activation))
    with pytest.raises(DataError, match=rf"other/a\.npz: activation {words}"):
        ensemble_folders([folder / "good", folder / "other"], folder / "out")


def test_a_label_map_that_contradicts_its_probabilities_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = P.argmax(0)
    swapped = labels.copy()
    swapped[0] = (swapped[0] + 1) % 3
    write_case(folder / "other", P, swapped)
    differing = int((swapped != labels).sum())
    assert differing == labels[0].size
    words = rf"other/a\.npz: the most probable class differs .* in {differing} voxels"
    with pytest.warns(DataWarning, match=words):
        evaluate_folder(folder / "labels", folder / "other", folder / "x.json", surface=False)
    place = [
        "-g",
        str(folder / "labels"),
        "-p",
        str(folder / "other"),
        "-o",
        str(folder / "y.json"),
    ]
    assert main(["evaluate", *place, "-q", "--no-surface"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert f"in {differing} voxels" in line
    assert json.loads((folder / "y.json").read_text()) == json.loads(
        (folder / "x.json").read_text()
    )


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_contradicted_voxels_are_counted_in_any_order_of_memory(order: tuple[int, ...]) -> None:
    labels = P.argmax(0)
    labels[1, 2, 0] = (labels[1, 2, 0] + 1) % len(P)
    labels[2, 0, 1] = (labels[2, 0, 1] + 1) % len(P)
    kept = np.ones(labels.shape, bool)
    kept[2, 0, 1] = False
    back = np.argsort(order)
    stored = np.ascontiguousarray(P.transpose(0, *(1 + axis for axis in order)))
    data = stored.transpose(0, *(1 + axis for axis in back))
    found = Probabilities(data, None, None, "softmax", None, Path("a.npz"))
    assert contradicted(found, labels, None) == 2
    assert contradicted(found, labels, kept) == 1
