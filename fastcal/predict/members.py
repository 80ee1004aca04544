"""The members of a run, one at a time: from an image to what each says about it."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor

from fastcal.cases.combine import Member
from fastcal.core.errors import DataError
from fastcal.data.dataset import Case
from fastcal.models.device import choose_device
from fastcal.models.network import SegmentationNetwork
from fastcal.models.run import Run, member_weights, weights_file
from fastcal.models.unet import set_mc_dropout
from fastcal.models.views import InferenceAugmentation, Predictor, View, averaged
from fastcal.models.window import sliding_window

if TYPE_CHECKING:
    from fastcal.data.nifti import Volume
    from fastcal.data.preprocess import Preprocessing

Precision: TypeAlias = Literal["float32", "bf16", "fp16"]
Resampling: TypeAlias = Literal["probabilities", "logits"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16", "fp16")
_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
RESAMPLINGS: tuple[Resampling, ...] = ("probabilities", "logits")
_BATCH_SIZES = {2: 16, 3: 2}
"""Slices or windows in a forward pass where nothing else is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """How a network is applied to a case; see `fastcal.predict.predict_cases`."""

    mc_dropout: int = 0
    seed: int = 0
    temperature: float = 1.0
    augmentation: InferenceAugmentation = field(default_factory=InferenceAugmentation)
    overlap: float = 0.5
    resample: Resampling = "probabilities"
    precision: Precision = "float32"
    batch_size: int | None = None

    def check(self, dims: int) -> None:
        """Raise a ValueError for the first setting out of range."""
        if self.mc_dropout < 0:
            raise ValueError(f"mc_dropout: got {self.mc_dropout}, expected 0 or more passes")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature: got {self.temperature}, expected a number above 0")
        self.augmentation.check(dims)
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap: got {self.overlap}, expected from 0 to below 1")
        if self.resample not in RESAMPLINGS:
            raise ValueError(f"resample: got {self.resample!r}, expected {_either(RESAMPLINGS)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision: got {self.precision!r}, expected {_either(PRECISIONS)}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size: got {self.batch_size}, expected at least 1")

    def gives_logits(self, preprocessing: Preprocessing) -> bool:
        """Whether `RunMembers.of` yields logits: where nothing is resampled, it is all the same."""
        return preprocessing.spacing is None or self.resample == "logits"

    @property
    def random(self) -> bool:
        """Whether two passes over an image differ."""
        return self.mc_dropout > 0 or self.augmentation.noise > 0


