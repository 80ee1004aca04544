"""Calibration against the length of training, for single members and their ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastcal.calibration import values
from fastcal.report.measured import Difference, Measured, calibration_of, difference, mean_of_known
from fastcal.study.comparison import REGIONS, WHOLE
from fastcal.study.design import BOX

if TYPE_CHECKING:
    from fastcal import CalibrationStatistics
    from fastcal.study.records import Streamed


@dataclass(frozen=True, slots=True)
class Gap:
    """What the last bin and the others contribute to the ECE: where a model is wrong about itself.

    A contribution is ``n_b / N |acc_b - conf_b|``, or its sum over bins.
    """

    last: float
    """Of the bin of the highest confidence, which holds nearly all voxels of a volume."""
    others: float
    signed_last: float
    """``n_b / N (conf_b - acc_b)`` of that bin: below 0 it is underconfident."""
    confidence: float
    """Mean confidence in that bin."""
    accuracy: float
    share: float
    """Share of the voxels in that bin."""

    @classmethod
    def of(cls, statistics: CalibrationStatistics) -> Gap:
        """Read the bins of the top label."""
        curve = statistics.reliability()
        count = curve.count.astype(np.float64)
        total = count.sum()
        signed = np.where(count > 0, count * (curve.mean_confidence - curve.accuracy), 0.0) / total
        return cls(
            float(abs(signed[-1])),
            float(np.abs(signed[:-1]).sum()),
            float(signed[-1]),
            float(curve.mean_confidence[-1]),
            float(curve.accuracy[-1]),
            float(count[-1] / total),
        )

    @classmethod
    def mean(cls, gaps: list[Gap]) -> Gap:
        """Return the mean of several, each number on its own."""
        names = ("last", "others", "signed_last", "confidence", "accuracy", "share")
        return cls(*(float(np.mean([getattr(gap, name) for gap in gaps])) for name in names))


@dataclass(frozen=True, slots=True)
class LengthPoint:
    """Members and their ensemble after some epochs, in one region."""

    loss: str
    epoch: int
    steps: int
    region: str
    single: Measured
    """ECE, the mean of the members."""
    ensemble: Measured
    """ECE of their ensemble."""
    change: Difference
    """The ensemble's less the members' mean."""
    single_nll: float
    ensemble_nll: float
    single_gap: Gap
    ensemble_gap: Gap
    dice: float
    """Mean of the members."""


def length_points(
    streams: Mapping[tuple[str, int], Streamed], steps_per_epoch: Mapping[str, int]
) -> tuple[LengthPoint, ...]:
    """Measure every length.

    Args:
        streams: Records by loss and epoch, of single members and of all together.
        steps_per_epoch: Steps of an epoch by loss.
    """
    points = []
    for (loss, epoch), streamed in streams.items():
        singles = [streamed.statistics(subset) for subset in streamed.of_size(1)]
        together = streamed.statistics(streamed.subsets[-1])
        dice = np.mean(
            [values.mean_of_defined(mean_of_known(streamed.dice(s))) for s in streamed.of_size(1)]
        )
        for region in REGIONS:
            ones = singles if region == WHOLE else [one.region(BOX) for one in singles]
            whole = together if region == WHOLE else together.region(BOX)
            single, ensemble = calibration_of(ones, "ece"), calibration_of([whole], "ece")
            points.append(
                LengthPoint(
                    loss,
                    epoch,
                    epoch * steps_per_epoch[loss],
                    region,
                    single,
                    ensemble,
                    difference(ensemble, single),
                    float(np.mean([one.nll() for one in ones])),
                    whole.nll(),
                    Gap.mean([Gap.of(one) for one in ones]),
                    Gap.of(whole),
                    float(dice),
                )
            )
    return tuple(points)
