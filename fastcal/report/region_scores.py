"""The scores of a comparison region by region: the parts of the volumes where structures are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastcal.report.scores import Comparison, Scored, Scores, TableRow, table

if TYPE_CHECKING:
    from fastcal.calibration import CalibrationStatistics


@dataclass(frozen=True, slots=True)
class RegionTable:
    """The table of one region."""

    name: str
    share: float
    """Of the voxels counted, in [0, 1]."""
    rows: list[TableRow]


def region_tables(comparison: Comparison) -> list[RegionTable]:
    """Return `fastcal.report.scores.table` for every region that was counted.

    Args:
        comparison: With the statistics behind its scores.

    Raises:
        ValueError: A model has no statistics, or lacks a region that the first one has.

    Example:
        >>> region_tables(comparison)[0].name  # doctest: +SKIP
        'box:8:2'
    """
    whole = _statistics(comparison.losses[0].ensemble)
    return [
        RegionTable(
            name,
            whole.region(name).n_voxels / max(whole.n_voxels, 1),
            table(_inside(comparison, name)),
        )
        for name in whole.regions
    ]


def _inside(comparison: Comparison, region: str) -> Comparison:
    """The same models, scored in a region alone."""
    losses = [
        replace(
            loss,
            members=tuple(_scored(member, region) for member in loss.members),
            ensemble=_scored(loss.ensemble, region),
        )
        for loss in comparison.losses
    ]
    return replace(comparison, losses=tuple(losses))


def _scored(model: Scored, region: str) -> Scored:
    return Scored(model.name, Scores.from_statistics(_statistics(model).region(region)))


def _statistics(model: Scored) -> CalibrationStatistics:
    if model.statistics is None:
        raise ValueError(
            f"comparison must hold statistics, which have the regions, got none for {model.name}"
        )
    return model.statistics
