"""What a run's config.json must hold; imported when a run is opened."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fastcal.data.preprocess import MOST_VOXELS, Preprocessing

MOST_MEMBERS = 10_000

Count = Annotated[int, Field(strict=True, ge=1, le=65_536)]
Extent = Annotated[int, Field(strict=True, ge=1, le=65_536)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Label = Annotated[int, Field(strict=True, ge=0, le=65_535)]


class _Part(BaseModel):
    """Other keys are of other versions, or for people to read."""

    model_config = ConfigDict(extra="allow")


class DatasetPart(_Part):
    """What the networks were trained on."""

    channel_names: Annotated[list[str], Field(min_length=1)]
    labels: dict[str, Label]
    ignore_label: Label | None
    file_ending: Annotated[str, Field(pattern=r"^\.[A-Za-z0-9.]+$", max_length=20)]


class NetworkPart(_Part):
    """What every network is told; the weights of each member describe the rest."""

    in_channels: Count
    num_classes: Count
    dims: Literal[2, 3]
    head: Literal["softmax", "sigmoid"]


class RunConfig(_Part):
    """The contents of config.json, and that they do not contradict each other."""

    format: Literal[1, 2]
    loss: str
    seed: Seed | None = None
    members: Annotated[int, Field(strict=True, ge=1, le=MOST_MEMBERS)] | None = None
    dataset: DatasetPart
    network: NetworkPart
    preprocessing: Preprocessing
    patch: Annotated[list[Extent], Field(min_length=2, max_length=3)] | None = None
    training: dict[str, Any] | None = None
    data: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        dataset, network, patch = self.dataset, self.network, self.patch
        for name, value, expected, of in (
            ("network.in_channels", network.in_channels, len(dataset.channel_names), "channels"),
            ("network.num_classes", network.num_classes, len(dataset.labels), "labels"),
            ("preprocessing.dims", self.preprocessing.dims, network.dims, "network's axes"),
        ):
            if value != expected:
                raise ValueError(f"{name} must be {expected}, as the {of} are, got {value}")
        if dataset.ignore_label in dataset.labels.values():
            raise ValueError(
                "dataset.ignore_label must be no label of a class, got "
                f"{dataset.ignore_label} beside {sorted(dataset.labels.values())}"
            )
        if patch is not None and (len(patch) != network.dims or math.prod(patch) > MOST_VOXELS):
            raise ValueError(
                f"patch must be {network.dims} extents of at most {MOST_VOXELS} voxels, got {patch}"
            )
        self._check_patch_of_training()
        return self

    def _check_patch_of_training(self) -> None:
        """The patch follows from the settings of training, unless those left it to the data."""
        sampling = (self.training or {}).get("sampling")
        asked = sampling.get("patch", "auto") if isinstance(sampling, dict) else "auto"
        if asked != "auto" and asked != self.patch:
            raise ValueError(
                f"patch must be {asked}, as in training.sampling.patch, got {self.patch}"
            )
