"""Pictures of a quality predictor: its fit, what it rests on, and what it was asked about."""

from __future__ import annotations

import numpy as np

from fastcal.quality.observed import Observed
from fastcal.quality.predictor import QualityPredictor
from fastcal.report.quality_fit import FitPanel, quality_figure
from fastcal.report.style import png_bytes
from fastcal.scores import SEGMENT_SCORES, ScoreTable

_POINTS = 200


def fit_picture(predictor: QualityPredictor, table: ScoreTable | None = None) -> bytes:
    """Draw a fit as PNG.

    The linear model is drawn as in the paper, its score against logit Dice with the line and its
    bands. For the others, predicted Dice stand along the axis.

    Args:
        predictor: A fitted predictor.
        table: Structures to add: as points where their Dice is known, else as ticks.

    Raises:
        ImportError: matplotlib is not installed.
    """
    groups = tuple(predictor.fits_)
    if predictor.model == "linear":
        panels = [_line_panel(predictor, group, table) for group in groups]
    else:
        panels = [_predicted_panel(predictor, table)]
    return png_bytes(quality_figure(panels, clip=predictor.clip))


def _line_panel(predictor: QualityPredictor, group: str, table: ScoreTable | None) -> FitPanel:
    name = predictor.scores[0]
    known, new = _rows(predictor, group, table)
    shown = known.scores[:, 0]
    others = np.empty(0) if new is None else new.scores[~new.absent, 0]
    everything = np.concatenate([shown, others])
    grid = np.linspace(np.nanmin(everything), np.nanmax(everything), _POINTS)
    structures = (group or predictor.structures_[0],) * _POINTS
    line = predictor.line(group or None)
    return FitPanel(
        title=group or "All structures",
        x_label=SEGMENT_SCORES[name].title if name in SEGMENT_SCORES else name,
        points=_points(known, shown),
        grid=grid,
        line=predictor.predict(grid, structures),
        band=predictor.predict_interval(grid, structures)
        if group or predictor.conformal_ is None or not predictor.mondrian
        else None,
        mean_band=predictor.predict_band(grid, structures),
        unknown=others,
        legend=f"{line.intercept:.2f} {line.slope:+.1f} x (r = {line.r:.2f})",
    )


def _predicted_panel(predictor: QualityPredictor, table: ScoreTable | None) -> FitPanel:
    known, new = _rows(predictor, "", table)
    shown = predictor.predict(known.scores, known.structures)
    there = None if new is None else new.rows(~new.absent)
    others = None if there is None else predictor.predict(there.scores, there.structures)
    ends = np.concatenate([shown, known.truth])
    grid = np.linspace(ends.min(), ends.max(), _POINTS)
    return FitPanel(
        title="All structures",
        x_label="Predicted Dice",
        points=_points(known, shown),
        grid=grid,
        line=grid,
        unknown=others,
        legend="as predicted",
        x_is_dice=True,
    )


def _rows(
    predictor: QualityPredictor, group: str, table: ScoreTable | None
) -> tuple[Observed, Observed | None]:
    """The structures with a Dice (of the table, or else of the fit), and those without."""
    given = None if table is None else Observed.of(table, predictor.scores)
    new = given if given is not None and given.dice is None else None
    known = predictor.training_ if given is None or new is not None else given
    known = known.rows(~known.absent & ~np.isnan(known.truth) & ~np.isnan(known.scores).all(1))
    if group:
        known = known.rows(known.of_structure(group))
        new = None if new is None else new.rows(new.of_structure(group))
    return known, new


def _points(rows: Observed, x: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        name: (x[rows.of_structure(name)], rows.truth[rows.of_structure(name)])
        for name in dict.fromkeys(rows.structures)
    }
