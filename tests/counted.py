"""Statistics of one volume, and what it means for them to be right or the same."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from torch import Tensor

from fastcal import CalibrationStatistics


def counted(probs: Tensor, target: Tensor, **options: object) -> CalibrationStatistics:
    """Statistics of one volume."""
    keep = {k: options.pop(k) for k in ("mask", "ignore_index", "case_id") if k in options}
    statistics = CalibrationStatistics(probs.shape[1], **options)
    statistics.update(probs, target, **keep)
    return statistics


def assert_same_state(a: CalibrationStatistics, b: CalibrationStatistics) -> None:
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys()
    for key, value in left.items():
        same = torch.equal(value, right[key]) if torch.is_tensor(value) else value == right[key]
        assert same, key


def assert_scores_match(
    got: CalibrationStatistics, want: oracle.Scores, *, exact_input: bool, dice: bool = True
) -> None:
    """Counts exact, calibration 1e-12; Brier and NLL 1e-12, or 1e-6 relative + 1e-7 in float32."""
    assert got.n_voxels == want.n_voxels
    binary = len(want.classwise) == 1
    curves = [] if binary else [(got.reliability(), want.top_label)]
    curves += [(got.reliability(class_index=k), bins) for k, bins in enumerate(want.classwise)]
    for curve, bins in curves:
        np.testing.assert_array_equal(curve.count, bins.count)
        with np.errstate(invalid="ignore"):
            accuracy, confidence = bins.hits / bins.count, bins.confidence_sum / bins.count
        np.testing.assert_allclose(curve.accuracy, accuracy, rtol=0, atol=1e-15)
        np.testing.assert_allclose(curve.mean_confidence, confidence, rtol=0, atol=1e-12)
    for norm in ("l1", "l2", "max"):
        ece = got.ece(norm=norm, kind="top-label")
        assert ece == pytest.approx(want.top_label.ece(norm), abs=1e-12, nan_ok=True)
    np.testing.assert_allclose(got.classwise_ece(), want.classwise_ece, rtol=0, atol=1e-12)
    near = {"abs": 1e-12, "rel": 0} if exact_input else {"abs": 1e-7, "rel": 1e-6}
    assert got.brier() == pytest.approx(want.brier, nan_ok=True, **near)
    assert got.nll() == pytest.approx(want.nll, nan_ok=True, **near)
    assert got.accuracy() == pytest.approx(want.accuracy, abs=1e-12, nan_ok=True)
    if dice:
        np.testing.assert_allclose(got.per_class("dice", "pooled"), want.dice, rtol=0, atol=1e-12)
