"""One self-contained HTML page about a comparison: table, figures, panels, how it was made."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastcal.core import atomic
from fastcal.report import panels, plots, style
from fastcal.report.region_scores import region_tables
from fastcal.report.scores import Comparison, signs, table, titles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastcal.calibration import CalibrationStatistics


def write_report(
    out: Path | str,
    comparison: Comparison,
    *,
    cases: Sequence[panels.CaseView] = (),
    min_count: int = 0,
) -> Path:
    """Write the page, whole or not at all. It loads nothing from the network.

    Args:
        out: The HTML file.
        comparison: Its models need their statistics, which the reliability diagrams draw. Each
            region among them gets a table, and fine cells (``fine_bins``) a risk-coverage curve.
        cases: Cases to show as image, reference, predictions and entropies.
        min_count: Bins of this many voxels or fewer are not drawn in the reliability diagrams.

    Returns:
        The file written.

    Raises:
        ValueError: A model of `comparison` has no statistics.
        OSError: The file cannot be written.
    """
    import jinja2

    target = Path(out)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fastcal.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["words"] = _words
    structures = dict(enumerate(comparison.structures))
    structures.pop(0, None)
    curves = _curves(comparison)
    page = environment.get_template("comparison.html.j2").render(
        comparison=comparison,
        columns=titles(comparison),
        rows=table(comparison),
        regions=region_tables(comparison),
        signs=signs(comparison),
        min_count=min_count,
        scores_png=_base64(plots.scores_figure(comparison.losses)),
        reliability_png=_base64(
            plots.reliability_figure(_diagrams(comparison), min_count=min_count)
        ),
        risk_coverage_png=_base64(plots.risk_coverage_figure(curves)) if curves else "",
        panels_png=_base64(panels.case_panels(cases, structures)) if cases else "",
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(target, page)
    return target


def _words(value: object) -> str:
    """A setting in words: ``widths 8, 16, 32; preset paper``."""
    if isinstance(value, Mapping):
        pairs = [f"{key.replace('_', ' ')} {_words(of_key)}" for key, of_key in value.items()]
        return "; ".join(pairs) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_words, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _diagrams(comparison: Comparison) -> Mapping[str, CalibrationStatistics]:
    """The first member and the ensemble of each loss."""
    found = {}
    for loss in comparison.losses:
        for model, title in ((loss.members[0], "single"), (loss.ensemble, "ensemble")):
            if model.statistics is None:
                raise ValueError(
                    "comparison must hold statistics, which the reliability diagrams need, got "
                    f"none for {loss.loss} {model.name}"
                )
            found[f"{loss.title}, {title}"] = model.statistics
    return found


def _curves(comparison: Comparison) -> dict[str, dict[str, CalibrationStatistics]]:
    """Of each loss the models of the diagrams, if all kept fine cells and counted a voxel."""
    diagrams = _diagrams(comparison)
    if not all(stats.fine_bins and stats.n_voxels for stats in diagrams.values()):
        return {}
    return {
        loss.title: {name: diagrams[f"{loss.title}, {name}"] for name in ("single", "ensemble")}
        for loss in comparison.losses
    }


def _base64(figure: Figure) -> str:
    with style.house_style():
        return base64.b64encode(style.png_bytes(figure)).decode("ascii")
