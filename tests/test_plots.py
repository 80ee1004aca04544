"""Bands, grids and heat maps: what is drawn is what was counted."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox, TransformedBbox

from fastcal import CalibrationStatistics
from fastcal.calibration import Reliability, bootstrap, case_curves, reliability_band
from fastcal.report import plots
from fastcal.report.dataset_reliability import cases_in_cells


def counted(n_cases: int = 6, *, ids: bool = True, fine_bins: int = 0) -> CalibrationStatistics:
    generator = torch.Generator().manual_seed(8)
    stats = CalibrationStatistics(num_classes=3, n_bins=8, fine_bins=fine_bins)
    for case in range(n_cases):
        logits = torch.randn(1, 3, 300 + 40 * case, generator=generator)
        target = torch.multinomial(logits[0].softmax(0).T, 1, generator=generator).T
        stats.update(
            ((1 + case) * logits).softmax(1), target, case_id=[f"c{case}"] if ids else None
        )
    return stats


def axes() -> Axes:
    return Figure().add_subplot()


def labelled(ax: Axes, words: str) -> list[tuple[float, float, float]]:
    """Left edge, bottom and top of the bars whose legend has these words."""
    return [
        (bar.get_x(), bar.get_y(), bar.get_y() + bar.get_height())
        for container in ax.containers
        if words in str(container.get_label())
        for bar in container
    ]


# --- numbers --------------------------------------------------------------------------------------


def test_curves_of_the_cases_add_up_to_the_pooled_curve() -> None:
    stats = counted()
    for class_index in (None, 1):
        curves, pooled = case_curves(stats, class_index), stats.reliability(class_index)
        assert curves.count.shape == (6, 8)
        np.testing.assert_array_equal(curves.count.sum(0), pooled.count)
        filled = pooled.count > 0
        hits = np.nansum(curves.accuracy * curves.count, 0)[filled]
        np.testing.assert_allclose(hits / pooled.count[filled], pooled.accuracy[filled])


def binary(cases: dict[str, list[tuple[float, int, int]]]) -> CalibrationStatistics:
    """Statistics of two bins: of each case, voxels of a probability, how many, and how many hit."""
    stats = CalibrationStatistics(num_classes=1, n_bins=2)
    for name, voxels in cases.items():
        p = [p for p, n, _ in voxels for _ in range(n)]
        y = [int(k < hits) for _, n, hits in voxels for k in range(n)]
        stats.update(torch.tensor([p]), torch.tensor([y]), case_id=[name])
    return stats


def test_band_is_the_percentiles_of_all_sets_of_three_cases() -> None:
    """Three cases with accuracies 0, 1/2 and 1 of 2, 2 and 4 voxels: 27 sets, all enumerated."""
    stats = binary({"a": [(0.2, 2, 0)], "b": [(0.2, 2, 1), (0.9, 5, 1)], "c": [(0.2, 4, 4)]})
    low, high = reliability_band(stats, level=0.8, n_resamples=40_000, seed=1)
    count, hits = np.array([2, 2, 4]), np.array([0, 1, 4])
    sets = [list(drawn) for drawn in product(range(3), repeat=3)]
    pooled = [hits[drawn].sum() / count[drawn].sum() for drawn in sets]
    expected = np.percentile(pooled, [10, 90], method="inverted_cdf")
    assert [low[0], high[0]] == pytest.approx(expected)
    assert (low[1], high[1]) == pytest.approx((0.2, 0.2))  # one case fills the second bin
    again = reliability_band(stats, level=0.8, n_resamples=40_000, seed=1)
    np.testing.assert_array_equal(again, (low, high))


@pytest.mark.parametrize("class_index", [None, 1])
def test_band_and_curves_do_not_depend_on_the_order_of_the_cases(class_index: int | None) -> None:
    stats = counted()
    turned = CalibrationStatistics(num_classes=3, n_bins=8)
    for case in ("c3", "c0", "c5", "c4", "c1", "c2"):
        turned.merge(stats.case(case))
    assert turned.case_ids != stats.case_ids
    band = reliability_band(stats, class_index, n_resamples=300, seed=4)
    np.testing.assert_array_equal(
        band, reliability_band(turned, class_index, n_resamples=300, seed=4)
    )
    assert not np.array_equal(band, reliability_band(stats, class_index, n_resamples=300, seed=5))
    one, other = case_curves(stats, class_index), case_curves(turned, class_index)
    np.testing.assert_array_equal(one.count, other.count)
    np.testing.assert_array_equal(one.mean_confidence, other.mean_confidence)


def test_band_of_a_bin_is_the_bootstrap_interval_of_the_accuracy_of_its_voxels() -> None:
    generator = torch.Generator().manual_seed(3)
    whole = CalibrationStatistics(num_classes=3, n_bins=4)
    apart = [CalibrationStatistics(num_classes=3, n_bins=4) for _ in range(4)]
    for case in range(9):
        p = (2 * torch.randn(1, 3, 200, generator=generator)).softmax(1)
        target = torch.multinomial(p[0].T, 1, generator=generator).T
        whole.update(p, target, case_id=[f"c{case}"])
        cell = (4 * p.max(1).values).ceil().long().clamp_min(1) - 1
        for k, alone in enumerate(apart):
            alone.update(p, target, mask=cell == k, case_id=[f"c{case}"])
    low, high = reliability_band(whole, level=0.9, n_resamples=500, seed=2)
    for k, alone in enumerate(apart):
        found = bootstrap(alone, "accuracy", level=0.9, n_resamples=500, seed=2)
        np.testing.assert_array_equal((low[k], high[k]), (found.low, found.high))


def test_empty_bins_have_no_interval() -> None:
    stats = counted()
    low, high = reliability_band(stats, level=0.9, n_resamples=50)
    empty = stats.reliability().count == 0
    assert empty.any()
    assert np.isnan(low[empty]).all()
    assert (low[~empty] <= high[~empty]).all()


# --- reliability diagram --------------------------------------------------------------------------


def test_band_spans_the_interval_of_every_bin_that_is_drawn() -> None:
    stats = counted()
    pooled = stats.reliability(1)
    limit = int(np.sort(pooled.count)[2])
    ax = plots.reliability_diagram(
        stats, ax=axes(), class_index=1, interval=0.9, n_resamples=200, seed=3, min_count=limit
    )
    low, high = reliability_band(stats, 1, level=0.9, n_resamples=200, seed=3)
    drawn = pooled.count > limit
    band = labelled(ax, "90 % interval over cases")
    assert 0 < len(band) == drawn.sum() < len(drawn)
    np.testing.assert_allclose([bottom for _, bottom, _ in band], low[drawn])
    np.testing.assert_allclose([top for _, _, top in band], high[drawn])
    inside = pooled.edges[:-1][drawn]
    assert all(x > edge for (x, _, _), edge in zip(band, inside, strict=True))


def test_heights_are_the_accuracies_and_the_gaps_reach_the_confidences() -> None:
    stats = counted()
    curve = stats.reliability()
    ax = plots.reliability_diagram(stats, ax=axes(), interval=0.95)
    filled = curve.count > 0
    heights = [bar.get_height() for bar in ax.containers[0]]
    np.testing.assert_allclose(heights, curve.accuracy[filled])
    gaps = sorted(labelled(ax, "overconfident") + labelled(ax, "underconfident"))
    ends = np.sort([curve.accuracy[filled], curve.mean_confidence[filled]], axis=0).T
    np.testing.assert_allclose([gap[1:] for gap in gaps], ends)
    weight = curve.count[filled] / curve.count.sum()
    area = sum(w * (top - bottom) for w, (_, bottom, top) in zip(weight, gaps, strict=True))
    assert area == pytest.approx(stats.ece())


def test_errors_in_percent_are_printed_once_in_percent() -> None:
    stats = CalibrationStatistics.preset("paper", 2)
    p = torch.tensor([0.7, 0.8, 0.9])
    stats.update(torch.stack([p, 1 - p], 1), torch.tensor([0, 1, 0]))
    ax = plots.reliability_diagram(stats, ax=axes())
    assert ax.get_legend().get_title().get_text() == f"ECE {stats.ece():.2f} %"


def test_bins_of_every_convention_can_be_drawn() -> None:
    stats = CalibrationStatistics.preset("torchmetrics", 2)
    stats.update(torch.tensor([[0.0, 1.0], [0.25, 0.75]]), torch.tensor([1, 0]), case_id=["a", "b"])
    ax = plots.reliability_diagram(stats, ax=axes(), interval=0.9)
    assert [bar.get_height() for bar in ax.containers[0]] == [0.0, 1.0]
    plots.dataset_reliability(stats, ax=axes())


def test_intervals_need_a_level_and_cases() -> None:
    with pytest.raises(ValueError, match="case_id must be given with every update"):
        plots.reliability_diagram(counted(ids=False), ax=axes(), interval=0.95)
    with pytest.raises(ValueError, match="at least 2 cases, got 1"):
        plots.reliability_diagram(counted(1), ax=axes(), interval=0.95)
    with pytest.raises(ValueError, match="interval must lie between 0 and 1, got 95"):
        plots.reliability_diagram(counted(), ax=axes(), interval=95)
    with pytest.raises(ValueError, match="n_resamples must be from 1 to 10000000, got 0"):
        plots.reliability_diagram(counted(), ax=axes(), interval=0.95, n_resamples=0)


def test_diagrams_in_a_grid_of_axes_keep_apart_and_inside_the_figure() -> None:
    """Wide, square and tall places; constrained layout has to know where the histograms end."""
    for width, height in ((9.0, 5.0), (7.0, 8.0), (5.0, 9.0)):
        figure = Figure(figsize=(width, height), layout="constrained")
        for ax in figure.subplots(2, 2).flat:
            plots.reliability_diagram(counted(1), ax=ax, title="Title")
        figure.draw_without_rendering()
        boxes = [ax.get_tightbbox() for ax in figure.axes]
        for box, other in combinations(boxes, 2):
            assert Bbox.intersection(box, other) is None
        union = Bbox.union(boxes)
        assert min(*union.min, *(figure.bbox.max - union.max)) >= 0


def test_a_diagram_and_its_histogram_stand_in_the_place_of_their_axes() -> None:
    figure = Figure(figsize=(4, 6))
    ax = figure.add_axes((0.2, 0.1, 0.6, 0.5))
    plots.reliability_diagram(counted(1), ax=ax)
    figure.draw_without_rendering()
    place = TransformedBbox(Bbox.from_bounds(0.2, 0.1, 0.6, 0.5), figure.transFigure)
    (below,) = ax.child_axes
    both = Bbox.union([ax.bbox, below.bbox])
    assert (both.min >= place.min - 0.5).all()
    assert (both.max <= place.max + 0.5).all()


# --- classwise grid -------------------------------------------------------------------------------


def test_grid_draws_every_class_in_its_own_axes() -> None:
    stats, figure = counted(), Figure()
    grid = plots.classwise_grid(stats, class_names=["a", "b", "c"], columns=2, figure=figure)
    assert [ax.get_title() for ax in grid] == ["a", "b", "c"]
    assert [ax.get_visible() for ax in figure.axes] == [True, True, True, False]
    for k, ax in enumerate(grid):
        curve = stats.reliability(k)
        heights = [bar.get_height() for bar in ax.containers[0]]
        np.testing.assert_allclose(heights, curve.accuracy[curve.count > 0])
        expected = f"ECE {100 * stats.classwise_ece()[k]:.2f} %"
        assert ax.get_legend().get_title().get_text() == expected
    banded = plots.classwise_grid(stats, interval=0.5, min_count=5, figure=Figure())
    assert banded[2].get_title() == "Class 2"
    assert labelled(banded[2], "50 % interval")


def test_grid_without_a_figure_makes_one_of_pyplot() -> None:
    import matplotlib.pyplot as plt

    (first, *_) = plots.classwise_grid(counted())
    assert first.figure is plt.gcf()
    plt.close("all")


def test_bad_grids_are_named() -> None:
    with pytest.raises(ValueError, match="one name per class: 3, got 2"):
        plots.classwise_grid(counted(), class_names=["a", "b"], figure=Figure())
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        plots.classwise_grid(counted(), columns=0)


# --- heat map of the dataset ----------------------------------------------------------------------


def test_heat_map_counts_the_cases_that_run_through_each_cell() -> None:
    stats = counted()
    ax = plots.dataset_reliability(stats, ax=axes(), min_count=4, class_index=2, title="Wall")
    expected = np.zeros((8, 8), int)
    for case in stats.case_ids:
        curve = stats.case(case).reliability(2)
        for j in range(8):
            if curve.count[j] > 4:
                expected[max(0, int(np.ceil(8 * curve.accuracy[j])) - 1), j] += 1
    (mesh,) = (c for c in ax.collections if isinstance(c, QuadMesh))
    np.testing.assert_array_equal(np.ma.filled(mesh.get_array(), 0), expected)
    assert ax.get_title() == "Wall"
    assert ax.get_legend().get_title().get_text() == "6 cases"


def test_lines_of_the_heat_map_are_the_mean_over_cases_and_the_pool() -> None:
    stats = counted()
    ax = plots.dataset_reliability(stats, ax=axes())
    lines = {line.get_label(): line.get_xydata() for line in ax.lines}
    pooled = stats.reliability()
    filled = pooled.count > 0
    np.testing.assert_allclose(
        lines["All voxels pooled"], np.c_[pooled.mean_confidence, pooled.accuracy][filled]
    )
    curves = case_curves(stats)
    means = np.c_[
        np.nanmean(curves.mean_confidence[:, filled], 0), np.nanmean(curves.accuracy[:, filled], 0)
    ]
    np.testing.assert_allclose(lines["Mean over cases"], means)


def test_cells_of_accuracy_hold_their_upper_edge() -> None:
    values = np.array([[0.0, 0.5], [0.25, 1.0]])
    curves = Reliability(np.linspace(0, 1, 3), np.ones((2, 2), np.int64), values, values)
    np.testing.assert_array_equal(cases_in_cells(curves), [[2, 0], [1, 1]])


def test_heat_maps_need_cases() -> None:
    with pytest.raises(ValueError, match="case_id must be given with every update"):
        plots.dataset_reliability(counted(ids=False), ax=axes())
    with pytest.raises(ValueError, match="min_count must be at least 0, got -1"):
        plots.dataset_reliability(counted(), ax=axes(), min_count=-1)


# --- risk and coverage ----------------------------------------------------------------------------


def test_risk_coverage_draws_the_curve_and_shades_the_excess() -> None:
    stats = counted(fine_bins=4096)
    curve = stats.risk_coverage()
    ax = plots.risk_coverage(stats, ax=axes(), title="Risk", label="ensemble")
    optimal, risk = ax.lines
    np.testing.assert_allclose(np.array(risk.get_data())[:, 1:], [curve.coverage, curve.risk])
    np.testing.assert_allclose(optimal.get_ydata()[1:], curve.optimal)
    assert risk.get_ydata()[-1] == pytest.approx(1 - stats.accuracy())
    assert np.trapezoid(*reversed(risk.get_data())) == pytest.approx(stats.aurc(), abs=2e-3)
    words, dashed = [text.get_text() for text in ax.get_legend().get_texts()]
    assert words == f"ensemble: AURC {stats.aurc():.5f}, excess {stats.e_aurc():.5f}"
    assert dashed == "ideal: wrong voxels the least sure"
    assert ax.get_title(loc="left") == "Risk"
    assert ax.get_ylim()[1] > max(risk.get_ydata())


def test_curves_of_two_methods_share_the_axes() -> None:
    ax = plots.risk_coverage(counted(fine_bins=64), ax=axes())
    top = ax.get_ylim()[1]
    plots.risk_coverage(counted(2, fine_bins=64), ax=ax, colour="red")
    assert len(ax.lines) == 4
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert len(legend) == 3, "the dashed lines are explained once"
    assert ax.get_ylim()[1] >= top


def test_panels_of_risk_and_coverage_have_one_scale() -> None:
    sharp, dull = counted(fine_bins=64), counted(1, fine_bins=64)
    panels = {"ce": {"single": sharp, "ensemble": dull}, "dice": {"single": dull}}
    first, second = plots.risk_coverage_figure(panels).axes
    assert [ax.get_title(loc="left") for ax in (first, second)] == ["ce", "dice"]
    assert first.get_ylim() == second.get_ylim()
    assert [len(ax.lines) for ax in (first, second)] == [4, 2]
    words = [text.get_text() for text in first.get_legend().get_texts()]
    assert words[1] == f"ensemble: AURC {dull.aurc():.5f}, excess {dull.e_aurc():.5f}"
    assert first.lines[1].get_color() != first.lines[3].get_color()
    with pytest.raises(ValueError, match="panels must hold at least one panel, got none"):
        plots.risk_coverage_figure({})


def test_risk_coverage_needs_fine_cells_and_voxels() -> None:
    with pytest.raises(ValueError, match="fine_bins must be set"):
        plots.risk_coverage(counted(1), ax=axes())
    with pytest.raises(ValueError, match="stats must have counted voxels"):
        plots.risk_coverage(CalibrationStatistics(2, fine_bins=64), ax=axes())
