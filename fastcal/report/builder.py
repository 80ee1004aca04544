"""A report from prediction folders: the public function."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastcal.calibration import CalibrationStatistics
from fastcal.cases.labels import LabelScheme
from fastcal.cases.loop import ProgressOption
from fastcal.cases.pipeline import Stages, run_stages
from fastcal.cases.reference import LabelMap, LabelMaps
from fastcal.cases.settings import Counted
from fastcal.core.bins import Closed
from fastcal.core.doors import digest
from fastcal.core.errors import DataError
from fastcal.core.places import check_out_file
from fastcal.data import description
from fastcal.report.case_layers import FolderLayers, image_files
from fastcal.report.cohort import ENSEMBLE, SINGLE, Cohort, Flag, Model
from fastcal.report.folders import (
    ADVICE,
    CountMember,
    Scored,
    Source,
    common_cases,
    data_files,
    member_dice,
    members_of,
)
from fastcal.report.names import distinct_names
from fastcal.report.page import PageSettings, check_packages, write_page
from fastcal.report.provenance import Provenance, software
from fastcal.report.quantities import numbers_of
from fastcal.report.warnings_of_cases import case_warnings

REGIONS = ("box:8:2", "band:3")
"""The paper's box, and 3 mm on both sides of every boundary."""
FINE_BINS = 1024
MEGABYTES = 15.0


def build(
    predictions: str | Path | Sequence[str | Path],
    labels: str | Path,
    out: str | Path,
    *,
    images: str | Path | None = None,
    names: Sequence[str] = (),
    dataset_json: str | Path | None = None,
    title: str | None = None,
    regions: Sequence[str] = REGIONS,
    n_bins: int = 15,
    closed: Closed = "right",
    fine_bins: int = FINE_BINS,
    members: bool = True,
    warnings: Sequence[str | Path] = (),
    min_count: int = 1000,
    megabytes: float = MEGABYTES,
    command: str | None = None,
    progress: ProgressOption = False,
) -> Path:
    """Write one HTML page that compares prediction folders on the cases that all of them have.

    The page is one file that loads nothing. It begins with a verdict, and every comparison in it
    rests on paired differences over the same cases, with 95 % intervals of a bootstrap over cases.

    Args:
        predictions: One folder or several, of nnU-Net or of fastcal. Probabilities
            (``CASE.npz``) give calibration, entropy and everything that follows from them. A folder
            of label maps alone gives Dice, and the page says what is missing. Of an ensemble that
            ``fastcal ensemble`` made, the members are compared with it.
        labels: Folder of reference label maps.
        out: The HTML file, written whole or not at all.
        images: Folder of ``CASE_0000.nii.gz``, the first channel of which is shown under labels and
            entropy; without it these are drawn on a plain ground.
        names: What the folders are called on the page, one per folder; by default the parts of
            their paths in which they differ.
        dataset_json: nnU-Net's ``dataset.json``; by default the one in or above the first folder,
            then ``labels``.
        title: Head of the page; the dataset's name by default.
        regions: Parts of the volume that are counted beside the whole, see
            `fastcal.evaluate.evaluate_folder`. The paper's findings are tested in the first box.
        n_bins: Number of bins of the calibration errors.
        closed: Which end of a bin belongs to it, ``"right"`` or ``"left"``.
        fine_bins: Cells of the fine histograms, a power of two, for AUROC, AURC and the
            risk-coverage curve; 0 for none.
        members: Also score the single members of ensembles, if their probabilities are there.
        warnings: Folders or files of ``fastcal quality predict`` and ``fastcal ood predict``
            (``quality.json``, ``ood.json``), whose warnings the cases get. Those inside a
            prediction folder are found.
        min_count: Bins of this many voxels or fewer are hidden in reliability diagrams at first.
        megabytes: Largest size of the page. Pictures get fewer slices, or are left out for cases
            that are not singled out, until they fit.
        command: What the page says made it; the command line that does the same when None.
        progress: True prints one line per case to stderr; a function is called with a
            `fastcal.evaluate.Progress`.

    Returns:
        The file written.

    Raises:
        DataError: A folder has no cases, no case is in all of them, a file cannot be read, or does
            not fit its reference. The message names the file.
        ImportError: Jinja2, Pillow or SciPy is not installed (the extra ``fastcal[report]``).
        TypeError, ValueError: An argument is out of range.

    Example:
        >>> build(["nnunet/fold_0", "predicted"], "labelsTs", "report.html")  # doctest: +SKIP
        PosixPath('report.html')
    """
    folders = [predictions] if isinstance(predictions, str | Path) else list(predictions)
    if not folders:
        raise ValueError("predictions must be at least one folder, got none")
    if names and len(names) != len(folders):
        raise ValueError(f"names must hold one name per folder, {len(folders)}, got {len(names)}")
    if names and len(set(names)) < len(names):
        raise ValueError(f"names must differ, got {', '.join(names)}")
    check_packages()
    page = PageSettings(min_count, megabytes, progress)
    asked = _Asked(
        tuple(Path(folder) for folder in folders),
        Path(labels),
        Counted(labels, n_bins, closed, fine_bins, regions),
        names=tuple(names) or distinct_names([Path(folder) for folder in folders]),
        members=members,
    )
    asked.counted.check_without_prediction()
    target = Path(out)
    opened = _open(asked, dataset_json)
    found = image_files(images, opened.cases, opened.ending) if images is not None else {}
    case_flags, read = case_warnings([*asked.folders, *(Path(one) for one in warnings)])
    shown = [] if images is None else data_files(Path(images))
    check_out_file(target, [*opened.inputs, *shown, *read])
    target.parent.mkdir(parents=True, exist_ok=True)
    models, flags = _score(opened, asked, progress)
    cohort = Cohort(
        title=title or opened.title,
        subtitle=_subtitle(len(opened.cases), len(folders)),
        structures=opened.structures,
        classes=opened.classes,
        cases=tuple(opened.cases),
        painted=opened.references.scheme.regions_class_order or (),
        models=models,
        about=Provenance(
            command or _command(asked, target, images),
            software(),
            _differing(asked, min_count, float(megabytes)),
            _digests(opened, read),
        ),
        flags=flags,
        case_flags=case_flags,
        layers=FolderLayers(opened.references, _shown_sources(opened, models, asked), found),
    )
    return write_page(target, numbers_of(cohort), page)


