"""Cases for the panels, read back from prediction folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastcal.core.errors import DataError
from fastcal.report.panels import CaseView, ModelView

if TYPE_CHECKING:
    from fastcal.data.dataset import Case


def load_views(
    cases: Sequence[Case], models: Mapping[str, Path], *, file_ending: str = ".nii.gz"
) -> list[CaseView]:
    """Return what `case_panels` draws, read from files.

    Args:
        cases: Cases with a reference, of which the first channel is shown.
        models: Title of each model and its prediction folder, with ``entropy/`` inside.
        file_ending: Of the predictions.

    Raises:
        DataError: A file is missing or unreadable, or a case has no reference.
    """
    from fastcal.data import images

    map_ending = images.map_ending(file_ending, "float32")
    views = []
    for case in cases:
        image, label, like = case.load()
        if label is None:
            raise DataError(case.images[0], "has no reference label map")
        shown = tuple(
            ModelView(
                title,
                np.asarray(images.read(folder / f"{case.name}{file_ending}").data),
                np.asarray(images.read(folder / "entropy" / f"{case.name}{map_ending}").data),
            )
            for title, folder in models.items()
        )
        views.append(CaseView(case.name, image[0], label, like.affine, shown))
    return views


def spread_over(cases: Sequence[Case], count: int) -> list[Case]:
    """Return `count` cases at equal distances in the list, ends included; all if there are fewer.

    Example:
        >>> spread_over(list("abcde"), 3)
        ['a', 'c', 'e']
    """
    if count >= len(cases):
        return list(cases)
    return [cases[i] for i in np.linspace(0, len(cases) - 1, count).round().astype(int)]
