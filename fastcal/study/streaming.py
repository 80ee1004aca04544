"""One pass over the members of each case, for every ensemble that a study looks at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcal import CalibrationStatistics, EnsembleAccumulator, EnsembleStatistics
from fastcal.cases.labels import LabelScheme
from fastcal.cases.loop import ProgressOption, run_cases
from fastcal.cases.overlap import overlap
from fastcal.cases.record import digests
from fastcal.cases.reference import LabelMaps
from fastcal.cases.region_rules import parse_rules
from fastcal.core.arrays import Floats
from fastcal.core.errors import DataError
from fastcal.core.region_bits import Regions
from fastcal.evaluate.surface import surface_scores
from fastcal.segments.agreement import overlaps, pairwise_dice, pooled_pairwise_dice
from fastcal.segments.compute import segment_scores
from fastcal.study.design import BOX
from fastcal.study.records import CaseRecord, Streamed, is_current, read_records
from fastcal.study.slabs import Slab, slabs
from fastcal.study.subsets import Subset, SubsetSums, most_open

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastcal.cases.reference import LabelMap
    from fastcal.data.dataset import Case
    from fastcal.models.run import Run
    from fastcal.predict.members import RunMembers
    from fastcal.study.sets import EvaluationSet

EPS = 1e-15
"""Lower clip inside the NLL: the paper's values need one below 1e-10 (23.8 nats a wrong voxel)."""
SCORED_MAPS = ("label", "mean", "entropy", "mutual_information")
FORMAT = 1
"""Of the records; another number makes every case again."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The members of a run, and the ensembles of them that are counted and scored.

    Example:
        >>> stream = Stream(run, networks, subsets, subsets[:1])  # doctest: +SKIP
        >>> stream_set(stream, evaluation_set, Path("labelsTr"), Path("streamed"))  # doctest: +SKIP
    """

    run: Run
    networks: RunMembers
    subsets: tuple[Subset, ...]
    scored: tuple[Subset, ...]
    """Those whose segments get scores, too."""
    n_bins: int = 10
    surface: bool = True
    """Whether Hausdorff distances are computed."""

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of the classes without the background."""
        return tuple(name for name, value in self.run.labels.items() if value)

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of the calibration statistics."""
        return {
            "num_classes": self.run.num_classes,
            "n_bins": self.n_bins,
            "eps": EPS,
            "regions": [BOX],
        }

    def key(self, evaluation: EvaluationSet) -> str:
        """Digest everything that the record of a case depends on."""
        record = dict(self.networks.record)
        record.pop("members")  # where the files lie changes nothing
        content = {
            "format": FORMAT,
            "networks": record,
            "settings": self.settings,
            "surface": self.surface,
            "shift": evaluation.shift,
            "subsets": [subset.members for subset in self.subsets],
            "scored": [subset.members for subset in self.scored],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def stream_set(
    stream: Stream,
    evaluation: EvaluationSet,
    folder: Path,
    *,
    progress: ProgressOption = False,
) -> Streamed:
    """Stream the members of every case of a set, and return the records of all of them.

    A case whose record is there and current, from the files that are there now, is skipped.

    Args:
        stream: The members and their ensembles.
        evaluation: The cases.
        folder: Where the records go, ``CASE.npz``.
        progress: True prints a line per case to stderr.

    Raises:
        DataError: A file cannot be read, or does not fit; the message names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = stream.key(evaluation)
    cases = {case.name: case for case in evaluation.cases}
    run_cases(
        list(cases),
        lambda name: _record(stream, evaluation, cases[name], key).write(folder / f"{name}.npz"),
        finished=lambda name: is_current(folder / f"{name}.npz", key, inputs_of(cases[name])),
        progress=progress,
    )
    names = tuple(sorted(cases))  # the order in which intervals draw them
    return Streamed(
        folder,
        names,
        stream.structures,
        stream.subsets,
        stream.scored,
        stream.settings,
        read_records(folder, names),
    )


def inputs_of(case: Case) -> str:
    """Digest the files of a case, wherever they lie.

    Raises:
        DataError: One cannot be read.
    """
    files = [*case.images, *([] if case.label is None else [case.label])]
    found = hashlib.sha256()
    for name, one in digests(files, case.images[0].parent).items():
        found.update(
            f"{Path(name).name} {one.size} {one.sha256} {one.whole}\n".encode(
                errors="surrogateescape"
            )
        )
    return found.hexdigest()[:32]


def _record(stream: Stream, evaluation: EvaluationSet, case: Case, key: str) -> CaseRecord:
    run, inputs = stream.run, inputs_of(case)
    image, like = evaluation.load(case, slice_axis=run.preprocessing.slice_axis)
    if len(image) != len(run.channel_names):
        raise DataError(
            case.images[0],
            f"the number of channels must be {len(run.channel_names)}, got {len(image)}",
        )
    scheme = LabelScheme.of_classes(run.num_classes, ignore_label=run.ignore_label)
    if case.label is None:
        raise DataError(case.images[0], "has no reference label map")
    reference = LabelMaps(case.label.parent, {case.name: case.label}, scheme).read(
        case.name, like, case.images[0]
    )
    try:
        items = run.preprocessing.apply(image, like)
    except ValueError as error:
        raise DataError(case.images[0], str(error)) from error
    whole = _CaseResults(stream, case.name, reference)
    for slab in slabs(items, like, run.preprocessing, _bytes_per_voxel(stream)):
        whole.add(slab)
    return whole.record(key, inputs)


def _bytes_per_voxel(stream: Stream) -> int:
    """Float32 planes of all sums that are open at one time, of those that are scored in full."""
    classes = stream.run.num_classes
    return 4 * (classes + 2) * most_open(stream.subsets)


class _CaseResults:
    """What comes together of a case, slab by slab."""

    def __init__(self, stream: Stream, case: str, reference: LabelMap) -> None:
        self._stream, self._case, self._reference = stream, case, reference
        box = reference.regions(parse_rules([BOX]))
        assert box is not None
        self._box = box
        self._target, self._mask = reference.target(), reference.mask()
        shape, classes = reference.labels.shape, stream.run.num_classes
        self._statistics = {
            subset: CalibrationStatistics(**stream.settings) for subset in stream.subsets
        }
        self._labels: dict[Subset, NDArray[np.uint8]] = {
            subset: np.zeros(shape, np.uint8) for subset in stream.subsets
        }
        self._maps: dict[Subset, dict[str, NDArray[Any]]] = {
            subset: {
                "mean": np.zeros((classes, *shape), np.float32),
                "entropy": np.zeros(shape, np.float32),
                "mutual_information": np.zeros(shape, np.float32),
            }
            for subset in stream.scored
        }
        self._overlaps = {
            subset: torch.zeros(1, classes, subset.size, subset.size, dtype=torch.int64)
            for subset in stream.scored
            if subset.size > 1
        }

    def add(self, slab: Slab) -> None:
        """Stream the members over a slab."""
        stream = self._stream
        sums = SubsetSums(stream.subsets, self._accumulator)
        labels: list[Tensor] = []
        with torch.inference_mode():
            for number, member in enumerate(stream.networks.of(self._case, slab.items, slab.like)):
                if self._overlaps:
                    labels.append(member.values.argmax(1).to(torch.uint8).cpu())
                for subset, accumulator in sums.add(
                    number, member.values, temperature=member.temperature
                ):
                    self._finish(subset, accumulator, slab, member.values.device)
        for subset, found in self._overlaps.items():
            chosen = [labels[member] for member in subset.members]
            found += overlaps(chosen, stream.run.num_classes)

    def _accumulator(self, subset: Subset) -> EnsembleAccumulator:
        stream = self._stream
        return EnsembleAccumulator(
            SCORED_MAPS if subset in self._maps else ("label",),
            from_logits=stream.networks.inference.gives_logits(stream.run.preprocessing),
            activation="sigmoid" if stream.run.head == "sigmoid" else "softmax",
        )

    def _finish(
        self, subset: Subset, accumulator: EnsembleAccumulator, slab: Slab, device: torch.device
    ) -> None:
        stream, inside = self._stream, (slice(None), *slab.place)
        found: EnsembleStatistics = accumulator.finalize(
            self._target[inside].to(device),
            mask=None if self._mask is None else self._mask[inside].to(device),
            n_bins=stream.n_bins,
            eps=EPS,
            case_id=[self._case],
            regions=Regions(self._box.bits[inside].to(device), self._box.names),
        )
        assert found.calibration is not None
        self._statistics[subset].merge(found.calibration)
        assert found.label is not None
        self._labels[subset][slab.place] = found.label[0].to(torch.uint8).cpu().numpy()
        for name, values in self._maps.get(subset, {}).items():
            values[(..., *slab.place)] = getattr(found, name)[0].cpu().numpy()

    def record(self, key: str, inputs: str) -> CaseRecord:
        """Return what is kept of the case."""
        stream = self._stream
        rows = [self._rows(subset) for subset in stream.subsets]
        measured = [list(self._measured(self._labels[subset])) for subset in stream.subsets]
        dice, hd95 = np.array(measured).reshape(len(rows), -1, 2).transpose(2, 0, 1)
        scored = [self._scores(subset) for subset in stream.scored]
        names = dict.fromkeys(name for one in scored for name in one)
        nothing = np.full(stream.run.num_classes - 1, np.nan)
        scores = {name: np.array([one.get(name, nothing) for one in scored]) for name in names}
        return CaseRecord(key, np.array(rows), dice, hd95, scores, inputs)

    def _scores(self, subset: Subset) -> dict[str, Floats]:
        """Scores of the predicted segments ``[K]`` by name, those of members among them."""
        maps = {name: torch.from_numpy(values)[None] for name, values in self._maps[subset].items()}
        found = segment_scores(
            maps["mean"],
            torch.from_numpy(self._labels[subset])[None],
            entropy=maps["entropy"],
            mutual_information=maps["mutual_information"],
            spacing=self._reference.grid.spacing,
        )
        scores = {name: found[name][0] for name in found.available}
        pairs = self._overlaps.get(subset)
        if pairs is not None:
            sizes = pairs.diagonal(dim1=-2, dim2=-1).to(torch.float64)  # [1, C, M]
            votes = sizes.sum(-1)
            scores["pairwise_dice"] = pairwise_dice(pairs)[0]
            scores["pooled_pairwise_dice"] = pooled_pairwise_dice(
                votes, pairs.sum((-2, -1)) - votes, subset.size
            )[0]
            scores["volume_spread"] = sizes[0].std(-1) * float(
                np.prod(self._reference.grid.spacing)
            )
        return {name: values[1:].numpy() for name, values in scores.items()}

    def _rows(self, subset: Subset) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self._statistics[subset].state_dict()["case_rows"][0].numpy()
        return found

    def _measured(self, label: NDArray[np.uint8]) -> Iterator[tuple[float, float]]:
        """Dice and 95 % Hausdorff distance of each structure."""
        reference = self._reference
        kept = reference.kept
        for value in range(1, self._stream.run.num_classes):
            truth, predicted = reference.labels == value, label == value
            if kept is not None:
                truth, predicted = truth & kept, predicted & kept
            distance = float("nan")
            if self._stream.surface:
                spacing = reference.grid.spacing
                distance = surface_scores(truth, predicted, spacing=spacing)["HD95"]
            yield overlap(truth, predicted)["Dice"], distance


def pool_subsets(subsets: Sequence[Subset]) -> tuple[Subset, Subset]:
    """Return the first single member and the largest ensemble: the two that are scored."""
    singles = [subset for subset in subsets if subset.size == 1]
    return singles[0], max(subsets, key=lambda subset: subset.size)
