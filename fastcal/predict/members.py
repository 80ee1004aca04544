"""The members of a run, one at a time: from an image to what each says about it."""

from __future__ import annotations

import copy
import hashlib
import math
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor

from fastcal.cases.source import Member
from fastcal.core.arguments import real_number, whole_number
from fastcal.core.doors import bounded
from fastcal.core.errors import DataError
from fastcal.data.dataset import Case
from fastcal.models.device import choose_devices
from fastcal.models.network import SegmentationNetwork
from fastcal.models.run import CONFIG, Run, epoch_weights, member_weights, weights_file
from fastcal.models.unet import set_mc_dropout
from fastcal.models.views import MOST_PASSES, InferenceAugmentation, Predictor, View, averaged
from fastcal.models.window import sliding_window
from fastcal.predict.dealing import dealt

if TYPE_CHECKING:
    from fastcal.data.nifti import Geometry, Volume
    from fastcal.data.preprocess import Preprocessing

Precision: TypeAlias = Literal["float32", "bf16", "fp16"]
Resampling: TypeAlias = Literal["probabilities", "logits"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16", "fp16")
_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
RESAMPLINGS: tuple[Resampling, ...] = ("probabilities", "logits")
_BATCH_SIZES = {2: 16, 3: 2}
"""Slices or windows per forward pass, by the number of axes, unless asked otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """How a network is applied to a case; see `fastcal.predict.predict_cases`.

    Raises:
        TypeError: A setting has the wrong type.
        ValueError: A setting is out of range.
    """

    mc_dropout: int = 0
    seed: int = 0
    temperature: float = 1.0
    augmentation: InferenceAugmentation = field(default_factory=InferenceAugmentation)
    overlap: float = 0.5
    resample: Resampling = "probabilities"
    precision: Precision = "float32"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        bounded(self.mc_dropout, "mc_dropout", MOST_PASSES, least=0)
        whole_number(self.seed, "seed")
        if not 0 < real_number(self.temperature, "temperature") < math.inf:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if not 0 <= real_number(self.overlap, "overlap") < 1:
            raise ValueError(f"overlap must be at least 0 and below 1, got {self.overlap}")
        if self.resample not in RESAMPLINGS:
            raise ValueError(f"resample must be {_either(RESAMPLINGS)}, got {self.resample!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be {_either(PRECISIONS)}, got {self.precision!r}")
        if self.batch_size is not None and whole_number(self.batch_size, "batch_size") < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def gives_logits(self, preprocessing: Preprocessing) -> bool:
        """Whether `RunMembers.of` yields logits; if nothing is resampled, either would do."""
        return preprocessing.spacing is None or self.resample == "logits"

    @property
    def random(self) -> bool:
        """Whether two passes over an image differ."""
        return self.mc_dropout > 0 or self.augmentation.noise > 0


@dataclass(frozen=True, slots=True)
class _Pass:
    """One application of a member's network, whose logits make a member of the ensemble."""

    number: int
    source: Path
    views: Sequence[View]
    seed: int


class RunMembers:
    """The members of a run; the weights of one are in memory at a time, unless all stay.

    On several devices each has the weights of one member, and the members come in the same order
    with the same numbers as on one.

    Args:
        run: The run they belong to.
        numbers: Which of them; None for all that are finished.
        inference: How they are applied.
        device: Where the networks run; None for a GPU if there is one. Members are dealt to several
            devices, or to every GPU for ``"all"``; the first combines them.
        trust: Packages that networks may be imported from, see `fastcal.load_ensemble`.
        epoch: Take the weights that ``loop.keep_epochs`` kept after this epoch; None for the best.
        resident: Keep the network of every member, for many cases in turn.
        allow_duplicates: A number may be there twice, and counts twice.

    Raises:
        UntrustedNetworkError: A network is not built in, nor of a trusted package.
        DataError: There is no finished member, or the weights of one cannot be read or do not fit
            the run.
        ValueError: A number has no member, a view is not defined for networks of these axes,
            networks without dropout are asked for Monte Carlo dropout, or passes that draw random
            numbers are dealt to several devices, which draw in no order.
    """

    def __init__(
        self,
        run: Run,
        numbers: Sequence[int] | None,
        inference: Inference,
        device: torch.device | str | Sequence[torch.device | str] | None,
        trust: Collection[str] = (),
        *,
        epoch: int | None = None,
        resident: bool = False,
        allow_duplicates: bool = False,
    ) -> None:
        inference.augmentation.check(run.dims)
        self.inference = inference
        self.devices = choose_devices(device)
        self.device = self.devices[0]
        if inference.random and len(self.devices) > 1:
            names = ", ".join(map(str, self.devices))
            raise ValueError(f"device must be one device for mc_dropout and noise, got {names}")
        if numbers is None:
            run.tell_unfinished()
        chosen = run.chosen(numbers, allow_duplicates=allow_duplicates)
        self.sources = tuple(
            weights_file(folder) if epoch is None else epoch_weights(folder, epoch)
            for folder in chosen
        )
        self.batch_size = inference.batch_size or _BATCH_SIZES[run.dims]
        self._run = run
        self._trust = trust
        self._preprocessing = run.preprocessing
        self._channels = len(run.channel_names)
        self._resident: dict[Path, SegmentationNetwork] | None = {} if resident else None
        self._loaded: dict[torch.device, tuple[Path, SegmentationNetwork]] = {}
        members = dict.fromkeys(self.sources)
        self._device_of = {
            source: self.devices[i % len(self.devices)] for i, source in enumerate(members)
        }
        for source in self.sources:
            self._check(source, self._network(source))

    def moved(self, device: torch.device) -> RunMembers:
        """Return the same members on another device, none loaded yet; those that are loaded stay.

        Args:
            device: Where their networks run.
        """
        made = copy.copy(self)
        made.device, made.devices, made._loaded, made._resident = device, (device,), {}, {}
        made._device_of = dict.fromkeys(self._device_of, device)
        return made

    @property
    def record(self) -> dict[str, Any]:
        """What changes the numbers, for ``prediction.json``."""
        inference, patch = self.inference, self._run.patch
        views = inference.augmentation
        return {
            "members": list(self.sources),
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
            "preprocessing": self._preprocessing.to_json(),
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
        """Return what the networks see of a case ``[N, Ch, *P]``, and its volume.

        Raises:
            DataError: An image cannot be read, has a NaN, or the channels are not those of the run.
        """
        if len(case.images) > 1:  # a single file may hold all channels
            self._check_channels(case, len(case.images))
        image, _, like = replace(case, label=None).load()
        self._check_channels(case, len(image))
        try:
            return self._preprocessing.apply(image, like), like
        except ValueError as error:
            text = str(error)
            if text.startswith(("size ", "spacing ")):
                text += f" ({self._run.path / CONFIG} says so)"
            raise DataError(case.images[0], text) from error

    def of(
        self,
        case: str,
        images: Tensor,
        like: Geometry,
        *,
        on_pass: Callable[[int, int], None] | None = None,
    ) -> Iterator[Member]:
        """Give logits or probabilities ``[1, C, X, Y, Z]`` of every member, pass and view.

        Args:
            case: Name of the case, which random numbers depend on.
            images: What the networks see, ``[N, Ch, *P]``.
            like: Where the case lies.
            on_pass: Called before each pass with the number of passes done and their total.
        """
        seen = {device: images.to(self._place_of(images, device)) for device in self.devices}
        passes = self._passes(case)

        def begin(one: _Pass) -> _Pass:
            if on_pass is not None:
                on_pass(one.number, len(passes))
            return one

        if len(self.devices) == 1:
            for one in passes:
                yield self._member(begin(one), seen, like)
            return
        made = dealt(
            passes,
            len(self.devices),
            lambda one: self.devices.index(self._device_of[one.source]),
            lambda one: self._member(one, seen, like),
        )
        first = seen[self.device].device
        for one in passes:
            begin(one)
            member = next(made)
            yield replace(member, values=member.values.to(first))

    def _passes(self, case: str) -> list[_Pass]:
        views = self.inference.augmentation.views()
        groups = [[view] for view in views] if self.inference.augmentation.as_members else [views]
        found: list[_Pass] = []
        for source in self.sources:
            for number in range(max(self.inference.mc_dropout, 1)):
                for position, group in enumerate(groups):
                    # Each pass has a seed of its own: skipping finished cases changes no other.
                    name = f"{self.inference.seed}/{case}/{source.parent.name}/{number}"
                    name += f"/{position}" if position else ""
                    found.append(_Pass(len(found), source, group, zlib.crc32(name.encode())))
        return found

    def _member(self, one: _Pass, seen: dict[torch.device, Tensor], like: Geometry) -> Member:
        device = self._device_of[one.source]
        network = self._network(one.source)
        values = self._logits(network, seen[device], one, device)
        temperature = self.inference.temperature
        if not self.inference.gives_logits(self._preprocessing):
            values = network.probabilities(values / temperature if temperature != 1 else values)
            temperature = 1.0
        # A name for anything that is not returned would keep it in memory.
        values = self._preprocessing.invert(values, like)[None]
        return Member(values, like, one.source, temperature=temperature)

    def _logits(
        self, network: SegmentationNetwork, images: Tensor, one: _Pass, device: torch.device
    ) -> Tensor:
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices, enabled=self.inference.random):
            if self.inference.random:
                torch.manual_seed(one.seed)
            return sliding_window(
                averaged(self._autocast(network, device), one.views),
                images,
                patch=self._run.patch,
                overlap=self.inference.overlap,
                batch_size=self.batch_size,
                device=device,
            )

    def _autocast(self, network: SegmentationNetwork, device: torch.device) -> Predictor:
        dtype = _HALVES.get(self.inference.precision)
        if dtype is None:
            return network

        def predict(windows: Tensor) -> Tensor:
            with torch.autocast(device.type, dtype):
                logits: Tensor = network(windows)
            return logits

        return predict

    def _network(self, source: Path) -> SegmentationNetwork:
        """Load the network of a member in place of the weights of the one before on its device."""
        if self._resident is not None and source in self._resident:
            return self._resident[source]
        device = self._device_of[source]
        loaded = self._loaded.get(device)
        if loaded is not None and loaded[0] == source:
            return loaded[1]
        weights = member_weights(source)
        if loaded is not None and weights.describes(loaded[1]):
            network = loaded[1]
            weights.load_into(network)
        else:
            self._loaded.pop(device, None)
            del loaded  # before the next network takes memory
            network = weights.build(self._trust).to(device)
            set_mc_dropout(network, self.inference.mc_dropout > 0)
        if self._resident is None:
            self._loaded[device] = (source, network)
        else:
            self._resident[source] = network
        return network

    def _check(self, source: Path, network: SegmentationNetwork) -> None:
        for name in ("dims", "in_channels", "num_classes", "head"):
            wanted, got = self._run.config["network"][name], getattr(network, name)
            if got != wanted:
                raise DataError(
                    source,
                    f"the network's {name} must be {wanted!r}, as in {self._run.path / CONFIG}, "
                    f"got {got!r}",
                )
        mc_dropout = self.inference.mc_dropout
        if mc_dropout and not set_mc_dropout(network, True):
            raise ValueError(
                f"mc_dropout must be 0 for networks without dropout such as {source.parent}, got "
                f"{mc_dropout}; fastcal train --dropout RATE trains members with dropout"
            )

    def _check_channels(self, case: Case, channels: int) -> None:
        if channels != self._channels:
            raise DataError(
                case.images[0], f"the number of channels must be {self._channels}, got {channels}"
            )

    def _place_of(self, images: Tensor, device: torch.device) -> torch.device:
        """Choose where whole images and their logits lie: on the GPU if they leave room there."""
        if device.type != "cuda":
            return device
        voxels = images[:, 0].numel()
        # The image, and at most four tensors of the size of the logits: the windows put together,
        # activated, on the grid of the case, and the sums over the members.
        needed = 4 * voxels * (self._channels + 4 * self._run.num_classes)
        free, _ = torch.cuda.mem_get_info(device)
        return device if needed < free // 2 else torch.device("cpu")


def _either(choices: Sequence[str]) -> str:
    return " or ".join(map(repr, choices))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
