"""Saved probabilities of a case, counted against its labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from numpy.typing import NDArray

from fastcal import ensemble_statistics
from fastcal.cases.labels import LabelScheme
from fastcal.data.predictions import as_tensor

if TYPE_CHECKING:
    from fastcal import CalibrationStatistics
    from fastcal.core.region_bits import Regions
    from fastcal.data.predictions import Probabilities


def count_case(
    found: Probabilities,
    labels: NDArray[Any],
    *,
    scheme: LabelScheme,
    case: str,
    n_bins: int = 15,
    closed: Literal["right", "left"] = "right",
    fine_bins: int = 0,
    regions: Regions | None = None,
) -> CalibrationStatistics:
    """Count the saved probabilities of a case against its labels ``[X, Y, Z]``.

    Raises
    ------
    ValueError
        Shapes that differ, or voxels without valid probabilities.
    """
    kept = scheme.kept(labels)
    results = ensemble_statistics(
        [as_tensor(found)[None]],
        torch.from_numpy(scheme.target(labels))[None],
        maps=(),
        from_logits=False,
        activation="sigmoid" if found.activation == "sigmoid" else "softmax",
        multilabel=scheme.multilabel,
        mask=None if kept is None else torch.from_numpy(kept)[None],
        n_bins=n_bins,
        closed=closed,
        case_id=[case],
        nan_policy="omit",
        fine_bins=fine_bins,
        regions=regions,
    )
    statistics = results.calibration
    assert statistics is not None
    if statistics.n_invalid:
        raise ValueError(
            f"{statistics.n_invalid} voxels without valid probabilities (NaN, or outside [0, 1])"
        )
    return statistics
