"""The paper's first experiment: losses compared, single models against their ensembles."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcal.core import atomic
from fastcal.core.doors import bounded
from fastcal.core.errors import DataError
from fastcal.core.lock import sole_use
from fastcal.core.places import check_own
from fastcal.report.provenance import command_line, software
from fastcal.report.scores import (
    ComparedLoss,
    Comparison,
    Scored,
    Scores,
    counted,
    markdown,
)
from fastcal.report.style import LOSS_NAMES
from fastcal.study.claim import claim, identity
from fastcal.study.clock import Clock
from fastcal.study.design import BOX
from fastcal.study.training import named_package

if TYPE_CHECKING:
    from fastcal.data.dataset import Case, Dataset
    from fastcal.predict import PredictionSummary
    from fastcal.train import TrainConfig

SETTINGS, RESULTS, TABLE, PAGE = "experiment.json", "results.json", "results.md", "report.html"
ENSEMBLE = "ensemble"
COUNTED = ("fine_bins", "regions")
"""Settings of what is counted, on which training does not depend."""


def compare_losses(
    dataset: Dataset | Path | str,
    out: Path | str,
    *,
    split: tuple[int, int, int] = (128, 32, 42),
    members: int = 5,
    losses: Sequence[str] = ("ce", "dice"),
    seed: int = 0,
    config: TrainConfig | None = None,
    device: str | None = None,
    jobs: int = 1,
    fine_bins: int = 0,
    regions: Sequence[str] = (),
    min_count: int = 100,
    command: str | None = None,
    progress: bool = True,
) -> Comparison:
    """Train an ensemble for each loss and score members and ensembles on held-out cases.

    The numbers of a member and of its ensemble come from the same predictions: the probabilities
    that each member saved. After an interruption it goes on where it stopped when it is called
    again.

    Args:
        dataset: nnU-Net raw dataset, or its folder.
        out: Folder for everything::

                runs/LOSS/            the trained members
                predictions/LOSS/member_00/ ... /ensemble/
                results.json results.md report.html

        split: Cases to train, to validate and to test, in order of their sorted names.
        members: Members of each ensemble.
        losses: Names of losses, ``"ce"`` and ``"dice"``.
        seed: Seed of the whole experiment; member m has the same seed for every loss.
        config: How to train; the defaults of `fastcal.train.TrainConfig` when None.
        device: Device to train and predict on; a GPU if there is one when None.
        jobs: Members trained at a time, each in a process; see `fastcal.train.train_ensemble`.
        fine_bins: Fine cells of the confidence, a power of two, for AUROC, AURC and the
            risk-coverage curve; 0 keeps none.
        regions: Parts of the held-out cases that are scored beside the whole, see
            `fastcal.evaluate.evaluate_folder`; the paper's box is added where there is none. With
            another choice an existing experiment predicts again, and trains nothing.
        min_count: Bins of this many voxels or fewer are hidden in reliability diagrams at first.
        command: What the results say made them; the process's own command line when None.
        progress: Say on stderr what is being done and how long it will take.

    Returns:
        The scores, with the statistics behind them.

    Raises:
        DataError: The dataset cannot be used, `out` holds an experiment with other settings,
            or another one runs in it.
        ValueError: A count is out of range, or a loss is unknown or named twice.

    Reference: Mehrtash et al., IEEE TMI 39(12):3868-3878, 2020, sections III and IV.

    Example:
        >>> comparison = compare_losses("Dataset004_Hippocampus", "study")  # doctest: +SKIP
        >>> comparison.losses[0].ensemble.scores["ece"]  # doctest: +SKIP
        0.0061
    """
    from fastcal.data.dataset import Dataset
    from fastcal.train import TrainConfig
    from fastcal.train.folder import check_place

    folder = Path(out)
    opened = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
    plan = _Plan(
        dataset=opened,
        folder=folder,
        split=split,
        members=members,
        seed=seed,
        config=config or TrainConfig(),
        device=device,
        jobs=jobs,
        progress=progress,
        fine_bins=fine_bins,
        regions=with_box(regions),
    )
    _check(plan, losses)
    check_own(folder)
    check_place(folder, opened)
    with sole_use(folder, "study"):
        recount = _claim(folder, plan.settings(losses))
        clock = Clock(len(losses), enabled=progress)
        compared = []
        for loss in losses:
            clock.start(f"training {counted(members, 'member')} with {_name(loss)}")
            _train(plan, loss)
            clock.start(f"predicting {counted(split[2], 'held-out case')} with {_name(loss)}")
            compared.append(_predict_and_score(plan, loss, recount=recount))
            clock.loss_done()
        comparison = Comparison(
            dataset=opened.name,
            structures=tuple(opened.labels),
            split=split,
            seed=seed,
            config=plan.settings(losses)["config"],
            command=command or command_line(),
            software=software(),
            losses=tuple(compared),
        )
        clock.start("writing the report")
        comparison = _write(plan, comparison, min_count=min_count)
        atomic.write_json(folder / SETTINGS, plan.settings(losses))
        clock.start(f"done: {folder / PAGE}")
        return comparison


@dataclass(frozen=True, slots=True)
class _Plan:
    """One experiment: what is trained, how, and where its folders are."""

    dataset: Dataset
    folder: Path
    split: tuple[int, int, int]
    members: int
    seed: int
    config: TrainConfig
    device: str | None
    jobs: int
    progress: bool
    fine_bins: int
    regions: tuple[str, ...]

    @property
    def test_cases(self) -> list[Case]:
        return self.dataset.split(*self.split)[2]

    @property
    def labels(self) -> Path:
        return self.dataset.folder / "labelsTr"

    def run(self, loss: str) -> Path:
        return self.folder / "runs" / loss

    def predictions(self, loss: str, model: str) -> Path:
        return self.folder / "predictions" / loss / model

    def settings(self, losses: Sequence[str]) -> dict[str, Any]:
        """Everything that the results depend on, as JSON gives it back."""
        settings = {
            "dataset": identity(self.dataset),
            "cases": [case.name for case in self.dataset.cases[: sum(self.split)]],
            "split": list(self.split),
            "members": self.members,
            "losses": list(losses),
            "seed": self.seed,
            "config": self.config.to_json(),
            "fine_bins": self.fine_bins,
            "regions": list(self.regions),
        }
        plain: dict[str, Any] = json.loads(json.dumps(settings))
        return plain


def _check(plan: _Plan, losses: Sequence[str]) -> None:
    from fastcal.cases.settings import Counted
    from fastcal.models.run_schema import MOST_MEMBERS

    if min(plan.split) < 1:
        raise ValueError(f"split must hold at least one case of each part, got {plan.split}")
    bounded(plan.members, "members", MOST_MEMBERS)
    counted = Counted(plan.labels, fine_bins=plan.fine_bins, regions=plan.regions)
    counted.check_without_prediction()
    if not losses or len(set(losses)) < len(losses) or not set(losses) <= LOSS_NAMES.keys():
        known = ", ".join(LOSS_NAMES)
        raise ValueError(f"losses must be some of {known}, each once, got {tuple(losses)}")
    for case in plan.test_cases:
        if case.label is None:
            raise DataError(
                case.images[0], "is held out for testing, but has no reference label map"
            )
    if plan.dataset.label_groups is not None:
        raise DataError(
            plan.dataset.folder,
            "has label groups (nnU-Net's regions), but the losses compared need exclusive labels",
        )


def _claim(folder: Path, settings: dict[str, Any]) -> bool:
    """Make the folder this experiment's own.

    Returns:
        Whether its predictions, if there are any, counted something else than is asked for.
    """
    file = folder / SETTINGS
    present = claim(file, settings, free=COUNTED)
    if present is None or all(present.get(name) == settings[name] for name in COUNTED):
        return False
    # Until everything is counted again, the predictions match neither choice.
    others = {name: value for name, value in settings.items() if name not in COUNTED}
    atomic.write_json(file, others)
    return True


def _train(plan: _Plan, loss: str) -> None:
    from fastcal.train import train_ensemble

    train_ensemble(
        plan.dataset,
        plan.run(loss),
        loss=loss,
        members=plan.members,
        seed=plan.seed,
        config=plan.config,
        split=plan.split,
        device=plan.device,
        strategy="processes" if plan.jobs > 1 else "sequential",
        jobs=plan.jobs,
        progress=plan.progress,
    )


def _predict_and_score(plan: _Plan, loss: str, *, recount: bool) -> ComparedLoss:
    from fastcal.predict import ensemble_folders, predict_cases

    members = []
    for number in range(plan.members):
        folder = plan.predictions(loss, f"member_{number:02d}")
        predicted = predict_cases(
            plan.run(loss),
            plan.dataset.folder / "imagesTr",
            folder,
            cases="test",
            members=[number],
            maps=(),
            labels=plan.labels,
            fine_bins=plan.fine_bins,
            regions=plan.regions,
            save_probabilities=True,
            overwrite=recount,
            device=plan.device,
            trust=named_package(plan.config),
        )
        members.append(_scored(f"member {number}", predicted))
    together = ensemble_folders(
        [plan.predictions(loss, f"member_{number:02d}") for number in range(plan.members)],
        plan.predictions(loss, ENSEMBLE),
        maps=("entropy",),
        labels=plan.labels,
        fine_bins=plan.fine_bins,
        regions=plan.regions,
        overwrite=recount,
    )
    return ComparedLoss(loss, tuple(members), _scored("ensemble", together))


def _scored(name: str, predicted: PredictionSummary) -> Scored:
    stats = predicted.statistics
    if stats is None:
        raise ValueError(f"cases must be predicted to be scored, got none in {predicted.out}")
    return Scored(name, Scores.from_statistics(stats), stats)


def _write(plan: _Plan, comparison: Comparison, *, min_count: int) -> Comparison:
    """Write the results, and return the comparison with its verdicts."""
    from fastcal.report.findings import findings
    from fastcal.report.page import PageSettings, write_page
    from fastcal.report.quantities import numbers_of
    from fastcal.study.experiment_page import cohort_of

    ensembles = {loss.loss: plan.predictions(loss.loss, ENSEMBLE) for loss in comparison.losses}
    numbers = numbers_of(cohort_of(comparison, plan.test_cases, plan.labels, ensembles))
    judged = replace(comparison, signs=findings(numbers)[0])
    atomic.write_json(plan.folder / RESULTS, judged.to_dict())
    atomic.write_text(plan.folder / TABLE, markdown(judged))
    write_page(plan.folder / PAGE, numbers, PageSettings(min_count=min_count))
    return judged


def with_box(regions: Sequence[str]) -> tuple[str, ...]:
    """Return regions with the paper's box, in which its claims are tested.

    Example:
        >>> with_box(["band:2"]), with_box(["box:4:1"])
        (('box:8:2', 'band:2'), ('box:4:1',))
    """
    given = tuple(regions)
    return given if any(name.startswith("box") for name in given) else (BOX, *given)


def _name(loss: str) -> str:
    return LOSS_NAMES[loss].lower().replace("dice", "Dice")
