"""Prediction with the trained members of a run: networks to label maps and uncertainty maps."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from fastcal.data.dataset import Case, image_cases
from fastcal.data.preprocess import Preprocessing
from fastcal.errors import DataError
from fastcal.evaluate.cases import ProgressOption, part_of
from fastcal.evaluate.labels import LabelScheme
from fastcal.models.device import choose_device
from fastcal.models.network import SegmentationNetwork
from fastcal.models.run import DATASET, Run, load_member, weights_file
from fastcal.models.unet import set_mc_dropout
from fastcal.predict.maps import CaseFiles
from fastcal.predict.settings import copy_description, settle
from fastcal.predict.streaming import Activation, Estimator, Member, References, combine
from fastcal.predict.summary import PredictionSummary, run_part

if TYPE_CHECKING:
    from fastcal.data.nifti import Volume


def predict_cases(
    run: str | Path | Run,
    images: str | Path | Sequence[Case],
    out: str | Path,
    *,
    cases: Sequence[str] | Literal["train", "val", "test"] | None = None,
    members: Sequence[int] | None = None,
    mc_dropout: int = 0,
    seed: int = 0,
    maps: Sequence[str] = ("entropy",),
    space: Literal["prob", "logit"] = "prob",
    temperature: float = 1.0,
    labels: str | Path | None = None,
    n_bins: int = 15,
    closed: Literal["right", "left"] = "right",
    dtype: Literal["float32", "uint8", "uint16"] = "float32",
    save_probabilities: bool = False,
    num_parts: int = 1,
    part_id: int = 0,
    overwrite: bool = False,
    keep_going: bool = False,
    device: torch.device | str | None = None,
    batch_size: int = 16,
    progress: ProgressOption = False,
) -> PredictionSummary:
    """Predict cases with the members of a run, on the grid of their images.

    Members go one at a time through one `fastcal.EnsembleAccumulator`, so that memory does not
    grow with their number. Where slices were resampled, logits are resampled back (linearly, as
    nnU-Net does) before they become probabilities. A case that has all its files is skipped: a
    killed run goes on where it was, to the same bits.

    Parameters
    ----------
    run
        Folder that `fastcal.train.train_ensemble` wrote, or the `Run` opened from it.
    images
        Folder of ``CASE_0000.nii.gz`` files, or cases.
    out
        Folder for ``CASE.nii.gz`` (labels) and ``<map>/CASE.nii.gz``, in the image's affine and
        orientation; maps of every class (``mean``) are 4-D, classes last.
    cases
        Names of the cases to do, or the split of the run (``"test"``) that names them; all where
        None.
    members
        Numbers of the members to use (``member_03`` is 3), all finished ones where None.
    mc_dropout, seed
        Monte Carlo dropout: this many stochastic passes a member, all of one weight; 0 is none.
        The masks follow from the seed, the case and the pass.
    maps
        Any of `fastcal.problem.MAPS`.
    space, temperature
        Average probabilities or logits; logits are divided by the temperature first.
    labels
        Folder of reference label maps ``CASE.nii.gz``: calibration statistics are counted in the
        same pass and written to ``calibration.json`` and ``calibration.npz``.
    n_bins, closed
        Bins of the calibration errors.
    dtype
        Of the maps: float32, or uint8 or uint16 with ``scl_slope``.
    save_probabilities
        Write ``CASE.npz`` as nnU-Net does: key ``probabilities``, (C, Z, Y, X).
    num_parts, part_id
        Do every ``num_parts``-th case from the ``part_id``-th on; the statistics of a part are
        added by `merge_statistics`.
    overwrite
        Do finished cases again, also where ``out`` was made with other settings.
    keep_going
        Go on after a case that fails; the summary lists failures.
    device, batch_size
        Where the networks run (a GPU if there is one); slices in a forward pass.
    progress
        True prints a line a case to stderr; a function is called with a `Progress`.

    Raises
    ------
    DataError
        No run, no member, no image; a file that cannot be read; another number of channels;
        labels missing, on another grid or out of range; other settings in ``out``.
    ValueError
        An option out of range, or ``mc_dropout`` on networks without dropout.
    OSError
        The disk's own error.

    Examples
    --------
    >>> summary = predict_cases("runs/ce", "imagesTs", "out", labels="labelsTs")  # doctest: +SKIP
    >>> summary.statistics.ece()  # doctest: +SKIP
    0.0123
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    files = CaseFiles(
        Path(out),
        tuple(maps),
        dtype=dtype,
        file_ending=opened.file_ending,
        save_probabilities=save_probabilities,
        statistics=labels is not None,
    )
    scheme = LabelScheme.of_classes(opened.num_classes, ignore_label=opened.ignore_label)
    activation: Activation = "sigmoid" if opened.head == "sigmoid" else "softmax"
    estimator = Estimator(files.needed_maps, scheme, True, activation, space, n_bins, closed)
    estimator.accumulator()  # complains about options that do not go together
    empty = None if labels is None else estimator.statistics()
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature: got {temperature}, expected a number above 0")
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, expected at least 1")
    chosen = _chosen_cases(opened, images, cases)
    part = {case.name: case for case in part_of(chosen, num_parts=num_parts, part_id=part_id)}
    references = None if labels is None else References.find(labels, scheme)
    if references is not None and not keep_going:
        references.require(list(part))

    ensemble = _Networks.load(opened, members, mc_dropout, seed, temperature, device, batch_size)
    files.folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "members": [str(source) for source in ensemble.sources],
        "weights_sha256": [_digest(source) for source in ensemble.sources],
        "mc_dropout": mc_dropout,
        "seed": seed if mc_dropout else None,
        "activation": activation,
        "space": space,
        "temperature": temperature,
        "dtype": dtype,
    }
    if labels is not None:
        settings |= {"labels": str(labels), "n_bins": n_bins, "closed": closed}
    settle(files.folder, settings, overwrite=overwrite)
    copy_description(opened.path / DATASET, files.folder)

    def work(name: str) -> None:
        slices, like = ensemble.read(part[name])
        results, _ = combine(
            lambda: ensemble.members(name, slices, like),
            estimator=estimator,
            case=name,
            references=references,
        )
        files.write(name, results, scheme, like, activation=activation)

    return run_part(
        list(part),
        work,
        files=files,
        empty=empty,
        num_parts=num_parts,
        part_id=part_id,
        overwrite=overwrite,
        keep_going=keep_going,
        progress=progress,
    )


