"""The parts of training: seeds, schedules, first biases, validation, progress."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fastcal.data.prepared import PreparedCases
from fastcal.models import UNet
from fastcal.train import TrainConfig
from fastcal.train.progress import TrainingProgress
from fastcal.train.recipe import start_from_frequencies
from fastcal.train.schedule import Course, learning_rate
from fastcal.train.seeds import derived_seed
from fastcal.train.validation import validate


def test_every_purpose_of_every_member_has_a_seed_of_its_own() -> None:
    seeds = {derived_seed(0, *key) for key in itertools.product(range(4), repeat=3)}
    assert len(seeds) == 64


def test_the_plateau_rule_lowers_the_learning_rate_and_stops() -> None:
    config = TrainConfig().with_values(
        {
            "optimiser.learning_rate": 1.0,
            "schedule": {"patience": 2, "factor": 0.5},
            "loop.early_stopping": 5,
        }
    )
    course = Course()
    rates = []
    for dice in (0.5, 0.6, 0.6, 0.1, 0.2, 0.3):
        course.end_epoch(dice, config)
        rates.append(learning_rate(config, course, 10))
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25]
    assert (course.best_epoch, course.best_dice) == (2, 0.6)
    assert not course.finished(config)
    assert course.end_epoch(math.nan, config) is False
    assert course.finished(config)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"name": "poly", "power": 2.0}, lambda t: (1 - t / 40) ** 2),
        ({"name": "cosine", "floor": 0.1}, lambda t: 0.55 + 0.45 * math.cos(math.pi * t / 40)),
        (
            {"name": "cyclic", "cycles": 2},
            lambda t: 0.5 + 0.5 * math.cos(math.pi * (t % 20) / 20),
        ),
        ({"name": "plateau", "warmup": 8}, lambda t: min(1, (t + 1) / 8)),
    ],
)
def test_schedules_follow_their_formulas(
    schedule: dict[str, Any], expected: Callable[[int], float]
) -> None:
    config = TrainConfig().with_values(
        {"schedule": schedule, "optimiser.learning_rate": 1.0, "loop.max_epochs": 4}
    )
    for step in range(40):
        found = learning_rate(config, Course(step=step, epoch=step // 10), 10)
        assert found == pytest.approx(expected(step), rel=1e-12, abs=1e-15)


def test_cross_entropy_starts_from_the_weighted_frequencies_of_the_classes() -> None:
    model = UNet(1, 3, widths=(2, 4))
    start_from_frequencies(model, [6, 1, 0], [1.0, 2.0, 3.0])
    start = model.classifier.bias.softmax(0)
    torch.testing.assert_close(start, torch.tensor([7.0, 4.0, 3.0]) / 14)


def test_validation_equals_the_formulas_on_all_slices_at_once() -> None:
    torch.manual_seed(0)
    model = UNet(1, 3, widths=(4, 8)).eval()
    # A voxel without features must not have a probability of 1/3, which is the edge of a bin.
    torch.nn.init.normal_(model.classifier.bias)
    images, labels = torch.rand(5, 1, 14, 18), torch.randint(0, 4, (5, 14, 18), dtype=torch.uint8)
    parts = (slice(0, 2), slice(2, 5))
    cases = PreparedCases(
        names=["a", "b"],
        images=[images[part] for part in parts],
        labels=[labels[part] for part in parts],
        foreground=[[], []],
        num_classes=3,
        fingerprint="",
        digests=["", ""],
    )
    scores = validate(model, cases, patch=None, batch_size=2, ignore_label=3)
    logits, kept = model(images).detach(), labels != 3
    target = (labels * kept).long()
    nll = -logits.log_softmax(1).gather(1, target[:, None])[:, 0][kept].mean()
    assert scores.nll == pytest.approx(nll.item(), rel=1e-5)
    for k in range(3):
        predicted, reference = (logits.argmax(1) == k) & kept, labels == k
        dice = [
            2 * (predicted[s] & reference[s]).sum() / (predicted[s].sum() + reference[s].sum())
            for s in parts
        ]
        assert scores.dice_per_class[k] == pytest.approx(float(sum(dice)) / 2, rel=1e-6)
    assert scores.dice == pytest.approx(sum(scores.dice_per_class[1:]) / 2, rel=1e-12)
    confidence, label = logits.softmax(1).max(1)
    sure, right = confidence[kept].double(), (label == target)[kept].double()
    bins = (sure * 15).ceil().long() - 1
    gaps = [(sure - right)[bins == b].sum().abs() for b in range(15)]
    assert scores.ece == pytest.approx(float(sum(gaps)) / int(kept.sum()), rel=1e-5)


def test_on_a_terminal_messages_stay_above_the_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with TrainingProgress(epochs=2, max_epochs=2) as progress:
        progress.say("run: [vectorised]; as asked for")
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert any(line.endswith("run: [vectorised]; as asked for") for line in lines)
