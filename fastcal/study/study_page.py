"""The results of a study as a page: its models, its cases and its claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from fastcal.core.arrays import Floats
from fastcal.report.cohort import DROPOUT, ENSEMBLE, SINGLE, Cohort, Kind, Model
from fastcal.report.measured import Measured, mean_of_cases, mean_of_known
from fastcal.report.provenance import Provenance
from fastcal.report.quantities import WHOLE, Numbers
from fastcal.study.comparison import CALIBRATION, IN_BOX, Quantity
from fastcal.study.comparison import WHOLE as WHOLE_VOLUME
from fastcal.study.design import BOX, LOSSES
from fastcal.study.sets import TEST

if TYPE_CHECKING:
    from fastcal.report.claims import Sign
    from fastcal.study.comparison import Comparison
    from fastcal.study.comparison import Model as Scored
    from fastcal.study.found import Origin
    from fastcal.study.records import Streamed
    from fastcal.study.study import Study

_SCORE = "binary_entropy"


def numbers_of_study(
    study: Study,
    origin: Origin,
    comparison: Comparison,
    streams: tuple[Mapping[str, Mapping[str, Streamed]], Mapping[str, Streamed]],
    signs: tuple[Sign, ...],
) -> Numbers:
    """Return what a page shows of a study; its numbers are those of the study's tables.

    Args:
        study: The study.
        origin: How the results were made.
        comparison: Its models on the held-out cases.
        streams: Records of the pools by loss and set, and of dropout by loss.
        signs: The paper's claims.
    """
    pools, dropout = streams
    models: list[Model] = []
    table: dict[tuple[str, str, str], Measured] = {}
    by_structure: dict[tuple[str, str], Measured] = {}
    structures = pools[LOSSES[0]][TEST].structures
    for loss in LOSSES:
        for kind in (SINGLE, DROPOUT, ENSEMBLE):
            scored = comparison.of(loss, kind if kind != DROPOUT else "MC dropout")
            streamed = dropout[loss] if kind == DROPOUT else pools[loss][TEST]
            model, dice = _model(loss, kind, scored, streamed)
            models.append(model)
            table[model.title, "dice", WHOLE] = scored.measured[Quantity("dice")]
            for measure in CALIBRATION:
                for name, region in ((WHOLE, WHOLE_VOLUME), (BOX, IN_BOX)):
                    table[model.title, measure, name] = scored.measured[Quantity(measure, region)]
            for place, structure in enumerate(structures):
                by_structure[model.title, structure] = mean_of_cases(dice[:, place])
    train, validation, test = (len(study.split[part]) for part in ("train", "val", "test"))
    design = study.design
    cohort = Cohort(
        title=design.title,
        subtitle=(
            f"{study.members} members per loss, trained on {train} cases, chosen on {validation}, "
            f"and scored on {test} that no model has seen"
        ),
        structures=structures,
        classes=("background", *structures),
        cases=comparison.cases,
        models=tuple(models),
        about=Provenance(origin.command, f"{origin.software}; {origin.machine}"),
        findings=signs,
    )
    return Numbers(cohort, ("dice", "ece", "nll", "brier"), (WHOLE, BOX), table, by_structure)


def _model(loss: str, kind: Kind, scored: Scored, streamed: Streamed) -> tuple[Model, Floats]:
    subsets = streamed.subsets if kind == DROPOUT else streamed.of_size(scored.size)
    dice = np.stack([streamed.dice(subset) for subset in subsets], axis=-1)
    mean = np.stack([mean_of_known(one) for one in dice])
    entropy = None
    known = [subset for subset in subsets if subset in streamed.scored]
    if kind == ENSEMBLE and known and _SCORE in streamed.score_names:
        entropy = streamed.score(known[0], _SCORE)
    size = len(subsets) if kind == SINGLE else scored.size
    states = tuple(streamed.statistics(subset) for subset in subsets)
    return Model(loss, kind, size, mean, states, entropy), mean
