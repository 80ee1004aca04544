"""The numbers of a comparison: what each model scored and what follows, as JSON and Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcal.core.errors import DataError
from fastcal.report.style import LOSS_NAMES

if TYPE_CHECKING:
    from fastcal.calibration import CalibrationStatistics


@dataclass(frozen=True, slots=True)
class Scores:
    """One model on the held-out cases. Errors are fractions, NLL is in nats, volumes are whole."""

    dice: float
    """Mean over cases and structures, the background left out."""
    dice_per_class: tuple[float, ...]
    """Mean over cases of each structure, background first."""
    ece: float
    """Top label, all voxels pooled, l1."""
    classwise_ece: float
    """Mean over classes, each against the rest, all voxels pooled."""
    nll: float
    brier: float
    accuracy: float
    auroc: float | None = None
    """Of the confidence, right voxels against wrong ones; None where no fine cells were kept."""
    aurc: float | None = None

    @classmethod
    def from_statistics(cls, stats: CalibrationStatistics) -> Scores:
        """Read the scores off statistics that were counted with a `case_id` for every case."""
        dice = [float(d) for d in stats.dice(reduction="case")]
        return cls(
            dice=_mean(dice[1:]),
            dice_per_class=tuple(dice),
            ece=float(stats.ece()),
            classwise_ece=_mean([float(e) for e in stats.classwise_ece()]),
            nll=float(stats.nll()),
            brier=float(stats.brier()),
            accuracy=float(stats.accuracy()),
            auroc=float(stats.auroc(kind="top-label")) if stats.fine_bins else None,
            aurc=float(stats.aurc()) if stats.fine_bins else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Those that were counted, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Scored:
    """A model, its scores, and (unless read back from JSON) the statistics behind them."""

    name: str
    scores: Scores
    statistics: CalibrationStatistics | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ComparedLoss:
    """The members trained with one loss, each alone, and their ensemble."""

    loss: str
    members: tuple[Scored, ...]
    ensemble: Scored

    @property
    def title(self) -> str:
        return LOSS_NAMES.get(self.loss, self.loss)

    def mean(self, measure: str) -> float:
        """Mean of a score over the single members."""
        return _mean([getattr(m.scores, measure) for m in self.members])

    def range(self, measure: str) -> tuple[float, float]:
        """Lowest and highest of a score over the single members."""
        values = [getattr(m.scores, measure) for m in self.members]
        return min(values), max(values)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Single models against ensembles for each loss, on cases no model has seen."""

    dataset: str
    structures: tuple[str, ...]
    """Names of the classes, background first."""
    split: tuple[int, int, int]
    """Cases to train, to validate, to test."""
    seed: int
    config: Mapping[str, Any]
    command: str
    software: str
    losses: tuple[ComparedLoss, ...]

    @property
    def n_members(self) -> int:
        return len(self.losses[0].members)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, without the statistics."""
        return {
            "dataset": self.dataset,
            "structures": list(self.structures),
            "split": dict(zip(("train", "validation", "test"), self.split, strict=True)),
            "seed": self.seed,
            "members": self.n_members,
            "config": dict(self.config),
            "command": self.command,
            "software": self.software,
            "losses": {
                loss.loss: {
                    "members": [m.scores.to_dict() for m in loss.members],
                    "ensemble": loss.ensemble.scores.to_dict(),
                }
                for loss in self.losses
            },
            "signs": [asdict(sign) for sign in signs(self)],
        }

    @classmethod
    def load(cls, path: Path) -> Comparison:
        """Read the `results.json` that a comparison wrote.

        Raises:
            DataError: the file is not one.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            split = raw["split"]
            losses = tuple(
                ComparedLoss(
                    name,
                    tuple(Scored(f"member {i}", _scores(m)) for i, m in enumerate(loss["members"])),
                    Scored("ensemble", _scores(loss["ensemble"])),
                )
                for name, loss in raw["losses"].items()
            )
            return cls(
                raw["dataset"],
                tuple(raw["structures"]),
                (split["train"], split["validation"], split["test"]),
                raw["seed"],
                raw["config"],
                raw["command"],
                raw["software"],
                losses,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(path, f"not the results.json of a comparison ({error!r})") from error


def _scores(raw: Mapping[str, Any]) -> Scores:
    numbers = {name: _number(value) for name, value in raw.items() if name != "dice_per_class"}
    return Scores(dice_per_class=tuple(_number(d) for d in raw["dice_per_class"]), **numbers)


def _number(value: float | None) -> float:
    """JSON has no NaN: it is null there."""
    return math.nan if value is None else float(value)


def _mean(values: Sequence[float]) -> float:
    finite = [v for v in values if not math.isnan(v)]
    return sum(finite) / len(finite) if finite else math.nan


@dataclass(frozen=True, slots=True)
class Sign:
    """One of the paper's claims, and whether these numbers agree with it."""

    claim: str
    holds: bool
    numbers: str


def signs(comparison: Comparison) -> list[Sign]:
    """The paper's claims in sign, each with the two numbers it rests on.

    Reference: Mehrtash et al., IEEE TMI 39(12):3868-3878, 2020.
    """
    found = []
    by_name = {loss.loss: loss for loss in comparison.losses}
    if {"ce", "dice"} <= by_name.keys():
        ce, dice = by_name["ce"], by_name["dice"]
        found += [
            _sign("Dice loss has the better Dice than cross entropy, single models", "dice",
                  dice.mean("dice"), ce.mean("dice")),
            *(
                _sign(f"Dice loss has the worse {name} than cross entropy, single models",
                      measure, ce.mean(measure), dice.mean(measure), swapped=True)
                for measure, name in (("ece", "ECE"), ("nll", "NLL"))
            ),
        ]  # fmt: skip
    for loss in comparison.losses:
        found += [
            _sign(f"{loss.title}: the ensemble has the better {name} than its members' mean",
                  measure, getattr(loss.ensemble.scores, measure), loss.mean(measure))
            for measure, name in
            (("dice", "Dice"), ("ece", "ECE"), ("nll", "NLL"), ("brier", "Brier score"))
        ]  # fmt: skip
    return found


def _sign(claim: str, measure: str, better: float, worse: float, *, swapped: bool = False) -> Sign:
    holds = better > worse if measure == "dice" else better < worse
    first, second = (worse, better) if swapped else (better, worse)
    return Sign(claim, holds, f"{number(measure, first)} against {number(measure, second)}")


def number(measure: str, value: float) -> str:
    """A score as it is printed everywhere: errors in per cent, the others with four digits."""
    if math.isnan(value):
        return "-"
    if measure == "aurc":  # a mean of error rates, which background keeps small
        return f"{value:.5f}"
    return f"{100 * value:.2f} %" if measure in _PER_CENT else f"{value:.4f}"


_PER_CENT = ("ece", "classwise_ece")
_HIGHER_IS_BETTER = ("dice", "auroc")

COLUMNS = (
    ("dice", "Dice"),
    ("ece", "ECE"),
    ("classwise_ece", "Classwise ECE"),
    ("nll", "NLL"),
    ("brier", "Brier"),
)
OF_CONFIDENCE = (("auroc", "AUROC"), ("aurc", "AURC"))


def columns(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    """Scores that the table has, with their titles: those of the confidence if all have them."""
    models = [m for loss in comparison.losses for m in (*loss.members, loss.ensemble)]
    ordered = bool(models) and all(model.scores.auroc is not None for model in models)
    return (*COLUMNS, *OF_CONFIDENCE) if ordered else COLUMNS


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table, already formatted; `spread` holds members' ranges or empty strings."""

    loss: str
    model: str
    values: tuple[str, ...]
    spread: tuple[str, ...]
    best: tuple[bool, ...]


def table(comparison: Comparison) -> list[Row]:
    """Two lines a loss: mean (range) of the single members, and their ensemble."""
    lines = []
    shown = columns(comparison)
    for loss in comparison.losses:
        mean = [loss.mean(m) for m, _ in shown]
        spread = tuple(_spread(loss, m) for m, _ in shown)
        lines.append((loss.title, f"single (mean of {len(loss.members)})", mean, spread))
        ensemble = [getattr(loss.ensemble.scores, m) for m, _ in shown]
        lines.append((loss.title, f"ensemble of {len(loss.members)}", ensemble, ("",) * len(mean)))
    best = [
        (max if m in _HIGHER_IS_BETTER else min)((line[2][i] for line in lines), default=math.nan)
        for i, (m, _) in enumerate(shown)
    ]
    return [
        Row(
            title,
            model,
            tuple(number(m, v) for (m, _), v in zip(shown, values, strict=True)),
            spread,
            tuple(v == b for v, b in zip(values, best, strict=True)),
        )
        for title, model, values, spread in lines
    ]


def counted(count: int, thing: str) -> str:
    """A number and its noun, which gets an s where it needs one."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _spread(loss: ComparedLoss, measure: str) -> str:
    if len(loss.members) == 1:
        return ""
    low, high = (number(measure, v).removesuffix(" %") for v in loss.range(measure))
    return f"{low} to {high}"


def markdown(comparison: Comparison) -> str:
    """The table, the structures' Dice and the signs, as a section for docs/results.md."""
    train, validation, test = comparison.split
    lines = [
        f"{comparison.dataset}: {train} cases to train, {validation} to validate, {test} held out; "
        f"{counted(comparison.n_members, 'member')} a loss, seed {comparison.seed}. "
        f"{comparison.software}.",
        "",
        "```sh",
        comparison.command,
        "```",
        "",
        "| loss | model | " + " | ".join(title for _, title in columns(comparison)) + " |",
        "|---|---|" + "---|" * len(columns(comparison)),
    ]
    for row in table(comparison):
        cells = [
            (f"**{value}**" if best else value) + (f" ({spread})" if spread else "")
            for value, spread, best in zip(row.values, row.spread, row.best, strict=True)
        ]
        lines.append(f"| {row.loss} | {row.model} | " + " | ".join(cells) + " |")
    lines += ["", "| Dice of a structure | " + " | ".join(comparison.structures[1:]) + " |"]
    lines.append("|---|" + "---|" * len(comparison.structures[1:]))
    for loss in comparison.losses:
        for model, dice in (
            (f"single (mean of {len(loss.members)})", _structure_means(loss)),
            (f"ensemble of {len(loss.members)}", loss.ensemble.scores.dice_per_class[1:]),
        ):
            cells = [number("dice", d) for d in dice]
            lines.append(f"| {loss.title}, {model} | " + " | ".join(cells) + " |")
    lines += ["", "| claim of the paper | numbers | holds |", "|---|---|---|"]
    lines += [
        f"| {sign.claim} | {sign.numbers} | {'yes' if sign.holds else '**no**'} |"
        for sign in signs(comparison)
    ]
    return "\n".join(lines) + "\n"


def _structure_means(loss: ComparedLoss) -> list[float]:
    columns = zip(*(m.scores.dice_per_class[1:] for m in loss.members), strict=True)
    return [_mean(column) for column in columns]
