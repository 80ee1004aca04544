"""What a prediction or ensemble run returns, and the loop both share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastcal.cases.files import STATISTICS, CaseFiles
from fastcal.cases.loop import Failure, ProgressOption, run_cases
from fastcal.cases.shards import add_statistics, write_statistics

if TYPE_CHECKING:
    from fastcal import CalibrationStatistics


@dataclass(frozen=True, slots=True)
class PredictionSummary:
    """Outcome of a run over cases."""

    out: Path
    done: tuple[str, ...]
    """Cases written by this call."""
    skipped: tuple[str, ...]
    """Cases that were finished before."""
    failed: tuple[Failure, ...]
    """Cases that failed, with their reasons (``keep_going``)."""
    statistics: CalibrationStatistics | None
    """Calibration of all finished cases of this part, when labels were given."""
    statistics_file: Path | None
    """Where their integer state lies."""


def run_part(
    cases: Sequence[str],
    work: Callable[[str], None],
    *,
    files: CaseFiles,
    empty: CalibrationStatistics | None,
    num_parts: int,
    part_id: int,
    overwrite: bool,
    keep_going: bool,
    progress: ProgressOption,
) -> PredictionSummary:
    """Do the unfinished cases of a part, then add the statistics of all its finished cases.

    The statistics come from the file of each case, in the order of their names, whether a case
    was done now or before a kill: the state has the same bits either way. They are added to
    ``empty``; None where no labels were given.
    """
    if files.statistics and files.save_probabilities and STATISTICS in cases:
        raise ValueError(f"cases: {STATISTICS}.npz is the file of the statistics, not of a case")
    files.make_folders()
    if overwrite:
        files.forget(cases)
    run = run_cases(cases, work, finished=files.finished, keep_going=keep_going, progress=progress)
    statistics = state_file = None
    if empty is not None:
        finished = sorted((*run.done, *run.skipped))
        statistics = add_statistics(map(files.statistics_of, finished), start=empty)
        state_file, _ = write_statistics(
            statistics, files.folder, part_id=part_id, num_parts=num_parts
        )
    return PredictionSummary(
        files.folder, run.done, run.skipped, run.failed, statistics, state_file
    )
