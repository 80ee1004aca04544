"""States that cannot have been counted are refused, and so are sums that no state can hold."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fastcal import CalibrationStatistics
from fastcal.core.errors import DataError

SETTINGS = [
    {"num_classes": 3, "moments": True, "fine_bins": 64, "entropy_bins": 4},
    {"num_classes": 3, "convention": "paper", "calibration": "top-label"},
    {"num_classes": 3, "multilabel": True, "entropy_bins": 4},
    {"num_classes": 1, "calibration": "classwise", "convention": "torchmetrics"},
    {"num_classes": 2, "regions": ["edge"]},
]


def counted(settings: dict, case_id: tuple[str, ...] | None = ("a", "b")) -> CalibrationStatistics:
    statistics = CalibrationStatistics(**settings)
    values = torch.randn(2, settings["num_classes"], 40, generator=torch.Generator().manual_seed(1))
    probs = values.sigmoid() if statistics.multilabel else values.softmax(1)
    probs[..., 0] = torch.eye(settings["num_classes"])[0]
    target = (values > 0.3).long() if statistics.multilabel else (values + 0.1).argmax(1)
    target[0, ..., :7] = 0
    regions = {"edge": target > 0} if statistics.regions else None
    statistics.update(probs, target, case_id=case_id, regions=regions)
    return statistics


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("case_id", [("a", "b"), None])
def test_counted_states_load(settings, case_id):
    statistics = counted(settings, case_id)
    for state in (statistics, CalibrationStatistics(**settings), statistics + statistics):
        loaded = CalibrationStatistics(**settings)
        loaded.load_state_dict(state.state_dict())
        assert loaded == state


def test_cases_and_voxels_without_a_case_load():
    both = counted(SETTINGS[0]) + counted(SETTINGS[0], None)
    loaded = CalibrationStatistics(**SETTINGS[0])
    loaded.load_state_dict(both.state_dict())
    assert loaded == both


def changes(layout):
    """Word, what it becomes, and what the message names."""
    yield layout.N_VOXELS, -1, "negative"
    yield layout.N_CORRECT, 10**6, "correct decisions"
    yield layout.predicted.start, 10**6, "predicted voxels"
    yield layout.reference.start, -5, "negative"
    yield layout.true_positive.start, 10**6, "true positives"
    yield layout.BRIER + 1, 1 << 40, r"fractions .* 2\^40"
    yield layout.NLL + 1, -1, r"fractions .* 2\^40"
    for name in ("top_label", "classwise"):
        cells = getattr(layout, name)
        if cells.start < cells.stop:
            yield cells.stop - 3, 10**6, f"hits of {name}"
            yield cells.stop - 4, 10**6, f"counts of {name} bins"
            yield cells.stop - 2, 10**6, f"sums of {name}"
            yield cells.stop - 1, 1 << 40, r"fractions .* 2\^40"
    for name in ("fine_top_label", "fine_classwise", "entropy"):
        cells = getattr(layout, name)
        if cells.start < cells.stop:
            yield cells.stop - 1, 10**6, f"hits of {name}"
    yield layout.N_VOXELS, 2**60, "at most .* voxels"
    yield layout.NLL, 2**62, r"below 2\^62"
    yield layout.NLL, -(2**63), r"below 2\^62"


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("place", ["total", "case_rows"])
def test_states_that_cannot_have_been_counted_are_refused(settings, place):
    statistics = counted(settings)
    for word, value, message in changes(statistics.settings.layout):
        state = statistics.state_dict()
        state[place].reshape(-1, state[place].shape[-1])[0, word] = value
        loaded = counted(settings, ("c", "d"))
        before = loaded.state_dict()
        with pytest.raises(ValueError, match=message):
            loaded.load_state_dict(state)
        assert torch.equal(loaded.state_dict()["total"], before["total"])


def test_a_total_that_is_not_that_of_its_cases_is_refused(tmp_path):
    statistics = counted(SETTINGS[0])
    state = statistics.state_dict()
    state["total"][2] += 1
    with pytest.raises(ValueError, match="total must be the sum of case_rows"):
        statistics.load_state_dict(state)
    path = tmp_path / "state.json"
    statistics.save(path)
    content = json.loads(path.read_text())
    content["total"][0] -= 1
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="total"):
        CalibrationStatistics.load(path)


def test_doubling_is_refused_before_a_number_is_wrong():
    statistics = counted({"num_classes": 3, "convention": "paper"})
    ece, brier, classwise = statistics.ece(), statistics.brier(), statistics.classwise_ece()
    while statistics.n_voxels <= 2**56 // 6:
        statistics.merge(statistics)
        assert statistics.ece() == pytest.approx(ece)
        assert statistics.brier() == pytest.approx(brier)
        np.testing.assert_allclose(statistics.classwise_ece(), classwise)
    before = statistics.state_dict()
    with pytest.raises(ValueError, match="must hold at most"):
        statistics.merge(statistics)
    assert torch.equal(statistics.state_dict()["total"], before["total"])
    assert torch.equal(statistics.state_dict()["case_rows"], before["case_rows"])
