"""A comparison of losses as the cohort of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcal.cases.labels import LabelScheme
from fastcal.cases.reference import LabelMaps
from fastcal.core.arrays import Floats
from fastcal.data import description
from fastcal.report.case_layers import FolderLayers
from fastcal.report.cohort import ENSEMBLE, SINGLE, Cohort, Model
from fastcal.report.folders import Source, member_dice
from fastcal.report.measured import mean_of_known
from fastcal.report.provenance import Provenance
from fastcal.report.scores import ComparedLoss, Comparison, counted

if TYPE_CHECKING:
    from fastcal.data.dataset import Case

_SCORE = "binary_entropy"


def cohort_of(
    comparison: Comparison,
    cases: Sequence[Case],
    labels: Path,
    ensembles: Mapping[str, Path],
) -> Cohort:
    """Return single members and ensembles of each loss.

    Args:
        comparison: With the statistics behind its scores.
        cases: The held-out cases.
        labels: Folder of their references.
        ensembles: Prediction folder of each loss's ensemble.

    Raises:
        DataError: A folder cannot be read.
        ValueError: A model has no statistics.
    """
    described = description.find(labels)
    assert described is not None  # the dataset was opened by it
    scheme = LabelScheme.read(described)
    names = sorted(case.name for case in cases)
    sources = {loss: Source.open(folder, scheme, labels) for loss, folder in ensembles.items()}
    models: list[Model] = []
    titles: dict[str, str] = {}
    for loss in comparison.losses:
        found = _models(loss, names, sources[loss.loss], list(scheme.foreground))
        titles[loss.loss] = found[-1].title
        models += found
    train, validation, test = comparison.split
    return Cohort(
        title=comparison.dataset,
        subtitle=(
            f"{counted(comparison.n_members, 'member')} per loss, trained on "
            f"{counted(train, 'case')}, chosen on {validation}, and scored on {test} that no model "
            "has seen"
        ),
        structures=comparison.structures[1:],
        classes=comparison.structures,
        cases=tuple(names),
        models=tuple(models),
        about=Provenance(comparison.command, comparison.software, _differing(comparison)),
        layers=FolderLayers(
            LabelMaps.find(labels, scheme),
            {titles[loss]: source for loss, source in sources.items()},
            {case.name: case.images[0] for case in cases},
        ),
    )


def _models(
    loss: ComparedLoss, cases: Sequence[str], source: Source, keys: Sequence[str]
) -> list[Model]:
    states = tuple(model.statistics for model in (*loss.members, loss.ensemble))
    known = [state for state in states if state is not None]
    if len(known) < len(states):
        raise ValueError(f"comparison must hold statistics, got none for a model of {loss.loss}")
    members, size = known[:-1], len(loss.members)
    every = np.stack([member_dice(state, cases) for state in members], axis=-1)
    mean: Floats = np.stack([mean_of_known(one) for one in every])
    entropy = np.array(
        [[source.scores.get(c, {}).get(key, {}).get(_SCORE, np.nan) for key in keys] for c in cases]
    )
    ensemble = Model(
        loss.loss,
        ENSEMBLE,
        size,
        member_dice(known[-1], cases),
        (known[-1],),
        None if np.isnan(entropy).all() else entropy,
    )
    return [Model(loss.loss, SINGLE, size, mean, tuple(members)), ensemble]


def _differing(comparison: Comparison) -> dict[str, Any]:
    """Return the settings of the training that differ from the defaults, and the seed."""
    from fastcal.train import TrainConfig

    found: dict[str, Any] = {"seed": comparison.seed} if comparison.seed else {}
    defaults = TrainConfig().to_json()
    for section, values in comparison.config.items():
        plain = defaults.get(section)
        if not isinstance(values, Mapping) or not isinstance(plain, Mapping):
            if values != plain:
                found[section] = values
            continue
        found |= {
            f"{section}.{name}": value for name, value in values.items() if value != plain.get(name)
        }
    return found
