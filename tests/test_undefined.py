"""Numbers that are not defined: means say so, training and recalibration do not guess."""

from __future__ import annotations

import math
import warnings

import nibabel
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fastcal.cli.app import app
from fastcal.evaluate import evaluate_folder
from fastcal.recalibrate import methods
from fastcal.train.config import TrainConfig
from fastcal.train.schedule import Course


@pytest.fixture
def folders(tmp_path):
    """Found 1 mm off, missed, invented, and absent from both."""
    found = np.zeros((12, 10, 4), np.uint8)
    found[3:7, 3:7, 1:3] = 1
    nothing = np.zeros_like(found)
    pairs = [(found, np.roll(found, 1, 0)), (found, nothing), (nothing, found), (nothing, nothing)]
    for k, pair in enumerate(pairs):
        for name, array in zip(("labels", "predicted"), pair, strict=True):
            (tmp_path / name).mkdir(exist_ok=True)
            image = nibabel.Nifti1Image(array, np.diag([1.0, 2.0, 3.0, 1.0]))
            nibabel.save(image, tmp_path / name / f"case_{k}.nii.gz")
    return tmp_path


def test_means_say_how_many_values_they_hold_and_why(folders):
    arguments = (folders / "labels", folders / "predicted", folders / "scores.json")
    summary = evaluate_folder(*arguments, num_classes=2)
    for mean in (summary["mean"]["1"], summary["foreground_mean"]):
        assert mean["HD95"] == 1
        assert [mean[f"n_{name}"] for name in ("HD95", "Dice", "SurfaceDice")] == [1, 3, 3]
        assert [mean[f"n_{name}"] for name in ("missed", "invented", "absent")] == [1, 1, 1]
    penalised = evaluate_folder(*arguments, num_classes=2, missed_hd95="diagonal")
    diagonal = math.hypot(12, 20, 12)
    hd95 = [one["metrics"]["1"]["HD95"] for one in penalised["metric_per_case"]]
    assert hd95[:3] == pytest.approx([1, diagonal, diagonal])
    assert math.isnan(hd95[3])
    assert penalised["mean"]["1"]["HD95"] == pytest.approx((1 + 2 * diagonal) / 3)
    assert penalised["mean"]["1"]["n_HD95"] == 3
    assert penalised["settings"]["missed_hd95"] == "diagonal"
    with pytest.raises(ValueError, match="missed_hd95 must be 'omit' or 'diagonal', got 'worst'"):
        evaluate_folder(*arguments, num_classes=2, missed_hd95="worst")


def test_the_command_line_says_what_its_means_leave_out(folders):
    options = ["evaluate", "-g", "labels", "-p", "predicted", "-o", "scores.json", "-q"]
    options = [str(folders / one) if one in ("labels", "predicted", "scores.json") else one
               for one in options]  # fmt: skip
    result = CliRunner().invoke(app, [*options, "--num-classes", "2"])
    assert result.exit_code == 0
    printed = " ".join(result.output.split())
    assert "1: mean Dice over 3 of 4 cases, mean HD95 over 1 of 4 cases" in printed
    assert "missed in 1 of 4 cases, invented in 1 of 4 cases, absent from both in 1" in printed


@pytest.mark.parametrize(
    ("epochs", "best"),
    [
        ([(math.nan, 0.5), (0.0, 0.1), (math.nan, 0.6)], 1),
        ([(0.0, 0.1), (math.nan, 0.6), (0.0, 0.1)], 2),
        ([(math.nan, 0.5), (math.nan, 0.4), (math.nan, 0.45)], 2),
        ([(math.nan, 0.5), (0.1, 0.9), (0.0, 0.1), (math.nan, 0.1)], 2),
        ([(0.3, 0.5), (0.3, 0.1), (0.4, 0.9)], 3),
    ],
)
def test_an_epoch_that_rightly_predicts_nothing_beats_invented_foreground(epochs, best):
    course, config = Course(), TrainConfig()
    for dice, nll in epochs:
        course.end_epoch(dice, config, nll)
    assert course.best_epoch == best


def target_of(n_voxels: int) -> torch.Tensor:
    return torch.randint(0, 3, (1, n_voxels), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", ["temperature", "temperature-per-class"])
@pytest.mark.parametrize("scale", [0.0, 1e-9, "right"], ids=str)
def test_a_flat_likelihood_leaves_the_temperature_at_1_with_a_warning(method, scale):
    target = target_of(400)
    right = torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    noise = torch.randn(1, 3, 400, generator=torch.Generator().manual_seed(1))
    z = 1e20 * right if scale == "right" else scale * noise
    calibrator = methods.make(method, from_logits=True, activation="softmax", multilabel=False)
    with pytest.warns(UserWarning, match="nothing was fitted"):
        calibrator.fit(z.float(), target)
    assert np.all(np.asarray(calibrator.temperature_) == 1)


@pytest.mark.parametrize("method", methods.METHODS)
@pytest.mark.parametrize("scale", [0.0, 1e20, 1e200], ids=str)
def test_every_method_gives_numbers_for_logits_of_any_size(method, scale):
    target = target_of(400)
    noise = torch.randn(1, 3, 400, generator=torch.Generator().manual_seed(1))
    z = scale * (noise.double() if scale > 1e38 else noise)
    calibrator = methods.make(method, from_logits=True, activation="softmax", multilabel=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        calibrator.fit(z, target)
    assert torch.as_tensor(calibrator.transform(z)).isfinite().all()
