"""Saved probabilities of a case, counted against its labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fastcal import ensemble_statistics
from fastcal.cases.plausible import check_activation, check_probabilities, check_range
from fastcal.cases.reference import check_same_grid
from fastcal.core.errors import DataError
from fastcal.data.predictions import as_tensor

if TYPE_CHECKING:
    from fastcal import CalibrationStatistics
    from fastcal.cases.reference import LabelMap
    from fastcal.cases.settings import Counted
    from fastcal.core.region_bits import Regions
    from fastcal.data.predictions import Probabilities


def count_case(
    found: Probabilities,
    reference: LabelMap,
    *,
    case: str,
    counted: Counted,
    prediction: NDArray[Any] | None = None,
    regions: Regions | None = None,
) -> CalibrationStatistics:
    """Count the saved probabilities of a case against its labels.

    Args:
        found: The probabilities.
        reference: The labels.
        case: Name under which they are counted.
        counted: What is counted.
        prediction: Predicted labels ``[X, Y, Z]``, where a region is made from them.
        regions: The regions of the case, where they were made before; None makes them.

    Raises:
        DataError: The grid or the number of classes differs, or there are voxels without valid
            probabilities; the message names the file of the probabilities.
    """
    check_same_grid(
        found.source, found.data.shape[1:], found.like, reference.grid, expected=reference.path
    )
    reference.scheme.check_channels(found.data.shape[0], found.source)
    check_activation(found)
    check_probabilities(found, multilabel=reference.scheme.multilabel, counted=True)
    if regions is None:
        regions = reference.regions(counted.rules, prediction=prediction)
    try:
        statistics = ensemble_statistics(
            [as_tensor(found)[None]],
            reference.target(),
            maps=(),
            from_logits=False,
            activation="sigmoid" if found.activation == "sigmoid" else "softmax",
            multilabel=reference.scheme.multilabel,
            mask=reference.mask(),
            n_bins=counted.n_bins,
            closed=counted.closed,
            case_id=[case],
            nan_policy="omit",
            fine_bins=counted.fine_bins,
            regions=regions,
        ).calibration
    except ValueError as error:
        raise DataError(found.source, str(error)) from error
    assert statistics is not None
    if statistics.n_invalid:
        check_range(found)
        raise DataError(
            found.source,
            f"{statistics.n_invalid} voxels without valid probabilities (NaN, or outside [0, 1])",
        )
    return statistics
