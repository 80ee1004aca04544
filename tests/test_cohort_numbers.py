"""Numbers of whole cohorts: 10^15 voxels in a state, and more than 2^31 voxels in one call."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastcal import CalibrationStatistics, ensemble_statistics
from fastcal.calibration.limits import MOST_DECISIONS
from fastcal.core.problem import FRACTION_BITS

SETTINGS = [
    {"num_classes": 3, "moments": True, "fine_bins": 64, "entropy_bins": 4, "regions": ["edge"]},
    {"num_classes": 4, "multilabel": True, "convention": "paper"},
    {"num_classes": 104, "calibration": "classwise"},
]
COHORT = 10**15
"""Voxels: 100,000 volumes of 1024^3 are 1.07 * 10^14."""


def counted(settings: dict) -> CalibrationStatistics:
    statistics = CalibrationStatistics(**settings)
    classes = settings["num_classes"]
    values = 3 * torch.randn(2, classes, 500, generator=torch.Generator().manual_seed(2))
    probs = values.sigmoid() if statistics.multilabel else values.softmax(1)
    target = (values > 0.3).long() if statistics.multilabel else (values + 1).argmax(1)
    regions = {"edge": target > 0} if statistics.regions else None
    statistics.update(probs, target, regions=regions, case_id=("a", "b"))
    return statistics


def exact(statistics: CalibrationStatistics) -> tuple[list[int], list[int]]:
    """Python's integers, which have no end: sums as multiples of 2^-40, and all other words."""
    layout = statistics.settings.layout
    low = set(layout.low_words)
    sums, counts = [], []
    for row in statistics.state_dict()["total"].reshape(-1, layout.words).tolist():
        for word, value in enumerate(row):
            if word + 1 in low:
                sums.append((value << FRACTION_BITS) + row[word + 1])
            elif word not in low:
                counts.append(value)
    return sums, counts


def measured(statistics: CalibrationStatistics) -> list[float]:
    names = ("top-label", "both")
    top = [statistics.ece()] if statistics.settings.calibration in names else []
    return [*top, *statistics.classwise_ece(), statistics.brier(), statistics.nll()]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda one: f"{one['num_classes']} classes")
def test_a_cohort_is_counted_exactly_and_nothing_wraps_beyond_what_fits(settings: dict) -> None:
    statistics = counted(settings)
    sums, counts = exact(statistics)
    factor, metrics = 1, measured(statistics)
    most = MOST_DECISIONS // settings["num_classes"]
    while 2 * statistics.n_voxels <= most:
        statistics.merge(statistics)
        factor *= 2
        assert exact(statistics) == (
            [factor * one for one in sums],
            [factor * one for one in counts],
        )
    # Errors are summed over voxels and classes: with 104 classes 7 * 10^14 voxels fit, which is six
    # times 100,000 volumes of 1024^3.
    assert statistics.n_voxels > min(COHORT, most // 2)
    np.testing.assert_allclose(measured(statistics), metrics, rtol=1e-12)
    before = exact(statistics)
    with pytest.raises(ValueError, match=f"must hold at most {most} voxels"):
        statistics.merge(statistics)
    assert exact(statistics) == before


def test_parts_of_a_cohort_add_up_in_any_order() -> None:
    one, other = counted(SETTINGS[0]), counted(SETTINGS[0])
    for _ in range(38):  # 2.7 * 10^14 voxels
        one.merge(one)
    small = exact(other)
    there, back = one + other, other + one
    assert there == back
    assert exact(there) == tuple([2**38 * value + value for value in values] for values in small), (
        "a volume is not lost in a cohort, as it would be in floating point"
    )


@pytest.mark.slow
def test_a_call_takes_more_than_two_to_the_31_voxels() -> None:
    n = 2**31 + 4099
    probs = torch.tensor([0.75, 0.25])[None, :, None].expand(1, 2, n)
    target = torch.zeros(1, 1, dtype=torch.uint8).expand(1, n)
    statistics = CalibrationStatistics(2)
    statistics.update(probs, target)
    assert statistics.n_voxels == n
    assert statistics.accuracy() == 1
    assert statistics.ece() == pytest.approx(0.25, rel=1e-12)
    assert statistics.brier() == pytest.approx(0.125, rel=1e-12)
    mask = torch.ones(1, 1, dtype=torch.bool).expand(1, n)
    made = ensemble_statistics(
        [probs, probs], target, maps=(), from_logits=False, mask=mask
    ).calibration
    assert made is not None
    assert made.n_voxels == n


@pytest.mark.slow
def test_voxels_beyond_two_to_the_31_are_found_where_they_lie() -> None:
    """Numbers that are in memory, where an index of 32 bits would meet others."""
    n = 2**31 + 4099
    # Pages of zeros that are only read take no memory.
    probs = torch.from_numpy(np.zeros((1, 2, n), np.float16))
    target = torch.from_numpy(np.zeros((1, n), np.uint8))
    at = torch.tensor([0, 1, 4098, 2**31 - 1, 2**31, 2**31 + 1, n - 1])
    probs[0, 1, at] = 1.0
    target[0, at[::2]] = 1
    statistics = CalibrationStatistics(2)
    with pytest.warns(UserWarning, match=f"of {n - len(at)} voxels do not sum to 1"):
        statistics.update(probs, target)
    assert statistics.n_voxels == n
    assert statistics.accuracy() == pytest.approx((n - len(at[1::2])) / n, abs=1e-15)
    # Of the voxels with the label 1, all four were predicted, and three more.
    assert statistics.per_class("dice", "pooled")[1] == pytest.approx(8 / 11, rel=1e-15)
