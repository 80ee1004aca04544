"""What the members of a study are evaluated on: held-out cases, other data, and named shifts."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastcal.data.shifts import shifted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fastcal.data.dataset import Case, Dataset
    from fastcal.data.nifti import Volume

TEST = "test"
OUTSIDE = "outside"
"""Name of the set of cases from outside the distribution of the training data."""


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Cases with reference labels, as they are or after a shift."""

    name: str
    cases: tuple[Case, ...]
    shift: str | None = None

    def load(self, case: Case, *, slice_axis: int) -> tuple[NDArray[np.floating], Volume]:
        """Return the image of a case ``[Ch, X, Y, Z]`` as networks are to see it.

        Args:
            case: One of the cases.
            slice_axis: Which axis is across the slices, for shifts within slices.

        Raises:
            DataError: A file cannot be read.
        """
        image, _, like = replace(case, label=None).load()
        if self.shift is None:
            return image, like
        # The same case is shifted in the same way by every member and in every run.
        seed = zlib.crc32(case.name.encode())
        return shifted(image, self.shift, slice_axis=slice_axis, seed=seed), like


def evaluation_sets(
    test: list[Case], outside: Dataset | None, shifts: tuple[str, ...]
) -> tuple[EvaluationSet, ...]:
    """Return the held-out cases, the data from outside if there are any, and every shift."""
    sets = [EvaluationSet(TEST, tuple(test))]
    if outside is not None:
        sets.append(EvaluationSet(OUTSIDE, tuple(outside.cases)))
    sets += [EvaluationSet(shift, tuple(test), shift) for shift in shifts]
    return tuple(sets)
