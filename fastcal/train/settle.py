"""Settings of a run settled with its dataset: network, preprocessing, patch and recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fastcal.data.dataset import Dataset
from fastcal.data.preprocess import Preprocessing
from fastcal.models import SegmentationNetwork, build_network, network_spec
from fastcal.train.cases import RunCases
from fastcal.train.config import TrainConfig
from fastcal.train.plan import plan_patch, plan_preprocessing
from fastcal.train.recipe import Recipe
from fastcal.train.splits import Split


def run_network(dataset: Dataset, config: TrainConfig) -> SegmentationNetwork:
    """Build a network of the run, for its specification."""
    with torch.random.fork_rng([]):
        network = build_network(
            {**config.network, "head": config.head},
            in_channels=len(dataset.channel_names),
            num_classes=dataset.num_classes,
            dims=config.preprocessing.dims,
        )
    if next(network.parameters(), None) is None:
        name = config.network.get("name")
        raise ValueError(f"network.name must be that of a network with weights, got {name!r}")
    return network


def run_settings(
    dataset: Dataset, network: SegmentationNetwork, seed: int, config: TrainConfig
) -> dict[str, Any]:
    """Return what two trainings into the same run folder must have in common."""
    return {
        "loss": config.loss.name,
        "seed": seed,
        "dataset": {
            "name": dataset.name,
            "channel_names": dataset.channel_names,
            "labels": dataset.labels,
            "ignore_label": dataset.ignore_label,
            "file_ending": dataset.file_ending,
        },
        "network": network_spec(network),
        "training": config.to_json(),
    }


def settled_preprocessing(
    dataset: Dataset, split: Split, config: TrainConfig, network: SegmentationNetwork
) -> tuple[Preprocessing, tuple[int, ...] | None]:
    """Settle preprocessing and patch from the data, once per run."""
    used = [*split.train, *split.val]
    patch = config.sampling.patch
    divisor = max(network.multiples)
    preprocessing = plan_preprocessing(
        dataset, used, config.preprocessing, divisor=divisor, patches=patch is not None
    )
    if patch == "auto":
        voxels = 128**3 if config.preprocessing.dims == 3 else 512**2
        patch = plan_patch(used, preprocessing, divisor=divisor, voxels=voxels)
    return preprocessing, patch


def run_recipe(
    folder: Path,
    config: TrainConfig,
    seed: int,
    dataset: Dataset,
    patch: tuple[int, ...] | None,
    cases: RunCases,
    device: torch.device,
) -> Recipe:
    """Build the recipe, which holds all that a member's training depends on but its number."""
    items = sum(len(images) for images in cases.train.images)
    iterations = config.loop.iterations_per_epoch or -(-items // config.sampling.batch_size)
    return Recipe(
        folder=folder,
        config=config,
        seed=seed,
        in_channels=len(dataset.channel_names),
        num_classes=dataset.num_classes,
        ignore_label=dataset.ignore_label,
        patch=patch,
        iterations=iterations,
        class_counts=cases.class_counts(dataset.num_classes),
        device=device,
    )
