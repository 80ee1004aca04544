"""Figures, scores and the page: what is drawn and printed is what was counted."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastcal import CalibrationStatistics
from fastcal.calibration import METRICS
from fastcal.core import atomic
from fastcal.core.errors import DataError
from fastcal.report import plots
from fastcal.report.claims import Evidence, Sign
from fastcal.report.scores import (
    ComparedLoss,
    Comparison,
    Scored,
    Scores,
    markdown,
    table,
    titles,
)


def counted(
    seed: int, sharpness: float = 3.0, *, fine_bins: int = 0, regions: Sequence[str] = ()
) -> CalibrationStatistics:
    """Statistics of two cases, three classes; the sharper, the more overconfident.

    The first region holds a quarter of the voxels, the second half of these, and so on.
    """
    generator = torch.Generator().manual_seed(seed)
    stats = CalibrationStatistics(
        num_classes=3, n_bins=10, fine_bins=fine_bins, regions=list(regions)
    )
    places = torch.arange(400)[None]
    masks = {name: places < 100 // 2**number for number, name in enumerate(regions)}
    for case in ("a", "b"):
        logits = torch.randn(1, 3, 400, generator=generator)
        target = torch.multinomial(logits[0].softmax(0).T, 1, generator=generator).T
        stats.update((sharpness * logits).softmax(1), target, case_id=[case], regions=masks or None)
    return stats


def compared(*, fine_bins: int = 0, regions: Sequence[str] = ()) -> Comparison:
    def scored(name: str, seed: int, sharpness: float = 3.0) -> Scored:
        stats = counted(seed, sharpness, fine_bins=fine_bins, regions=regions)
        return Scored(name, Scores.from_statistics(stats), stats)

    return Comparison(
        dataset="Cohort <1>",
        structures=("background", "anterior", "posterior"),
        split=(8, 2, 4),
        seed=0,
        config={"max_epochs": 3, "network": {"name": "UNet", "widths": [4, 8], "head": None}},
        command="fastcal demo -o out",
        software="fastcal 1, torch 2",
        losses=(
            ComparedLoss("ce", (scored("0", 1), scored("1", 2)), scored("ensemble", 3, 1.0)),
            ComparedLoss("dice", (scored("0", 4, 9.0), scored("1", 5, 9.0)), scored("e", 6, 4.0)),
        ),
    )


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compared()


@pytest.fixture(scope="module")
def detailed() -> Comparison:
    """With fine cells and two regions."""
    return compared(fine_bins=4096, regions=["box:8:2", "band:<3>"])


# --- reliability diagram --------------------------------------------------------------------------


def bars(ax: Axes) -> dict[float, float]:
    """Left edge to height of the accuracy bars, which come first."""
    return {round(bar.get_x(), 6): bar.get_height() for bar in ax.containers[0]}


def test_bars_are_the_accuracies_of_the_bins_that_hold_voxels() -> None:
    stats = counted(0)
    curve = stats.reliability()
    ax = plots.reliability_diagram(stats, ax=Figure().add_subplot())
    drawn = curve.count > 0
    expected = zip(curve.edges[:-1][drawn].round(6), curve.accuracy[drawn], strict=True)
    assert bars(ax) == {float(edge): pytest.approx(height) for edge, height in expected}


def test_gap_spans_accuracy_to_mean_confidence() -> None:
    stats = counted(0)
    curve = stats.reliability()
    ax = plots.reliability_diagram(stats, ax=Figure().add_subplot())
    gaps = {
        round(bar.get_x(), 6): (bar.get_y(), bar.get_y() + bar.get_height())
        for container in ax.containers[1:]
        for bar in container
    }
    for edge, n, accuracy, confidence in zip(
        curve.edges[:-1], curve.count, curve.accuracy, curve.mean_confidence, strict=True
    ):
        if n:
            assert gaps[round(float(edge), 6)] == pytest.approx(sorted((accuracy, confidence)))


def test_bins_of_min_count_voxels_or_fewer_are_not_drawn() -> None:
    stats = counted(0)
    curve = stats.reliability()
    limit = int(np.sort(curve.count[curve.count > 0])[2])
    ax = plots.reliability_diagram(stats, ax=Figure().add_subplot(), min_count=limit)
    assert len(bars(ax)) == (curve.count > limit).sum()


def test_histogram_shows_every_count() -> None:
    stats = counted(0)
    curve = stats.reliability()
    ax = plots.reliability_diagram(stats, ax=Figure().add_subplot(), min_count=50)
    (below,) = ax.child_axes
    assert [bar.get_height() for bar in below.patches] == curve.count[curve.count > 0].tolist()


def test_diagram_says_the_error_that_was_counted() -> None:
    stats = counted(0)
    ax = plots.reliability_diagram(stats, ax=Figure().add_subplot(), title="CE")
    assert ax.get_legend().get_title().get_text() == f"ECE {100 * stats.ece():.2f} %"
    assert ax.get_title() == "CE"
    one = plots.reliability_diagram(stats, ax=Figure().add_subplot(), class_index=1)
    expected = f"ECE {100 * stats.classwise_ece()[1]:.2f} %"
    assert one.get_legend().get_title().get_text() == expected


def test_diagram_of_nothing_is_empty_and_negative_min_count_an_error() -> None:
    empty = CalibrationStatistics(num_classes=2)
    assert bars(plots.reliability_diagram(empty, ax=Figure().add_subplot())) == {}
    with pytest.raises(ValueError, match="min_count must be at least 0, got -1"):
        plots.reliability_diagram(empty, min_count=-1)


# --- scores ---------------------------------------------------------------------------------------


def test_scores_are_those_of_the_statistics() -> None:
    stats = counted(0)
    scores = Scores.from_statistics(stats)
    assert scores["ece"] == stats.ece()
    assert (scores["nll"], scores["brier"], scores["accuracy"]) == (
        stats.nll(),
        stats.brier(),
        stats.accuracy(),
    )
    assert scores["dice"] == pytest.approx(stats.dice())
    assert scores["classwise_ece"] == pytest.approx(stats.classwise_ece().mean())


def test_table_has_means_ranges_and_ensembles(comparison: Comparison) -> None:
    rows = table(comparison)
    assert [row.model for row in rows] == ["single (mean of 2)", "ensemble of 2"] * 2
    first, second = (m.scores["nll"] for m in comparison.losses[0].members)
    assert rows[0].values[3] == METRICS["nll"].text((first + second) / 2)
    low, high = sorted((first, second))
    assert rows[0].spread[3] == f"{low:.4f} to {high:.4f}"
    assert rows[1].values[1] == METRICS["ece"].text(comparison.losses[0].ensemble.scores["ece"])
    for column in range(5):
        assert sum(row.best[column] for row in rows) == 1


def test_markdown_has_the_command_and_every_number(comparison: Comparison) -> None:
    text = markdown(comparison)
    assert "```sh\nfastcal demo -o out\n```" in text
    for row in table(comparison):
        assert all(value in text for value in row.values)
    widths = {
        line.count("|") for line in text.splitlines() if line.startswith(("| loss", "| Cross"))
    }
    assert widths <= {4, 8}


def test_verdicts_are_in_the_table_and_come_back_from_json(
    comparison: Comparison, tmp_path: Path
) -> None:
    tests = (
        Evidence("NLL: a and b", "1 against 2", -1.0, -1.5, -0.5, 0.01),
        Evidence("ECE: a and b", "3 % against 3 %", 0.0, -0.1, 0.1, math.nan),
    )
    judged = replace(comparison, signs=(Sign("A beats b", tests),))
    text = markdown(judged)
    assert "| A beats b | undecided | ECE: a and b: 3 % against 3 % (-0.1000 to 0.1000) |" in text
    file = tmp_path / "results.json"
    atomic.write_json(file, judged.to_dict())
    loaded = Comparison.load(file)
    assert markdown(loaded) == text
    assert [sign.verdict for sign in loaded.signs] == ["undecided"]


def test_signs_without_intervals_decide_nothing(comparison: Comparison, tmp_path: Path) -> None:
    content = comparison.to_dict() | {"signs": [{"claim": "c", "holds": True, "numbers": "1"}]}
    file = tmp_path / "results.json"
    file.write_text(json.dumps(content))
    assert Comparison.load(file).signs == ()


def test_results_come_back_from_json(comparison: Comparison, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(comparison.to_dict()))
    loaded = Comparison.load(file)
    assert loaded.to_dict() == comparison.to_dict()
    assert markdown(loaded) == markdown(comparison)


def test_undefined_scores_are_a_dash_and_null(comparison: Comparison, tmp_path: Path) -> None:
    ce = comparison.losses[0]
    undefined = replace(ce.ensemble.scores, values={**ce.ensemble.scores.values, "nll": math.nan})
    holed = replace(comparison, losses=(replace(ce, ensemble=Scored("ensemble", undefined)),))
    file = tmp_path / "results.json"
    atomic.write_json(file, holed.to_dict())
    loaded = Comparison.load(file)
    assert math.isnan(loaded.losses[0].ensemble.scores["nll"])
    assert table(loaded)[1].values[3] == "-"


def test_table_and_json_have_the_order_of_the_confidence_if_it_was_counted(
    comparison: Comparison, detailed: Comparison, tmp_path: Path
) -> None:
    assert titles(detailed)[-2:] == ["AUROC", "AURC"]
    assert len(titles(comparison)) == 5
    rows = table(detailed)
    for loss, row in zip(detailed.losses, rows[1::2], strict=True):
        stats = loss.ensemble.statistics
        assert stats is not None
        assert row.values[5:] == (f"{stats.auroc():.4f}", f"{stats.aurc():.5f}")
    for column, best in ((5, max), (6, min)):
        values = [float(row.values[column]) for row in rows]
        assert [row.best[column] for row in rows] == [v == best(values) for v in values]
    assert "| Brier | AUROC | AURC |" in markdown(detailed)
    file = tmp_path / "results.json"
    file.write_text(json.dumps(detailed.to_dict()))
    assert markdown(Comparison.load(file)) == markdown(detailed)
    assert "auroc" not in json.dumps(comparison.to_dict())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"losses": 1}'])
def test_a_file_that_holds_no_results_is_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(text)
    with pytest.raises(DataError, match=r"results\.json: (is not the results|not JSON)"):
        Comparison.load(file)


RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"


@pytest.mark.parametrize(
    "file",
    sorted(set(RESULTS.glob("*.json")) - set(RESULTS.glob("study_*"))),
    ids=lambda file: file.stem,
)
def test_documented_results_are_those_of_their_json(file: Path) -> None:
    page = RESULTS.with_suffix(".md").read_text(encoding="utf-8")
    assert markdown(Comparison.load(file)) in page
