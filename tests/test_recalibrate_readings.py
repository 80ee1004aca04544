"""What the numbers of saved files are, in fits and in what they are applied to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cohort import CASES, write_cohort, write_dataset_json, write_member

from fastcal.core.errors import DataError
from fastcal.data import PredictionFolder, predictions
from fastcal.recalibrate import apply_folders, fit_folders, load

ORDERS = (None, "pool-then-calibrate", "member-then-pool")


@pytest.mark.parametrize("ensemble", ORDERS)
def test_logits_are_fitted_and_calibrated_as_the_probabilities_that_they_stand_for(
    tmp_path: Path, ensemble: str | None
) -> None:
    folders, labels, drawn, _ = write_cohort(tmp_path, members=2)
    logits = [tmp_path / f"logits_{member}" for member in (0, 1)]
    for member, folder in enumerate(logits):
        write_member(folder, {case: np.log(v[member]) + 1 for case, v in drawn.items()})
    kept = slice(None) if ensemble else slice(1)
    made = []
    for name, given in (("p", folders[kept]), ("z", logits[kept])):
        out = tmp_path / f"{name}.json"
        fit = fit_folders(
            given, labels, out, ensemble=ensemble, from_logits=name == "z", folds=0
        )  # fmt: skip
        with pytest.warns(UserWarning, match="fitted to these predictions"):
            apply_folders(out, given, tmp_path / name, save_probabilities=True, maps=())
        temperatures = [one.temperature_ for one in fit.calibrators]
        made.append((temperatures, PredictionFolder(tmp_path / name)))
    assert made[1][0] == pytest.approx(made[0][0], rel=1e-4)
    for case in CASES:
        one, other = (folder.probabilities(case).data for _, folder in made)
        np.testing.assert_allclose(other, one, atol=1e-4)


def sigmoid(path: Path, values: np.ndarray) -> None:
    path.unlink()
    predictions.write_npz(path, values, activation="sigmoid")


def no_sums(path: Path, values: np.ndarray) -> None:
    np.savez_compressed(path, probabilities=0.97 * values.transpose(0, 3, 2, 1))


@pytest.mark.parametrize("ensemble", ORDERS)
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (sigmoid, "activation must be 'softmax', as that of the other files, got 'sigmoid'"),
        (no_sums, "probabilities must sum to 1 over the classes, got sums of 0.97 to 0.97"),
    ],
)
def test_a_file_of_another_reading_is_named_in_fits_and_in_what_is_calibrated(
    tmp_path: Path, ensemble: str | None, damage, words: str
) -> None:
    folders, labels, drawn, _ = write_cohort(tmp_path, members=2)
    odd = shutil.copytree(folders[1], tmp_path / "odd")
    damage(odd / f"{CASES[1]}.npz", drawn[CASES[1]][1])
    good, bad = ([folders[0], one] if ensemble else [one] for one in (folders[1], odd))
    out = tmp_path / "fitted.json"
    with pytest.raises(DataError, match=rf"odd/{CASES[1]}\.npz: {words}"):
        fit_folders(bad, labels, out, ensemble=ensemble, folds=0)
    fit_folders(good, labels, out, ensemble=ensemble, folds=0)
    with (
        pytest.raises(DataError, match=rf"odd/{CASES[1]}\.npz: {words}"),
        pytest.warns(UserWarning, match="fitted to these predictions"),
    ):
        apply_folders(out, bad, tmp_path / "out")


@pytest.mark.parametrize("ensemble", ORDERS)
def test_a_calibrator_is_not_applied_to_structures_in_another_order(
    tmp_path: Path, ensemble: str | None
) -> None:
    folders, labels, *_ = write_cohort(tmp_path, members=2)
    given = folders if ensemble else folders[:1]
    one, other, renamed = (tmp_path / f"{name}.json" for name in ("one", "other", "renamed"))
    for path, names in ((one, ("rv", "lv")), (other, ("lv", "rv")), (renamed, ("right", "lv"))):
        write_dataset_json(tmp_path, labels={"background": 0, names[0]: 1, names[1]: 2})
        (tmp_path / "dataset.json").rename(path)
    out = tmp_path / "fitted.json"
    fit_folders(given, labels, out, ensemble=ensemble, dataset_json=one, folds=0)
    with pytest.raises(DataError, match=r"other\.json: lv must be structure 2, as in the fit of"):
        apply_folders(out, given, tmp_path / "out", dataset_json=other)
    with pytest.warns(UserWarning, match="fitted to these predictions"):
        apply_folders(out, given, tmp_path / "out", dataset_json=renamed)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": [1.0]}, "weights must hold one number per calibrator, 2, got 1"),
        ({"multilabel": True}, "calibrators must agree in what they calibrate"),
    ],
)
def test_an_ensemble_whose_file_contradicts_itself_is_refused(
    tmp_path: Path, change: dict, words: str
) -> None:
    folders, labels, *_ = write_cohort(tmp_path, members=2)
    out = tmp_path / "fitted.json"
    fit_folders(folders, labels, out, ensemble="member-then-pool", folds=0)
    content = json.loads(out.read_text())
    if "weights" in change:
        content |= change
    else:
        content["calibrators"][1]["settings"] |= change
    out.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"fitted\.json: .*{words}"):
        load(out)
