"""A study from data to tables: the public function, and what its stages do."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcal.core import atomic
from fastcal.core.errors import DataError
from fastcal.core.lock import sole_use
from fastcal.core.places import check_own
from fastcal.report.provenance import command_line, software
from fastcal.study.channels import CHANNELS, wanted_channels, with_channels, write_listing
from fastcal.study.claim import claim
from fastcal.study.design import LOSSES, SHIFTS, Design, design
from fastcal.study.found import Origin, Results
from fastcal.study.origin import machine
from fastcal.study.sets import TEST
from fastcal.study.split import chosen_split
from fastcal.study.stages import Stages
from fastcal.study.streaming import Stream, pool_subsets, stream_set
from fastcal.study.study import SETTINGS, Study
from fastcal.study.subsets import Subset, draw_subsets
from fastcal.study.training import Training, named_package, train, trainings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastcal.data.dataset import Dataset
    from fastcal.study.records import Streamed
    from fastcal.study.sets import EvaluationSet

TABLES = "tables and figures"


def run_study(
    name: str,
    out: str | Path,
    *,
    data: str | Path | None = None,
    outside: str | Path | None = None,
    members: int | None = None,
    fast: bool = False,
    split: tuple[int, int, int] | None = None,
    channels: Sequence[str] | None = None,
    shifts: Sequence[str] = SHIFTS,
    training: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str | None = None,
    jobs: int = 1,
    command: str | None = None,
    progress: bool = True,
) -> Results:
    """Run one of the paper's studies: every table, every figure, and its six claims.

    For cross entropy and Dice loss, a pool of members is trained, a network with dropout, and a few
    members without early stopping. Each case's members are predicted once, for random ensembles of
    1, 2, 5, 10, 25 and 50 members side by side. After an interruption it goes on where it stopped
    when it is called again.

    Args:
        name: ``"brain"`` (BraTS 2017), ``"heart"`` (ACDC), ``"prostate"`` (PROSTATEx against
            PROMISE12), ``"hippocampus"`` (MSD Task04) or ``"phantom"``, which draws its own data.
        out: Folder for everything; see `fastcal.study.study.Study`.
        data: Dataset in nnU-Net's raw layout, as ``fastcal convert`` writes it. For ``"prostate"``
            it may be a folder that holds two of them, ``prostatex`` and ``promise12``.
        outside: Dataset from outside the distribution of the training data, for the detection of
            such cases. All its labelled cases are used.
        members: Members of each pool; the design's when None (50, or 10 with ``fast``).
        fast: The small version, for a CPU and an hour or so; see docs/study.md.
        split: Cases to train, to validate and to test, by sorted name. None takes the
            ``splits.json`` of the dataset if that has a test part, otherwise the paper's counts.
        channels: Names of the channels to use. None takes the paper's (T1CE, T2 and FLAIR of the
            brain) where the dataset has them, otherwise all.
        shifts: Named shifts of the held-out cases; see `fastcal.data.shifts.shifted`.
        training: Settings of `fastcal.train.TrainConfig` by dotted name, in place of the design's.
        seed: Seed of phantoms, training and ensembles.
        device: Device to train and predict on; a GPU if there is one when None.
        jobs: Members trained at a time, each in a process.
        command: What the results say made them; the process's own command line when None.
        progress: Say on stderr which stage is being done, and how far it is.

    Returns:
        Every number, as the files of ``out`` hold them.

    Raises:
        DataError: A dataset cannot be used, ``out`` holds a study with other settings
            or other data, lies where a dataset does, or another study runs in it.
        ImportError: SciPy, matplotlib, MONAI or crepes is missing; the message names the extra.
        ValueError: An argument is out of range.

    Reference: Mehrtash et al., IEEE TMI 39(12):3868-3878, 2020.

    Example:
        >>> results = run_study("phantom", "study", fast=True)  # doctest: +SKIP
        >>> [sign.verdict for sign in results.signs]  # doctest: +SKIP
        ['supported', 'undecided', 'supported', 'supported', 'supported', 'supported']
    """
    from fastcal.train.folder import check_place

    _check_extras()
    chosen = design(name, fast=fast)
    if members is not None and members < 2:
        raise ValueError(f"members must be at least 2, for ensembles of them, got {members}")
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    for shift in shifts:
        if shift not in SHIFTS:
            raise ValueError(f"shifts must be some of {', '.join(SHIFTS)}, got {shift!r}")
    chosen = replace(chosen, members=chosen.members if members is None else members)
    if split is not None:
        chosen = replace(chosen, split=split)
    if training:
        chosen = replace(chosen, training={**chosen.training, **training})
    for loss in LOSSES:
        chosen.config(loss)  # raises for settings that do not exist or are out of range
    folder = Path(out)
    check_own(folder)
    given, given_beyond = _data(chosen, folder, data, outside, seed)
    for read in (given, *([] if given_beyond is None else [given_beyond])):
        check_place(folder, read)
    used = wanted_channels(given, channels, chosen.channels)
    dataset = with_channels(given, used, folder / CHANNELS)
    beyond = None
    if given_beyond is not None:
        beyond = with_channels(given_beyond, used, folder / f"{CHANNELS}_outside")
    study = Study(
        design=chosen,
        folder=folder,
        sources=(given, given_beyond),
        dataset=dataset,
        outside=beyond,
        split=chosen_split(given, chosen, given=split is not None),
        members=chosen.members,
        seed=seed,
        shifts=tuple(shifts),
        device=device,
        jobs=jobs,
        progress=progress,
    )
    _check(study)
    settings = study.settings()
    with sole_use(folder, "study"):
        # A pool may grow: its members stay, and others are added.
        if claim(folder / SETTINGS, settings, free=("members",)) not in (None, settings):
            atomic.write_json(folder / SETTINGS, settings)
        for one, source in ((dataset, given), (beyond, given_beyond)):
            if one is not None and one is not source:
                write_listing(one)
        return _run(study, command or command_line())


def _check_extras() -> None:
    """Refuse to train for days what could not be measured and drawn afterwards."""
    for package, extra in _PACKAGES.items():
        if find_spec(package) is None:
            raise ImportError(f"fastcal study needs {package}: pip install 'fastcal[{extra}]'")


_PACKAGES = {
    "scipy": "report",
    "matplotlib": "report",
    "jinja2": "report",
    "monai": "train",
    "crepes": "quality",
}


def _run(study: Study, command: str) -> Results:
    # SciPy and matplotlib, which `fastcal.study` itself does not need.
    from fastcal.study.results import results_of

    plan = list(trainings(study.design, study.members))
    names = [f"train {one.name}" for one in plan] + [f"stream {one.name}" for one in plan]
    stages = Stages(study.folder, [*names, TABLES], shown=study.progress)
    for training in plan:
        stages.run(f"train {training.name}", lambda one=training: train(study, one))  # type: ignore[misc]
    pools: dict[str, dict[str, Streamed]] = {}
    dropout: dict[str, Streamed] = {}
    lengths: dict[tuple[str, int], Streamed] = {}
    for training in plan:
        stage, loss = f"stream {training.name}", training.loss
        if training.part == "pool":
            pools[loss] = stages.run(stage, lambda one=training: _stream_pool(study, one))  # type: ignore[misc]
        elif training.part == "dropout":
            dropout[loss] = stages.run(stage, lambda one=training: _stream_dropout(study, one))  # type: ignore[misc]
        else:
            lengths |= stages.run(stage, lambda one=training: _stream_lengths(study, one))  # type: ignore[misc]
    origin = Origin(command, software(), machine())
    return stages.run(
        TABLES, lambda: results_of(study, origin, (pools, dropout, lengths), stages.times)
    )


def _data(
    chosen: Design,
    folder: Path,
    data: str | Path | None,
    outside: str | Path | None,
    seed: int,
) -> tuple[Dataset, Dataset | None]:
    """Open or draw the data of a study."""
    from fastcal.data.dataset import Dataset

    if chosen.phantoms is not None:
        if data is not None or outside is not None:
            raise ValueError(
                "data and outside must be left out for phantoms, which are drawn, got "
                f"{data if data is not None else outside}"
            )
        return _phantoms(chosen, folder, seed)
    if data is None:
        raise ValueError(
            f"data must be the folder of a dataset for the study {chosen.name!r}, got None"
        )
    place = Path(data)
    if not (place / "dataset.json").exists() and outside is None:
        pair = {
            word: one
            for one in sorted(place.glob("*/"))
            for word in ("prostatex", "promise12")
            if one.name.lower().endswith(word) and (one / "dataset.json").exists()
        }
        if len(pair) == 2:
            place, outside = pair["prostatex"], pair["promise12"]
    other = None if outside is None else Dataset.open(outside)
    opened = Dataset.open(place)
    if other is not None and other.num_classes != opened.num_classes:
        raise DataError(
            other.folder,
            f"the number of classes must be {opened.num_classes}, as in {opened.folder}, got "
            f"{other.num_classes}",
        )
    return opened, other


def _phantoms(chosen: Design, folder: Path, seed: int) -> tuple[Dataset, Dataset]:
    from fastcal.data.dataset import Dataset
    from fastcal.data.phantom import write_dataset

    drawn = chosen.phantoms
    assert drawn is not None
    found = []
    for name, count, ood in (
        ("phantoms", sum(chosen.split), False),
        ("phantoms_outside", drawn.ood_cases, True),
    ):
        place = folder / name
        if (place / "dataset.json").exists():
            found.append(Dataset.open(place))
            continue
        # Another seed gives the cases from outside bodies of their own.
        found.append(
            write_dataset(
                place,
                kind=drawn.kind,
                n_cases=count,
                seed=seed + ood,
                shape=drawn.shape,
                ood=ood,
            )
        )
    return found[0], found[1]


def _check(study: Study) -> None:
    if study.dataset.label_groups is not None:
        raise DataError(
            study.dataset.folder,
            "has label groups (nnU-Net's regions), but the losses compared need exclusive labels",
        )
    if len(study.split["test"]) < 2:
        raise ValueError(
            f"split must hold at least 2 cases to test, got {len(study.split['test'])}"
        )
    for evaluation in study.sets:
        for case in evaluation.cases:
            if case.label is None or not case.label.exists():
                raise DataError(case.images[0], "has no reference label map to be tested with")


def _stream_pool(study: Study, training: Training) -> dict[str, Streamed]:
    """Stream a pool over every set: all ensembles on held-out cases, two of them elsewhere."""
    scored = pool_subsets(study.subsets)
    found = {}
    for evaluation in study.sets:
        held_out = evaluation.name == TEST
        subsets = study.subsets if held_out else scored
        stream = _stream(study, training, subsets, scored, surface=held_out)
        found[evaluation.name] = _streamed(study, training, stream, evaluation)
    return found


def _stream_dropout(study: Study, training: Training) -> Streamed:
    passes = study.design.passes
    subsets = draw_subsets(passes, (passes,), draws=1)
    stream = _stream(study, training, subsets, subsets, passes=passes)
    return _streamed(study, training, stream, study.sets[0])


def _stream_lengths(study: Study, training: Training) -> dict[tuple[str, int], Streamed]:
    sizes = sorted({1, training.members})
    subsets = draw_subsets(training.members, sizes, draws=training.members)
    found = {}
    for epoch in study.design.lengths:
        stream = _stream(study, training, subsets, (), epoch=epoch, surface=False)
        name = f"epoch_{epoch:04d}"
        found[training.loss, epoch] = _streamed(study, training, stream, study.sets[0], name)
    return found


def _stream(
    study: Study,
    training: Training,
    subsets: tuple[Subset, ...],
    scored: tuple[Subset, ...],
    *,
    passes: int = 0,
    epoch: int | None = None,
    surface: bool = True,
) -> Stream:
    from fastcal.models.run import Run
    from fastcal.predict.members import Inference, RunMembers

    run = Run.open(study.run(training.name))
    networks = RunMembers(
        run,
        range(training.members),
        Inference(mc_dropout=passes, seed=study.seed),
        study.device,
        named_package(study.design.config(training.loss)),
        epoch=epoch,
        resident=True,
    )
    return Stream(run, networks, subsets, scored, study.design.n_bins, surface)


def _streamed(
    study: Study,
    training: Training,
    stream: Stream,
    evaluation: EvaluationSet,
    name: str | None = None,
) -> Streamed:
    folder = study.streamed(training.name, name or evaluation.name)
    return stream_set(stream, evaluation, folder, progress=study.progress)
