"""Fitting to folders of saved probabilities with labels, such as nnU-Net's cross validation."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastcal.cases.combine import References
from fastcal.core.errors import DataError
from fastcal.recalibrate import methods
from fastcal.recalibrate.calibrator import Calibrator
from fastcal.recalibrate.ensemble import ORDERS, EnsembleCalibration, EnsembleOrder
from fastcal.recalibrate.sources import CaseVolumes, Pool, PooledVolumes, Report, Sources, named


@dataclass(frozen=True, slots=True)
class FolderFit:
    """Result of `fit_folders`."""

    calibrator: Calibrator | EnsembleCalibration
    out: Path
    """The JSON file."""
    cases: tuple[str, ...]
    """Cases fitted to."""

    @property
    def calibrators(self) -> tuple[Calibrator, ...]:
        """The calibrator, or those of the ensemble."""
        if isinstance(self.calibrator, Calibrator):
            return (self.calibrator,)
        return tuple(self.calibrator.calibrators_ or ())


def fit_folders(
    folders: Sequence[str | Path],
    labels: str | Path,
    out: str | Path,
    *,
    method: str = "temperature",
    ensemble: EnsembleOrder | None = None,
    from_logits: bool = False,
    weights: Sequence[float] | None = None,
    space: Literal["prob", "logit"] = "prob",
    cases: Sequence[str] | None = None,
    dataset_json: str | Path | None = None,
    n_bins: int = 15,
    odir: float = 1e-5,
    progress: bool | Report = False,
) -> FolderFit:
    """Fit a calibrator to saved probabilities and write it as JSON.

    Cases are read one at a time, and again at every pass.

    Parameters
    ----------
    folders
        Folders with ``CASE.npz`` as nnU-Net's ``--save_probabilities`` writes it, 4-D NIfTI or
        ``.npy``. A folder that holds ``fold_*/validation`` stands for these.
    labels
        Folder of reference label maps ``CASE.nii.gz``.
    out
        The JSON file to write, whole or not at all.
    method
        One of `fastcal.recalibrate.METHODS`.
    ensemble
        None: one calibrator for all cases of all folders, of which no two have the same case (a
        cross validation). ``"pool-then-calibrate"``: each folder is a member, all have the same
        cases, their mean is calibrated. ``"member-then-pool"``: each folder is a member with a
        calibrator of its own, and has cases of its own (folds) or the same ones.
    from_logits
        The files hold logits, not probabilities.
    weights, space
        Of the mean of an ensemble's members, see `fastcal.ensemble_mean`.
    cases
        Names of the cases to fit to; all where None.
    dataset_json
        nnU-Net's ``dataset.json`` with labels, regions and the ignore label; looked for in and
        above the folders. Without any, the channels are exclusive classes.
    n_bins
        Bins of ``"histogram"``.
    odir
        Weight of the off-diagonal penalty of ``"dirichlet"``.
    progress
        True prints a line for each case of each pass to stderr; a function is called with the
        pass (of the calibrator, from 1) and the case.

    Raises
    ------
    DataError
        A folder without probabilities, a case in two folders, labels that are missing, out of
        range or on another grid, files that cannot be read; the message names the file.
    ValueError
        An option out of range.
    OSError
        The disk's own error.

    Examples
    --------
    >>> fit = fit_folders(["nnUNetTrainer__3d"], "labelsTr", "calibrator.json")  # doctest: +SKIP
    >>> fit.calibrator.temperature_  # doctest: +SKIP
    1.31
    """
    if ensemble is not None and ensemble not in ORDERS:
        raise ValueError(f"ensemble: got {ensemble!r}, expected one of {', '.join(ORDERS)}")
    if ensemble is None and (weights is not None or space != "prob"):
        raise ValueError("weights and space belong to an ensemble, but ensemble is None")
    out = Path(out)
    if not out.absolute().parent.is_dir():
        raise DataError(out.parent, "no such folder")
    sources = Sources.open(folders)
    if weights is not None and len(weights) != len(sources.folders):
        raise ValueError(f"weights: got {len(weights)}, expected one for each folder")
    scheme, activation = sources.reading(dataset_json)
    references = References.find(labels, scheme)
    calibrator: Calibrator | EnsembleCalibration = methods.make(
        method,
        from_logits=from_logits,
        activation=activation,
        multilabel=scheme.multilabel,
        n_bins=n_bins,
        odir=odir,
    )
    if isinstance(calibrator, Calibrator) and ensemble is not None:
        calibrator = EnsembleCalibration(calibrator, order=ensemble, weights=weights, space=space)

    streams: list[CaseVolumes | PooledVolumes]
    report = (_print_case if progress else None) if isinstance(progress, bool) else progress
    if isinstance(calibrator, Calibrator):
        streams = [CaseVolumes(sources.union(cases), references, report)]
    elif calibrator.order == "pool-then-calibrate":
        pool = Pool(sources.folders, calibrator)
        streams = [PooledVolumes(sources.shared(cases), pool, references, report)]
    else:
        streams = [CaseVolumes(own, references, report) for own in sources.each(cases)]
    try:
        if isinstance(calibrator, Calibrator):
            calibrator.fit_stream(streams[0])
        else:
            calibrator.fit_each(streams)
    except ValueError as error:
        last = [stream.current for stream in streams if stream.current is not None]
        raise named(error, last[-1] if last else None) from error
    calibrator.save(out)
    return FolderFit(calibrator, out, tuple(sorted({case for s in streams for case in s.cases})))


def _print_case(number: int, case: str) -> None:
    print(f"pass {number}: {case}", file=sys.stderr, flush=True)
