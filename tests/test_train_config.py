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
        ({"loop.max_epochs": True}, "loop.max_epochs must be .* not true or false, got True"),
        ({"loop.max_epochs": 10**22}, "loop.max_epochs must be .* 1000000000, got 1000"),
        ({"augmentation.mirror_axes": [True]}, "augmentation.mirror_axes must be .* not true"),
        ({"sampling.batch_size": 10**9}, "sampling.batch_size must be .* 65536, got 1000000000"),
        ({"sampling.patch": [10**6] * 2}, "sampling.patch.0 must be .* 65536, got 1000000"),
        ({"preprocessing.size": [0, 8]}, "preprocessing.size.0 must be .* equal to 1, got 0"),
        ({"preprocessing.spacing": [0, 1]}, "preprocessing.spacing.0 must be greater than 0"),
        ({"optimiser.learning_rate": float("inf")}, "learning_rate must be a finite number"),
        ({"optimiser.betas": [0.9, 2]}, "optimiser.betas.1 must be less than 1, got 2"),
        ({"loss.class_weights": [-1, 1]}, "loss.class_weights.0 must be .* equal to 0, got -1"),
        ({"schedule.cycles": 10**9}, "schedule.cycles must be .* 10000, got 1000000000"),
        ({"augmentation.elastic_spacing": 10**9}, "augmentation.elastic_spacing must be"),
        ({"loop": 1, "loop.max_epochs": 3}, "loop must hold settings of its own, got 1"),
        ({"loop": 1}, "loop must be a valid dictionary or instance of LoopConfig, got 1"),
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
