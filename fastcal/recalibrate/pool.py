"""The mean of an ensemble's saved members, and what is said about a file that does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from fastcal import EnsembleAccumulator
from fastcal.cases.plausible import check_read
from fastcal.cases.reference import check_same_grid
from fastcal.core.errors import DataError
from fastcal.data.predictions import PredictionFolder, Probabilities, as_tensor
from fastcal.recalibrate.ensemble import EnsembleCalibration


@dataclass(frozen=True, slots=True)
class Pool:
    """Members whose mean `EnsembleCalibration` calibrates."""

    folders: Sequence[PredictionFolder]
    ensemble: EnsembleCalibration

    def mean(self, case: str, members: Iterator[Probabilities] | None = None) -> Probabilities:
        """Return the mean probabilities of a case ``[C, X, Y, Z]``, one member in memory at a time.

        Args:
            case: Its name.
            members: What the folders hold of it; None to read it.

        Raises:
            DataError: A file cannot be read, differs from the first in shape, type or place, was
                activated in another way than the calibration was made for, or has a NaN or numbers
                that are no probabilities.
        """
        one = self.ensemble.calibrator
        accumulator = EnsembleAccumulator(
            ("mean",),
            from_logits=one.from_logits,
            activation=one.activation,
            multilabel=one.multilabel,
            space=self.ensemble.space,
        )
        first: Probabilities | None = None
        weights = self.ensemble.weights or [1.0] * len(self.folders)
        pieces = (one.probabilities(case) for one in self.folders) if members is None else members
        for weight in weights:
            found = next(pieces)
            if first is not None:
                _check_member(found, first)
            check_read(
                found,
                from_logits=one.from_logits,
                activation=one.activation,
                multilabel=one.multilabel,
            )
            try:
                accumulator.update(as_tensor(found)[None], weight=weight)
            except ValueError as error:
                raise_named(error, found.source)
            # Without its voxels: they must be gone before the next member is read.
            kept = np.broadcast_to(found.data.dtype.type(0), found.data.shape)
            first = replace(found, data=kept) if first is None else first
            del found
        assert first is not None
        mean = accumulator.finalize().mean
        assert mean is not None
        if bool(mean[0, 0].isnan().any()):
            raise self._culprit(case, first.source)
        return replace(first, data=mean[0].numpy())

    def _culprit(self, case: str, first: Path) -> DataError:
        """Find the member that made the mean invalid."""
        for folder in self.folders:
            found = folder.probabilities(case)
            values = as_tensor(found)
            valid = self.ensemble.calibrator.reading.valid(values.reshape(len(values), -1))
            if not bool(valid.all()):
                return DataError(found.source, invalid(int((~valid).sum())))
        return DataError(first, "the mean of the members is not a number in some voxels")


def invalid(count: int) -> str:
    """Say what is wrong with a file of ``count`` invalid voxels."""
    return f"{count} voxels without valid values (NaN, or probabilities outside [0, 1])"


def raise_named(error: ValueError, source: Path | None) -> NoReturn:
    """Raise a ValueError of a fit or transform as a `DataError` that names the file it read."""
    if isinstance(error, DataError) or source is None:
        raise error
    raise DataError(source, str(error)) from error


def _check_member(one: Probabilities, first: Probabilities) -> None:
    """Raise a `DataError` where a member differs from the first in shape, type or place."""
    if one.data.shape != first.data.shape or one.data.dtype != first.data.dtype:
        raise DataError(
            one.source,
            f"{one.data.dtype} of shape {one.data.shape}, but {first.data.dtype} of "
            f"{first.data.shape} in {first.source}",
        )
    if one.like is not None and first.like is not None:
        check_same_grid(one.source, one.like.shape, one.like, first.like, expected=first.source)
