"""Ensembles of saved probabilities: nnU-Net's npz folders, 4-D NIfTI, npy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from fastcal.cases.combine import Estimator, Member, References, combine
from fastcal.cases.files import CaseFiles
from fastcal.cases.labels import LabelScheme
from fastcal.cases.loop import ProgressOption, part_of
from fastcal.cases.record import copy_description, settle
from fastcal.cases.reference import find_dataset_json
from fastcal.cases.region_rules import rules_of_references
from fastcal.cases.summary import PredictionSummary, run_part
from fastcal.core.errors import DataError
from fastcal.core.problem import Activation
from fastcal.data.predictions import PredictionFolder, Probabilities, as_tensor
from fastcal.models.device import choose_device


def ensemble_folders(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    maps: Sequence[str] = ("entropy",),
    space: Literal["prob", "logit"] = "prob",
    weights: Sequence[float] | None = None,
    temperature: float | Sequence[float] = 1.0,
    from_logits: bool = False,
    cases: Sequence[str] | None = None,
    labels: str | Path | None = None,
    dataset_json: str | Path | None = None,
    n_bins: int = 15,
    closed: Literal["right", "left"] = "right",
    fine_bins: int = 0,
    regions: Sequence[str] = (),
    dtype: Literal["float32", "uint8", "uint16"] = "float32",
    save_probabilities: bool = False,
    num_parts: int = 1,
    part_id: int = 0,
    overwrite: bool = False,
    keep_going: bool = False,
    device: torch.device | str = "cpu",
    progress: ProgressOption = False,
) -> PredictionSummary:
    """Combine folders of saved probabilities, one folder a member, in one pass a case.

    One member is in memory at a time. A case that has all its files is skipped: a killed run goes
    on where it was, to the same bits.

    Parameters
    ----------
    folders
        One folder a member, with ``CASE.npz`` as nnU-Net's ``--save_probabilities`` writes it (key
        ``probabilities``, version 1 ``softmax``), 4-D NIfTI or ``.npy``; every form that
        `PredictionFolder` reads.
    out
        Folder for ``CASE.nii.gz`` (labels) and ``<map>/CASE.nii.gz``; maps of every class
        (``mean``) are 4-D, classes last.
    maps
        Any of `fastcal.core.problem.MAPS`.
    space
        Average probabilities, or logits (ln p), which nnU-Net does.
    weights, temperature
        A weight for each folder; a temperature, or one for each folder.
    from_logits
        The files hold logits, not probabilities.
    cases
        Names of the cases to do; every case of any folder where None.
    labels
        Folder of reference label maps ``CASE.nii.gz``: calibration statistics are counted in the
        same pass and written to ``calibration.json`` and ``calibration.npz``.
    dataset_json
        nnU-Net's ``dataset.json`` with labels, regions and the ignore label; looked for in and
        above the folders. Without any, the channels are exclusive classes. Regions are sigmoid
        channels of their own, painted in the order of ``regions_class_order``.
    n_bins, closed
        Bins of the calibration errors.
    fine_bins, regions
        Fine cells and regions of the calibration, see `fastcal.evaluate.evaluate_folder`; regions
        are made from the labels, so that ``prediction`` is none of them.
    dtype
        Of the maps: float32, or uint8 or uint16 with ``scl_slope``.
    save_probabilities
        Write the mean as nnU-Net's ``CASE.npz``.
    num_parts, part_id
        Do every ``num_parts``-th case from the ``part_id``-th on; the statistics of a part are
        added by `merge_statistics`.
    overwrite
        Do finished cases again, also where ``out`` was made with other settings.
    keep_going
        Go on after a case that fails; the summary lists failures.
    device
        Where the members are combined.
    progress
        True prints a line a case to stderr; a function is called with a `Progress`.

    Raises
    ------
    DataError
        An empty folder, a case that a folder lacks, a file that cannot be read, shapes, affines
        or class counts that differ, NaN, numbers that are no probabilities, labels out of range;
        the message names the file.
    ValueError
        An option out of range.
    OSError
        The disk's own error.

    Examples
    --------
    >>> folds = [f"fold_{k}" for k in range(5)]
    >>> summary = ensemble_folders(folds, "out", maps=("entropy", "variance"))  # doctest: +SKIP
    >>> summary.done  # doctest: +SKIP
    ('case_001', 'case_002')
    """
    sources = _Sources.open(folders, weights, temperature, from_logits, choose_device(device))
    if Path(out).resolve() in {Path(folder).resolve() for folder in folders}:
        raise ValueError(f"out: got {out}, which is one of the folders to read")
    files = CaseFiles(
        Path(out),
        tuple(maps),
        dtype=dtype,
        save_probabilities=save_probabilities,
        statistics=labels is not None,
    )
    chosen = sources.cases(cases, complete=not keep_going)
    scheme, activation = sources.reading(chosen, dataset_json, keep_going=keep_going)
    rules = rules_of_references(regions, labels)
    estimator = Estimator(
        *(files.needed_maps, scheme, from_logits, activation, space),
        *(n_bins, closed, fine_bins, rules),
    )
    estimator.accumulator()  # complains about options that do not go together
    empty = None if labels is None else estimator.statistics()
    part = part_of(chosen, num_parts=num_parts, part_id=part_id)
    references = None if labels is None else References.find(labels, scheme)
    if references is not None and not keep_going:
        references.require(part)

    files.folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "folders": [str(folder) for folder in folders],
        "weights": list(sources.weights),
        "temperature": list(sources.temperatures),
        "from_logits": from_logits,
        "activation": activation,
        "space": space,
        "dtype": dtype,
    }
    if labels is not None:
        settings |= {
            **{"labels": str(labels), "n_bins": n_bins, "closed": closed},
            **({"fine_bins": fine_bins} if fine_bins else {}),
            **({"regions": list(regions)} if regions else {}),
        }
    settle(files.folder, settings, overwrite=overwrite)
    if (found := sources.description(dataset_json)) is not None:
        copy_description(found, files.folder)

    def work(case: str) -> None:
        sources.require(case)
        results, like = combine(
            lambda: sources.members(case),
            estimator=estimator,
            case=case,
            references=references,
        )
        files.write(case, results, scheme, like, activation=activation)

    return run_part(
        part,
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
class _Sources:
    """The members' folders; their probabilities are read one file at a time."""

    folders: tuple[PredictionFolder, ...]
    contents: tuple[frozenset[str], ...]
    weights: tuple[float, ...]
    temperatures: tuple[float, ...]
    from_logits: bool
    device: torch.device

    @classmethod
    def open(
        cls,
        folders: Sequence[str | Path],
        weights: Sequence[float] | None,
        temperature: float | Sequence[float],
        from_logits: bool,
        device: torch.device,
    ) -> _Sources:
        if isinstance(folders, str | Path) or not folders:
            raise ValueError(f"folders: got {folders!r}, expected at least one, in a list")
        opened = tuple(PredictionFolder(Path(folder)) for folder in folders)
        contents = tuple(frozenset(folder.cases()) for folder in opened)
        for folder, names in zip(opened, contents, strict=True):
            if not names:
                raise DataError(folder.path, "no saved probabilities in this folder")
        each = [1.0] * len(opened) if weights is None else [float(weight) for weight in weights]
        if len(each) != len(opened):
            raise ValueError(f"weights: got {len(each)}, expected one for each folder")
        if not all(0 <= weight < math.inf for weight in each) or not any(each):
            raise ValueError(f"weights: got {each}, expected numbers from 0, not all 0")
        scales = [temperature] if isinstance(temperature, int | float) else list(temperature)
        scales = [float(scale) for scale in scales] * (len(opened) if len(scales) == 1 else 1)
        if len(scales) != len(opened):
            raise ValueError(f"temperature: got {len(scales)}, expected one for each folder")
        if not all(0 < scale < math.inf for scale in scales):
            raise ValueError(f"temperature: got {scales}, expected numbers above 0")
        return cls(opened, contents, tuple(each), tuple(scales), from_logits, device)

    def cases(self, wanted: Sequence[str] | None, *, complete: bool) -> list[str]:
        """Return the cases to do, sorted; ``complete`` refuses one that a folder lacks."""
        every = sorted(frozenset().union(*self.contents))
        if wanted is not None:
            for case in wanted:
                if case not in every:
                    raise DataError(self.folders[0].path, f"no probabilities of case {case}")
            every = sorted(set(wanted))
        if complete:
            for case in every:
                self.require(case)
        return every

    def require(self, case: str) -> None:
        """Raise a `DataError` that names the folder without a case."""
        for folder, names in zip(self.folders, self.contents, strict=True):
            if case not in names:
                raise DataError(
                    folder.path, f"no probabilities of case {case}, which another folder has"
                )

    def description(self, dataset_json: str | Path | None) -> Path | None:
        """Return the ``dataset.json`` in use."""
        if dataset_json is not None:
            return Path(dataset_json)
        return find_dataset_json(*(folder.path for folder in self.folders))

    def reading(
        self, cases: Sequence[str], dataset_json: str | Path | None, *, keep_going: bool
    ) -> tuple[LabelScheme, Activation]:
        """Return what the channels are and how they were activated, from the first file.

        Without a ``dataset.json`` they are exclusive classes, as many as there are.
        """
        first = self._first(cases, keep_going=keep_going)
        sigmoid = first.activation == "sigmoid"
        described = self.description(dataset_json)
        if described is None:
            scheme = LabelScheme.of_classes(first.data.shape[0])
        else:
            scheme = LabelScheme.read(described)
        return scheme, "sigmoid" if sigmoid or scheme.multilabel else "softmax"

    def _first(self, cases: Sequence[str], *, keep_going: bool) -> Probabilities:
        failure: DataError | None = None
        for case in cases:
            for folder, names in zip(self.folders, self.contents, strict=True):
                if case not in names:
                    continue
                try:
                    return folder.probabilities(case)
                except DataError as error:
                    if not keep_going:
                        raise
                    failure = failure or error
        raise failure or DataError(self.folders[0].path, "no saved probabilities in this folder")

    def members(self, case: str) -> Iterator[Member]:
        """Read the probabilities of a case, one member after another."""
        for number in range(len(self.folders)):
            # No local name: the array must be gone before the next is read.
            yield self._member(case, number)

    def _member(self, case: str, number: int) -> Member:
        found = self.folders[number].probabilities(case)
        return Member(
            as_tensor(found)[None].to(self.device),
            found.like,
            found.source,
            self.weights[number],
            self.temperatures[number],
        )
