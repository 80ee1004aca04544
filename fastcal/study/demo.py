"""The whole job from nothing: a phantom cohort, two losses, single models against ensembles."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastcal.core.places import check_own

if TYPE_CHECKING:
    from fastcal.data.dataset import Dataset
    from fastcal.report.scores import Comparison
    from fastcal.train import TrainConfig

SPLIT = (24, 8, 16)


def run_demo(
    out: Path | str,
    *,
    kind: str = "heart",
    split: tuple[int, int, int] = SPLIT,
    members: int = 3,
    losses: Sequence[str] = ("ce", "dice"),
    seed: int = 0,
    shape: tuple[int, int, int] = (64, 64, 16),
    config: TrainConfig | None = None,
    device: str | None = None,
    jobs: int | None = None,
    fine_bins: int = 0,
    regions: Sequence[str] = (),
    command: str | None = None,
    progress: bool = True,
) -> Comparison:
    """Compare cross entropy with Dice loss on phantoms, and single models with their ensembles.

    Everything goes into `out`; the page to read is ``report.html``, its numbers are in
    ``results.json``. After an interruption it goes on where it stopped when it is called again.

    Args:
        out: Folder for the phantoms, the trained members, the predictions and the results.
        kind: ``"brain"``, ``"heart"`` or ``"prostate"``.
        split: Phantoms to train, to validate and to test.
        members: Members for each loss.
        losses: Losses to compare.
        seed: Seed of the phantoms and of the training.
        shape: Voxels of a phantom along x, y, z.
        config: How to train; `demo_config` when None.
        device: Device to train and predict on; a GPU if there is one when None.
        jobs: Members trained at a time, each in a process. When None, one on a GPU; on a CPU one
            more than it has threads, which then never wait for each other.
        fine_bins: See `fastcal.study.experiment.compare_losses`.
        regions: See `fastcal.study.experiment.compare_losses`.
        command: What the results say made them; the process's own command line when None.
        progress: Say on stderr what is being done and how long it will take.

    Raises:
        DataError: `out` holds an experiment with other settings, or other data.
        ValueError: A count is out of range, or the kind is unknown.

    Example:
        >>> comparison = run_demo("demo-run")  # doctest: +SKIP
        >>> [loss.ensemble.scores["ece"] for loss in comparison.losses]  # doctest: +SKIP
        [0.004, 0.007]
    """
    from fastcal.data.phantom import MOST_CASES
    from fastcal.study.experiment import compare_losses

    if min(split) < 1 or sum(split) > MOST_CASES:
        raise ValueError(
            f"split must hold at least one case of each part, and at most {MOST_CASES}, got {split}"
        )
    folder = Path(out)
    check_own(folder)
    return compare_losses(
        _phantoms(folder / "phantoms", kind, sum(split), seed, shape, progress=progress),
        folder,
        split=split,
        members=members,
        losses=losses,
        seed=seed,
        config=config or demo_config(),
        device=device,
        jobs=_jobs(members, device) if jobs is None else jobs,
        fine_bins=fine_bins,
        regions=regions,
        command=command,
        progress=progress,
    )


def demo_config() -> TrainConfig:
    """Return training settings that fit six members into about three minutes on two cores.

    The U-Net is narrower than the paper's, and there are few epochs of small batches; everything
    else is done the paper's way.
    """
    from fastcal.train import TrainConfig

    return TrainConfig().with_values(
        {
            "network.widths": [8, 16, 32, 64],
            "sampling.batch_size": 8,
            "loop.iterations_per_epoch": 24,
            "loop.max_epochs": 12,
            "loop.tensorboard": False,
            "schedule.patience": 5,
        }
    )


def _jobs(members: int, device: str | None) -> int:
    from fastcal.models.device import choose_device
    from fastcal.train.processes import default_jobs

    place = choose_device(device)
    # Three members on two cores, for one: neither is idle while the last one trains.
    return min(members, default_jobs(place) + 1) if place.type == "cpu" else 1


def _phantoms(
    folder: Path,
    kind: str,
    n_cases: int,
    seed: int,
    shape: tuple[int, int, int],
    *,
    progress: bool,
) -> Dataset:
    from fastcal.data.dataset import Dataset
    from fastcal.data.phantom import write_dataset

    if (folder / "dataset.json").exists():
        return Dataset.open(folder)
    if progress:
        print(f"drawing {n_cases} {kind} phantoms into {folder}", file=sys.stderr, flush=True)
    return write_dataset(folder, kind=kind, n_cases=n_cases, seed=seed, shape=shape)
