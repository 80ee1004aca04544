"""Figures, scores and the page: what is drawn and printed is what was counted."""

from __future__ import annotations

import base64
import json
import math
import re
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
from fastcal.core.errors import DataError
from fastcal.report import html, panels, plots
from fastcal.report.gallery import spread_over
from fastcal.report.region_scores import region_tables
from fastcal.report.scores import (
    ComparedLoss,
    Comparison,
    Scored,
    Scores,
    markdown,
    signs,
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


def test_signs_compare_the_numbers_they_show(comparison: Comparison) -> None:
    found = {sign.claim: sign for sign in signs(comparison)}
    worse = found["Dice loss has the worse NLL than cross entropy, single models"]
    ce, dice = (loss.mean("nll") for loss in comparison.losses)
    assert worse.holds == (dice > ce)
    assert worse.numbers == f"{dice:.4f} against {ce:.4f}"
    better = found["Dice loss: the ensemble has the better ECE than its members' mean"]
    loss = comparison.losses[1]
    assert better.holds == (loss.ensemble.scores["ece"] < loss.mean("ece"))
    assert len(found) == 11


def test_a_sign_that_fails_is_shown_as_failed(comparison: Comparison) -> None:
    ce, dice = comparison.losses
    swapped = replace(comparison, losses=(replace(ce, loss="dice"), replace(dice, loss="ce")))
    held = {sign.claim: sign.holds for sign in signs(comparison)}
    claim = "Dice loss has the worse NLL than cross entropy, single models"
    assert {sign.claim: sign.holds for sign in signs(swapped)}[claim] is not held[claim]
    assert "**no**" in markdown(swapped)


def test_markdown_has_the_command_and_every_number(comparison: Comparison) -> None:
    text = markdown(comparison)
    assert "```sh\nfastcal demo -o out\n```" in text
    for row in table(comparison):
        assert all(value in text for value in row.values)
    widths = {
        line.count("|") for line in text.splitlines() if line.startswith(("| loss", "| Cross"))
    }
    assert widths <= {4, 8}


def test_results_come_back_from_json(comparison: Comparison, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(comparison.to_dict()))
    loaded = Comparison.load(file)
    assert loaded.to_dict() == comparison.to_dict()
    assert markdown(loaded) == markdown(comparison)


def test_undefined_scores_are_a_dash_and_null(comparison: Comparison, tmp_path: Path) -> None:
    from fastcal.core import atomic

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


def test_regions_have_tables_of_their_own_scores(
    comparison: Comparison, detailed: Comparison
) -> None:
    found = region_tables(detailed)
    assert [(one.name, one.share) for one in found] == [("box:8:2", 0.25), ("band:<3>", 0.125)]
    for region in found:
        for loss, single, together in zip(
            detailed.losses, region.rows[::2], region.rows[1::2], strict=True
        ):
            inside = [
                model.statistics.region(region.name)  # type: ignore[union-attr]
                for model in (*loss.members, loss.ensemble)
            ]
            assert together.values[1] == f"{100 * inside[-1].ece():.2f} %"
            assert together.values[3] == f"{inside[-1].nll():.4f}"
            assert together.values[5] == f"{inside[-1].auroc():.4f}"
            assert single.values[4] == f"{np.mean([one.brier() for one in inside[:-1]]):.4f}"
    assert region_tables(comparison) == []


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


# --- panels ---------------------------------------------------------------------------------------


def view(affine: np.ndarray, shape: tuple[int, int, int] = (6, 8, 4)) -> panels.CaseView:
    label = np.zeros(shape, dtype=np.uint8)
    label[2:4, 2:6, 2] = 1
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    model = panels.ModelView("CE", label, np.full(shape, 0.3, dtype=np.float32))
    return panels.CaseView("case", image, label, affine, (model,))


def picture(affine: np.ndarray, mark: tuple[int, int]) -> tuple[int, int]:
    """Row and column at which a voxel of slice 2 is drawn."""
    case = view(affine)
    image = np.zeros_like(case.image)
    image[mark[0], mark[1], 2] = 1
    figure = panels.case_panels([replace(case, image=image)], {1: "structure"})
    shown = np.asarray(figure.axes[0].images[0].get_array())
    row, column = np.unravel_index(shown.argmax(), shown.shape)
    return int(row), int(column)


def test_the_patients_left_front_is_drawn_at_the_top_right() -> None:
    ras, lps = np.diag([1.0, 1.0, 1.0, 1.0]), np.diag([-1.0, -1.0, 1.0, 1.0])
    assert picture(ras, (0, 7)) == (0, 5)
    assert picture(lps, (5, 0)) == (0, 5)


def test_panels_show_image_reference_prediction_and_entropy_on_one_scale() -> None:
    figure = panels.case_panels([view(np.eye(4)), view(np.eye(4))], {1: "a", 2: "b"})
    assert [ax.get_title() for ax in figure.axes[:4]] == [
        "Image",
        "Reference",
        "CE",
        "CE: entropy",
    ]
    for row in (0, 1):
        entropy = figure.axes[4 * row + 3].images[0]
        assert entropy.get_clim() == (0, pytest.approx(math.log(3)))
        assert len(figure.axes[4 * row + 2].collections) == 1


def test_pixels_keep_the_proportions_of_the_voxels() -> None:
    figure = panels.case_panels([view(np.diag([1.0, 2.0, 5.0, 1.0]))], {1: "structure"})
    assert figure.axes[0].get_aspect() == pytest.approx(2.0)


def test_volumes_that_do_not_fit_are_an_error_that_names_the_case() -> None:
    case = view(np.eye(4))
    with pytest.raises(ValueError, match=r"label of case must have .*got \(2, 2, 2\)"):
        panels.case_panels([replace(case, label=np.zeros((2, 2, 2), dtype=int))], {1: "a"})
    with pytest.raises(ValueError, match="got none"):
        panels.case_panels([], {1: "a"})


def test_shown_cases_are_spread_over_the_list() -> None:
    names: list[object] = list("abcdefg")
    assert spread_over(names, 3) == ["a", "d", "g"]  # type: ignore[arg-type]
    assert spread_over(names, 9) == names  # type: ignore[arg-type]
    assert spread_over(names, 0) == []  # type: ignore[arg-type]


# --- the page -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("page") / "new" / "report.html"
    html.write_report(file, comparison, cases=[view(np.eye(4))], min_count=10)
    return file.read_text()


def test_page_asks_the_network_for_nothing(page: str) -> None:
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", page)
    assert "url(" not in page
    assert "<script" not in page


def test_page_holds_its_pictures(page: str) -> None:
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 3
    assert all(base64.b64decode(p).startswith(b"\x89PNG\r\n") for p in pictures)


def test_page_holds_every_number_and_escapes_names(page: str, comparison: Comparison) -> None:
    assert "Cohort &lt;1&gt;" in page
    for row in table(comparison):
        assert all(value in page for value in row.values)
    assert "bins\nof 10 voxels or fewer" in page


def test_page_tells_settings_in_words(page: str) -> None:
    assert "<dd>name UNet; widths 4, 8; head none</dd>" in page
    assert "<dd>3</dd>" in page


def test_page_without_regions_and_cells_names_the_options_that_count_them(page: str) -> None:
    hints = re.findall(r'<p class="hint"><code>(--[a-z-]+) [^<]*</code> adds', page)
    assert hints == ["--fine-bins", "--region"]
    assert "Risk-coverage curves" not in page


def test_page_with_regions_and_cells_shows_their_numbers(
    detailed: Comparison, tmp_path: Path
) -> None:
    page = html.write_report(tmp_path / "report.html", detailed).read_text()
    assert 'class="hint"' not in page
    assert len(re.findall(r'src="data:image/png;base64,', page)) == 3
    assert page.count('<th class="number">AURC</th>') == 3, "the whole and two regions"
    whole, *parts = page.split("<h3>")
    assert all(value in whole for row in table(detailed) for value in row.values)
    for part, region in zip(parts, region_tables(detailed), strict=True):
        assert part.startswith(region.name.replace("<3>", "&lt;3&gt;"))
        assert f"{100 * region.share:.3g} % of the voxels" in part
        assert all(value in part for row in region.rows for value in row.values)


def test_page_without_statistics_is_an_error_and_leaves_the_old_page(
    comparison: Comparison, tmp_path: Path
) -> None:
    ce = comparison.losses[0]
    bare = replace(comparison, losses=(replace(ce, ensemble=Scored("e", ce.ensemble.scores)),))
    file = tmp_path / "report.html"
    file.write_text("old")
    with pytest.raises(ValueError, match="got none for ce e"):
        html.write_report(file, bare)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
