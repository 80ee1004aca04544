"""Prediction folders of nnU-Net and of fastcal as the models of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastcal.calibration import CalibrationStatistics
from fastcal.cases import segments
from fastcal.cases.case_record import CaseRecord, as_written
from fastcal.cases.count import count_case
from fastcal.cases.files import state_file
from fastcal.cases.labels import LabelScheme
from fastcal.cases.overlap import overlap
from fastcal.cases.parts import check_inputs
from fastcal.cases.plausible import contradicted
from fastcal.cases.record import FILE as RECORD
from fastcal.cases.record import FolderRecord
from fastcal.cases.reference import LabelMap, LabelMaps
from fastcal.cases.settings import Counted
from fastcal.core.arrays import Floats
from fastcal.core.doors import validated
from fastcal.core.errors import DataError
from fastcal.core.region_bits import Regions
from fastcal.data import images, listing
from fastcal.data.predictions import PredictionFolder, Probabilities
from fastcal.report.segment_entropy import binary_entropies

ENTROPY = "entropy"
_SCORE = "binary_entropy"
_DATA_ENDINGS = (*images.ENDINGS, ".npz", ".npy", ".pkl", ".json", ".csv")
ADVICE = (
    "has no probabilities: calibration and entropy are missing "
    "(nnUNetv2_predict --save_probabilities, fastcal predict --save-probabilities)"
)


@dataclass(frozen=True)
class Source:
    """A folder of predictions: which cases it has, and what can be read of each."""

    path: Path
    labels: LabelMaps
    probabilities: PredictionFolder
    saved: frozenset[str]
    """Cases with probabilities."""
    stored: CalibrationStatistics | None
    """What was counted when the predictions were made, where probabilities were not saved."""
    scores: Mapping[str, Mapping[str, Mapping[str, float]]]
    """Scores of segments by case and nnU-Net's key; empty where there are none."""
    members: tuple[Path, ...]
    """Folders of the members that an ensemble was made of."""

    @classmethod
    def open(
        cls,
        path: str | Path,
        scheme: LabelScheme,
        references: Path,
        counted: Counted | None = None,
    ) -> Source:
        """Look into a folder.

        Args:
            path: The folder.
            scheme: What its channels stand for.
            references: Folder of the reference label maps.
            counted: What a report counts; None for one that has its counts from elsewhere.

        Raises:
            DataError: The folder or what describes it cannot be read; or its calibration, which is
                known from its own count alone, was counted with other bins, or the labels have
                changed since.
        """
        folder = Path(path)
        labels = LabelMaps.find(folder, scheme)
        probabilities = PredictionFolder(folder, multilabel=scheme.multilabel)
        record = FolderRecord.read(folder)
        table: dict[str, segments.Scores] = {}
        if _table_of(folder).exists():
            scored = segments.read(folder).cases
            table = {case: one for case, one in scored.items() if _is_of(labels, case)}
        found = cls(
            folder,
            labels,
            probabilities,
            frozenset(probabilities.cases()),
            _stored(folder, record, scheme, references),
            table,
            () if record is None else _members(record),
        )
        if counted is not None and found.by_stored and found.stored is not None:
            assert record is not None
            _check_bins(state_file(folder), found.stored, counted)
            _check_references(folder, found.stored, record)
        return found

    @property
    def table(self) -> Path:
        """The file of the scores of segments, which need not exist."""
        return _table_of(self.path)

    @property
    def by_stored(self) -> bool:
        """Whether calibration is that of `stored`, which has more cases than have probabilities.

        Never of both: what was counted may have other bins and regions than a report asks for.
        """
        return self.stored is not None and len(self.stored.case_ids) > len(self.saved)

    @property
    def counts(self) -> frozenset[str]:
        """Cases whose calibration is known."""
        if self.stored is not None and self.by_stored:
            return frozenset(self.stored.case_ids)
        return self.saved

    def entropy_map(self, case: str) -> Path | None:
        """Return the file of a case's entropy, if there is one."""
        folder = self.path / ENTROPY
        found = (folder / f"{case}{ending}" for ending in images.ENDINGS)
        return next((path for path in found if path.exists()), None)

    def probabilities_of(self, case: str) -> Probabilities | None:
        """Read the probabilities of a case, if it has any.

        Raises:
            DataError: The file cannot be read.
        """
        return self.probabilities.probabilities(case) if case in self.saved else None

    def files(self, case: str) -> list[Path]:
        """Return the files of a case that a report reads."""
        found = [self.labels.paths[case]]
        if case in self.saved:
            found += [path for path in self.probabilities.files(case) if path.exists()]
        entropy = self.entropy_map(case)
        found += [] if entropy is None else [entropy]
        return list(dict.fromkeys(found))

    @property
    def inputs(self) -> list[Path]:
        """Every file of data in the folder, in those of its maps, and in those of its members."""
        return [path for folder in (self.path, *self.members) for path in data_files(folder)]


