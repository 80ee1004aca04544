"""The numbers of a comparison: what each model scored and what follows, as JSON and Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcal.calibration.metrics import METRICS
from fastcal.calibration.summary import shown_metrics, shown_value
from fastcal.calibration.values import mean_of_defined
from fastcal.core.doors import read_json
from fastcal.core.errors import DataError
from fastcal.report.claims import SUPPORTED, Evidence, Sign
from fastcal.report.style import LOSS_NAMES

if TYPE_CHECKING:
    from fastcal.calibration import CalibrationStatistics


@dataclass(frozen=True, slots=True)
class Scores:
    """One model on the held-out cases: a number for each metric of `fastcal.calibration.METRICS`.

    Errors are fractions, NLL is in nats. Dice is the mean over cases and structures without the
    background; the others count every voxel, pooled.
    """

    values: Mapping[str, float]
    """By name of the metric, in the order of the table."""
    dice_per_class: tuple[float, ...]
    """Mean over cases of each structure, background first."""

    @classmethod
    def from_statistics(cls, stats: CalibrationStatistics) -> Scores:
        """Read the scores of statistics that were counted with a `case_id` for every case."""
        values = {
            name: shown_value(stats, name, METRICS[name].reduction) for name in shown_metrics(stats)
        }
        return cls(values, tuple(stats.per_class("dice", "case").tolist()))

    def __getitem__(self, name: str) -> float:
        """Return the score of a name."""
        return self.values[name]

    def to_dict(self) -> dict[str, Any]:
        """Return the scores by name, and the Dice of each structure."""
        return {**self.values, "dice_per_class": list(self.dice_per_class)}


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
        """Name of the loss as it is printed."""
        return LOSS_NAMES.get(self.loss, self.loss)

    def mean(self, measure: str) -> float:
        """Return the mean of a score over the single members."""
        return mean_of_defined([model.scores[measure] for model in self.members])

    def range(self, measure: str) -> tuple[float, float]:
        """Return the lowest and the highest score of the single members."""
        values = [model.scores[measure] for model in self.members]
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
    signs: tuple[Sign, ...] = ()
    """The paper's claims, by paired intervals; none where only scores are known."""

    @property
    def n_members(self) -> int:
        """Members trained with each loss."""
        return len(self.losses[0].members)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings, without the statistics."""
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
            "signs": [_sign(sign) for sign in self.signs],
        }

    @classmethod
    def load(cls, path: Path) -> Comparison:
        """Return what the `results.json` of a comparison holds.

        Raises:
            DataError: The file is not one.
        """
        raw = read_json(path)
        try:
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
                # Earlier versions had signs without intervals, which decide nothing.
                tuple(_read_sign(sign) for sign in raw.get("signs", ()) if "tests" in sign),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(path, f"is not the results.json of a comparison ({error!r})") from error


def _scores(raw: Mapping[str, Any]) -> Scores:
    numbers = {name: _number(value) for name, value in raw.items() if name != "dice_per_class"}
    return Scores(numbers, tuple(_number(dice) for dice in raw["dice_per_class"]))


def _sign(sign: Sign) -> dict[str, Any]:
    tests = [{**asdict(test), "verdict": test.verdict} for test in sign.tests]
    return {"claim": sign.claim, "verdict": sign.verdict, "tests": tests}


def _read_sign(raw: Mapping[str, Any]) -> Sign:
    tests = []
    for test in raw["tests"]:
        values = {name: _number(test[name]) for name in ("value", "low", "high", "p_value")}
        tests.append(Evidence(test["name"], test["numbers"], **values, limit=test["limit"]))
    return Sign(raw["claim"], tuple(tests))


def _number(value: float | None) -> float:
    """JSON has no NaN: it is null there."""
    return math.nan if value is None else float(value)


def columns(comparison: Comparison) -> tuple[str, ...]:
    """Return the metrics that the table has: those with a column that all models have."""
    models = [m for loss in comparison.losses for m in (*loss.members, loss.ensemble)]
    return tuple(
        name
        for name, metric in METRICS.items()
        if metric.column and models and all(name in model.scores.values for model in models)
    )


def titles(comparison: Comparison) -> list[str]:
    """Return the heads of the columns."""
    return [METRICS[name].title for name in columns(comparison)]


@dataclass(frozen=True, slots=True)
class TableRow:
    """A line of the table, already formatted."""

    loss: str
    model: str
    values: tuple[str, ...]
    spread: tuple[str, ...]
    """The range of the members, or empty strings."""
    best: tuple[bool, ...]


def table(comparison: Comparison) -> list[TableRow]:
    """Return two lines for each loss: mean (range) of the single members, and their ensemble."""
    lines = []
    shown = columns(comparison)
    for loss in comparison.losses:
        n_members = len(loss.members)
        mean = [loss.mean(name) for name in shown]
        spread = tuple(_spread(loss, name) for name in shown)
        lines.append((loss.title, f"single (mean of {n_members})", mean, spread))
        ensemble = [loss.ensemble.scores[name] for name in shown]
        lines.append((loss.title, f"ensemble of {n_members}", ensemble, ("",) * len(mean)))
    best = [_best(name, [line[2][i] for line in lines]) for i, name in enumerate(shown)]
    return [
        TableRow(
            title,
            model,
            tuple(METRICS[name].text(value) for name, value in zip(shown, values, strict=True)),
            spread,
            tuple(value == found for value, found in zip(values, best, strict=True)),
        )
        for title, model, values, spread in lines
    ]


def _best(name: str, values: list[float]) -> float:
    better = METRICS[name].better
    if better == "higher":
        return max(values, default=math.nan)
    return min(values, key=abs if better == "zero" else None, default=math.nan)


def counted(count: int, thing: str) -> str:
    """Return a number and its noun, which gets an s where it needs one."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _spread(loss: ComparedLoss, measure: str) -> str:
    if len(loss.members) == 1:
        return ""
    low, high = (METRICS[measure].text(v).removesuffix(" %") for v in loss.range(measure))
    return f"{low} to {high}"


def markdown(comparison: Comparison) -> str:
    """Return the table, the structures' Dice and the signs, as a section for docs/results.md."""
    train, validation, test = comparison.split
    lines = [
        f"{comparison.dataset}: {train} cases to train, {validation} to validate, {test} held out; "
        f"{counted(comparison.n_members, 'member')} per loss, seed {comparison.seed}. "
        f"{comparison.software}.",
        "",
        "```sh",
        comparison.command,
        "```",
        "",
        "| loss | model | " + " | ".join(titles(comparison)) + " |",
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
            cells = [METRICS["dice"].text(d) for d in dice]
            lines.append(f"| {loss.title}, {model} | " + " | ".join(cells) + " |")
    if comparison.signs:
        lines += ["", "| claim of the paper | verdict | comparisons that do not support it |"]
        lines.append("|---|---|---|")
    for sign in comparison.signs:
        against = [test for test in sign.tests if test.verdict != SUPPORTED]
        reasons = "; ".join(
            f"{test.name}: {test.numbers} ({test.low:.4f} to {test.high:.4f})" for test in against
        )
        lines.append(f"| {sign.claim} | {sign.verdict} | {reasons or '-'} |")
    return "\n".join(lines) + "\n"


def _structure_means(loss: ComparedLoss) -> list[float]:
    structures = zip(*(m.scores.dice_per_class[1:] for m in loss.members), strict=True)
    return [mean_of_defined(structure) for structure in structures]
