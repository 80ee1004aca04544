"""Counts and scores that no longer belong to the files that lie beside them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cohort import CASES, random_labels, write_cohort, write_dataset_json, write_nifti

from fastcal import report
from fastcal.core.errors import DataError
from fastcal.predict import ensemble_folders
from fastcal.quality import evaluate_quality

pytest.importorskip("jinja2")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """``counted``, whose calibration is known from its count, and ``saved`` with probabilities."""
    folders, labels, *_ = write_cohort(tmp_path, members=2)
    write_dataset_json(tmp_path)
    options: dict[str, Any] = {"n_bins": 5, "regions": ["box:8:2"]}
    ensemble_folders(folders, tmp_path / "counted", labels=labels, **options)
    ensemble_folders(folders, tmp_path / "saved", save_probabilities=True)
    return tmp_path


def page(folder: Path, *names: str, **options: Any) -> dict[str, Any]:
    out = folder / "page.html"
    folders = [folder / name for name in names]
    report.build(folders, folder / "labels", out, members=False, **options)
    found = re.search(r'type="application/json"[^>]*>(.*?)</script>', out.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_errors_of_other_bins_do_not_stand_side_by_side(made: Path) -> None:
    words = r"counted/calibration\.npz: was counted with 5 bins closed on the right, but the report"
    with pytest.raises(DataError, match=words):
        page(made, "counted", "saved")
    numbers = page(made, "counted", "saved", n_bins=5)["numbers"]
    ece = [one["estimate"] for one in numbers if (one["measure"], one["region"]) == ("ece", "")]
    assert ece[0] == pytest.approx(ece[1], abs=1e-6)


def test_a_count_against_labels_that_have_changed_is_refused(made: Path) -> None:
    path = made / f"labels/{CASES[1]}.nii.gz"
    write_nifti(path, random_labels(np.random.default_rng(9)))
    with pytest.raises(DataError, match=rf"labels/{CASES[1]}\.nii\.gz: has changed since case"):
        page(made, "counted", n_bins=5)


def test_scores_of_another_label_map_than_lies_there_are_not_taken(made: Path) -> None:
    before = page(made, "saved")["entropy"]["saved"]
    path = made / f"saved/{CASES[1]}.nii.gz"
    labels = random_labels(np.random.default_rng(9))
    write_nifti(path, labels)
    after = page(made, "saved")["entropy"]["saved"]
    assert [after[0], after[2]] == [before[0], before[2]]
    p = np.load(made / f"saved/{CASES[1]}.npz")["probabilities"].transpose(0, 3, 2, 1)
    for structure in (1, 2):
        q = p[structure][labels == structure].astype(np.float64)
        expected = -(q * np.log(q) + (1 - q) * np.log(1 - q)).mean()
        assert after[1][structure - 1] == pytest.approx(expected, abs=1e-6)
    words = rf"saved/{CASES[1]}\.nii\.gz: is not the label map that .*segments\.json has the scores"
    with pytest.raises(DataError, match=words):
        evaluate_quality(made / "saved", labels=made / "labels", n_resamples=20)
