"""Which cases a reader should see: chosen by their numbers, never by their names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastcal.report.cohort import Cohort, Model
from fastcal.report.measured import mean_of_known


@dataclass(frozen=True, slots=True)
class Chosen:
    """A case, and why it is shown."""

    case: str
    role: str
    reason: str


def main_model(cohort: Cohort) -> Model:
    """Return the model by which cases are chosen: the one with the best mean Dice."""

    def mean(model: Model) -> float:
        known = mean_of_known(model.dice)
        known = known[~np.isnan(known)]
        return float(known.mean()) if known.size else -1.0

    return max(cohort.shown, key=mean)


def choose(cohort: Cohort, model: Model) -> tuple[Chosen, ...]:
    """Return the worst, the median and the best case, and the one that is confidently wrong.

    That one has the largest difference between its rank by Dice, from the worst, and its rank by
    entropy, from the most uncertain: its entropy does not tell how poor it is. Cases whose Dice is
    above the median are not taken for it.

    Args:
        cohort: The cases.
        model: The model by which they are chosen.
    """
    dice = mean_of_known(model.dice)
    order = [int(k) for k in np.argsort(dice, kind="stable") if not np.isnan(dice[k])]
    if not order:
        return ()
    picks: list[tuple[int, str, str]] = [
        (order[0], "Worst", f"lowest Dice of {len(order)}"),
        (order[len(order) // 2], "Median", "median Dice"),
        (order[-1], "Best", "highest Dice"),
    ]
    if model.entropy is not None:
        entropy = mean_of_known(model.entropy)
        known = [k for k in order if not np.isnan(entropy[k])]
        unsure = sorted(known, key=lambda k: -entropy[k])
        by_entropy = {k: place for place, k in enumerate(unsure)}
        poor = known[: max(1, len(known) // 2)]
        gaps = {k: by_entropy[k] - place for place, k in enumerate(known) if k in poor}
        if gaps:
            found = max(gaps, key=lambda k: gaps[k])
            if gaps[found] > 0:
                picks.append(
                    (
                        found,
                        "Confident but wrong",
                        f"rank {known.index(found) + 1} of {len(known)} by low Dice, but only "
                        f"{by_entropy[found] + 1} by high entropy",
                    )
                )
    merged: dict[int, Chosen] = {}
    for place, role, reason in picks:
        case = cohort.cases[place]
        if place in merged:
            earlier = merged[place]
            role, reason = f"{earlier.role} · {role.lower()}", f"{earlier.reason}; {reason}"
        merged[place] = Chosen(case, role, reason)
    return tuple(merged.values())
