"""Every setting of a training run, in sections."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from fastcal.core.doors.schema import place_of
from fastcal.train.augmentation import AugmentationConfig
from fastcal.train.batches import SamplingConfig
from fastcal.train.plan import PreprocessingConfig
from fastcal.train.section import Count, Decay, Section, Weight

PresetName = Literal["paper", "standard"]
PRESETS: tuple[PresetName, ...] = ("paper", "standard")


class LossConfig(Section):
    """The loss that is minimised."""

    name: str = "ce"
    """A name that `fastcal.losses.build_loss` knows; an auxiliary loss such as ``"+hard-l1ace"``
    may follow."""
    class_weights: tuple[Weight, ...] | None = None
    """``w_k``, one per class."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments to the loss."""


class OptimiserConfig(Section):
    """How a step moves the weights."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """``"sgd"`` uses Nesterov momentum."""
    learning_rate: float = Field(default=0.005, gt=0)
    """The rate at the start; the schedule lowers it."""
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD; nnU-Net uses 0.99."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay rates of the moments of Adam and AdamW."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient over all weights of a member; nnU-Net uses 12."""


class ScheduleConfig(Section):
    """How the learning rate falls."""

    name: Literal["plateau", "poly", "cosine", "cyclic"] = "plateau"
    """``plateau`` multiplies the rate by ``factor`` after ``patience`` epochs without a better
    validation Dice. ``poly`` follows ``(1 - t)^power`` over the training, and ``cosine`` half a
    period of a cosine. ``cyclic`` repeats that half period ``cycles`` times."""
    factor: float = Field(default=0.5, gt=0, le=1)
    """The paper used 0.5 to 0.8."""
    patience: Count = 10
    power: float = Field(default=0.9, gt=0)
    cycles: int = Field(default=5, ge=1, le=10_000)
    floor: float = Field(default=0.0, ge=0, lt=1)
    """Share of the initial learning rate at which cosine schedules end."""
    warmup: int = Field(default=0, ge=0, le=10**9)
    """Steps over which the learning rate rises from 0."""


class LoopConfig(Section):
    """How long training lasts, in which precision it runs, and what is kept of it."""

    max_epochs: Count = 1000
    iterations_per_epoch: Count | None = None
    """Steps between two validations. None takes as many as it takes to show each slice or volume
    once."""
    early_stopping: Count | None = 50
    """A member's training ends after this many epochs without a better validation Dice."""
    checkpoint_steps: Count | None = None
    """Steps between two writes of last.pt, in addition to those at the ends of epochs."""
    keep_epochs: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Epochs after which the weights of a member are kept, beside the best ones, as
    ``epoch_0010.safetensors``."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights. Where it is set, the average is
    validated and kept. The decay of step t is ``min(ema, (1 + t) / (10 + t))``."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """``"bf16"`` runs the network under autocast; weights, running statistics, sums in
    normalisations and losses stay float32. ``"auto"`` selects bf16 on GPUs that support it."""
    channels_last: Literal["auto"] | bool = "auto"
    """Memory format of images and weights; ``"auto"`` times a few steps in each format."""
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = "off"
    """Mode of `torch.compile` for the network. ``"reduce-overhead"`` replays CUDA graphs, which
    pays off for small networks."""
    checkpointing: bool = False
    """Recompute the activations of blocks in the backward pass instead of keeping them."""
    overlap: float = Field(default=0.5, ge=0, lt=1)
    """Share by which neighbouring windows overlap in validation by sliding window."""
    snapshots: bool = False
    """Take a member from the end of each cycle of a cyclic schedule, which gives an ensemble for
    the price of one training (Huang et al., ICLR 2017)."""
    tensorboard: bool = True
    """Write TensorBoard event files where TensorBoard is installed."""


class TrainConfig(Section):
    """Settings of a run. The defaults are the paper's where it gives a value.

    Example:
        >>> TrainConfig().sampling.batch_size
        32
        >>> TrainConfig.preset("standard", dims=3).with_values({"loop.max_epochs": 40}).loss.name
        'dice-ce'
    """

    network: dict[str, Any] = Field(default_factory=lambda: {"name": "UNet", "preset": "paper"})
    """See `fastcal.models.build_network`. Without a ``head`` the paper's choice applies: sigmoid
    for its Dice loss, softmax for every other loss."""
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
                f"schedule.name must be 'cyclic' for loop.snapshots, got {self.schedule.name!r}"
            )
        return self

    @property
    def members_per_training(self) -> int:
        """Members that one training yields: one, or one per cycle with snapshots."""
        return self.schedule.cycles if self.loop.snapshots else 1

    @classmethod
    def preset(cls, name: PresetName, *, dims: int = 2) -> TrainConfig:
        """Return a named set of settings.

        Args:
            name: ``"paper"`` for the defaults, ``"standard"`` for what users of nnU-Net expect.
            dims: Spatial axes, 2 or 3.

        Raises:
            ValueError: There is no such preset, or ``dims`` is neither 2 nor 3.
        """
        if name not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
        if dims not in (2, 3):
            raise ValueError(f"dims must be 2 or 3, got {dims!r}")
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
        """Return these settings with some of them changed.

        Args:
            values: New values by dotted name (``"loop.max_epochs"``), nested, or both. A new
                ``network.name`` or ``augmentation.preset`` resets its whole section first.

        Raises:
            ValueError: A setting does not exist or is out of range.
        """
        fields = self.to_json()
        changes: dict[str, Any] = {}
        for name, value in values.items():
            *sections, last = name.split(".")
            place = changes
            for section in sections:
                place = place.setdefault(section, {})
                if not isinstance(place, dict):
                    raise ValueError(f"{section} must hold settings of its own, got {place!r}")
            place[last] = value
        for section, choice in _CHOICES.items():
            if isinstance(changes.get(section), Mapping) and choice in changes[section]:
                fields[section] = {}
        return self.from_json(_merged(fields, changes))

    def to_json(self) -> dict[str, Any]:
        """Return the settings as nested plain values."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> TrainConfig:
        """Read settings from nested mappings; what is left out has its default.

        Raises:
            ValueError: A setting does not exist or is out of range; the message is one line.
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
    """Return the first problem in the words of this package."""
    problem = error.errors(include_url=False)[0]
    name = place_of(problem["loc"])
    if not name:  # of several settings together
        return problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"config has no setting {name}{_meant(name)}"
    allowed = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{name} must be {allowed}, got {problem['input']!r}"


def _meant(name: str) -> str:
    """Suggest what a wrong name may have meant: a similar setting, or those of its section."""
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
"""nnU-Net's choices (Isensee et al., Nature Methods 18, 2021), with networks of similar size."""
