"""Settings of a training run: presets, changes, and messages about bad ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastcal.train import TrainConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"sampling.batch_size": 0},
            "batch_size must be greater than or equal to 1, got 0",
        ),
        ({"schedule.factor": 1.5}, r"schedule.factor must be less than or equal to 1, got 1\.5"),
        ({"epochs": 3}, r"config has no setting epochs; loop\.max_epochs is one"),
        ({"loop.epochs": 3}, r"config has no setting loop\.epochs; loop\.max_epochs is one"),
        (
            {"optimiser.lr": 3},
            r"no setting optimiser\.lr; optimiser has name, learning_rate",
        ),
        (
            {"loop.snapshots": True},
            "must be 'cyclic' for loop.snapshots, got 'plateau'",
        ),
        ({"optimiser.name": "lion"}, "optimiser.name must be 'adam', 'adamw' or 'sgd', got 'lion'"),
    ],
)
def test_a_bad_setting_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig().with_values(values)


def test_presets_survive_json_and_changes_begin_a_chosen_section_anew() -> None:
    config = TrainConfig.preset("standard", dims=3)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert config.augmentation.active
    assert (config.loss.name, config.schedule.name, config.head) == ("dice-ce", "poly", "softmax")
    assert not config.with_values({"augmentation.preset": "none"}).augmentation.active
    other = config.with_values({"network": {"name": "BasicUNet"}})
    assert other.network == {"name": "BasicUNet"}
    assert TrainConfig().with_values({"loss.name": "dice"}).head == "sigmoid"