@dataclass(frozen=True, slots=True)
class _Networks:
    """The members in memory; what they say about a case is made one member at a time."""

    networks: tuple[SegmentationNetwork, ...]
    sources: tuple[Path, ...]
    preprocessing: Preprocessing
    channels: int
    passes: int
    mc_dropout: bool
    seed: int
    temperature: float
    device: torch.device
    batch_size: int

    @classmethod
    def load(
        cls,
        run: Run,
        members: Sequence[int] | None,
        mc_dropout: int,
        seed: int,
        temperature: float,
        device: torch.device | str | None,
        batch_size: int,
    ) -> _Networks:
        if mc_dropout < 0:
            raise ValueError(f"mc_dropout: got {mc_dropout}, expected 0 or more passes")
        place = choose_device(device)
        folders = _chosen_members(run, members)
        with torch.random.fork_rng([]):  # building a network draws its first weights
            networks = tuple(load_member(folder, place) for folder in folders)
        for folder, network in zip(folders, networks, strict=True):
            if network.dims != 2 or network.num_classes != run.num_classes:
                raise DataError(
                    weights_file(folder),
                    f"a {network.dims}-D network of {network.num_classes} classes, "
                    f"expected 2-D and {run.num_classes}",
                )
            if mc_dropout and not set_mc_dropout(network, True):
                raise ValueError(f"mc_dropout: got {mc_dropout}, but {folder} has no dropout")
        return cls(
            networks,
            tuple(weights_file(folder) for folder in folders),
            run.preprocessing,
            len(run.channel_names),
            max(mc_dropout, 1),
            mc_dropout > 0,
            seed,
            temperature,
            place,
            batch_size,
        )

    def read(self, case: Case) -> tuple[Tensor, Volume]:
        """Return the slices ``[S, Ch, H, W]`` of a case, and the volume they came from."""
        if len(case.images) != self.channels:
            raise DataError(
                case.images[0], f"{len(case.images)} channels, expected {self.channels}"
            )
        image, _, like = replace(case, label=None).load()
        if len(image) != self.channels:
            raise DataError(case.images[0], f"{len(image)} channels, expected {self.channels}")
        try:
            return self.preprocessing.apply(image, like), like
        except ValueError as error:
            raise DataError(case.images[0], str(error)) from error

    def members(self, case: str, slices: Tensor, like: Volume) -> Iterator[Member]:
        """Make the logits ``[1, C, X, Y, Z]`` of every member, and of every stochastic pass."""
        for network, source in zip(self.networks, self.sources, strict=True):
            for number in range(self.passes):
                # A seed of its own for each pass: skipping finished cases changes no other one.
                seed = zlib.crc32(f"{self.seed}/{case}/{source.parent.name}/{number}".encode())
                yield Member(
                    self.preprocessing.invert(self._forward(network, slices, seed), like)[None],
                    like,
                    source,
                    temperature=self.temperature,
                )

    @torch.no_grad()
    def _forward(self, network: SegmentationNetwork, slices: Tensor, seed: int) -> Tensor:
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices, enabled=self.mc_dropout):
            if self.mc_dropout:
                torch.manual_seed(seed)
            starts = range(0, len(slices), self.batch_size)
            batches = (slices[start : start + self.batch_size] for start in starts)
            return torch.cat([network(batch.to(self.device)).float() for batch in batches])


def _chosen_cases(
    run: Run, images: str | Path | Sequence[Case], wanted: Sequence[str] | str | None
) -> list[Case]:
    if isinstance(images, str | Path):
        found = {case.name: case for case in image_cases(images, run.file_ending)}
    else:
        found = {case.name: case for case in images}
        if not found:
            raise ValueError("images: got no cases, expected at least one")
    if wanted is None:
        return list(found.values())
    if isinstance(wanted, str):
        splits = run.split
        if wanted not in splits:
            raise ValueError(f"cases: got {wanted!r}, expected names or one of {sorted(splits)}")
        split, wanted = wanted, splits[wanted]
        if not wanted:
            raise DataError(run.path, f"the split of this run has no {split} cases")
    place = Path(images) if isinstance(images, str | Path) else Path("images")
    for name in wanted:
        if name not in found:
            raise DataError(place, f"no images of case {name}")
    return [found[name] for name in sorted(set(wanted))]


def _chosen_members(run: Run, wanted: Sequence[int] | None) -> list[Path]:
    folders = run.members
    if not folders:
        raise DataError(run.path, "no member whose training has ended")
    if wanted is None:
        return folders
    if not wanted:
        raise ValueError("members: got none, expected at least one number")
    by_number = {int(folder.name.rpartition("_")[2]): folder for folder in folders}
    for number in wanted:
        if number not in by_number:
            raise ValueError(f"members: got {number}, expected some of {sorted(by_number)}")
    return [by_number[number] for number in wanted]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