@dataclass(frozen=True)
class _Asked:
    """What is to be compared, and what is counted."""

    folders: tuple[Path, ...]
    labels: Path
    counted: Counted
    names: tuple[str, ...]
    members: bool


@dataclass(frozen=True)
class _Opened:
    """Folders and the cases that all of them have."""

    title: str
    ending: str
    described: Path
    references: LabelMaps
    sources: tuple[Source, ...]
    cases: list[str]
    left_out: dict[str, str]

    @property
    def structures(self) -> tuple[str, ...]:
        scheme = self.references.scheme
        return tuple(scheme.names.get(key, f"label {key}") for key in scheme.foreground)

    @property
    def classes(self) -> tuple[str, ...]:
        multilabel = self.references.scheme.multilabel
        return self.structures if multilabel else ("background", *self.structures)

    @property
    def inputs(self) -> list[Path]:
        """Every file that may be read, and what lies beside it: nothing of it is overwritten."""
        return [
            self.described,
            *self.references.paths.values(),
            *(path for source in self.sources for path in source.inputs),
        ]


def _open(asked: _Asked, dataset_json: str | Path | None) -> _Opened:
    for folder in (*asked.folders, asked.labels):
        if not folder.is_dir():
            raise DataError(folder, "no such folder")
    for number, folder in enumerate(asked.folders):
        for other in asked.folders[:number]:
            if folder.samefile(other):
                raise DataError(folder, f"is compared with itself ({other}); give each folder once")
    described = (
        Path(dataset_json) if dataset_json else description.find(*asked.folders, asked.labels)
    )
    if described is None:
        raise DataError(
            asked.folders[0],
            f"no dataset.json in or above it, nor {asked.labels}; pass dataset_json "
            "(--dataset-json)",
        )
    content = description.read(described)
    scheme = LabelScheme.of(content)
    sources = tuple(
        Source.open(folder, scheme, asked.labels, asked.counted) for folder in asked.folders
    )
    references = LabelMaps.find(asked.labels, scheme)
    cases, left_out = common_cases(references, sources)
    name = content.name or described.resolve().parent.name
    return _Opened(name, content.file_ending, described, references, sources, cases, left_out)


def _score(
    opened: _Opened, asked: _Asked, progress: ProgressOption
) -> tuple[tuple[Model, ...], tuple[Flag, ...]]:
    scored = [Scored(source) for source in opened.sources]
    counts: list[list[CountMember]] = [
        members_of(source, opened.cases, opened.references, asked.counted) if asked.members else []
        for source in opened.sources
    ]
    singles: list[list[CalibrationStatistics | None]] = [[None] * len(one) for one in counts]

    def read(case: str) -> Iterator[Any]:
        reference = opened.references.read(case)
        yield reference
        for one, members in zip(scored, counts, strict=True):
            yield one.read(case, reference)
            for member in members:
                yield member.read(case)

    def score(case: str, pieces: Iterator[Any]) -> None:
        reference: LabelMap = next(pieces)
        regions = reference.regions(asked.counted.rules)
        for one, members, states in zip(scored, counts, singles, strict=True):
            one.add(case, reference, asked.counted, regions, next(pieces))
            for number, member in enumerate(members):
                found = member.count(case, reference, regions, next(pieces))
                state = states[number]
                if state is None:
                    states[number] = found
                else:
                    state.merge(found)

    run_stages(opened.cases, Stages(read, score), progress=progress)
    models: list[Model] = []
    for name, one, of_members in zip(asked.names, scored, singles, strict=True):
        states = tuple(state for state in of_members if state is not None)
        model = Model(
            group=name,
            kind="",
            size=max(1, len(one.source.members)),
            dice=np.array(one.dice, np.float64),
            statistics=() if one.statistics is None else (one.statistics,),
            entropy=one.entropies(),
            missing="" if one.source.counts else ADVICE,
        )
        if states:
            every = np.stack([member_dice(state, opened.cases) for state in states])
            models.append(Model(name, SINGLE, len(states), _mean(every), statistics=states))
            model = replace(model, kind=ENSEMBLE, size=len(states))
        models.append(model)
    return tuple(models), tuple(_flags(opened, scored, asked.names))


