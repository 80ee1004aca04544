"""Structures that were never predicted, or of another fit, and segments without voxels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fastcal
from fastcal.cli import main
from fastcal.core.errors import DataError
from fastcal.ood import fit_ood, load, predict_ood
from fastcal.quality.folders import fit_quality
from tests.segment_tables import table, write_folder


@pytest.fixture
def without_posterior(tmp_path: Path) -> Path:
    made = table(20)
    absent = np.array([name == "posterior" for name in made.structures])
    scores = {
        name: np.where(absent, 0.0 if name == "volume" else np.nan, values)
        for name, values in made.scores.items()
    }
    assert made.dice is not None
    dice = np.where(absent, 0.0, made.dice)
    return write_folder(tmp_path / "without", replace(made, scores=scores, dice=dice))


@pytest.mark.parametrize("per_structure", [False, True])
def test_a_structure_that_no_case_has_is_named(
    without_posterior: Path, tmp_path: Path, per_structure: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    summary = without_posterior / "summary.json"
    found = fit_quality(
        without_posterior, tmp_path / "q.json", summary=summary, per_structure=per_structure
    )
    assert found.never == ("posterior",)
    words = ("quality", "fit", "-i", without_posterior, "--summary", summary)
    assert main([*map(str, words), "-o", str(tmp_path / "again.json")]) == 0
    assert "20 were not predicted, posterior in no case; written" in " ".join(
        capfd.readouterr().out.split()
    )


def test_detectors_refuse_cases_of_other_structures(tmp_path: Path) -> None:
    inside = write_folder(tmp_path / "inside", table(30))
    other = write_folder(tmp_path / "other", table(5, structures=("liver", "spleen")))
    fit_ood(tmp_path / "ood.json", predictions=inside)
    assert load(tmp_path / "ood.json").structures == ("anterior", "posterior")
    with pytest.raises(DataError, match=r"other: structures must be among liver, spleen, got 'ant"):
        predict_ood(tmp_path / "ood.json", predictions=other)


def test_segments_have_an_axis_of_voxels() -> None:
    message = "segments must be of volumes with an axis of voxels, got none"
    with pytest.raises(ValueError, match=message):
        fastcal.segment_scores(torch.full((2, 4), 0.25))
    with pytest.raises(ValueError, match=message):
        fastcal.ensemble_statistics([torch.zeros(2, 4)], segments=True)