def data_files(folder: Path) -> list[Path]:
    """Return the images, probabilities and records in a folder and in the folders inside it."""
    found = (path for pattern in ("*", "*/*") for path in folder.glob(pattern))
    return [path for path in found if path.name.endswith(_DATA_ENDINGS)]


def _table_of(folder: Path) -> Path:
    return folder / f"{segments.SEGMENTS}.json"


def _stored(
    folder: Path, record: FolderRecord | None, scheme: LabelScheme, references: Path
) -> CalibrationStatistics | None:
    """Statistics of the folder, if they were counted against these labels and classes."""
    if record is None or not state_file(folder).exists():
        return None
    path = folder / RECORD
    counted: str | None = validated(path, record.placed("labels"), str | None, where="labels")
    if counted is None or Path(counted).resolve() != references.resolve():
        return None
    found = CalibrationStatistics.load(state_file(folder))
    return found if found.num_classes == scheme.num_classes else None


def _is_of(labels: LabelMaps, case: str) -> bool:
    """Whether the scores of a case are those of its label map, which may be another one by now."""
    return case not in labels.paths or as_written(labels.folder, case, labels.paths[case])


def _check_bins(file: Path, stored: CalibrationStatistics, counted: Counted) -> None:
    """Refuse a count whose errors cannot stand beside those of a report."""
    there = (stored.settings.n_bins, stored.settings.closed)
    if there != (counted.n_bins, counted.closed):
        raise DataError(
            file,
            f"was counted with {there[0]} bins closed on the {there[1]}, but the report asks for "
            f"{counted.n_bins} closed on the {counted.closed}; ask for the same, or save the "
            "probabilities",
        )


def _check_references(folder: Path, stored: CalibrationStatistics, record: FolderRecord) -> None:
    """Refuse a count against labels that have changed since."""
    for case in stored.case_ids:
        known = CaseRecord.read(folder, case)
        if known is not None and known.key == record.key:
            check_inputs(replace(known, members={}), case, folder)


def _members(record: FolderRecord) -> tuple[Path, ...]:
    if record.settings.get("command") != "ensemble":
        return ()
    path = record.folder / RECORD
    given: list[str] | None = validated(
        path, record.placed("folders"), list[str] | None, where="folders"
    )
    folders = tuple(map(Path, given or ()))
    return folders if all(folder.is_dir() for folder in folders) else ()


