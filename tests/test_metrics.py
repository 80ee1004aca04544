"""A metric has one home: its row of METRICS, which everything that shows a metric reads."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from members import labels, probabilities

from fastcal import CalibrationStatistics
from fastcal.calibration import (
    METRICS,
    Measure,
    Metric,
    Rows,
    bootstrap,
    calibration_summary,
    region_summaries,
)
from fastcal.cli.outcome import print_calibration
from fastcal.report import plots
from fastcal.report.scores import ComparedLoss, Comparison, Scored, Scores, markdown, table, titles

DOCS = Path(__file__).resolve().parent.parent / "docs"


def counted(seed: int = 0, **options: object) -> CalibrationStatistics:
    """Four cases of 300 voxels, three classes."""
    (p,) = probabilities(1, 3, (300,), dtype=torch.float64, batch=4, seed=seed)
    statistics = CalibrationStatistics(3, **options)
    statistics.update(p, labels(3, (4, 300), seed=seed), case_id=["a", "b", "c", "d"])
    return statistics


def compared(*statistics: CalibrationStatistics) -> Comparison:
    """A comparison whose members and ensemble have these statistics."""
    *members, ensemble = (
        Scored(str(k), Scores.from_statistics(one), one) for k, one in enumerate(statistics)
    )
    loss = ComparedLoss("ce", tuple(members), ensemble)
    structures = ("background", "left", "right")
    return Comparison("cohort", structures, (1, 1, 4), 0, {}, "command", "software", (loss,))


def docs_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_metrics", DOCS / "write_metrics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("reduction", ["pooled", "case"])
@pytest.mark.parametrize("name", [name for name in METRICS if name != "mce"])
def test_a_method_gives_what_its_row_reads(name, reduction):
    statistics = counted(fine_bins=64)
    found = getattr(statistics, name)(reduction=reduction)
    if isinstance(found, float):
        assert statistics.measure(name, reduction) == found
        return
    np.testing.assert_array_equal(statistics.per_class(name, reduction), found)
    assert statistics.measure(name, reduction) == pytest.approx(found.mean(), abs=1e-12)
    one = statistics.measure(Measure(name, class_index=2), reduction)
    assert one == pytest.approx(found[2], abs=1e-12)


def test_mce_is_the_largest_gap():
    statistics = counted()
    assert statistics.measure("mce") == statistics.ece("max")
    assert bootstrap(statistics, "mce", n_resamples=9).estimate == statistics.ece("max")


def test_an_added_row_is_everywhere(monkeypatch, capsys):
    """One row is all that a metric needs: Python, JSON, both tables, the figure, an interval."""

    def error_rate(rows: Rows, _: Measure) -> np.ndarray:
        layout = rows.settings.layout
        right = rows.words[..., layout.N_CORRECT] / rows.words[..., layout.N_VOXELS]
        return np.asarray(1 - right)

    row = Metric(
        title="Error rate",
        read=error_rate,
        words="counts",
        sentence="share of voxels labelled wrongly",
        unit="%",
        digits=1,
        key="error_rate",
        column=True,
        figure=True,
    )
    monkeypatch.setitem(METRICS, "error_rate", row)
    statistics = counted(regions=[])
    wanted = 1 - statistics.accuracy()
    assert statistics.measure("error_rate") == wanted
    assert len(statistics.per_case("error_rate")) == 4

    summary, by_case = (calibration_summary(statistics, reduction=r) for r in ("pooled", "case"))
    assert summary["error_rate"] == wanted
    print_calibration(summary, by_case)
    printed = capsys.readouterr().out
    assert "Error rate" in printed
    assert f"{100 * wanted:.1f} %" in printed

    comparison = compared(counted(1), counted(2), statistics)
    assert titles(comparison)[-1] == "Error rate"
    assert table(comparison)[1].values[-1] == f"{100 * wanted:.1f} %"
    assert "| Error rate |" in markdown(comparison)
    figure = plots.scores_figure(comparison.losses)
    assert figure.axes[-1].get_title(loc="left") == "Error rate (%)"

    interval = bootstrap(statistics, "error_rate", n_resamples=200)
    assert interval.low < interval.estimate == wanted < interval.high
    assert "| `error_rate` | share of voxels labelled wrongly | all | % |" in docs_script().table()


def test_an_added_metric_of_classes_has_the_numbers_of_its_classes(monkeypatch):
    row = Metric(
        title="Recall",
        read=lambda rows, _: (
            rows.words[..., rows.settings.layout.true_positive]
            / rows.words[..., rows.settings.layout.reference]
        ),
        words="counts",
        sentence="share of the class's voxels that are labelled as it",
        better="higher",
        per_class=True,
        options=("class_index",),
        key="recall_mean",
        class_key="recall",
    )
    monkeypatch.setitem(METRICS, "recall", row)
    statistics = counted()
    wanted = statistics.true_positive / statistics.reference
    summary = calibration_summary(statistics)
    assert list(summary["recall"].values()) == wanted.tolist()
    assert summary["recall_mean"] == pytest.approx(wanted.mean())
    assert statistics.measure(Measure("recall", class_index=1)) == wanted[1]


def test_a_number_is_printed_alike_on_the_command_line_and_in_the_report(capsys):
    statistics = counted(fine_bins=1024)
    summaries = [calibration_summary(statistics, reduction=r) for r in ("pooled", "case")]
    print_calibration(*summaries)
    header, _, pooled, by_case = capsys.readouterr().out.strip().splitlines()
    comparison = compared(statistics, statistics)
    assert header.split("  ")[1:] != []
    for title in titles(comparison):
        assert title in header
    shown = [metric for metric in METRICS.values() if metric.column]
    for metric, value in zip(shown, table(comparison)[1].values, strict=True):
        assert value in (pooled if metric.reduction == "pooled" else by_case)
    assert max(map(len, (header.rstrip(), pooled.rstrip()))) <= 80


def test_a_summary_holds_what_was_kept():
    everything = {metric.key for metric in METRICS.values() if metric.key}
    assert everything < calibration_summary(counted(fine_bins=64)).keys()
    top = calibration_summary(counted(calibration="top-label"))
    assert {"ECE", "MCE", "Brier"} < top.keys()
    assert not {"classwise_ECE", "AUROC"} & top.keys()
    classwise = calibration_summary(counted(calibration="classwise", fine_bins=64))
    assert {"classwise_ECE", "TACE"} < classwise.keys()
    assert not {"ECE", "AURC"} & classwise.keys()


def test_a_region_has_a_summary_of_its_own():
    (p,), y = probabilities(1, 3, (300,)), labels(3, (2, 300))
    statistics = CalibrationStatistics(3, regions=["first"])
    first = torch.arange(300).expand(2, -1) < 150
    statistics.update(p, y, regions={"first": first})
    alone = CalibrationStatistics(3)
    alone.update(p, y, mask=first)
    assert region_summaries(statistics) == {"first": calibration_summary(alone)}


def test_numbers_that_are_not_defined_are_a_dash():
    for metric in METRICS.values():
        assert metric.text(math.nan) == metric.text(None) == "-"


def test_every_row_says_what_it_is():
    titles_of_rows = [metric.title for metric in METRICS.values()]
    keys = [key for metric in METRICS.values() for key in (metric.key, metric.class_key) if key]
    assert len(set(titles_of_rows)) == len(titles_of_rows)
    assert len(set(keys)) == len(keys)
    for metric in METRICS.values():
        assert metric.sentence
        assert not metric.sentence.endswith(".")
        assert metric.key or not (metric.column or metric.figure)


def test_the_page_of_the_metrics_has_the_table_of_the_rows():
    script = docs_script()
    page = script.PAGE.read_text(encoding="utf-8")
    assert script.BLOCK.search(page)[0] == script.table(), "run docs/write_metrics.py"