class RunMembers:
    """The members of a run; the weights of one are in memory at a time.

    Args:
        run: where they are.
        numbers: which of them; all finished ones where None.
        inference: how they are applied, checked.
        device: where the networks run; None: a GPU if there is one.

    Raises:
        DataError: no finished member, or one whose weights cannot be read or do not fit the run.
        ValueError: a number without a member, or Monte Carlo dropout on networks without dropout.
    """

    def __init__(
        self,
        run: Run,
        numbers: Sequence[int] | None,
        inference: Inference,
        device: torch.device | str | None,
    ) -> None:
        self.inference = inference
        self.device = choose_device(device)
        self.sources = tuple(weights_file(folder) for folder in run.chosen(numbers))
        self.batch_size = inference.batch_size or _BATCH_SIZES[run.dims]
        self._run = run
        self._preprocessing = run.preprocessing
        self._channels = len(run.channel_names)
        self._loaded: tuple[Path, SegmentationNetwork] | None = None
        for source in self.sources:
            self._check(source, self._network(source))

    @property
    def settings(self) -> dict[str, Any]:
        """What the files of a prediction folder have in common, for `prediction.json`."""
        inference, patch = self.inference, self._run.patch
        views = inference.augmentation
        return {
            "members": [str(source) for source in self.sources],
            "weights_sha256": [_digest(source) for source in self.sources],
            "mc_dropout": inference.mc_dropout,
            "seed": inference.seed if inference.random else None,
            "temperature": inference.temperature,
            "patch": patch,
            "overlap": None if patch is None else inference.overlap,
            "mirror": views.mirror,
            "rotate": views.rotate,
            "noise": views.noise,
            "draws": views.draws,
            "views_as_members": views.as_members and views.n_views > 1,
            "resample": None if self._preprocessing.spacing is None else inference.resample,
            "precision": inference.precision,
        }

    @property
    def advice(self) -> str:
        """What to do when memory runs out."""
        if self.batch_size > 1:
            lower = f"lower batch_size ({self.batch_size})"
        else:
            lower = "train with smaller patches, or choose fewer maps"
        if self.device.type == "cuda":
            lower += ", or choose device cpu"
        return f"out of memory on {self.device}: {lower}"

    def read(self, case: Case) -> tuple[Tensor, Volume]:
        """Return what the networks see ``[N, Ch, *P]`` of a case, and its volume."""
        if len(case.images) != self._channels:
            raise DataError(
                case.images[0], f"{len(case.images)} channels, expected {self._channels}"
            )
        image, _, like = replace(case, label=None).load()
        if len(image) != self._channels:
            raise DataError(case.images[0], f"{len(image)} channels, expected {self._channels}")
        try:
            return self._preprocessing.apply(image, like), like
        except ValueError as error:
            raise DataError(case.images[0], str(error)) from error

    def of(
        self,
        case: str,
        images: Tensor,
        like: Volume,
        *,
        on_pass: Callable[[int, int], None] | None = None,
    ) -> Iterator[Member]:
        """Make logits or probabilities ``[1, C, X, Y, Z]`` of every member, pass and view.

        ``on_pass`` is told before each how many of how many are done.
        """
        images = images.to(self._place_of(images))
        views = self.inference.augmentation.views()
        groups = [[view] for view in views] if self.inference.augmentation.as_members else [views]
        passes = range(max(self.inference.mc_dropout, 1))
        done, total = 0, len(self.sources) * len(passes) * len(groups)
        for source in self.sources:
            for number in passes:
                for position, group in enumerate(groups):
                    if on_pass is not None:
                        on_pass(done, total)
                    done += 1
                    # A seed of its own for each pass: skipping finished cases changes no other one.
                    name = f"{self.inference.seed}/{case}/{source.parent.name}/{number}"
                    name += f"/{position}" if position else ""
                    yield self._member(source, images, like, group, zlib.crc32(name.encode()))

    def _member(
        self, source: Path, images: Tensor, like: Volume, views: Sequence[View], seed: int
    ) -> Member:
        network = self._network(source)
        values = self._logits(network, images, views, seed)
        temperature = self.inference.temperature
        if not self.inference.gives_logits(self._preprocessing):
            values = network.probabilities(values / temperature if temperature != 1 else values)
            temperature = 1.0
        # No name stays behind for what is not returned: it would lie in memory.
        values = self._preprocessing.invert(values, like)[None]
        return Member(values, like, source, temperature=temperature)

    def _logits(
        self, network: SegmentationNetwork, images: Tensor, views: Sequence[View], seed: int
    ) -> Tensor:
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices, enabled=self.inference.random):
            if self.inference.random:
                torch.manual_seed(seed)
            return sliding_window(
                averaged(self._autocast(network), views),
                images,
                patch=self._run.patch,
                overlap=self.inference.overlap,
                batch_size=self.batch_size,
                device=self.device,
            )

    def _autocast(self, network: SegmentationNetwork) -> Predictor:
        dtype = _HALVES.get(self.inference.precision)
        if dtype is None:
            return network

        def predict(windows: Tensor) -> Tensor:
            with torch.autocast(self.device.type, dtype):
                logits: Tensor = network(windows)
            return logits

        return predict

    def _network(self, source: Path) -> SegmentationNetwork:
        """The network of a member; the weights of the member before it are overwritten."""
        if self._loaded is not None and self._loaded[0] == source:
            return self._loaded[1]
        weights = member_weights(source)
        if self._loaded is not None and weights.describes(self._loaded[1]):
            network = self._loaded[1]
            weights.load_into(network)
        else:
            self._loaded = None
            network = weights.build().to(self.device)
            set_mc_dropout(network, self.inference.mc_dropout > 0)
        self._loaded = (source, network)
        return network

    def _check(self, source: Path, network: SegmentationNetwork) -> None:
        if (network.dims, network.num_classes) != (self._run.dims, self._run.num_classes):
            raise DataError(
                source,
                f"a {network.dims}-D network of {network.num_classes} classes, "
                f"expected {self._run.dims}-D and {self._run.num_classes}",
            )
        mc_dropout = self.inference.mc_dropout
        if mc_dropout and not set_mc_dropout(network, True):
            raise ValueError(
                f"mc_dropout: got {mc_dropout}, but {source.parent} has no dropout; "
                "`fastcal train --dropout RATE` trains members that have"
            )

    def _place_of(self, images: Tensor) -> torch.device:
        """Where whole images and their logits lie: on the GPU where they leave room there."""
        if self.device.type != "cuda":
            return self.device
        voxels = images[:, 0].numel()
        # The image, and at most four of the size of the logits: windows put together, activated,
        # on the grid of the case, and the sums over the members.
        needed = 4 * voxels * (self._channels + 4 * self._run.num_classes)
        free, _ = torch.cuda.mem_get_info(self.device)
        return self.device if needed < free // 2 else torch.device("cpu")


def _either(choices: Sequence[str]) -> str:
    return " or ".join(map(repr, choices))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