def _mean(dice: Any) -> Any:
    """Mean over members ``[M, cases, K]``, NaN left out."""
    known = ~np.isnan(dice)
    counts = known.sum(0)
    sums = np.where(known, dice, 0.0).sum(0)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def _flags(opened: _Opened, scored: Sequence[Scored], names: Sequence[str]) -> list[Flag]:
    found = []
    by_reason: dict[str, list[str]] = {}
    for case, reason in sorted(opened.left_out.items()):
        by_reason.setdefault(reason, []).append(case)
    for reason, cases in by_reason.items():
        serious = not reason.startswith("no reference")
        found.append(Flag(f"{_listed(cases)} left out: {reason}", serious))
    shown = dict(zip(opened.references.scheme.foreground, opened.structures, strict=True))
    for name, one in zip(names, scored, strict=True):
        by_key: dict[str, list[str]] = {}
        for case, key in one.missed:
            by_key.setdefault(key, []).append(case)
        for key, cases in by_key.items():
            text = f"{name} misses {shown[key]} entirely in {_listed(cases)}"
            found.append(Flag(text, case=cases[0]))
        if one.contradictions:
            found.append(
                Flag(
                    f"{name}: the most probable class differs from the label map in "
                    f"{_listed(one.contradictions)} (postprocessing is a reason that is no fault)",
                    serious=False,
                )
            )
        if not one.source.counts:
            found.append(Flag(f"{name} {ADVICE}", serious=False))
    return found


def _listed(cases: Sequence[str]) -> str:
    more = f" and {len(cases) - 3} more" if len(cases) > 3 else ""
    return ", ".join(cases[:3]) + more


def _subtitle(cases: int, folders: int) -> str:
    nouns = ("case" if cases == 1 else "cases", "folder" if folders == 1 else "folders")
    return f"{cases} {nouns[0]}, {folders} {nouns[1]} of predictions"


def _differing(asked: _Asked, min_count: int, megabytes: float) -> dict[str, Any]:
    """Return the settings that differ from their defaults."""
    counted = asked.counted
    pairs = {
        "regions": (tuple(counted.regions), REGIONS),
        "bins": (counted.n_bins, 15),
        "closed": (counted.closed, "right"),
        "fine bins": (counted.fine_bins, FINE_BINS),
        "members": (asked.members, True),
        "least voxels of a bin drawn": (min_count, 1000),
        "megabytes": (megabytes, MEGABYTES),
    }
    return {name: value for name, (value, default) in pairs.items() if value != default}


def _command(asked: _Asked, target: Path, images: str | Path | None) -> str:
    """Return the command that makes the page again, but for settings that are listed apart."""
    words = ["fastcal", "report", "-p", *map(str, asked.folders), "-g", str(asked.labels)]
    words += [] if images is None else ["-i", str(images)]
    return shlex.join([*words, "-o", str(target)])


def _digests(opened: _Opened, read: Sequence[Path]) -> dict[str, str]:
    """Return a digest of everything read from each folder: of the digests of its files."""
    import hashlib

    def of(files: Sequence[Path]) -> str:
        found = hashlib.sha256()
        for file in files:
            found.update(f"{file.name} {digest(file).sha256}\n".encode())
        return found.hexdigest()

    found = {
        str(opened.references.folder): of([opened.references.paths[c] for c in opened.cases]),
    }
    for source in opened.sources:
        found[str(source.path)] = of([file for case in opened.cases for file in source.files(case)])
    return found | {str(path): digest(path).sha256 for path in read}


def _shown_sources(opened: _Opened, models: Sequence[Model], asked: _Asked) -> dict[str, Source]:
    """Return the folders by the title of the model that they are on the page."""
    last = {model.group: model.title for model in models}
    return {last[name]: source for name, source in zip(asked.names, opened.sources, strict=True)}