@dataclass
class Scored:
    """What was found in a folder, case by case."""

    source: Source
    dice: list[list[float]] = field(default_factory=list)
    entropy: list[list[float]] = field(default_factory=list)
    statistics: CalibrationStatistics | None = None
    contradictions: list[str] = field(default_factory=list)
    """Cases whose label map is not the most probable class."""
    missed: list[tuple[str, str]] = field(default_factory=list)
    """Case and key of structures that the reference has and the prediction has not."""

    def entropies(self) -> Floats | None:
        """``[cases, K]``, or None where no case has any."""
        found = np.array(self.entropy, np.float64)
        return None if np.isnan(found).all() else found

    def read(self, case: str, reference: LabelMap) -> tuple[LabelMap, Probabilities | None]:
        """Read the prediction of a case, and its probabilities if it has any.

        Raises:
            DataError: A file of the case cannot be read, or lies on another grid.
        """
        prediction = self.source.labels.read(case, reference.grid, reference.path)
        return prediction, self.source.probabilities_of(case)

    def add(
        self,
        case: str,
        reference: LabelMap,
        counted: Counted,
        regions: Regions | None,
        found: tuple[LabelMap, Probabilities | None],
    ) -> None:
        """Score one case.

        Args:
            case: Its name.
            reference: Its labels.
            counted: What is counted.
            regions: Its regions.
            found: What was read of it.

        Raises:
            DataError: A file of the case does not fit its reference.
        """
        source = self.source
        prediction, read = found
        groups = reference.scheme.foreground
        masks = {key: np.isin(prediction.labels, group) for key, group in groups.items()}
        row = []
        for key, group in groups.items():
            both = overlap(np.isin(reference.labels, group), masks[key], kept=reference.kept)
            row.append(both["Dice"])
            if both["n_ref"] and not both["n_pred"]:
                self.missed.append((case, key))
        self.dice.append(row)
        known = source.scores.get(case, {})
        entropies = [known.get(key, {}).get(_SCORE, np.nan) for key in groups]
        one: CalibrationStatistics | None = None
        if read is not None:
            if not source.by_stored:
                one = count_case(read, reference, case=case, counted=counted, regions=regions)
            if not reference.scheme.multilabel and contradicted(
                read, prediction.labels, reference.kept
            ):
                self.contradictions.append(case)
            if not known:
                channels = read.data if reference.scheme.multilabel else read.data[1:]
                entropies = binary_entropies(channels, list(masks.values()))
        if source.by_stored and source.stored is not None and case in source.counts:
            one = source.stored.case(case)
        if one is not None:
            if self.statistics is None:
                self.statistics = one
            else:
                self.statistics.merge(one)
        self.entropy.append(entropies)


def member_dice(statistics: CalibrationStatistics, cases: Sequence[str]) -> Floats:
    """Return the Dice of every structure of each case ``[cases, K]``, from what was counted."""
    first = 0 if statistics.multilabel else 1
    by_class = [statistics.per_case(_class_dice(k)) for k in range(first, statistics.num_classes)]
    return np.array([[one[case] for one in by_class] for case in cases])


def _class_dice(class_index: int) -> Any:
    from fastcal.calibration.metrics import Measure

    return Measure("dice", class_index=class_index)


def common_cases(
    references: LabelMaps, sources: Sequence[Source]
) -> tuple[list[str], dict[str, str]]:
    """Return the cases that every folder can be scored on, and why others are left out.

    Raises:
        DataError: There is none, or one has a name that no page shows.
    """
    left: dict[str, str] = {}
    for source in sources:
        for case in references.paths:
            if case not in source.labels.paths:
                left.setdefault(case, f"no prediction in {source.path}")
            elif source.counts and case not in source.counts:
                left.setdefault(case, f"no probabilities in {source.path}")
        for case in source.labels.paths:
            if case not in references.paths:
                left.setdefault(case, f"no reference in {references.folder}")
    cases = [case for case in references.paths if case not in left]
    if not cases:
        first = sources[0].path
        raise DataError(
            first, f"has no case in common with {references.folder} and the other folders"
        )
    for case in cases:
        listing.check_text(case, references.folder)
    return sorted(cases), left


@dataclass(frozen=True, slots=True)
class CountMember:
    """Counts cases of a member of an ensemble."""

    folder: Source
    counted: Counted

    def read(self, case: str) -> Probabilities | None:
        """Read the probabilities of a case; None where it was counted when it was predicted."""
        return None if self.folder.by_stored else self.folder.probabilities_of(case)

    def count(
        self,
        case: str,
        reference: LabelMap,
        regions: Regions | None,
        found: Probabilities | None,
    ) -> CalibrationStatistics:
        """Count a case from what was read of it."""
        if found is not None:
            return count_case(found, reference, case=case, counted=self.counted, regions=regions)
        assert self.folder.stored is not None
        return self.folder.stored.case(case)


def members_of(
    source: Source, cases: Sequence[str], references: LabelMaps, counted: Counted
) -> list[CountMember]:
    """Return what counts each member of an ensemble; nothing where a case of one is missing.

    Raises:
        DataError: A folder cannot be read.
    """
    about = references.scheme, references.folder, counted
    folders = [Source.open(path, *about) for path in source.members]
    if not all(set(cases) <= folder.counts for folder in folders):
        return []
    return [CountMember(folder, counted) for folder in folders]
