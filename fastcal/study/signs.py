"""The paper's six claims, each supported, contradicted or undecided by these numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastcal.report.claims import Evidence, Sign
from fastcal.report.measured import interval_of
from fastcal.report.style import LOSS_NAMES
from fastcal.study.comparison import (
    CALIBRATION,
    DROPOUT,
    ENSEMBLE,
    IN_BOX,
    SINGLE,
    Comparison,
    Model,
    Quantity,
)
from fastcal.study.design import LOSSES

if TYPE_CHECKING:
    from fastcal.study.quality import EntropyFit, Outside

STRONG = -0.5
"""A correlation below it is strongly negative; the paper has -0.92, -0.78 and -0.77."""
EARLY = 5
"""Members after which the paper's cross entropy hardly gains any more."""


def signs(
    comparison: Comparison, fits: Sequence[EntropyFit], outside: Sequence[Outside]
) -> tuple[Sign, ...]:
    """Return the six claims of the paper, calibration measured in its box.

    Args:
        comparison: The models on the held-out cases.
        fits: Entropy against logit Dice, of the ensembles.
        outside: Detection by the segment entropy of the ensembles.

    Reference: Mehrtash et al., IEEE TMI 39(12):3868-3878, 2020.
    """
    found = [
        Sign(
            "Dice loss has the better Dice and the worse NLL and ECE than cross entropy",
            tuple(_losses(comparison)),
        ),
        Sign(
            "Ensembling improves calibration and segmentation", tuple(_against(comparison, SINGLE))
        ),
        Sign("Ensembling beats MC dropout", tuple(_against(comparison, DROPOUT))),
        Sign(
            "The NLL of Dice loss falls steeply with M, that of cross entropy flattens early",
            tuple(_growth(comparison)),
        ),
        Sign(
            "Segment entropy is strongly and negatively correlated with logit Dice",
            tuple(
                Evidence(
                    f"r, {_of(fit.loss)}, {fit.model}",
                    f"{fit.r.value:.2f}, n = {fit.line.n}",
                    fit.r.value,
                    fit.r.low,
                    fit.r.high,
                    fit.line.p_value,
                    STRONG,
                )
                for fit in fits
            ),
        ),
        Sign(
            "Segment entropy is higher out of distribution",
            tuple(
                Evidence(
                    f"0.5 - AUROC, {_of(one.loss)}, {one.name}",
                    f"AUROC {one.auroc.value:.2f}; mean {one.beyond:.3f} against {one.within:.3f}",
                    0.5 - one.auroc.value,
                    0.5 - one.auroc.high,
                    0.5 - one.auroc.low,
                    float("nan"),
                )
                for one in outside
            ),
        ),
    ]
    return tuple(found)


def _of(loss: str) -> str:
    return LOSS_NAMES[loss].lower().replace("dice", "Dice")


def _losses(comparison: Comparison) -> Iterator[Evidence]:
    dice, ce = (comparison.of(loss, SINGLE) for loss in ("dice", "ce"))
    yield _test(comparison, Quantity("dice"), better=dice, worse=ce)
    for measure in ("nll", "ece"):
        yield _test(comparison, Quantity(measure, IN_BOX), better=ce, worse=dice)


def _against(comparison: Comparison, kind: str) -> Iterator[Evidence]:
    for loss in LOSSES:
        ensemble, other = comparison.of(loss, ENSEMBLE), comparison.of(loss, kind)
        yield _test(comparison, Quantity("dice"), better=ensemble, worse=other)
        for measure in CALIBRATION:
            yield _test(comparison, Quantity(measure, IN_BOX), better=ensemble, worse=other)


def _test(comparison: Comparison, quantity: Quantity, *, better: Model, worse: Model) -> Evidence:
    """Compare two models so that a value below 0 speaks for the claim."""
    first, second = (better, worse) if quantity.better == "lower" else (worse, better)
    found = comparison.difference(quantity, first, second)
    sides = " and ".join(_label(model) for model in (better, worse))
    numbers = " against ".join(
        quantity.text(model.measured[quantity].estimate) for model in (better, worse)
    )
    return Evidence(
        f"{quantity.title}: {sides}", numbers, found.estimate, found.low, found.high, found.p_value
    )


def _label(model: Model) -> str:
    return f"{model.kind} of {_of(model.loss)}"


def _growth(comparison: Comparison) -> Iterator[Evidence]:
    """Compare what the NLL gains up to five members, and from there on, relative to one member."""
    quantity = Quantity("nll", IN_BOX)
    curves = {loss: comparison.by_size(loss) for loss in LOSSES}
    sizes = [model.size for model in curves["ce"]]
    middle = EARLY if EARLY in sizes else sizes[len(sizes) // 2]
    for name, start, end in (
        (f"gain of NLL from 1 to {middle} members", 1, middle),
        (f"gain of NLL from {middle} to {sizes[-1]} members", middle, sizes[-1]),
    ):
        if start == end:
            continue
        gains = {}
        for loss in LOSSES:
            by_size = {model.size: model.measured[quantity] for model in curves[loss]}
            first, last, one = by_size[start], by_size[end], by_size[1]
            gains[loss] = (
                (first.estimate - last.estimate) / one.estimate,
                (first.distribution - last.distribution) / one.distribution,
            )
        low, high = interval_of(np.asarray(gains["ce"][1] - gains["dice"][1]))
        numbers = " against ".join(f"{100 * float(gains[loss][0]):.0f} %" for loss in LOSSES)
        value = float(gains["ce"][0] - gains["dice"][0])
        yield Evidence(
            f"{name}, cross entropy less Dice loss", numbers, value, low, high, float("nan")
        )
