"""Every setting of a training run, in sections."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fastcal.train.augmentation import AugmentationConfig
from fastcal.train.batches import SamplingConfig
from fastcal.train.plan import PreprocessingConfig

PresetName = Literal["paper", "standard"]
PRESETS: tuple[PresetName, ...] = ("paper", "standard")


class Section(BaseModel):
    """Settings of one concern: fixed once made, and without unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class LossConfig(Section):
    """What is minimised."""

    name: str = "ce"
    """One of `fastcal.losses.build_loss`; ``"+hard-l1ace"`` and the like may follow."""
    class_weights: tuple[float, ...] | None = None
    """``w_k``, one a class."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the loss."""


class OptimiserConfig(Section):
    """How a step moves the weights."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """``"sgd"`` has Nesterov's momentum."""
    learning_rate: float = Field(default=0.005, gt=0)
    """At the start; the schedule lowers it."""
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of SGD; nnU-Net has 0.99."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of Adam and AdamW."""
    clip_norm: float | None = Field(default=None, gt=0)
    """The gradient's largest norm, over all weights of a member; nnU-Net has 12."""


class ScheduleConfig(Section):
    """How the learning rate falls."""

    name: Literal["plateau", "poly", "cosine", "cyclic"] = "plateau"
    """``plateau``: times ``factor`` after ``patience`` epochs without a better validation Dice.
    ``poly``: ``(1 - t)^power`` over the training. ``cosine``: half a period over the training.
    ``cyclic``: ``cycles`` such half periods, one after another."""
    factor: float = Field(default=0.5, gt=0, le=1)
    """The paper: 0.5 to 0.8."""
    patience: int = Field(default=10, ge=1)
    power: float = Field(default=0.9, gt=0)
    cycles: int = Field(default=5, ge=1)
    floor: float = Field(default=0.0, ge=0, lt=1)
    """Share of the learning rate at which cosine schedules end."""
    warmup: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises from 0."""


class LoopConfig(Section):
    """How long, how precisely, and what is kept."""

    max_epochs: int = Field(default=1000, ge=1)
    iterations_per_epoch: int | None = Field(default=None, ge=1)
    """Steps between two validations. None: as many as show each slice or volume once."""
    early_stopping: int | None = Field(default=50, ge=1)
    """A member's training ends after this many epochs without a better validation Dice."""
    checkpoint_steps: int | None = Field(default=None, ge=1)
    """Steps between two writings of last.pt, beside those at the ends of epochs."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights, which is then what is validated and
    kept. The first steps average over fewer: ``min(ema, (1 + t) / (10 + t))``."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """``"bf16"``: autocast; weights, running statistics, sums in normalisations, and losses stay
    float32. ``"auto"``: bf16 on GPUs that have it."""
    channels_last: Literal["auto"] | bool = "auto"
    """Memory format of images and weights; ``"auto"`` times a few steps of each."""
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = "off"
    """`torch.compile` of the network; ``"reduce-overhead"`` replays CUDA graphs, which pays for
    small networks."""
    checkpointing: bool = False
    """Compute the blocks' activations again in the backward pass instead of keeping them."""
    overlap: float = Field(default=0.5, ge=0, lt=1)
    """Of the windows in validation by sliding window."""
    snapshots: bool = False
    """Take a member from the end of each cycle of a cyclic schedule: an ensemble for the price of
    one training (Huang et al., ICLR 2017)."""
    tensorboard: bool = True
    """Write TensorBoard's event files where it is installed."""


