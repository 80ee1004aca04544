"""From the records of all cases to numbers, and the files that hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastcal.core import atomic
from fastcal.report import style
from fastcal.report.page import write_page
from fastcal.study import figures, tables
from fastcal.study.comparison import DROPOUT, ENSEMBLE, SINGLE, compare
from fastcal.study.design import LOSSES
from fastcal.study.found import Origin, Results
from fastcal.study.lengths import length_points
from fastcal.study.markdown import section
from fastcal.study.quality import (
    DETECTORS,
    ENTROPY,
    EntropyFit,
    Outside,
    coverage,
    detection,
    entropy_fit,
    failure_detection,
    score_table,
)
from fastcal.study.sets import TEST
from fastcal.study.signs import signs
from fastcal.study.study_page import numbers_of_study

if TYPE_CHECKING:
    from fastcal.study.records import Streamed
    from fastcal.study.stages import StageTime
    from fastcal.study.study import Study

RESULTS, SECTION, PAGE = "results.json", "results.md", "report.html"


def results_of(
    study: Study,
    origin: Origin,
    streams: tuple[
        Mapping[str, Mapping[str, Streamed]],
        Mapping[str, Streamed],
        Mapping[tuple[str, int], Streamed],
    ],
    times: Sequence[StageTime],
) -> Results:
    """Measure everything, and write tables, figures and the section of Markdown.

    Args:
        study: The study.
        origin: How the results were made.
        streams: Records of the pools by loss and set, of dropout by loss, and of the long trainings
            by loss and epoch.
        times: What the stages took.
    """
    pools, dropout, lengths = streams
    comparison = compare({loss: pools[loss][TEST] for loss in LOSSES}, dropout)
    fits = tuple(_fits(pools, dropout))
    detections = tuple(_detections(pools))
    ensembles = {
        loss: score_table(pools[loss][TEST], pools[loss][TEST].scored[1]) for loss in LOSSES
    }
    points = length_points(lengths, {loss: _steps(study, loss) for loss in LOSSES})
    found = signs(
        comparison,
        [fit for fit in fits if fit.model == ENSEMBLE],
        [one for one in detections if (one.model, one.score) == (ENSEMBLE, ENTROPY)],
    )
    counts = tuple(len(study.split[part]) for part in ("train", "val", "test"))
    results = Results(
        study.design.title,
        (counts[0], counts[1], counts[2]),
        study.design.outside if study.outside is not None else "",
        study.members,
        origin,
        comparison,
        fits,
        tuple(one for loss in LOSSES for one in failure_detection(ensembles[loss], loss)),
        tuple(coverage(ensembles[loss], loss) for loss in LOSSES),
        detections,
        points,
        found,
        tuple(times),
    )
    page = numbers_of_study(study, origin, comparison, (pools, dropout), found)
    write_page(study.folder / PAGE, page)
    _write(study, results)
    return results


def _steps(study: Study, loss: str) -> int:
    """Return the steps of an epoch, as the checkpoint of the long training has them."""
    from fastcal.core.doors import read_checkpoint
    from fastcal.models.run import LAST, Run

    member = Run.open(study.run(f"{loss}-length")).members[0]
    course = read_checkpoint(member / LAST, dict[str, Any])["course"]
    return int(course["step"]) // int(course["epoch"])


def _fits(
    pools: Mapping[str, Mapping[str, Streamed]], dropout: Mapping[str, Streamed]
) -> list[EntropyFit]:
    found = []
    for loss in LOSSES:
        test = pools[loss][TEST]
        single, ensemble = test.scored
        for model, streamed, subset in (
            (SINGLE, test, single),
            (DROPOUT, dropout[loss], dropout[loss].scored[0]),
            (ENSEMBLE, test, ensemble),
        ):
            fit = entropy_fit(streamed, subset, loss=loss, model=model)
            if fit is not None:
                found.append(fit)
    return found


def _detections(pools: Mapping[str, Mapping[str, Streamed]]) -> list[Outside]:
    found = []
    for loss in LOSSES:
        within = pools[loss][TEST]
        for name, beyond in pools[loss].items():
            if name == TEST:
                continue
            for model, subset in zip((SINGLE, ENSEMBLE), beyond.scored, strict=True):
                for score in DETECTORS:
                    if subset.size == 1 and score != ENTROPY:
                        continue
                    found.append(
                        detection(
                            within,
                            beyond,
                            subset,
                            score,
                            labels=(loss, model, name),
                        )
                    )
    return found


def _write(study: Study, results: Results) -> None:
    folder = study.folder
    for name in ("tables", "figures"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, rows in tables.tables(results).items():
        atomic.write_text(folder / "tables" / f"{name}.csv", tables.csv_text(rows))
    for name, figure in figures.figures(results).items():
        with style.house_style(), atomic.atomic_path(folder / "figures" / f"{name}.png") as path:
            path.write_bytes(style.png_bytes(figure))
    atomic.write_text(folder / SECTION, section(results))
    # Last, so that a folder with it is complete.
    atomic.write_json(folder / RESULTS, tables.as_json(results))
