"""A section of Markdown about a study: tables, claims, and what explains a claim that fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastcal.report.claims import SUPPORTED
from fastcal.report.style import LOSS_NAMES
from fastcal.scores import MEASURES, SEGMENT_SCORES
from fastcal.study.comparison import (
    DROPOUT,
    ENSEMBLE,
    IN_BOX,
    OVERLAP,
    QUANTITIES,
    REGIONS,
    SINGLE,
    WHOLE,
    Model,
    Quantity,
)
from fastcal.study.design import LOSSES
from fastcal.study.lengths import Gap
from fastcal.study.quality import DETECTORS, ENTROPY, FAILURE_DICE, ORACLE
from fastcal.study.sets import OUTSIDE
from fastcal.study.stages import minutes

if TYPE_CHECKING:
    from fastcal.scores import Estimate
    from fastcal.study.found import Results
    from fastcal.study.lengths import LengthPoint

SCORE_TITLES = {
    "binary_entropy": "segment entropy",
    "mutual_information": "mutual information",
    "pairwise_dice": "pairwise Dice",
}


def section(results: Results) -> str:
    """Return the section of a study, from its title to the times of its stages."""
    parts = [
        _head(results),
        _table_of_models(results),
        _table_of_sizes(results),
        _table_of_differences(results),
        _table_of_fits(results),
        _table_of_failures(results),
        _sentence_of_coverage(results),
        _table_of_outside(results),
        _table_of_lengths(results),
        _table_of_claims(results),
        _explanations(results),
        _times(results),
    ]
    return "\n".join(part for part in parts if part)


def _head(results: Results) -> str:
    train, val, test = results.split
    origin = results.origin
    outside = f"; from outside: {results.outside}" if results.outside else ""
    return (
        f"## {results.title}\n\n"
        f"{train} cases to train, {val} to validate, {test} held out; {results.members} members a "
        f"loss{outside}. {origin.software}, {origin.machine}.\n\n"
        f"```sh\n{origin.command}\n```\n\n"
        "Intervals are 95 % bootstrap intervals over the held-out cases. The box is that of the "
        "reference, 8 mm wider in-plane and 2 slices across.\n"
    )


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [_row(heads), "|" + "---|" * len(heads), *map(_row, rows)]
    return "\n".join(lines) + "\n"


def _measured(model: Model, quantity: Quantity) -> str:
    found = model.measured[quantity]
    low, high = found.interval
    if np.isnan(low):
        return quantity.text(found.estimate)
    ends = " to ".join(quantity.text(end).removesuffix(" %") for end in (low, high))
    return f"{quantity.text(found.estimate)} ({ends})"


def _table_of_models(results: Results) -> str:
    groups = (
        [quantity for quantity in QUANTITIES if quantity.measure in OVERLAP],
        *([quantity for quantity in QUANTITIES if quantity.region == region] for region in REGIONS),
    )
    tables = []
    for quantities in groups:
        rows = [
            [LOSS_NAMES[model.loss], model.title, *(_measured(model, one) for one in quantities)]
            for model in results.comparison.shown
        ]
        tables.append(_table(["loss", "model", *(one.title for one in quantities)], rows))
    tables[0] += "\n" + left_out(results.comparison.shown)
    return "\n".join(tables)


def left_out(models: Sequence[Model]) -> str:
    """Say how many distances the means leave out: a missed structure must not improve them."""
    parts = []
    for model in models:
        missing, of = model.undefined["hd95"]
        if missing:
            parts.append(f"{LOSS_NAMES[model.loss]}, {model.title}: {missing:,} of {of:,}")
    if not parts:
        return "HD95 is defined for every structure of every case.\n"
    return (
        "HD95 is undefined where a structure is in the reference alone, in the prediction alone or "
        f"in neither, and the mean leaves it out ({'; '.join(parts)}).\n"
    )


def _table_of_sizes(results: Results) -> str:
    shown = (Quantity("dice"), *(Quantity(m, IN_BOX) for m in ("nll", "brier", "ece")))
    rows = [
        [
            LOSS_NAMES[loss],
            str(model.size),
            str(model.draws),
            *(one.text(model.measured[one].estimate) for one in shown),
            Quantity("ece", WHOLE).text(model.measured[Quantity("ece", WHOLE)].estimate),
        ]
        for loss in LOSSES
        for model in results.comparison.by_size(loss)
    ]
    heads = ["loss", "M", "draws", *(one.title for one in shown), Quantity("ece", WHOLE).title]
    return "Against the number of members, the mean over random ensembles:\n\n" + _table(
        heads, rows
    )


def _table_of_differences(results: Results) -> str:
    comparison = results.comparison
    shown = (Quantity("dice"), *(Quantity(m, IN_BOX) for m in ("nll", "brier", "ece")))
    rows = []
    for title, (loss, kind), (other_loss, other_kind) in (
        *(
            (f"{LOSS_NAMES[loss]}: ensemble less {kind}", (loss, ENSEMBLE), (loss, kind))
            for loss in LOSSES
            for kind in (SINGLE, DROPOUT)
        ),
        ("Single: Dice loss less cross entropy", ("dice", SINGLE), ("ce", SINGLE)),
        ("Ensemble: Dice loss less cross entropy", ("dice", ENSEMBLE), ("ce", ENSEMBLE)),
    ):
        first, second = comparison.of(loss, kind), comparison.of(other_loss, other_kind)
        cells = []
        for quantity in shown:
            found = comparison.difference(quantity, first, second)
            scale, unit = (100.0, " %") if quantity.measure == "ece" else (1.0, "")
            digits = 2 if unit else 4
            value, low, high = (scale * x for x in (found.estimate, found.low, found.high))
            cells.append(
                f"{value:+.{digits}f}{unit} ({low:+.{digits}f} to {high:+.{digits}f}), "
                f"p {_p(found.p_value)}"
            )
        rows.append([title, *cells])
    return "Paired differences, with Wilcoxon's signed-rank test over cases:\n\n" + _table(
        ["difference", *(one.title for one in shown)], rows
    )


def _p(value: float) -> str:
    if np.isnan(value):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _table_of_fits(results: Results) -> str:
    rows = [
        [
            LOSS_NAMES[fit.loss],
            fit.model,
            str(fit.line.n),
            f"{fit.r.value:.2f} ({fit.r.low:.2f} to {fit.r.high:.2f})",
            _p(fit.line.p_value),
            f"{fit.line.intercept:.2f} {'-' if fit.line.slope < 0 else '+'} "
            f"{abs(fit.line.slope):.2f} H",
        ]
        for fit in results.fits
    ]
    return "Entropy H of each predicted structure against the logit of its Dice:\n\n" + _table(
        ["loss", "model", "structures", "r", "p", "logit Dice"], rows
    )


def _table_of_failures(results: Results) -> str:
    names = dict.fromkeys(one.score for one in results.failures)
    by = {(one.loss, one.score): one.measures for one in results.failures}
    titles = {name: score.title for name, score in SEGMENT_SCORES.items()}
    shown = ("aurc", "augrc", "auroc")
    rows = [
        [
            titles.get(name, name),
            *(
                _estimate(by[loss, name][measure], digits=4 if measure != "auroc" else 2)
                if (loss, name) in by
                else "-"
                for loss in LOSSES
                for measure in shown
            ),
        ]
        for name in names
    ]
    heads = [f"{MEASURES[one].title}, {LOSS_NAMES[loss]}" for loss in LOSSES for one in shown]
    rates = ", ".join(
        f"{100 * by[loss, ORACLE]['failure_rate'].value:.0f} % with {LOSS_NAMES[loss].lower()}"
        for loss in LOSSES
    ).replace("dice", "Dice")
    return (
        "Which score of the ensembles finds poor segments. The risk is 1 - Dice, and AUROC is "
        f"that of a Dice below {FAILURE_DICE:g} ({rates}):\n\n" + _table(["score", *heads], rows)
    )


def _estimate(found: Estimate, *, digits: int) -> str:
    if np.isnan(found.value):
        return "-"
    value, low, high = (f"{one:.{digits}f}" for one in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"


def _sentence_of_coverage(results: Results) -> str:
    parts = []
    for one in results.coverages:
        name = LOSS_NAMES[one.loss]
        if one.reason:
            parts.append(f"{name}: none, because {one.reason}.")
            continue
        found = one.covered
        parts.append(
            f"{name}: {100 * found.value:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f}), "
            f"of a mean width of {one.width:.3f} in Dice."
        )
    level = f"{100 * results.coverages[0].level:g} %"
    return (
        f"Conformal intervals of the line are to hold {level} of the Dice of new cases. Fitted and "
        f"calibrated on one half of the held-out cases and counted on the other, they hold: "
        + " ".join(parts)
        + "\n"
    )


def _table_of_outside(results: Results) -> str:
    if not results.detections:
        return ""
    names = list(dict.fromkeys(one.name for one in results.detections))
    rows = []
    for name in names:
        title = results.outside if name == OUTSIDE else f"{name}"
        for loss in LOSSES:
            by = {
                (one.model, one.score): one
                for one in results.detections
                if (one.name, one.loss) == (name, loss)
            }
            first = by[ENSEMBLE, ENTROPY]
            cells = [
                _estimate(by[model, score].auroc, digits=2)
                for model, score in (
                    (SINGLE, ENTROPY),
                    *((ENSEMBLE, score) for score in DETECTORS),
                )
            ]
            rows.append(
                [
                    title,
                    LOSS_NAMES[loss],
                    f"{first.dice_within:.3f}, {first.dice_beyond:.3f}",
                    f"{first.within:.3f}, {first.beyond:.3f}",
                    *cells,
                ]
            )
    heads = [
        *("cases from outside", "loss", "Dice: held out, outside", "H: held out, outside"),
        "AUROC of H, single",
        *(f"AUROC of {SCORE_TITLES[score]}, ensemble" for score in DETECTORS),
    ]
    return "Detection of cases from outside, by the mean over their structures:\n\n" + _table(
        heads, rows
    )


def _table_of_lengths(results: Results) -> str:
    if not results.lengths:
        return ""
    rows = []
    for point in results.lengths:
        ece = Quantity("ece", point.region)
        low, high = 100 * point.change.low, 100 * point.change.high
        rows.append(
            [
                LOSS_NAMES[point.loss],
                point.region,
                str(point.steps),
                f"{point.dice:.3f}",
                ece.text(point.single.estimate),
                ece.text(point.ensemble.estimate),
                f"{100 * point.change.estimate:+.2f} % ({low:+.2f} to {high:+.2f})",
                f"{100 * point.single_gap.signed_last:+.2f} %",
                f"{100 * point.single_gap.others:.2f} %",
                f"{point.single_gap.confidence:.4f}",
            ]
        )
    rows.sort(key=lambda row: (row[0], row[1]))
    heads = [
        *("loss", "region", "steps", "Dice, single", "ECE, single", "ECE, ensemble", "difference"),
        *("last bin, single", "other bins, single", "confidence in the last bin"),
    ]
    return (
        "Calibration against the length of training, without early stopping. The last bin is that "
        "of the highest confidence; below 0 it is underconfident:\n\n" + _table(heads, rows)
    )


def _table_of_claims(results: Results) -> str:
    rows = []
    for sign in results.signs:
        rows.append([f"**{sign.claim}**", f"**{sign.verdict}**", "", ""])
        for test in sign.tests:
            interval = f"{test.value:+.4f} ({test.low:+.4f} to {test.high:+.4f})"
            limit = f", limit {test.limit:g}" if test.limit else ""
            rows.append([test.name, test.verdict, test.numbers, interval + limit])
    return (
        "The paper's claims. A comparison supports its claim where the 95 % interval of the paired "
        "difference lies below the limit (0), contradicts it where it lies above, and is undecided "
        "otherwise:\n\n"
        + _table(["claim and its comparisons", "verdict", "numbers", "difference"], rows)
    )


def _explanations(results: Results) -> str:
    """Say where the ECE of a loss comes from, if a claim about it does not hold."""
    failed = {
        test.name
        for sign in results.signs
        for test in sign.tests
        if test.verdict != SUPPORTED and "ECE" in test.name
    }
    if not failed:
        return ""
    lines = [
        "Where the ECE comes from: the contribution of the bin of the highest confidence (below 0: "
        "underconfident), of all other bins, and the share of the voxels in that bin.\n"
    ]
    rows = []
    for loss in LOSSES:
        for kind in (SINGLE, ENSEMBLE, DROPOUT):
            model = results.comparison.of(loss, kind)
            for region, statistics in model.by_region:
                gap = Gap.of(statistics)
                rows.append(
                    [
                        LOSS_NAMES[loss],
                        kind,
                        region,
                        f"{100 * gap.signed_last:+.2f} %",
                        f"{100 * gap.others:.2f} %",
                        f"{100 * gap.share:.1f} %",
                        f"{gap.confidence:.4f}, {gap.accuracy:.4f}",
                    ]
                )
    heads = [
        *("loss", "model", "region", "last bin", "other bins", "voxels in the last bin"),
        "confidence and accuracy there",
    ]
    lines.append(_table(heads, rows))
    lines += list(_trends(results.lengths))
    return "\n".join(lines)


def _trends(points: Sequence[LengthPoint]) -> Iterator[str]:
    """Say in a sentence for each loss and region from which length on the ensemble is better."""
    for loss in LOSSES:
        for region in REGIONS:
            found = [one for one in points if (one.loss, one.region) == (loss, region)]
            better = [one for one in found if one.change.high < 0]
            worse = [one for one in found if one.change.low > 0]
            if not found:
                continue
            yield (
                f"{LOSS_NAMES[loss]}, {region}: the ensemble's ECE is below its members' mean at "
                f"{_steps(better)}, above it at {_steps(worse)}, and undecided otherwise "
                f"({len(found)} lengths).\n"
            )


def _steps(points: Sequence[LengthPoint]) -> str:
    if not points:
        return "no length"
    return ", ".join(str(point.steps) for point in points) + " steps"


def _times(results: Results) -> str:
    done = [stage for stage in results.times if stage.seconds >= 1]
    if not done:
        return ""
    total = minutes(sum(stage.seconds for stage in done))
    each = ", ".join(f"{stage.name} {minutes(stage.seconds)}" for stage in done)
    return f"Time: {total} ({each}).\n"