class TrainConfig(Section):
    """Settings of a run; the defaults are the paper's where it has one.

    Example:
        >>> TrainConfig().sampling.batch_size
        32
        >>> TrainConfig.preset("standard", dims=3).with_values({"loop.max_epochs": 40}).loss.name
        'dice-ce'
    """

    network: dict[str, Any] = Field(default_factory=lambda: {"name": "UNet", "preset": "paper"})
    """See `fastcal.models.build_network`. Without ``head`` it is the paper's: sigmoid for its Dice
    loss, softmax for every other."""
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    sampling: SamplingConfig = SamplingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    loss: LossConfig = LossConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loop: LoopConfig = LoopConfig()

    @model_validator(mode="after")
    def _snapshots_need_cycles(self) -> Self:
        if self.loop.snapshots and self.schedule.name != "cyclic":
            raise ValueError(
                f"schedule.name: got {self.schedule.name!r}, expected 'cyclic' for loop.snapshots"
            )
        return self

    @property
    def members_per_training(self) -> int:
        """Members that one training leaves: one, or one a cycle."""
        return self.schedule.cycles if self.loop.snapshots else 1

    @classmethod
    def preset(cls, name: PresetName, *, dims: int = 2) -> TrainConfig:
        """``"paper"``: the defaults. ``"standard"``: what nnU-Net's users expect.

        Raises:
            ValueError: no such preset.
        """
        if name not in PRESETS:
            raise ValueError(f"preset: got {name!r}, expected one of {', '.join(PRESETS)}")
        if dims not in (2, 3):
            raise ValueError(f"dims: got {dims!r}, expected 2 or 3")
        config = cls.from_json(_STANDARD if name == "standard" else {})
        changes: dict[str, Any] = {"preprocessing.dims": dims}
        if name == "standard" and dims == 2:
            changes["sampling.batch_size"] = 12
        if name == "paper" and dims == 3:
            changes["sampling.batch_size"] = 2
        return config.with_values(changes)

    @property
    def head(self) -> Literal["softmax", "sigmoid"]:
        """How the network's logits become probabilities."""
        given: Literal["softmax", "sigmoid"] | None = self.network.get("head")
        return given or ("sigmoid" if self.loss.name.partition("+")[0] == "dice" else "softmax")

    def with_values(self, values: Mapping[str, Any]) -> TrainConfig:
        """These settings with some of them changed.

        Args:
            values: by dotted name (``"loop.max_epochs"``), or nested, or both. Another
                ``network.name`` or ``augmentation.preset`` begins its section anew.

        Raises:
            ValueError: a setting that does not exist or is out of range.
        """
        fields = self.to_json()
        changes: dict[str, Any] = {}
        for name, value in values.items():
            *sections, last = name.split(".")
            place = changes
            for section in sections:
                place = place.setdefault(section, {})
            place[last] = value
        for section, choice in _CHOICES.items():
            if isinstance(changes.get(section), Mapping) and choice in changes[section]:
                fields[section] = {}
        return self.from_json(_merged(fields, changes))

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> TrainConfig:
        """Settings from nested mappings; what is left out has its default.

        Raises:
            ValueError: a setting that does not exist or is out of range, in one line.
        """
        try:
            return cls.model_validate(dict(fields))
        except ValidationError as error:
            raise ValueError(_in_a_line(error)) from error


_CHOICES = {"network": "name", "augmentation": "preset"}
"""Keys that decide what the other keys of their section mean."""


def _merged(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(fields)
    for name, value in changes.items():
        before = found.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            value = _merged(before, value)
        found[name] = value
    return found


def _in_a_line(error: ValidationError) -> str:
    """The first problem, in this package's words."""
    problem = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in problem["loc"])
    if not name:  # of several settings together
        return problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"config: no such setting: {name}{_meant(name)}"
    expected = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{name}: got {problem['input']!r}, expected {expected}"


def _meant(name: str) -> str:
    """What may have been meant by a name: a setting like it, or one of its section."""
    section, _, last = name.rpartition(".")
    sections = {
        field: list(info.annotation.model_fields)
        for field, info in TrainConfig.model_fields.items()
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
    }
    for field in sorted(sections, key=lambda field: field != section):
        held = [one for one in sections[field] if len(last) > 2 and last in one]
        if near := held or get_close_matches(last, sections[field], n=1, cutoff=0.8):
            return f"; {field}.{near[0]} is one"
    if section in sections:
        return f"; {section} has {', '.join(sections[section])}"
    return ""


_STANDARD: dict[str, Any] = {
    "network": {"name": "UNet", "preset": "standard", "deep_supervision": True},
    "preprocessing": {"spacing": "median", "normalisation": "auto"},
    "sampling": {"batch_size": 2, "patch": "auto", "oversample": 0.33},
    "augmentation": {"preset": "nnunet"},
    "loss": {"name": "dice-ce"},
    "optimiser": {
        "name": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.99,
        "weight_decay": 3e-5,
        "clip_norm": 12.0,
    },
    "schedule": {"name": "poly"},
    "loop": {"max_epochs": 1000, "iterations_per_epoch": 250, "early_stopping": None},
}
"""nnU-Net's choices (Isensee et al., Nature Methods 18, 2021); networks of about its size."""
