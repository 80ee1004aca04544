"""What a run over cases returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastcal.cases.loop import Failure

if TYPE_CHECKING:
    from fastcal import CalibrationStatistics


@dataclass(frozen=True, slots=True)
class PredictionSummary:
    """Outcome of a run over cases."""

    out: Path
    done: tuple[str, ...]
    """Cases that this call wrote."""
    skipped: tuple[str, ...]
    """Cases that were finished before."""
    failed: tuple[Failure, ...]
    """Cases that failed, with the reasons (only with ``keep_going``)."""
    statistics: CalibrationStatistics | None
    """Calibration of all finished cases of this part, where labels were given."""
    statistics_file: Path | None
    """The file that holds their integer state."""
    journal: Path | None = None
    """Where workers did the cases: what became of each, see `fastcal.cases.journal`."""
